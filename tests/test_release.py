"""What is said of a release in several places is the same in all of them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import lrp_lightning

tomllib = pytest.importorskip("tomllib")  # of Python 3.11

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OLDEST = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "tests/oldest.txt").read_text(), re.MULTILINE))


def test_version_and_date():
    [version, date] = re.findall(r"^## (\S+) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert lrp_lightning.__version__ == version == cited["version"]
    assert cited["date-released"] == date
    assert cited["license"] == PROJECT["license"]


def test_the_lowest_versions_are_those_that_are_tried():
    for requirement in map(Requirement, PROJECT["dependencies"]):
        [lowest] = [s.version for s in requirement.specifier if s.operator == ">="]
        tried = Version(OLDEST[requirement.name])
        assert tried.release[: len(Version(lowest).release)] == Version(lowest).release, requirement


def test_the_recipe_for_conda_is_that_of_the_project():
    text = (ROOT / "conda/meta.yaml").read_text()
    assert re.findall(r'set version = "(.+)"', text) == [lrp_lightning.__version__]
    recipe = yaml.safe_load(re.sub(r"\{%.*?%\}", "", text).replace("{{ ", "").replace(" }}", ""))
    called = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # where conda's names differ
    python = Requirement(f"python{PROJECT['requires-python']}")
    wanted = [python, *map(Requirement, PROJECT["dependencies"])]
    run = [Requirement(line.replace(" ", "", 1)) for line in recipe["requirements"]["run"]]
    assert [(r.name, r.specifier) for r in run] == [(called.get(r.name, r.name), r.specifier) for r in wanted]
    assert recipe["about"]["license"] == PROJECT["license"]
    assert recipe["about"]["summary"] == PROJECT["description"]


def test_what_the_documentation_says_has_moved():
    """Every path that the page on migration gives as new is there, and of the old ones the one that warns."""
    page = (ROOT / "docs/migration.md").read_text()
    rows = re.findall(r"^\| `(lrp_lightning\.\S+)` \| `(lrp_lightning\.\S+)` \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) > 10
    for _, new, names in rows:
        importlib.import_module(new)
        for name in re.findall(r"`([\w.]+)`", names):
            module, _, attribute = f"lrp_lightning.{name.removeprefix('lrp_lightning.')}".rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name
    assert [old for old, _, _ in rows if importlib.util.find_spec(old)] == ["lrp_lightning.min_error"]


def test_the_documentation_names_the_lowest_versions():
    table = dict(re.findall(r"^\| ([\w]+) \| ([\d.]+) \|", (ROOT / "docs/project.md").read_text(), re.MULTILINE))
    assert table.pop("Python") == PROJECT["requires-python"].removeprefix(">=")
    lowest = {r.name: r for r in map(Requirement, PROJECT["dependencies"])}
    for name, version in table.items():
        assert Version(version) in lowest[name].specifier
        assert not any(s.operator == ">=" and Version(s.version) != Version(version) for s in lowest[name].specifier), name
