"""Who imports whom: the contracts in ``pyproject.toml``, which import-linter reads, and what they cannot say."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.api import read_configuration

import lrp_lightning

PACKAGE = Path(lrp_lightning.__file__).parent
ROOT = Path(__file__).parents[1]
CONTRACTS = {
    contract["id"]: contract["name"] for contract in read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
}


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name below it."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


MODULES = modules()


def imports(tree: ast.AST) -> Iterator[str]:
    """What a module imports, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def lint(folder: Path, *contracts: str) -> tuple[bool, str]:
    """Whether the package in a folder keeps its contracts, and what is said of it."""
    code = f"from importlinter.cli import lint_imports; exit(lint_imports(limit_to_contracts={contracts}, no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def test_the_contracts_are_kept() -> None:
    kept, told = lint(ROOT)
    assert kept, told
    assert f"{len(CONTRACTS)} kept, 0 broken" in told


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, folder / "lrp_lightning", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("rules", "from lrp_lightning import trace", "wings"),
        ("rules", "def later():\n    from .graphs.build import build_graph", "wings"),
        ("engine/propagate", "from lrp_lightning.attribution import SelectiveLRP", "wings"),
        ("a_new_wing", "", "wings"),
        ("selection/protocol", "from lrp_lightning.engine import propagate", "wings"),
        ("selection/by_relevance", "from lrp_lightning.selection.min_error import MinError", "searches"),
        ("selection/budget", "from lrp_lightning.selection import by_relevance", "rooms"),
        ("callbacks/batches", "from lrp_lightning.callbacks import pictures", "rooms"),
        ("drawing/curves", "from lrp_lightning.masking import masked_forward", "data"),
        ("drawing/curves", "from lrp_lightning.graphs.class_mean import class_graph", "data"),
        ("report/analysis", "import lightning", "lightning"),
        ("report/analysis", "from pytorch_lightning import Callback", "lightning"),
        ("callbacks/loggers", "import tensorboard.compat", "tensorboard"),
        ("engine/targets", "from captum._utils.common import _select_targets", "captum"),
        ("html/markup", "def later():\n    from lrp_lightning.trace import Trace", "wings"),
    ],
)
def test_a_contract_can_be_broken(copy: Path, module: str, line: str, broken: str) -> None:
    path = copy / f"lrp_lightning/{module}.py"
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        kept, told = lint(copy, broken)
    finally:
        path.unlink() if before is None else path.write_text(before)
    assert not kept
    assert f"{CONTRACTS[broken]} BROKEN" in told


def test_the_package_itself_imports_nothing_of_its_own_until_asked() -> None:
    assert {name.split(".")[0] for name in imports(MODULES[""])} <= {"__future__", "lazy_loader"}


def test_no_drawing_module_touches_pyplots_state() -> None:
    for module, tree in MODULES.items():
        assert not [name for name in imports(tree) if "pyplot" in name.split(".")], module


def test_files_are_called_by_what_they_hold() -> None:
    shelves = {"utils", "util", "helpers", "helper", "core", "base", "common", "misc"}
    assert not {part.strip("_") for module in MODULES for part in module.split(".")} & shelves
