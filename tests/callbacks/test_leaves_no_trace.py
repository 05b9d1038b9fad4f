"""What a monitor finds is as it was when it is done: before and after each of its hooks, whether it works or fails."""

from __future__ import annotations

import copy
import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from faults import POINTS, at, logged
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from trainings import Classifier, loaders, random_states, same, trainer

from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.measures import Measures
from lrp_lightning.callbacks.settings import LOGGED

HOOKS = (
    "on_train_start", "on_validation_epoch_start", "on_validation_batch_end", "on_validation_epoch_end", "on_train_end",
    "on_exception",
)  # fmt: skip
LIGHTNINGS = ("_modules", "_trainer", "_current_fx_name")
"""Attributes of a module that are its parts or say where Lightning is."""


def of_process() -> dict[str, Any]:
    """All that a process has one of."""
    cudnn = torch.backends.cudnn
    return {
        "random": random_states(),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "autocast": (
            torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled(),
        ),
        "defaults": (torch.get_default_dtype(), torch.get_default_device(), torch.get_float32_matmul_precision()),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
            cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32,
        ),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "function modes": torch.overrides._len_torch_function_stack(),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "numpy": (np.geterr(), np.get_printoptions()),
        "matplotlib": dict(matplotlib.rcParams),
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        "python": (dict(os.environ), list(sys.path), Path.cwd(), sys.getrecursionlimit()),
        "garbage": (gc.isenabled(), gc.get_threshold(), gc.get_debug()),
    }  # fmt: skip


def of_model(module: LightningModule) -> dict[str, Any]:
    """All that a module and its parts are made of."""
    parameters, tensors = list(module.parameters()), [*module.parameters(), *module.buffers()]
    return {
        "values": [t.detach().clone() for t in tensors],
        "identities": [(id(t), t._version, t.requires_grad, t.is_leaf, t.grad_fn) for t in tensors],
        "grads": [None if p.grad is None else (id(p.grad), p.grad.clone()) for p in parameters],
        "on parameters": [(sorted(vars(p).items()), dict(p._backward_hooks or {})) for p in parameters],
        "modes": [m.training for m in module.modules()],
        "classes": [type(m) for m in module.modules()],
        "attributes": [
            {name: copied(value) for name, value in vars(m).items() if name not in LIGHTNINGS} for m in module.modules()
        ],
    }


def copied(value: object) -> object:
    """In hooks and lists things may be put; what cannot be copied is told by its identity."""
    if isinstance(value, dict):
        return {key: copied(of) for key, of in value.items()}
    try:
        return copy.deepcopy(value)
    except Exception:
        return id(value)


class Looking(Callback):
    """Notes how things are at each hook."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []


def looking(hook: str) -> Callable:
    def look(self: Looking, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        self.seen.append((hook, of_process() | of_model(pl_module)))

    return look


for _hook in HOOKS:
    setattr(Looking, _hook, looking(_hook))


class Owned(Classifier):
    """Has attributes, hooks and a buffer of its own, a part that is frozen and one in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.mine, self.conv1.note = {"a": [1, 2]}, "mine"
        self.register_buffer("extra", torch.ones(3))
        self.conv1.weight.requires_grad_(False)
        self.conv2.weight.tag = "mine"
        self.bn.eval()
        self.conv1.register_forward_hook(lambda module, args, output: None)
        self.head.weight.register_hook(lambda g: g)


def fit(folder: Path, monitor: RelevanceMonitor, **options: Any) -> tuple[list, list]:
    """What was seen right before the monitor, and right after it."""
    before, after = Looking(), Looking()
    run = trainer(folder, before, monitor, after, logger=TensorBoardLogger(folder), **options)
    with warnings.catch_warnings(), suppress(SystemExit, KeyboardInterrupt, ArithmeticError):
        warnings.filterwarnings("ignore", message="RelevanceMonitor")
        run.fit(Owned(), *loaders())
    return before.seen, after.seen


def check(before: list, after: list) -> None:
    assert len(before) == len(after) > 10
    for (hook, then), (_, now) in zip(before, after, strict=True):
        for what in then:
            assert same(then[what], now[what]), f"{what} at {hook}"


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_where_it_works(tmp_path: Path, precision: Any) -> None:
    monitor = RelevanceMonitor(max_samples=12, n_heatmaps=2, max_share=None, log=LOGGED)
    check(*fit(tmp_path, monitor, precision=precision))
    assert monitor._has_worked


@pytest.mark.parametrize(
    "point",
    [pytest.param(p, marks=[] if p in ("Measures.update", "Observation.class_trace") else pytest.mark.slow) for p in POINTS],
)
def test_where_something_fails(tmp_path: Path, point: str) -> None:
    monitor = RelevanceMonitor(max_samples=12, n_heatmaps=2, max_share=None, log=logged(point))
    failed: list[int] = []

    def when() -> bool:
        failed.extend([1] if monitor._has_worked else [])
        return monitor._has_worked

    with at(point, when):
        check(*fit(tmp_path, monitor))
    assert failed


def test_where_it_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a person, in the middle of a pass."""
    monitor = RelevanceMonitor(max_samples=12, n_heatmaps=2, max_share=None)
    own = Measures.update

    def interrupted(measures: Measures, classifier: Any, inputs: Any, trace: Any, *rest: Any) -> None:
        if not monitor._history:
            return own(measures, classifier, inputs, trace, *rest)

        def stop(logits: Tensor) -> Tensor:
            raise KeyboardInterrupt

        return rest[-1](stop)

    monkeypatch.setattr(Measures, "update", interrupted)
    before, _ = fit(tmp_path, monitor)
    (hook, then), (last, now) = before[-2:]
    assert (hook, last) == ("on_validation_batch_end", "on_exception")
    for what in then.keys() - {
        "grad",
        "signals",
    }:  # Lightning has gradients on by then, and heeds no second signal
        assert same(then[what], now[what]), what


def test_a_trace_would_be_seen(tmp_path: Path) -> None:
    class Careless(RelevanceMonitor):
        def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
            pl_module.mine["a"].append(3)

    with pytest.raises(AssertionError, match="attributes at on_validation_batch_end"):
        check(*fit(tmp_path, Careless()))
