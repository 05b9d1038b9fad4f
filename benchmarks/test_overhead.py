"""The cost of the function mode per operator, compared with eager hooks, for a network of 500 tiny layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from methods import GRADIENT, METHODS, Method
from models import Subject
from peers import zennit
from torch import Tensor, nn

LAYERS = 500
KINDS = {
    "convolution": (lambda: nn.Conv2d(8, 8, 1, bias=False), (1, 8, 4, 4)),
    "linear": (lambda: nn.Linear(8, 8, bias=False), (1, 8)),
}


class Deep(nn.Module):
    """Successive layers, each the identity, so that relevance does not vanish."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(make() for _ in range(LAYERS)))
        for weight in self.parameters():
            nn.init.dirac_(weight) if weight.ndim > 2 else nn.init.eye_(weight)
        spatial = isinstance(self.layers[0], nn.Conv2d)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()) if spatial else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x))


def by_hooks(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Epsilon with the minimum that hooks need: each module keeps its output, and scales the gradient that arrives at it."""
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        outputs[module] = output.detach()

    def scale(module: nn.Module, gradients: tuple[Tensor]) -> tuple[Tensor]:
        z = outputs.pop(module)
        return (gradients[0] * (z / (z + 1e-6 * (z.sign() + (z == 0)))),)

    layers = list(model.layers)  # type: ignore[arg-type]
    handles = [layer.register_forward_hook(keep) for layer in layers]
    handles += [layer.register_full_backward_pre_hook(scale) for layer in layers]
    try:
        return GRADIENT.explain(model, x, target)
    finally:
        for handle in handles:
            handle.remove()


HOOKS = Method("eager hooks", by_hooks)
EPSILON = METHODS["epsilon"]
ZENNIT = Method("zennit", lambda model, x, target: zennit("epsilon", model, x, target, canonized=False), package="zennit")
PAIRS = {
    "ours over plain": (GRADIENT, EPSILON),
    "eager hooks over plain": (GRADIENT, HOOKS),
    "ours over eager hooks": (HOOKS, EPSILON),
    "zennit over plain": (GRADIENT, ZENNIT),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("kind", KINDS)
def test_overhead(
    benchmark: Any, record: Callable[..., None], compare: Callable[..., None], device: str, kind: str, pair: str
) -> None:
    torch.manual_seed(0)
    make, shape = KINDS[kind]
    net = Subject(
        kind,
        Deep(make).eval().to(device),
        1 + torch.rand(shape, device=device),
        torch.zeros(1, dtype=torch.long, device=device),
    )
    record("overhead", layer=kind, pair=pair)
    unit, work = (method.work(net) for method in PAIRS[pair])
    torch.testing.assert_close(work(), GRADIENT.work(net)(), rtol=1e-2, atol=1e-5)
    compare(unit, work)
    if (seconds := benchmark.extra_info.get("unit_seconds")) is not None:
        benchmark.extra_info["microseconds"] = [
            (ratio - 1) * seconds / LAYERS * 1e6 for ratio in benchmark.extra_info["ratios"]
        ]
