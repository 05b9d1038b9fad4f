"""The case study as a script, as a notebook, and of a network of torchvision's; the committed page holds together."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from PIL import Image
from skimage import data
from torchvision.models import get_model

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "vgg16_case_study.ipynb"
STEPS = (
    "relevance_with_selection", "critical_paths", "heatmaps_of_paths", "optimised_selection", "reconstructions",
    "accuracy_of_critical_neurons",
)  # fmt: skip


@pytest.fixture
def case_study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    import vgg16_case_study

    return vgg16_case_study


def check(page: Path) -> None:
    """Every step is there, with its picture and its table, and what the paper says beside what was measured."""
    text = page.read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert [section[0] for section in sections[:6]] == list("123456")
    for step, section in zip(STEPS, sections, strict=False):
        [picture] = re.findall(r"^!\[.+\]\((.+)\)$", section, re.MULTILINE)
        assert picture == f"{step}.png"
        with Image.open(page.parent / picture) as image:
            assert min(image.size) > 200
        rows = [line.split(" | ") for line in section.splitlines() if line.startswith("|")]
        assert len(rows) >= 4
        assert len({len(row) for row in rows}) == 1
    assert "our reading" in sections[6]
    assert len([line for line in sections[6].splitlines() if line.startswith("| “")]) == 6
    assert "nan" not in text
    assert re.search(r"^python examples/vgg16_case_study\.py .*--seed 0", text, re.MULTILINE)


def test_the_committed_page_holds_together():
    folder = ROOT / "docs" / "case_study"
    check(folder / "README.md")
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3e6


@pytest.mark.slow
def test_the_script_writes_its_page(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "vgg16_case_study.py", "--images", "512", "--epochs", "1", "--samples", "10",
         "--passes", "2", "--out", tmp_path],
        capture_output=True, text=True, timeout=500, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"--images 512 --seed 0 --samples 10 --passes 2 --out {tmp_path}" in (tmp_path / "README.md").read_text()
    check(tmp_path / "README.md")


def test_the_notebook_is_the_script(monkeypatch: pytest.MonkeyPatch):
    """Written by ``python docs/notebooks.py vgg16_case_study``, never by hand."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    import notebooks

    written = nbformat.read(NOTEBOOK, as_version=4)
    assert written == notebooks.of_case_study(), "run python docs/notebooks.py vgg16_case_study"
    nbformat.validate(written)


@pytest.mark.slow
def test_the_notebook_runs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    [chosen] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    chosen.source = chosen.source.replace("epochs=2,", "epochs=1, images=512, samples=10, passes=1,")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == len(STEPS)
    assert "the paper's abstract" in json.dumps(outputs[-1])


@pytest.mark.slow
def test_a_network_of_torchvisions_and_images_by_class(case_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Weights from a file, as nothing can be downloaded, and photographs: one class that the network knows, one that not."""
    torch.manual_seed(0)
    weights = tmp_path / "vgg16_bn.pth"
    model = get_model("vgg16_bn", num_classes=1000)
    torch.save({name: value.half() for name, value in model.state_dict().items()}, weights)
    for folder, name in (("Egyptian cat", "chelsea"), ("portrait", "astronaut")):
        (tmp_path / "photographs" / folder).mkdir(parents=True)
        Image.fromarray(getattr(data, name)()).save(tmp_path / "photographs" / folder / f"{name}.png")
    options = case_study.Options(weights=str(weights), data=str(tmp_path / "photographs"), samples=2)
    study = case_study.prepare(options)
    weights.unlink()
    assert study.x.shape == (2, 3, 224, 224)
    assert study.labels.tolist() == [285, -1]
    assert study.class_names[285] == "Egyptian cat"
    assert list(case_study.last_convolutions(study.model)) == [f"features.{n}" for n in (3, 10, 20, 30, 40)]
    assert options.command == f"python examples/vgg16_case_study.py --samples 2 --weights {weights} --data {options.data}"

    monkeypatch.setattr(case_study, "BUDGETS", (0.1, 0.2, 0.3, 0.5))
    for step in (case_study.relevance_with_selection, case_study.critical_paths, case_study.heatmaps_of_paths):
        assert len(step(study).rows) >= 3
    assert study.target in study.logits(study.x).argmax(1).tolist()


def test_weights_and_data_belong_together(case_study: Any):
    with pytest.raises(SystemExit, match="belong together"):
        case_study.prepare(case_study.Options(weights="DEFAULT"))


def test_a_target_that_is_no_class_is_named(case_study: Any, tmp_path: Path):
    model = case_study.small_vgg.small_vgg16(case_study.small_vgg.NARROW)
    torch.save({"state": model.state_dict()}, tmp_path / "kept.pt")
    study = case_study.prepare(case_study.Options(checkpoint=str(tmp_path / "kept.pt"), target="hat", samples=10))
    with pytest.raises(SystemExit, match="'hat' is not one of the classes"):
        _ = study.target
