"""What is built and installed: everything of the package, and no top-level ``callbacks``."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return out


def sources() -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / "lrp_lightning").rglob("*.py")}


def test_wheel_and_sdist_carry_everything(built: Path):
    [wheel], [sdist] = built.glob("*.whl"), built.glob("*.tar.gz")
    in_wheel = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    data = {
        "py.typed",
        "__init__.pyi",
        "html/part.html.jinja",
        "html/sections.css",
        "html/sections.html.jinja",
        "report/page.html.jinja",
        "report/report.css",
        "report/report.js",
    }
    static = {path.name for path in (ROOT / "lrp_lightning/tensorboard_plugin/static").iterdir()}
    assert "index.js" in static
    data |= {f"tensorboard_plugin/static/{name}" for name in static}
    assert "lrp_lightning/callbacks/relevance_monitor.py" in sources()
    assert in_wheel == sources() | {f"lrp_lightning/{name}" for name in data}
    assert files_of(sdist) >= in_wheel


def files_of(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


def test_sdist_has_the_tests_and_the_documentation_and_nothing_that_was_made(built: Path):
    [sdist] = built.glob("*.tar.gz")
    files = files_of(sdist)
    generated = {"PKG-INFO", "setup.cfg"} | {file for file in files if file.startswith("lrp_lightning.egg-info/")}
    folders = ("benchmarks", "conda", "docs", "examples", "lrp_lightning", "tests")
    alone = """
        CHANGELOG.md CITATION.cff CONTRIBUTING.md LICENSE MANIFEST.in Makefile README.md SECURITY.md pyproject.toml
    """
    made = {"__pycache__", "_build", "runs"}
    there = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not made & set(path.relative_to(ROOT / folder).parts)
    }
    assert files - generated == there | set(alone.split())


def test_it_imports_from_an_empty_folder(built: Path, tmp_path: Path):
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    [python] = [*environment.glob("bin/python"), *environment.glob("Scripts/python.exe")]
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()
    )  # fmt: skip
    [wheel] = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)  # what installing a pure wheel is
    # torch and the other dependencies are taken from here, as paths: .pth files in them, so editable installs, do not count
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    code = """
import importlib.util, pathlib, sys
import lrp_lightning
from lrp_lightning.callbacks import RelevanceMonitor
for name in lrp_lightning.__all__:
    getattr(lrp_lightning, name)
assert pathlib.Path(lrp_lightning.__file__).is_relative_to(sys.prefix), lrp_lightning.__file__
assert importlib.util.find_spec("callbacks") is None
from tensorboard import default
assert "RelevanceLoader" in [plugin.__name__ for plugin in default.get_dynamic_plugins()]
"""
    empty = tmp_path / "empty"
    empty.mkdir()
    subprocess.run([python, "-c", code], cwd=empty, check=True, timeout=300)
