"""Run by engine/test_devices.py: the examples of all docstrings, and a training with the monitor, on a device.

Prints how many docstrings there were, and what failed, as JSON. Examples make their tensors on the device, with the values
that they have on the CPU; what the package itself makes is where the package puts it.
"""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import re
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import apart
import torch
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils.data import DataLoader
from torchmetrics import Metric
from trainings import Classifier, images, trainer

import lrp_lightning
from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.settings import LOGGED, SCALARS

BEYOND = r"\.capture\(|trainer\.predict\("
"""In examples that a device made in Python cannot run: ``make_fx`` and inference mode do not know its tensors."""
OWN = tuple(str((Path(lrp_lightning.__file__).parent / folder).resolve()) for folder in ("", "callbacks"))


class OnDevice(TorchFunctionMode):
    """What an example makes is on the device, and random as on the CPU."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: object, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _device_constructors():
            device = kwargs.get("device") or (self.device if _of_example() else "cpu")
            return func(*args, **kwargs | {"device": "cpu"}).to(device)  # of a list torch makes none on a device made up
        if func in (Tensor.uniform_, Tensor.normal_):
            return args[0].copy_(func(torch.empty(args[0].shape), *args[1:], **kwargs))
        return func(*args, **kwargs)


def _of_example() -> bool:
    """Whether an example calls, or torch on its behalf, and not the package."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<doctest") or file.startswith(OWN):
            return file.startswith("<doctest")
        frame = frame.f_back
    return False


def told(error: BaseException) -> str:
    """An error, and where in the package it was raised."""
    places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    own = [place for place in places if place.startswith(OWN)] or places
    return f"{error!r} at {own[-1]}"


class Runner(doctest.DocTestRunner):
    """Keeps the first failure of each docstring."""

    def __init__(self, checker: doctest.OutputChecker) -> None:
        super().__init__(checker, verbose=False, optionflags=doctest.FAIL_FAST)
        self.failed: dict[str, str] = {}

    def report_failure(self, out: Any, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        self.failed[test.name] = f"{example.source.strip()} gave {got.strip()}, not {example.want.strip()}"

    def report_unexpected_exception(self, out: Any, test: Any, example: doctest.Example, exc_info: Any) -> None:
        self.failed[test.name] = f"{example.source.strip()} raised {told(exc_info[1])}"


class WithoutDevice(doctest.OutputChecker):
    """Tensors are printed with their device, which examples, written for the CPU, do not show."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(want, re.sub(r",\s+device='\w+:0'", "", got), optionflags)


def of_examples(device: str) -> tuple[int, dict[str, str]]:
    names = [m.name for m in pkgutil.walk_packages(lrp_lightning.__path__, "lrp_lightning.") if "__main__" not in m.name]
    found = [test for name in names for test in doctest.DocTestFinder().find(importlib.import_module(name)) if test.examples]
    if device == apart.NAME:
        found = [test for test in found if not re.search(BEYOND, test.docstring)]
    add_state = Metric.add_state

    def on_device(self: Metric, name: str, default: Any, *args: Any, **kwargs: Any) -> None:  # as by metric.to(device)
        if isinstance(default, Tensor):
            default = (default.float() if default.dtype == torch.double else default).to(device)
        add_state(self, name, default, *args, **kwargs)

    Metric.add_state = on_device  # type: ignore[method-assign]
    runner = Runner(WithoutDevice())
    try:
        for test in found:
            with OnDevice(device):
                runner.run(test)
    finally:
        Metric.add_state = add_state  # type: ignore[method-assign]
    return len(found), runner.failed


class ApartAccelerator(Accelerator):
    """What Lightning has to know of the device."""

    def setup_device(self, device: torch.device) -> None: ...
    def teardown(self) -> None: ...
    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device(apart.NAME, 0)]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return apart.NAME


def of_training(device: str) -> dict[str, str]:
    """All that the monitor can log, in a fit that it draws strategies of too."""
    torch.manual_seed(0)
    monitor = RelevanceMonitor(max_samples=64, max_share=None, log=LOGGED)
    where: dict[str, Any] = {"accelerator": "gpu"}
    if device == apart.NAME:
        where = {"accelerator": "auto", "strategy": SingleDeviceStrategy(torch.device(device, 0), ApartAccelerator())}
    train, val = (DataLoader(images(n, classes=3), 16) for n in (48, 96))
    with tempfile.TemporaryDirectory() as folder, OnDevice(device), warnings.catch_warnings(record=True) as told_of:
        warnings.simplefilter("always")
        run = trainer(Path(folder), monitor, logger=TensorBoardLogger(folder), **where)
        try:
            run.fit(Classifier(3), train, val)
        except Exception as error:
            return {"training": told(error)}
    failed = [str(w.message) for w in told_of if re.match("RelevanceMonitor(?!: a likely)", str(w.message))]
    failed += [f"no {name}" for name in SCALARS if f"relevance/{name}" not in run.callback_metrics]
    failed += [] if run.strategy.root_device.type == device else [f"it was on {run.strategy.root_device}"]
    return {"training": "; ".join(failed)} if failed else {}


def main(device: str) -> None:
    if device == apart.NAME:
        apart.register()
    torch.backends.cudnn.allow_tf32 = False
    ran, failed = of_examples(device)
    print(json.dumps({"examples": ran, "failed": failed | of_training(device)}))


if __name__ == "__main__":
    main(sys.argv[1])
