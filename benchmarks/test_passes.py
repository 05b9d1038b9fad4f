"""Passes of this library and of peers compared with gradient x input: correctness, time, memory, and a profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
from conftest import over
from measure import available, peak_of_process, peak_on_gpu, seconds, waits
from methods import GRADIENT, METHODS, OURS, PEERS, SELECTING, Method
from models import Subject, subject
from torch import nn

from lrp_lightning import EpsilonPlus, MinError, SelectiveLRP

BY_RULE = [method for method in METHODS.values() if method.rule]
TIMED = [*OURS, SELECTING, *PEERS]
OF_32 = ("epsilon", "EpsilonPlus")
OF_MEMORY = [
    "epsilon",
    "EpsilonPlus",
    "EpsilonPlus, TopK(0.1)",
    "EpsilonPlus, all edges",
    "EpsilonPlus, TopK(0.1), all edges",
]
OF_SHARES = [GRADIENT, *(METHODS[name] for name in OF_MEMORY)]
Images = Callable[[str, int], Subject]


def of(method: Method) -> str:
    return method.name


@pytest.mark.parametrize("method", BY_RULE, ids=of)
def test_right(benchmark: Any, record: Callable[..., None], model: str, method: Method) -> None:
    """Two images of 64 pixels compared with the oracle; time is not measured."""
    if not method.explains(model):
        pytest.skip(f"{method.package} is not made for {model}")
    record("right", model=model, method=method.name)
    two = subject(model, 64, 2)
    found = benchmark.pedantic(_or_error, [method.work(two)])
    if isinstance(found, Exception):
        assert method.package != "lrp_lightning", found
        benchmark.extra_info["raises"] = type(found).__name__
        return
    logit = two.model(two.x).gather(1, two.target[:, None])[:, 0].double().detach()
    true = oracle.relevance(two, method.rule or "")
    sums = (found.double().flatten(1).sum(1) / logit).tolist()
    due = (true.flatten(1).sum(1) / logit).tolist()
    error = ((found - true).norm() / true.norm()).item()
    benchmark.extra_info.update(sums=sums, due=due, error=error)
    assert method.package != "lrp_lightning" or error < 0.05


@pytest.mark.parametrize("method", TIMED, ids=of)
def test_time(
    benchmark: Any, record: Callable[..., None], compare: Callable[..., None], images: Images,
    model: str, batch: int, method: Method, device: str, quick: bool,
) -> None:  # fmt: skip
    if not method.explains(model):
        pytest.skip(f"{method.package} is not made for {model}")
    if batch >= 32 and method.name not in OF_32:
        pytest.skip("batches of 32 are for epsilon and EpsilonPlus: the others' ratios are those of 8")
    if method in PEERS and method.rule != "epsilon" and (batch > 1 or quick):
        pytest.skip("the peers' rules but epsilon are timed for one image, and not in a quick run")
    asked = images(model, batch)
    if device == "cpu" and (needed := 2 * batch * _saved(asked)) > available():
        pytest.skip(f"{batch} images may take {needed / 1e9:.0f} GB, more than there is")
    record("time", model=model, batch=batch, method=method.name, over=method.over)
    if method in PEERS:
        failed = _or_error(method.work(_one(asked)))
        if isinstance(failed, Exception):
            benchmark.extra_info["raises"] = type(failed).__name__
            benchmark.pedantic(lambda: None)
            return
    unit, work = over(method).work(asked), method.work(asked)
    compare(unit, work)
    if device != "cpu":
        benchmark.extra_info.update(memory=peak_on_gpu(work) / peak_on_gpu(unit), waits=waits(work))


@pytest.mark.parametrize("least", ["convolutions", "edges"])
def test_least(
    record: Callable[..., None], compare: Callable[..., None], images: Images, model: str, batch: int, least: str
) -> None:
    """The minimum: only the kernels that a rule, or edges, need in addition to gradient x input."""
    if batch >= 32:
        pytest.skip("as for 8")
    asked = images(model, batch)
    record("least", model=model, batch=batch, of=least)
    layers = _layers(asked)

    def kernels() -> None:
        for layer in layers:
            _kernels(*layer, least == "edges")

    compare(GRADIENT.work(asked), kernels)


@pytest.mark.parametrize("method", ["gradient x input", *OF_MEMORY])
def test_memory(
    benchmark: Any, record: Callable[..., None], model: str, method: str, side: int, device: str, quick: bool,
    pytestconfig: pytest.Config,
) -> None:  # fmt: skip
    """The peak growth of a separate process, for 8 images, or the number that is allowed."""
    if device != "cpu" or quick:
        pytest.skip("stands beside the times on a GPU; not in a quick run")
    batch = max(n for n in map(int, pytestconfig.getoption("batches").split(",")) if n <= 8)
    record("memory", model=model, batch=batch, method=method)
    benchmark.extra_info["bytes"] = benchmark.pedantic(peak_of_process, [method, model, side, batch])


@pytest.mark.parametrize("method", OF_SHARES, ids=of)
def test_shares(
    benchmark: Any, record: Callable[..., None], images: Images, model: str, method: Method, device: str
) -> None:
    """The distribution of time by torch's profiler, for one image."""
    if device != "cpu":
        pytest.skip("of the processor")
    record("shares", model=model, method=method.name)
    work = method.work(images(model, 1))
    work()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        took = benchmark.pedantic(seconds, [work])
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        if event.key.startswith("aten::"):
            spent[_family(event.key)] += event.self_cpu_time_total / 1e6
    benchmark.extra_info["shares"] = {family: taken / took for family, taken in spent.items()}
    benchmark.extra_info["shares"]["Python, dispatch"] = max(0.0, 1 - sum(spent.values()) / took)
    benchmark.extra_info["seconds"] = took


