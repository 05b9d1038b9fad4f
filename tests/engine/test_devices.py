"""Devices: nothing of a pass is on another than the model's, and the host does not wait for the device in the middle of it.

Without a GPU this is proved on fake tensors, which have a device and shapes but no values; with one, on it.
"""

from __future__ import annotations

import heapq
import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import apart
import pytest
import torch
from lightning.pytorch import Trainer
from packaging.version import Version
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import mobilenet_v3_small, resnet18, vgg11_bn
from trainings import Classifier, loaders

from lrp_lightning import EpsilonPlus, SelectiveLRP, TopK, masked_forward
from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.measures import random_sets
from lrp_lightning.callbacks.settings import SCALARS

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Waits(TorchDispatchMode):
    """Answers where the host asks for a value of a tensor that has none, and notes who asked."""

    def __init__(self) -> None:
        super().__init__()
        self.by: list[str] = []

    def __torch_dispatch__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        if func is torch.ops.aten._local_scalar_dense.default:
            own = [frame.name for frame in traceback.extract_stack() if "lrp_lightning" in frame.filename]
            self.by.append(own[-1])
            return args[0].dtype == torch.bool or 0.5
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def backward(outputs: Tensor, inputs: Sequence[Tensor], allow_unused: bool = False) -> tuple[Tensor | None, ...]:
    """``torch.autograd.grad``, node by node: autograd's own engine asks the device for a stream."""
    number, waiting = count(), []
    grads: dict[object, dict[int, Tensor]] = {outputs.grad_fn: {0: torch.ones_like(outputs)}}
    heapq.heappush(waiting, (-outputs.grad_fn._sequence_nr(), next(number), outputs.grad_fn))
    found: dict[int, Tensor] = {}
    while waiting:
        _, _, node = heapq.heappop(waiting)
        given = grads.pop(node)
        if hasattr(node, "variable"):  # where a leaf's gradient arrives
            found[id(node.variable)] = given[0]
            continue
        wanted = [given.get(i) for i in range(max(given) + 1)]
        if isinstance(node, torch.autograd.function.BackwardCFunction):  # gives something for every argument, tensor or not
            made = node.apply(*wanted)
            made = made if isinstance(made, tuple) else (made,)
            made = [grad for grad, needed in zip(made, node.needs_input_grad, strict=True) if needed]
            uppers = [upper for upper in node.next_functions if upper[0] is not None]
        else:
            made = node(*wanted)
            made, uppers = made if isinstance(made, tuple) else (made,), node.next_functions
        for (upper, index), grad in zip(uppers, made, strict=True):
            if upper is None or grad is None:
                continue
            if upper not in grads:
                heapq.heappush(waiting, (-upper._sequence_nr(), next(number), upper))
            there = grads.setdefault(upper, {})
            there[index] = there[index] + grad if index in there else grad
    return tuple(found.get(id(x)) for x in inputs)


@contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """Tensors may be put on a GPU that is not there, and an operator that mixes it with the CPU raises."""
    monkeypatch.setattr(torch.autograd, "grad", backward)
    with FakeTensorMode():
        yield Waits()


def on_fake_gpu(make: Callable[[], nn.Module], *shape: int) -> tuple[nn.Module, Tensor]:
    with torch.device("cuda"):
        return make(), torch.zeros(*shape)


def test_the_backward_of_these_tests_is_autograds(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    model, x = resnet18(num_classes=5).eval(), torch.rand(2, 3, 32, 32)
    expected = SelectiveLRP(model, selection=TopK(0.3)).attribute(x, target=1)
    monkeypatch.setattr(torch.autograd, "grad", backward)
    torch.testing.assert_close(SelectiveLRP(model, selection=TopK(0.3)).attribute(x, target=1), expected)


needs_no_driver = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.7"), reason="torch 2.6 asks for a driver even where the GPU is made up"
)


@needs_no_driver
def test_a_tensor_left_on_the_cpu_would_be_seen(monkeypatch: pytest.MonkeyPatch):
    class Careless:
        def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
            return relevance > torch.zeros(relevance.shape, device="cpu")

    with fake_gpu(monkeypatch) as waits:
        model, x = on_fake_gpu(lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), 2, 3)
        with waits, pytest.raises(RuntimeError, match="device"):
            SelectiveLRP(model, selection=Careless()).trace(x, target=0)


