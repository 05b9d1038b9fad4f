"""The suite of benchmarks: its options and common fixtures.

    make bench                                                  # all, about 25 minutes on two cores
    make bench BENCH="-k 'resnet50 and test_time'"              # a part; the pages are made of all parts that are there
    make bench BENCH="--batches 32 -k test_time"                # epsilon and EpsilonPlus, of batches of 32
    make bench BENCH="--cell-seconds 20 -k 'vgg16 and topk'"    # more rounds
    make bench BENCH="--device cuda"                            # the same on a GPU, on pages of their own
    make bench-quick                                            # two models, one image

Every benchmark writes its results into pytest-benchmark's JSON, which ``tables.py`` reads. Ratios compare times that were
measured in the same round, so that other work on the machine has little effect.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
collect_ignore = [path.name for path in HERE.glob("*.py") if not path.name.startswith("test_")]

from measure import interleaved  # noqa: E402
from methods import GRADIENT, METHODS, Method  # noqa: E402
from models import MODELS, Subject, subject  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lrp_lightning", "benchmarks of lrp_lightning")
    group.addoption("--side", type=int, default=224, help="pixels of the images' sides")
    group.addoption("--batches", default="1,8", help="sizes of batches; 32 is a part of its own")
    group.addoption("--models", default=",".join(MODELS), help="models of torchvision")
    group.addoption("--cell-seconds", type=float, default=3.0, help="time for the rounds of one cell, at least two of them")
    group.addoption("--device", default="cpu", help="cpu or cuda")
    group.addoption("--quick", action="store_true", help="VGG16 and ResNet-50, one image, few points, no memory")


def pytest_configure(config: pytest.Config) -> None:
    warnings.simplefilter("ignore")  # of the peers
    if config.getoption("quick"):
        config.option.batches, config.option.cell_seconds = "1", min(1.0, config.option.cell_seconds)
        if config.option.models == ",".join(MODELS):
            config.option.models = "vgg16,resnet50"
    if config.getoption("device") != "cpu" and not torch.cuda.is_available():
        raise pytest.UsageError("there is no CUDA device here, so nothing can be measured on one")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.getoption
    for name, values in (("model", option("models").split(",")), ("batch", [int(n) for n in option("batches").split(",")])):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values, ids=str, scope="module")


@pytest.fixture
def device(pytestconfig: pytest.Config) -> str:
    return pytestconfig.getoption("device")


@pytest.fixture
def side(pytestconfig: pytest.Config) -> int:
    return pytestconfig.getoption("side")


@pytest.fixture
def quick(pytestconfig: pytest.Config) -> bool:
    return pytestconfig.getoption("quick")


@pytest.fixture
def images(side: int, device: str) -> Callable[[str, int], Subject]:
    """The model with a batch."""
    return lambda model, batch: subject(model, side, batch, device)


@pytest.fixture
def record(benchmark: Any, side: int, device: str) -> Callable[..., None]:
    """Note the benchmark's kind in its record, and what distinguishes it from others of that kind."""

    def about(kind: str, **what: Any) -> None:
        benchmark.extra_info.update(kind=kind, what=what, side=side, device=device, threads=torch.get_num_threads())

    return about


@pytest.fixture
def compare(benchmark: Any, device: str, pytestconfig: pytest.Config) -> Callable[..., None]:
    """Time one piece of work against another, interleaved."""

    def against(unit: Callable[[], Any], work: Callable[[], Any]) -> None:
        interleaved(benchmark, unit, work, device, pytestconfig.getoption("cell_seconds"))

    return against


def over(method: Method) -> Method:
    """The work that the method's time is compared with."""
    return METHODS.get(method.over, GRADIENT)
