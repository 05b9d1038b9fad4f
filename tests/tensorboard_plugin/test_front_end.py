"""The front end's data functions, tested by node; and what its files must not do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lrp_lightning.callbacks.settings import SCALARS
from lrp_lightning.tensorboard_plugin import schema

STATIC = Path(schema.__file__).parent / "static"
TESTS = Path(__file__).parent / "front_end"


def test_data_functions() -> None:
    node = shutil.which("node")
    if node is None:
        reason = "the front end is tested by node (18.19 or later), which is not here: apt-get install nodejs"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    tests = sorted(TESTS.glob("*.test.js"))
    done = subprocess.run(
        [node, "--experimental-default-type=module", "--test", *tests], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"pass [1-9]", done.stdout)


def test_every_measure_says_what_it_is() -> None:
    told = set(re.findall(r"^  (\w+): \"", (STATIC / "words.js").read_text(), re.MULTILINE))
    assert told == {*SCALARS, "shortcuts"} - {"samples", "seconds"}


@pytest.mark.parametrize("path", sorted(STATIC.iterdir()), ids=lambda path: path.name)
def test_text_of_runs_cannot_become_markup_and_nothing_comes_from_elsewhere(path: Path) -> None:
    source = path.read_text()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser"):
        assert word not in source
    addresses = set(re.findall(r"https?://[^\s\"'`)]*", source))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://graphml.graphdrawing.org/xmlns"}  # names, never fetched
