"""The tutorial's notebooks run in a fresh kernel, and what is committed of them is what a reader should see."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "tutorial"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

FOUND = {
    "1_first_look": """
assert names[trace.output.argmax()] == names[label[0, 0]]
assert trace.conservation_error.max() < 1e-3
alone, chance, without = (logits.argmax() for logits in ways.values())
assert alone == label[0, 0] != chance
assert without != label[0, 0]
assert len(paths) == 3
""",
    "2_training_with_the_monitor": """
assert curves["accuracy"][-1] > 0.9
assert curves["contest, critical neurons"][-1] > curves["contest, random neurons"][-1] + 0.2
assert len(heatmaps) == 5
assert diff.number_of_edges() > 100
""",
    "3_right_for_the_wrong_reasons": """
assert shortcut.label == 7
assert found.float().mean() > 0.8
assert turned_into_sevens(model) > 0.08 > turned_into_sevens(repaired)
assert not again.shortcuts
""",
    "4_critical_neurons_that_pass_the_contest": """
forcing, default, searched = results.values()
assert forcing.accuracy < default.accuracy <= searched.accuracy
assert searched.runner_up_accuracy < default.runner_up_accuracy < forcing.runner_up_accuracy
assert all(by_size > by_chance for by_size, by_chance in zip(won["largest magnitude"], won["random neurons"]))
assert curve.without.nanmean(1)[0] > curve.without.nanmean(1)[-1]
""",
    "5_hugging_face": """
assert (vit(test).logits.argmax(1) == truth).float().mean() > 0.9
assert (predicted == praises[2500:]).float().mean() > 0.95
assert all(trace.conservation_error.max() < 1e-3 for trace in traces.values())
of_words = SelectiveLRP(bert, Epsilon()).attribute(x, target=margin)
assert of_words[0].argmax() == tokens[0].index("great")
assert of_words[2].argmin() == tokens[2].index("dull")
assert of_words[1, tokens[1].index("great")] < 0 < of_words[3, tokens[3].index("dull")]
""",
}
"""What the text says was found, to be run after the last cell."""


@pytest.fixture
def notebooks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import notebooks

    return notebooks


def named(path: Path) -> str:
    return path.stem


def outputs_of(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures_of(notebook: NotebookNode) -> list[str]:
    return [output.data["image/png"] for output in outputs_of(notebook) if "image/png" in output.get("data", {})]


def test_there_are_five(notebooks: ModuleType):
    assert [path.stem for path in NOTEBOOKS] == notebooks.NAMES == sorted(FOUND)
    page = (ROOT / "docs" / "tutorial" / "README.md").read_text()
    assert re.findall(r"\]\(\.\./\.\./examples/tutorial/(\w+)\.ipynb\)", page) == notebooks.NAMES
    assert re.findall(r"!\[.+\]\((\w+)\.png\)", page) == notebooks.NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_a_notebook_is_its_source(path: Path, notebooks: ModuleType):
    """Written by ``python docs/notebooks.py``, never by hand; and run from the first cell to the last."""
    committed, source = nbformat.read(path, as_version=4), notebooks.of_tutorial(path.stem)
    nbformat.validate(committed)
    again = f"run python docs/notebooks.py {path.stem}"
    assert [(cell.cell_type, cell.source) for cell in committed.cells] == [
        (cell.cell_type, cell.source) for cell in source.cells
    ], again
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), again


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_what_is_committed_can_be_shown(path: Path, notebooks: ModuleType):
    """Pictures that are there, no error, no warning, nothing of the machine it was run on, and a small file."""
    notebook = nbformat.read(path, as_version=4)
    assert {output.output_type for output in outputs_of(notebook)} <= {"stream", "display_data", "execute_result"}
    pictures = pictures_of(notebook)
    assert len(pictures) >= 2
    for png in pictures:
        with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
            assert min(picture.size) > 60
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 2, "an empty picture"
    assert (ROOT / "docs" / "tutorial" / f"{path.stem}.png").read_bytes() == notebooks.picture_of(notebook)
    said = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs_of(notebook))
    assert not re.search(r"warning|/tmp|/home|/root|site-packages| at 0x|\bnan\b", said, re.IGNORECASE)
    assert path.stat().st_size < 300e3


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_a_notebook_runs_and_finds_what_it_says(path: Path, notebooks: ModuleType):
    committed, fresh = nbformat.read(path, as_version=4), notebooks.of_tutorial(path.stem)
    fresh.cells.append(nbformat.v4.new_code_cell(FOUND[path.stem]))
    notebooks.run(fresh)
    assert len(pictures_of(fresh)) == len(pictures_of(committed))


@pytest.mark.slow
def test_a_cell_that_raises_ends_a_run(notebooks: ModuleType):
    broken = notebooks.notebook([("code", "x = 1", ""), ("code", "assert x == 2", ""), ("code", "x = 3", "")])
    with pytest.raises(CellExecutionError, match="AssertionError"):
        notebooks.run(broken)


def test_cells_of_a_source(notebooks: ModuleType):
    source = "# %% [markdown]\n# # Title\n#\n# text\n\n# %%\nx = 1  # one\n\n# %% [picture]\nx\n"
    assert notebooks.percent(source) == [
        ("markdown", "# Title\n\ntext", ""),
        ("code", "x = 1  # one", ""),
        ("code", "x", "picture"),
    ]


def test_kept_outputs_are_text_and_pictures(notebooks: ModuleType):
    written = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(written, "PNG")
    png = base64.b64encode(written.getvalue()).decode()
    made = notebooks.notebook([("code", "x", "picture")])
    made.cells[0].outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="a warning"),
        nbformat.v4.new_output("stream", name="stdout", text="said"),
        nbformat.v4.new_output("display_data", {"image/png": png, "text/html": "<p>", "text/plain": "a figure"}),
    ]
    said, shown = notebooks.kept(made).cells[0].outputs
    assert said.text == "said"
    assert set(shown.data) == {"image/png", "text/plain"}
    with Image.open(io.BytesIO(notebooks.picture_of(made))) as picture:
        assert picture.size == (256, 256)
        assert len(picture.convert("RGB").getcolors()) <= notebooks.COLOURS
