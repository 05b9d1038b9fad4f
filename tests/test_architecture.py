"""The river of imports: a module imports only from those above it, read from the source by ast."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lrp_lightning

PACKAGE = Path(lrp_lightning.__file__).parent

RIVER = [
    "errors",
    "checks",
    "rules",
    "selection.protocol",
    "selection.budget",
    "selection.by_relevance",
    "selection.fixed",
    "selection.per_layer",
    "selection.control",
    "selection",
    "metrics.mean_over_samples",
    "metrics.accuracy",
    "metrics.critical_neurons",
    "metrics.selection_error",
    "metrics.retention_curve",
    "metrics.selection_stability",
    "metrics.conservation_error",
    "metrics",
    "composites",
    "layers",
    "trace",
    "engine.affine",
    "engine.notes",
    "engine.origins",
    "engine.recording",
    "engine.dimensions",
    "engine.mode",
    "engine.rows.arguments",
    "engine.rows.affine",
    "engine.rows.elementwise",
    "engine.rows.movement",
    "engine.rows.products",
    "engine.rows.normalisations",
    "engine.rows.attention",
    "engine.rows",
    "engine.operators",
    "engine.captures",
    "engine.propagate",
    "engine.gradients",
    "engine",
    "deconvnet",
    "masking",
    "selection.min_error",
    "selection.agreement",
    "attribution",
    "graphs",
    "graphs.build",
    "graphs.class_mean",
    "graphs.paths",
    "graphs.diff",
    "insight",
    "insight.heatmaps",
    "graphs.prune",
    "drawing.figures",
    "drawing.pixels",
    "drawing.heatmaps",
    "drawing.curves",
    "drawing.layout",
    "drawing.graphs",
    "drawing.paths",
    "drawing.reconstructions",
    "drawing",
    "report.analysis",
    "report.page",
    "report",
    "tensorboard_plugin.schema",
    "tensorboard_plugin.summary",
    "tensorboard_plugin.plugin",
    "tensorboard_plugin",
    "command_line",
    "__main__",
    "callbacks.batches",
    "callbacks.classifier",
    "callbacks.settings",
    "callbacks.sampling",
    "callbacks.budget",
    "callbacks.thrift",
    "callbacks.gathered",
    "callbacks.measures",
    "callbacks.observation",
    "callbacks.loggers",
    "callbacks.neurons",
    "callbacks.pictures",
    "callbacks.text",
    "callbacks.relevance_monitor",
    "callbacks",
]


def modules() -> dict[str, Path]:
    """Every module of the package by its name below it."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def running(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from running(node)


def imports(tree: ast.AST, module: str) -> Iterator[str]:
    """What a module imports, at any depth, by full names; of a package's own, modules rather than the names in them.

    What stands under ``if TYPE_CHECKING:`` is never run, and left out.
    """
    folder = module if MODULES.get(module, Path()).name == "__init__.py" else module.rpartition(".")[0]
    for node in running(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = str(node.module)
            if node.level:  # dots: as many folders up, the first of them the module's own
                above = f"lrp_lightning.{folder}".rstrip(".").split(".")
                here = ".".join([*above[: len(above) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{here}.{alias.name}".removeprefix("lrp_lightning.")
                yield f"lrp_lightning.{inner}" if inner in MODULES else here


def of_the_package(tree: ast.AST, module: str) -> set[str]:
    """Modules of the package that are imported, ``""`` for the package itself."""
    return {
        name.removeprefix("lrp_lightning").removeprefix(".")
        for name in imports(tree, module)
        if name.split(".")[0] in ("lrp_lightning", "callbacks")
    }


def test_every_module_has_its_place() -> None:
    assert set(MODULES) == {"", *RIVER}, "a new module needs a place in RIVER"
    assert len(RIVER) == len(set(RIVER))


@pytest.mark.parametrize("module", RIVER)
def test_a_module_imports_from_above_only(module: str) -> None:
    above = RIVER[: RIVER.index(module)]
    below = of_the_package(ast.parse(MODULES[module].read_text()), module) - set(above)
    assert not below, f"{module} imports {sorted(below)}, which stand below it"


def test_the_package_itself_imports_nothing_of_its_own_until_asked() -> None:
    tree = ast.parse(MODULES[""].read_text())
    assert set(imports(tree, "")) <= {"__future__", "importlib", "typing"}


@pytest.mark.parametrize(
    ("library", "folders"),
    [("lightning", {"callbacks"}), ("pytorch_lightning", {"callbacks"}), ("tensorboard", {"tensorboard_plugin"})],
)
def test_only_one_folder_knows(library: str, folders: set[str]) -> None:
    know = {
        module
        for module, path in MODULES.items()
        for name in imports(ast.parse(path.read_text()), module)
        if name.split(".")[0] == library
    }
    assert {module.split(".")[0] for module in know} == folders


def test_no_drawing_module_touches_pyplots_state() -> None:
    for module, path in MODULES.items():
        assert not [name for name in imports(ast.parse(path.read_text()), module) if name.endswith("pyplot")], module


def test_files_are_called_by_what_they_hold() -> None:
    shelves = {"utils", "util", "helpers", "helper", "core", "base", "common", "misc"}
    assert not {part.strip("_") for module in MODULES for part in module.split(".")} & shelves


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("rules", "from lrp_lightning.engine.mode import Facts", {"engine.mode"}),
        ("rules", "from lrp_lightning.engine import mode", {"engine.mode"}),
        ("rules", "from lrp_lightning import Trace", {""}),
        ("rules", "import lrp_lightning.drawing.figures as f", {"drawing.figures"}),
        ("rules", "def f():\n    if True:\n        from .graphs.build import build_graph", {"graphs.build"}),
        ("rules", "from . import trace", {"trace"}),
        ("engine.affine", "from .mode import Facts", {"engine.mode"}),
        ("engine.affine", "from ..graphs.build import build_graph", {"graphs.build"}),
        ("engine", "from .mode import Facts", {"engine.mode"}),
        ("rules", "import callbacks", {"callbacks"}),
        ("rules", "import torch\nfrom networkx import DiGraph", set()),
    ],
)
def test_how_imports_are_read(module: str, source: str, expected: set[str]) -> None:
    assert of_the_package(ast.parse(source), module) == expected
