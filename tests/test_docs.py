"""The code in the README and the documentation runs as it stands, given what it speaks of: a model, loaders, images."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning.pytorch import LightningModule
from test_public_names import PUBLIC
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lrp_lightning.engine.operators.table import TABLE

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


WITH_CODE = [page for page in PAGES if blocks(page)]


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    validation_step = training_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def named(page: Path) -> str:
    return page.relative_to(ROOT).with_suffix("").as_posix()


def test_there_is_code():
    assert {"README", "docs/index", "docs/questions"} <= set(map(named, WITH_CODE))
    assert len(WITH_CODE) >= 10


@pytest.fixture
def as_before() -> Iterator[None]:
    """What a page registers is forgotten."""
    table = dict(TABLE)
    yield
    TABLE.clear()
    TABLE.update(table)


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] if page.stem == "ship_heatmaps" else []) for page in WITH_CODE],
    ids=named,
)
def test_code(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The blocks of a page one after the other, as a reader types them."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8) % 3
    loader = DataLoader(TensorDataset(images, labels), 4)
    val_loader = DataLoader(TensorDataset(torch.rand(36, 1, 8, 8), torch.arange(36) % 3), 12)
    names = {"model": Classifier(), "images": images, "labels": labels, "train_loader": loader, "val_loader": val_loader}
    typed = ModuleType("typed")
    monkeypatch.setitem(sys.modules, "typed", typed)
    vars(typed).update(names)
    for block in blocks(page):
        exec(block, vars(typed))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_is_written_so_that_it_is_run(page: Path):
    """No other fence of code in Python than those above, and those that include what is run elsewhere."""
    fences = re.findall(r"^ *(?:`{3,}|~{3,}|:{3,})(.*)$", page.read_text(), re.MULTILINE)
    others = [kind for kind in fences if kind != "python" and not kind.startswith("{literalinclude} ../../examples/")]
    assert not [kind for kind in others if re.search(r"py(thon|con)?\b", kind)]


def links_of(page: Path) -> list[str]:
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)\)", text) + re.findall(r'<a href="(?!https?:)([^"#]+)"', text)
    return links + re.findall(r"^```\{(?:include|literalinclude)\} (\S+)$", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path):
    for link in links_of(page):
        assert (page.parent / link).exists(), link


def test_llms_txt_lists_every_page():
    """In the format of https://llmstxt.org: a title, a quotation, and lists of links with a line each."""
    title, _, quotation, *rest = (ROOT / "docs/llms.txt").read_text().splitlines()
    assert title == "# lrp_lightning"
    assert quotation.startswith("> ")
    items = [line for line in rest if line.startswith("- ")]
    links = [re.fullmatch(r"- \[[^\]]+\]\(([\w/]+)\.html\): \S.+", line) for line in items]
    assert None not in links
    listed = [link[1] for link in links if link]
    sources = [path for kind in ("md", "rst") for path in (ROOT / "docs").rglob(f"*.{kind}") if "_build" not in path.parts]
    pages = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in sources}
    assert len(listed) == len(set(listed))
    assert {page for page in pages if not page.startswith("results/")} | {"results/index"} == set(listed)


def test_the_skill_says_what_it_is_for():
    head, _, body = (ROOT / "docs/SKILL.md").read_text().removeprefix("---\n").partition("\n---\n")
    about = yaml.safe_load(head)
    assert about["name"] == "lrp-lightning"
    assert 100 < len(about["description"]) <= 1024  # as assistants take it
    assert len(re.findall(r"^\d+\. ", body, re.MULTILINE)) == 10


def test_every_picture_is_shown():
    shown = {(page.parent / link).resolve() for page in PAGES for link in links_of(page)}
    made = {path for kind in ("*.png", "_static/gallery/*.html") for path in (ROOT / "docs").rglob(kind)}
    assert len(made) > 30
    assert not {path.relative_to(ROOT) for path in made - shown if "_build" not in path.parts}


def test_the_reference_has_every_public_name():
    """And each once: what is defined twice has no address."""
    told: list[str] = []
    for page in (ROOT / "docs/reference").glob("*.rst"):
        module = ""
        for kind, name in re.findall(
            r"^\.\. (currentmodule|automodule|autoclass|autofunction):: (\S+)$", page.read_text(), re.M
        ):
            if kind in ("currentmodule", "automodule"):
                module = name
            elif kind in ("autoclass", "autofunction"):
                told.append(name if name.startswith("lrp_lightning.") else f"{module}.{name}")
    assert len(told) == len(set(told))
    assert {f"{module}.{name}" for module, name in PUBLIC if name != "__version__"} <= set(told)
