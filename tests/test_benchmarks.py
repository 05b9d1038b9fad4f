"""The benchmarks run, judge and guard; what they measure here, at tiny sizes, counts for nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pytest_benchmark")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ASKED = "test_right or test_time or test_least or test_shares or test_data_set or test_depth or convolution-ours"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    alone["OMP_NUM_THREADS"] = "1"
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, env=alone, cwd=BENCHMARKS.parent
    )


def tables(parts: Path, *options: str) -> subprocess.CompletedProcess[str]:
    of_parts = ["--runs", parts, "--out", parts, "--ratios", parts / "stored" / "ratios.json", "--side", "32"]
    return run(BENCHMARKS / "tables.py", *of_parts, *options)


def part(folder: Path, name: str, when: str, ratio: float) -> None:
    info = {
        "kind": "time",
        "side": 32,
        "device": "cpu",
        "threads": 1,
        "ratios": [ratio],
        "seconds": ratio,
        "unit_seconds": 1.0,
    }
    what = {"model": "vgg16", "batch": 1, "method": "epsilon", "over": "gradient x input"}
    record = {"extra_info": {**info, "what": what}}
    (folder / name).write_text(json.dumps({"datetime": when, "benchmarks": [record]}))


@pytest.mark.slow
def test_guard(tmp_path: Path) -> None:
    (tmp_path / "stored").mkdir()
    assert tables(tmp_path).returncode == 2, "nothing was measured"
    part(tmp_path, "b.json", "2020-01-01", 1.2)
    assert tables(tmp_path, "--update").returncode == 0
    part(tmp_path, "a.json", "2020-01-02", 1.3)  # the newer one counts, whatever the files' names
    assert tables(tmp_path, "--check").returncode == 0, "8 % more is within the tolerance"
    part(tmp_path, "a.json", "2020-01-03", 1.5)
    slower = tables(tmp_path, "--check", "--no-pages")
    assert slower.returncode == 1
    assert "| vgg16, 1, epsilon | 1.20 | 1.50 | +25 % |" in slower.stdout


@pytest.mark.slow
def test_suite(tmp_path: Path) -> None:
    suite = ["-m", "pytest", BENCHMARKS, "-q", "--quick", "-p", "no:cacheprovider", "--side", "32", "--models", "resnet18"]
    done = run(
        *suite, "--cell-seconds", "0.05", "-k", ASKED, f"--benchmark-json={tmp_path / 'part.json'}", "--benchmark-quiet"
    )
    assert done.returncode == 0, done.stdout
    (tmp_path / "stored").mkdir()
    assert tables(tmp_path, "--update").returncode == 0
    stored = json.loads((tmp_path / "stored" / "ratios.json").read_text())["cpu, 32 pixels"]
    assert stored["resnet18, 1, epsilon"] > 0.5
    page = (tmp_path / "RESULTS.md").read_text()
    rows = {line.split(" | ")[0].strip("| "): line for line in page.splitlines() if line.startswith("| ")}
    assert "1.000" in rows["lrp_lightning, EpsilonAlpha2Beta1"]
    assert "**" not in rows["lrp_lightning, epsilon"]
    assert "**wrong**" in rows["Captum, epsilon"], "Captum's LRP does not follow residual additions"
    for name in ("the least for EpsilonPlus, all edges", "resnet18, gradient x input", "ours over eager hooks"):
        assert name in rows
    assert "A data set of 4 batches" in page
    assert (tmp_path / "growth.png").exists()


@pytest.mark.slow
def test_memory() -> None:
    small, large = (int(run(BENCHMARKS / "measure.py", "epsilon", "resnet18", "64", n).stdout) for n in ("2", "16"))
    assert 0 < small < large