def test_min_error(benchmark: Any, record: Callable[..., None], images: Images, model: str, batch: int, quick: bool) -> None:
    """One search: its passes, and the time in gradients."""
    if batch > 1 or quick or model not in ("vgg16", "resnet50"):
        pytest.skip("VGG16 and ResNet-50, one image")
    record("search", model=model)
    asked = images(model, 1)
    unit = seconds(GRADIENT.work(asked))
    lrp = SelectiveLRP(asked.model, EpsilonPlus(), MinError("smape", 0.1))
    found = []
    took = seconds(lambda: found.append(benchmark.pedantic(lrp.trace, [asked.x, asked.target])))
    unit = (unit + seconds(GRADIENT.work(asked))) / 2
    history = found[0].history
    benchmark.extra_info.update(
        passes=len(history) - 1, ratios=[took / unit], before=history[0].mean().item(), after=history[-1].mean().item()
    )


def _or_error(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        return error


def _one(asked: Subject) -> Subject:
    return Subject(asked.name, asked.model, asked.x[:1], asked.target[:1])


def _saved(asked: Subject) -> int:
    """Bytes that one image's forward keeps for its backward."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        asked.model(asked.x[:1].clone().requires_grad_())
    return sum(kept.values()) - sum(p.nbytes for p in asked.model.parameters() if p.data_ptr() in kept)


def _layers(asked: Subject) -> list[tuple[nn.Conv2d | nn.Linear, torch.Tensor, torch.Tensor]]:
    """Each convolution and linear module with an input and an output of it."""
    found = []

    def keep(module: nn.Conv2d | nn.Linear, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        found.append((module, inputs[0], output))

    handles = [m.register_forward_hook(keep) for m in asked.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        asked.model(asked.x)
    for handle in handles:
        handle.remove()
    return found


def _kernels(layer: nn.Conv2d | nn.Linear, x: torch.Tensor, y: torch.Tensor, edges: bool) -> None:
    """What z+ needs in a convolution: one more forward, and, of inputs of both signs, another and a backward; or, for edges,
    a weight gradient, in linear layers of tokens too."""
    if isinstance(layer, nn.Linear):
        if edges and x.ndim > 2:  # of a row a sample, a weight gradient can be saved
            torch.mm(y.flatten(0, -2).T, x.flatten(0, -2))
        return
    if edges:
        _backward(layer, x, y, (False, True, False))
        return
    with torch.no_grad():
        layer._conv_forward(x, layer.weight, None)
        if not layer.__dict__.setdefault("nonnegative", bool((x >= 0).all())):
            layer._conv_forward(x, layer.weight, None)
            _backward(layer, x, y, (True, False, False))


def _backward(layer: nn.Conv2d, x: torch.Tensor, y: torch.Tensor, wanted: tuple[bool, bool, bool]) -> None:
    torch.ops.aten.convolution_backward(
        y, x, layer.weight, None, layer.stride, layer.padding, layer.dilation, False, [0, 0], layer.groups, wanted
    )


_FAMILIES = {
    "convolutions, products": ("conv", "mm", "bmm", "attention", "linear", "matmul"),
    "copies": ("copy_", "clone", "fill_", "zero_", "cat", "empty", "contiguous", "pad", "index", "gather", "scatter"),
}


def _family(key: str) -> str:
    name = key.removeprefix("aten::")
    return next((family for family, parts in _FAMILIES.items() if any(part in name for part in parts)), "element-wise")
