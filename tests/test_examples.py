"""Each example runs as a person would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
def test_the_demo_runs_twice_and_says_what_it_found(tmp_path: Path):
    for run in range(2):
        demo = subprocess.run(
            [sys.executable, EXAMPLES / "digits_vgg16.py", "--epochs", "1", "--logs", tmp_path],
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert demo.returncode == 0, demo.stderr
        for measure in ("validation accuracy", "critical-neuron accuracy at 10 %", "random neurons, as many"):
            assert re.search(rf"^{measure} +[01]\.\d{{3}}$", demo.stdout, re.MULTILINE), demo.stdout
        assert f"version_{run}" in demo.stdout
        assert f"--logdir {tmp_path}" in demo.stdout
    assert len(list(tmp_path.rglob("events.out.tfevents.*"))) == 2


@pytest.mark.slow
def test_photographs_are_explained_where_their_objects_are(tmp_path: Path):
    picture = tmp_path / "photographs.png"
    done = subprocess.run(
        [sys.executable, EXAMPLES / "explain_photograph.py", "--out", picture],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert picture.stat().st_size > 50_000
    errors = [float(line.rpartition(" ")[2]) for line in done.stdout.splitlines() if "conservation error" in line]
    assert len(errors) == 3
    assert max(errors) < 1e-3


def test_examples_are_short_enough_to_read():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 80, path.name


def test_the_command_for_tensorboard_works():
    """The demo prints ``python -m tensorboard.main``: there, whatever is on PATH."""
    shown = subprocess.run(
        [sys.executable, "-m", "tensorboard.main", "--version"], capture_output=True, text=True, env=os.environ, check=True
    )
    assert re.match(r"\d+\.\d+", shown.stdout)
