"""Write the notebooks in ``examples``, whose sources alone are edited: ``python docs/notebooks.py``, or some by name,
``python docs/notebooks.py 3_right_for_the_wrong_reasons``.

- The tutorial, from ``docs/tutorial/*.py``: ``# %%`` begins a cell of code, ``# %% [markdown]`` one of text, and
  ``# %% [picture]`` one of code whose picture stands on the tutorial's page too. It is run, and its outputs are kept.
- The case study, from ``examples/vgg16_case_study.py`` (``case_study_notebook.py``). It takes minutes and is kept without
  outputs.
"""

import argparse
import base64
import io
import re
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import case_study_notebook
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).parents[1]
SOURCES, TUTORIAL = ROOT / "docs" / "tutorial", ROOT / "examples" / "tutorial"
NAMES = sorted(source.stem for source in SOURCES.glob("*.py"))
CASE_STUDY = ROOT / "examples" / "vgg16_case_study.ipynb"
PICTURE = "picture"
"""The tag of the cell whose picture stands on the page."""
COLOURS, WIDEST = 128, 1200
"""Of each picture that is kept, so that a file is small: its colours, and its width in pixels."""


def percent(source: str) -> list[tuple[str, str, str]]:
    """``(kind, text, tag)`` of each cell of a source in the percent format; tags are empty, but for that of the picture."""
    _, *parts = re.split(r"^# %%(.*)\n", source, flags=re.MULTILINE)
    found = []
    for mark, text in zip(parts[::2], parts[1::2], strict=True):
        kind = "markdown" if mark.strip() == "[markdown]" else "code"
        if kind == "markdown":
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        found.append((kind, text.strip(), PICTURE if mark.strip() == "[picture]" else ""))
    return found


def notebook(cells: Iterable[tuple[str, str, str]]) -> NotebookNode:
    """A notebook that was not run, of ``(kind, text, tag)`` for each cell."""
    made = nbformat.v4.new_notebook()
    made.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for number, (kind, text, tag) in enumerate(cells):
        new = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        made.cells.append(new(text, id=f"cell-{number}", metadata={"tags": [tag]} if tag else {}))
    return made


def of_tutorial(name: str) -> NotebookNode:
    """One of the tutorial's notebooks, not run."""
    return notebook(percent((SOURCES / f"{name}.py").read_text()))


def of_case_study() -> NotebookNode:
    """The case study's notebook, not run."""
    return notebook(case_study_notebook.cells())


def run(made: NotebookNode, timeout: int = 300) -> NotebookNode:
    """Run a notebook in a fresh kernel and an empty folder. A cell that raises ends it with a ``CellExecutionError``."""
    with TemporaryDirectory() as folder:
        client = NotebookClient(made, timeout=timeout, record_timing=False, resources={"metadata": {"path": folder}})
        return client.execute()


def kept(made: NotebookNode) -> NotebookNode:
    """What of the outputs is committed: text and pictures, without progress, warnings and the kernel's version."""
    made.metadata.pop("language_info", None)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "data" in output:
                    output.data = {kind: of for kind, of in output.data.items() if kind in ("image/png", "text/plain")}
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = _small(output.data["image/png"])
    return made


def _small(png: str) -> str:
    """The picture with a palette of colours, and no wider than a page."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        drawn = picture.convert("RGB")
        drawn.thumbnail((WIDEST, 10 * WIDEST))
        palette = drawn.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=2)  # rare colours too
    written = io.BytesIO()
    palette.save(written, "PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def picture_of(made: NotebookNode) -> bytes:
    """The PNG for the page."""
    [cell] = [cell for cell in made.cells if PICTURE in cell.metadata.get("tags", ())]
    [png] = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
    return base64.b64decode(png)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*NAMES, CASE_STUDY.stem, []], help="which of them; all if left out")
    names = parser.parse_args().names or [*NAMES, CASE_STUDY.stem]
    for name in names:
        if name == CASE_STUDY.stem:
            path, made = CASE_STUDY, of_case_study()
        else:
            path, made = TUTORIAL / f"{name}.ipynb", kept(run(of_tutorial(name)))
            (SOURCES / f"{name}.png").write_bytes(picture_of(made))
        path.write_text(nbformat.writes(made) + "\n")
        print(f"written to {path}, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
