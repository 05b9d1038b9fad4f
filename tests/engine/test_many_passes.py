"""A hundred passes hold no more memory than a few: neither tensors, nor objects, nor bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from memory import held
from torch import Tensor, nn

from lrp_lightning import (
    LayerSelectiveLRP,
    MinError,
    SelectiveLRP,
    TopK,
    build_graph,
    k_best_paths,
    masked_forward,
    neuron_heatmaps,
    path_heatmaps,
    reconstruct,
)
from lrp_lightning.errors import LRPError

pytestmark = pytest.mark.slow

TIMES = 100
SPARED = 80
"""Objects that torch and Python make once, at some call or other."""


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.branch = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head((x + self.branch(x)).mean((2, 3)))


class Unsupported(Residual):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).cumprod(1)


def refused(work: Callable[[], object]) -> None:
    with pytest.raises(LRPError):
        work()


def works() -> dict[str, Callable[[], object]]:
    """By name what is done."""
    torch.manual_seed(0)
    model, x = Residual().train(), torch.rand(4, 3, 32, 32)
    lrp, searching = SelectiveLRP(model, selection=TopK(0.2)), SelectiveLRP(model, selection=MinError(max_passes=2))
    paths = k_best_paths(build_graph(lrp.trace(x, 1, edges=True)), k=2)
    return {
        "attribute": lambda: lrp.attribute(x, 1),
        "attribute of a layer": lambda: LayerSelectiveLRP(model, "branch").attribute(x, 1),
        "search": lambda: searching.attribute(x, 1),
        "trace with edges": lambda: lrp.trace(x, 1, edges=True),
        "graph": lambda: k_best_paths(build_graph(lrp.trace(x, 1, edges=True, per_sample=True)), k=2),
        "neuron_heatmaps": lambda: neuron_heatmaps(model, x, "first.0", [0, 1], target=1),
        "path_heatmaps": lambda: path_heatmaps(model, x, paths),
        "masked_forward": lambda: masked_forward(model, x, lrp.trace(x, 1).masks),
        "reconstruct": lambda: reconstruct(model, x, "first.0", [0, 1]),
        "errors": lambda: refused(lambda: SelectiveLRP(Unsupported()).attribute(x, 1)),
    }


def growth(work: Callable[[], object]) -> tuple[int, int, float]:
    """Tensors and objects of all times together, and bytes of one."""
    for _ in range(20):
        work()
    before = held()
    for _ in range(TIMES):
        work()
    after = held()
    return after.tensors - before.tensors, after.objects - before.objects, (after.resident - before.resident) / TIMES


@pytest.mark.parametrize("name", list(works()))
def test_nothing_stays(name: str) -> None:
    tensors, objects, resident = growth(works()[name])
    assert tensors == 0
    assert objects < SPARED
    assert resident < 5_000  # an input has 49,152


def test_what_stays_would_be_seen() -> None:
    kept: list[Tensor] = []
    work = works()["attribute"]
    tensors, objects, resident = growth(lambda: kept.append(work()))
    assert tensors == TIMES
    assert objects >= TIMES
    assert resident == 0 or resident > 45_000
