"""The benchmarks run, judge and guard; what they measure here, at tiny sizes, counts for nothing."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytest.importorskip("pytest_benchmark")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ASKED = "test_right or test_time or test_least or test_shares or test_data_set or test_depth or convolution-ours"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    alone["OMP_NUM_THREADS"] = "1"
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, env=alone, cwd=BENCHMARKS.parent
    )


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Its exit status, of the parts in ``tmp_path``."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("tables")
    (tmp_path / "stored").mkdir()
    of_parts = ["--runs", tmp_path, "--out", tmp_path, "--ratios", tmp_path / "stored" / "ratios.json", "--side", "32"]
    return lambda *options: module.main([*map(str, of_parts), *options])


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


def test_guard(tmp_path: Path, tables: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert tables() == 2, "nothing was measured"
    part(tmp_path, "b.json", "2020-01-01", 1.2)
    assert tables("--update", "--no-pages") == 0
    part(tmp_path, "a.json", "2020-01-02", 1.3)  # the newer one counts, whatever the files' names
    assert tables("--check") == 0, "8 % more is within the tolerance"
    assert "| lrp_lightning, epsilon | 1.30 ± 0.00 |" in (tmp_path / "RESULTS.md").read_text()
    part(tmp_path, "a.json", "2020-01-03", 1.5)
    assert tables("--check", "--no-pages") == 1
    assert "| vgg16, 1, epsilon | 1.20 | 1.50 | +25 % |" in capsys.readouterr().out


@pytest.mark.slow
def test_suite(tmp_path: Path, tables: Callable[..., int]) -> None:
    suite = ["-m", "pytest", BENCHMARKS, "-q", "--quick", "-p", "no:cacheprovider", "--side", "32", "--models", "resnet18"]
    part = f"--benchmark-json={tmp_path / 'part.json'}"
    done = run(*suite, "--cell-seconds", "0.05", "-k", ASKED, part, "--benchmark-quiet")
    assert done.returncode == 0, done.stdout
    assert tables("--update") == 0
    stored = json.loads((tmp_path / "stored" / "ratios.json").read_text())["cpu, 32 pixels"]
    assert stored["resnet18, 1, epsilon"] > 0.5
    page = (tmp_path / "RESULTS.md").read_text()
    right = page.partition("## Right or wrong")[2].partition("\n## ")[0]
    rows = {line.split(" | ")[0].strip("| "): line for line in right.splitlines() if line.startswith("| ")}
    assert "1.000" in rows["lrp_lightning, EpsilonAlpha2Beta1"]
    assert "**" not in rows["lrp_lightning, epsilon"]
    assert "**wrong**" in rows["Captum, epsilon"], "Captum's LRP does not follow residual additions"
    for name in ("the least for EpsilonPlus, all edges", "resnet18, gradient x input", "ours over eager hooks"):
        assert f"| {name} |" in page
    assert "A data set of 4 batches" in page
    assert (tmp_path / "growth.png").exists()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script for a GPU, without one."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("gpu")


def test_what_fails_on_a_gpu_is_a_row(gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def without_room() -> list[str]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    page, name = gpu.Page(tmp_path / "gpu.md", budget=60), tmp_path / "gpu.md"
    page.rows(["of", "one", "two"], {"a": lambda: ["1", "2"], "b": without_room, "c": lambda: [][1]})
    assert "| c | IndexError" in name.read_text(), "nothing waits for what follows"
    page.until = 0.0
    page.rows(["of", "one"], {"d": lambda: pytest.fail("there is no time")})
    assert gpu.of_tests(0.0) == ["Left out, no time."]
    text = name.read_text()
    assert text == capsys.readouterr().out
    rows = ["| a | 1 | 2 |", "| b | out of memory |  |", "| c | IndexError: list index out of range |  |"]
    assert text.splitlines()[2:5] == rows
    assert "| d | left out, no time |\n" in text


def test_a_row_of_passes_on_a_gpu(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "peak_on_gpu", lambda work: work().numel() * 1_000)
    monkeypatch.setattr(gpu, "waits", lambda work: 2)
    monkeypatch.setattr(gpu, "in_rounds", lambda unit, work, device, most_seconds: ([0.1, 0.1], [0.2, 0.2]))
    monkeypatch.setattr(gpu, "WAYS", [*gpu.WAYS[:2], replace(gpu.WAYS[2], explain=lambda *_: 1 / 0)])
    small = gpu.subject("vit_b_16", 32, 2)
    *right, failed = gpu._of_batch(small, gpu.FLOAT32, "cuda", 0.1)
    assert right == ["100.00 ms, 6 MB", "2.00 ± 0.00, 1.00, 2", "2.00 ± 0.00, 1.00, 2"]
    assert failed == "ZeroDivisionError: division by zero"
    way = gpu._of_batch(small, gpu.BFLOAT16, "cuda", 0.1)[1]
    assert 0 < float(way.split(", ")[-1]) < 0.1, "how far a vision transformer's relevance is from that in float32"


@pytest.mark.slow
def test_on_a_gpu(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--device", "cpu", "--quick", "--out", str(tmp_path / "gpu.md"), "--budget", "600"]
    monkeypatch.setattr(sys, "argv", ["", *asked])
    gpu.main()
    page = (tmp_path / "gpu.md").read_text()
    assert page == capsys.readouterr().out
    assert "On the CPU" in page
    assert not any(word in page for word in ("Error", "left out", "Failed", "out of memory")), page
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith(("| resnet18", "| 128"))]
    assert [len(row) for row in rows] == [5] * 6 + [8] * 2
    assert all("not measured, not measured" in cell for row in rows[:6] for cell in row[2:])
    assert all(cell.endswith("0e+00") for row in rows[2:4] for cell in row[2:4]), "autocast is undone"


@pytest.mark.slow
def test_memory() -> None:
    small, large = (int(run(BENCHMARKS / "measure.py", "epsilon", "resnet18", "64", n).stdout) for n in ("2", "16"))
    assert 0 < small < large


@pytest.mark.slow
def test_exported_files_are_compared_with_the_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.syspath_prepend(BENCHMARKS)
    module, page = importlib.import_module("export"), tmp_path / "page.md"
    monkeypatch.setattr(module, "SIDES", {"resnet18": 32})
    monkeypatch.setattr(sys, "argv", ["", "--cache", str(tmp_path), "--out", str(page)])
    module.main()
    rows = [[cell.strip() for cell in line.split("|")] for line in page.read_text().splitlines()]
    ways = [row for row in rows if len(row) == 11 and row[4] in ("captured", ".pt2", "ONNX")]
    assert [row[1:3] for row in ways[::3]] == [["resnet18, 32", "all neurons"], ["resnet18, 32", "TopK(0.1)"]]
    assert len(ways) == 6
    assert all(float(row[5]) < 1e-3 and float(row[7]) < 1e-3 for row in ways)


@pytest.mark.slow
def test_large_graph(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = run(BENCHMARKS / "large_graph.py", "--kept", "0.02", "--times", "1", "--out", page)
    assert done.returncode == 0, done.stderr
    assert [line.split(" | ")[0] for line in page.read_text().splitlines() if line.startswith("| `")] == [
        "| `build_graph`", "| `k_best_paths`, k = 5", "| `k_best_paths`, k = 64", "| `prune_graph`", "| `diff_graphs`"
    ]  # fmt: skip
