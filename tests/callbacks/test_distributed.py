"""Two processes measure what one does, log pictures once, and an exception on one of them reaches both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import POINTS
from lightning.pytorch import strategies

import lrp_lightning

pytestmark = pytest.mark.slow


def start(script: str, *arguments: object) -> None:
    checkout = str(Path(lrp_lightning.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, Path(__file__).parents[1] / script, *map(str, arguments)],
        capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": checkout},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]


def run(processes: int, out: Path) -> list[dict]:
    """What each process saw."""
    start("in_processes.py", "--processes", processes, "--out", out)
    return [json.loads((out / f"seen_{processes}_{rank}.json").read_text()) for rank in range(processes)]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def one(out: Path) -> dict:
    return run(1, out)[0]


@pytest.fixture(scope="module")
def two(out: Path) -> list[dict]:
    return run(2, out / "two")


@pytest.mark.parametrize(("what", "samples"), [("all", 21), ("some", 8), ("two loaders", 9), ("limited", 10)])
def test_two_processes_measure_what_one_does(one: dict, two: list[dict], what: str, samples: int):
    assert one[what]["relevance/samples"] == samples
    for measured in two:
        assert measured[what].keys() == one[what].keys()
        for name, value in one[what].items():
            if name.endswith("accuracy") or name == "relevance/samples":
                assert measured[what][name] == value, name
            elif not name.endswith("seconds"):
                assert measured[what][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_circuits_are_calibrated_and_judged_on_the_samples_of_all_processes(one: dict, two: list[dict]):
    assert one["circuits"].keys() == {"relevance/circuit_agreement", "relevance/stability"}
    assert 0 <= one["circuits"]["relevance/circuit_agreement"] <= 1
    assert one["circuits"]["relevance/stability"] == 1
    assert two == [{**seen, "circuits": one["circuits"]} for seen in two]


def test_where_clocks_disagree_all_processes_measure_what_the_first_says(one: dict, two: list[dict]):
    for seen in (one, *two):
        assert seen["clocks"]["relevance/samples"] == 16
    assert two[0]["clocks"]["relevance/smape"] == two[1]["clocks"]["relevance/smape"]


def test_training_on_two_processes_ends_in_the_same_bits(two: list[dict]):
    for seen in two:
        assert seen["with"] == seen["without"]


def test_checkpoints_and_logs_are_written_once(two: list[dict], out: Path):
    assert two[0]["logged"] == two[1]["logged"]
    assert len(list((out / "two" / "logs").rglob("events*"))) == 1
    assert len(list((out / "two" / "best").glob("*.ckpt"))) == 1
    assert not list((out / "two" / "logs").rglob("*.png"))


def test_a_fault_on_one_process_reaches_both_and_none_hangs(two: list[dict]):
    assert [len(seen["later fault"]) for seen in two] == [1, 1]
    assert "failed on another process" in two[0]["later fault"][0]
    assert "on this process only" in two[1]["later fault"][0]
    assert [seen["epochs"] for seen in two] == [3, 3]
    assert two[0]["first fault"].startswith("LRPError: RelevanceMonitor failed on another process")
    assert two[1]["first fault"] == "ValueError: on this process only"


def test_a_fault_at_any_point_on_one_process_ends_no_training_and_leaves_none_waiting(two: list[dict]):
    assert two[0]["faults"].keys() == two[1]["faults"].keys()
    assert len(two[0]["faults"]) == len(POINTS)
    for key in two[0]["faults"]:
        failing = key.rpartition(" ")[2]
        for of_process in two:
            assert of_process["faults"][key]["epochs"] == 2, key
            assert of_process["faults"][key]["measured"], key
        assert two[int(failing)]["faults"][key]["told"], key


@pytest.mark.skipif(not hasattr(strategies, "ModelParallelStrategy"), reason="Lightning had none before 2.4")
def test_sharded_parameters_are_measured_as_whole_ones_and_train_to_the_same_bits(one: dict, two: list[dict]):
    expected = one["sharded"]["all"]
    assert 0 < expected["relevance/random_accuracy"] < 1
    for seen in (of_process["sharded"] for of_process in two):
        assert seen["all"].keys() == expected.keys()
        for name, value in expected.items():
            if name.endswith("accuracy") or name == "relevance/samples":
                assert seen["all"][name] == value, name
            elif not name.endswith("seconds"):
                assert seen["all"][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
        assert seen["with"] == seen["without"]
        assert seen["with"]["kinds"][:2] == ["FSDPSharded", "FSDPConv2d"]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what was measured and logged by each strategy; in this order, as a fork must come before threads."""
    folder = tmp_path_factory.mktemp("launched")
    start("in_launched.py", folder, *LAUNCHED)
    return folder


LAUNCHED = ("ddp_fork", "ddp_spawn")


@pytest.mark.parametrize("strategy", LAUNCHED)
def test_processes_that_lightning_forks_or_spawns(launched: Path, strategy: str):
    measured = json.loads((launched / f"{strategy}.json").read_text())
    assert measured["relevance/samples"] == 12
    assert 0 <= measured["relevance/critical_neuron_accuracy"] <= 1
    assert measured["relevance/conservation_error"] < 1e-3
    assert len(list((launched / strategy).rglob("events*"))) == 1
