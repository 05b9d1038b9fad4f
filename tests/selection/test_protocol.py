"""What a selection of one's own is given, and what it must give."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, fields

import pytest
import torch
from small_networks import cnn
from torch import Tensor

from lrp_lightning import Agreement, Coverage, Fixed, MinError, PerLayer, SelectiveLRP, Threshold, TopK
from lrp_lightning.errors import SelectionError
from lrp_lightning.selection import Search, Selection


@dataclass(frozen=True)
class EveryOther:
    """A user's own selection: the even neurons, where the output is positive, all others else."""

    seen: list[tuple[str, tuple[int, ...], list[float]]]

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        self.seen.append((layer, tuple(relevance.shape), output.tolist()))
        even = torch.arange(relevance.shape[1], device=relevance.device) % 2 == 0
        return torch.where(output[:, None] > 0, even, ~even)


def test_a_selection_of_ones_own() -> None:
    model, x = cnn(), torch.randn(16, 1, 8, 8)
    own = EveryOther([])
    trace = SelectiveLRP(model, selection=own).trace(x, target=0)
    assert [(layer, shape) for layer, shape, _ in own.seen] == [("4", (16, 16)), ("0", (16, 8))]  # from the top down
    assert all(output == trace.explained.tolist() for *_, output in own.seen)
    assert trace.explained.min() < 0 < trace.explained.max()
    for mask in trace.masks.values():
        assert torch.equal(mask[:, ::2], (trace.explained > 0)[:, None].expand_as(mask[:, ::2]))
        assert torch.equal(mask[:, 1::2], (trace.explained <= 0)[:, None].expand_as(mask[:, 1::2]))
    assert trace.conservation_error.max() < 1e-4


@dataclass(frozen=True)
class Wrong:
    give: Callable[[Tensor], Tensor]

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        return self.give(relevance)


@pytest.mark.parametrize(
    "give",
    [lambda r: (r > 0).float(), lambda r: (r > 0)[0], lambda r: (r > 0)[:, :-1], lambda r: r.argmax(1)],
    ids=["float", "one for all samples", "a neuron short", "indices"],
)
def test_what_a_selection_must_give(give: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(SelectionError, match=r"layer '4'; it must give torch.bool \(3, 16\)"):
        SelectiveLRP(cnn(), selection=Wrong(give)).attribute(torch.rand(3, 1, 8, 8), target=0)


@pytest.mark.parametrize("selection", [TopK, 0.1, "top_k"])
def test_what_is_no_selection(selection: object) -> None:
    with pytest.raises(SelectionError, match="such as TopK"):
        SelectiveLRP(cnn(), selection=selection)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [TopK, Coverage, Threshold, Fixed, PerLayer, MinError, Agreement])
def test_every_selection_is_asked_in_the_same_way(kind: type) -> None:
    def asked(function: Callable[..., object]) -> list[tuple[str, object]]:
        return [(p.name, p.kind) for p in inspect.signature(function).parameters.values()]

    assert asked(kind.select) == asked(Selection.select)  # type: ignore[attr-defined]
    if hasattr(kind, "search"):
        assert asked(kind.search) == asked(Search.search)


@pytest.mark.parametrize(
    "selection",
    [TopK(1), Coverage(0.5), Threshold(0.5), Fixed({}), PerLayer(None), MinError(), Agreement()],
    ids=lambda selection: type(selection).__name__,
)
def test_a_selection_does_not_change(selection: Selection) -> None:
    for field in fields(selection):  # type: ignore[arg-type]
        with pytest.raises(FrozenInstanceError):
            setattr(selection, field.name, None)