@needs_no_driver
@pytest.mark.parametrize("make", [vgg11_bn, resnet18, mobilenet_v3_small])
def test_a_pass_stays_on_its_device_and_does_not_wait(monkeypatch: pytest.MonkeyPatch, make: Callable):
    with fake_gpu(monkeypatch) as waits:
        model, x = on_fake_gpu(lambda: make(num_classes=5), 2, 3, 64, 64)
        with waits:
            trace = SelectiveLRP(model, EpsilonPlus(), TopK(0.1)).trace(x, target=lambda y: y.argmax(1))
        # once for the range of the inputs, before the pass, and once for whether the output was finite, after it
        assert waits.by == ["check_inputs", "check_inputs", "_check_finite"]
        for tensor in (trace.inputs, trace.output, *trace.relevance.values(), *trace.masks.values()):
            assert tensor.device.type == "cuda"
        waits.by.clear()
        with waits:
            for masks in (trace.masks, random_sets(trace.masks, torch.arange(2, device="cpu"))):
                assert masked_forward(model, x, masks).device.type == "cuda"
        assert waits.by == []


@pytest.mark.gpu
@on_gpu
def test_no_wait_in_the_pass_on_a_gpu():
    model, x = resnet18(num_classes=5).cuda(), torch.rand(4, 3, 64, 64).cuda()
    lrp = SelectiveLRP(model, selection=TopK(0.1))
    lrp.trace(x, target=lambda y: y.argmax(1))
    seen = []
    inner = torch.autograd.grad

    def strict(*args: object, **kwargs: object) -> object:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return inner(*args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            seen.append(True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "grad", strict)
        lrp.trace(x, target=lambda y: y.argmax(1))
    assert seen


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed", "16-true"])
def test_a_training_on_a_gpu(tmp_path: Path, precision: str):
    def fit(*callbacks: RelevanceMonitor) -> tuple[Trainer, dict]:
        torch.manual_seed(0)
        run = Trainer(
            accelerator="gpu", devices=1, precision=precision, max_epochs=2, callbacks=list(callbacks), logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        run.fit(Classifier(), *loaders())
        return run, {"weights": run.lightning_module.state_dict(), "random": torch.cuda.get_rng_state()}

    torch.backends.cudnn.deterministic = True
    try:
        (_, without), (run, with_it) = fit(), fit(RelevanceMonitor(max_samples=16))
    finally:
        torch.backends.cudnn.deterministic = False
    assert torch.equal(without["random"], with_it["random"])
    for name, value in without["weights"].items():
        assert torch.equal(value, with_it["weights"][name]), name
    assert {f"relevance/{name}" for name in SCALARS} <= run.callback_metrics.keys()


@pytest.mark.gpu
@on_gpu
def test_nothing_stays_on_the_gpu_after_an_epoch(tmp_path: Path):
    held = []

    class Watching(RelevanceMonitor):
        def on_validation_epoch_end(self, *args: object) -> None:
            super().on_validation_epoch_end(*args)
            held.append(torch.cuda.memory_allocated())

    run = Trainer(
        accelerator="gpu", devices=1, max_epochs=4, callbacks=[Watching(max_samples=16)], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    run.fit(Classifier(), *loaders())
    assert held[-1] <= held[2] + 2**16


def failed_in(device: str) -> dict[str, str]:
    """What of all docstrings' examples and of a training with the monitor fails on a device."""
    script = Path(__file__).parents[1] / "in_device.py"
    done = subprocess.run([sys.executable, str(script), device], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["examples"] > 100
    return found["failed"]


@pytest.mark.slow
@pytest.mark.skipif(not apart.AVAILABLE, reason="this torch has no devices that are made in Python")
def test_everything_works_on_a_device_without_double_precision() -> None:
    assert failed_in(apart.NAME) == {}


@pytest.mark.gpu
@on_gpu
def test_everything_works_on_a_gpu() -> None:
    assert failed_in("cuda") == {}
