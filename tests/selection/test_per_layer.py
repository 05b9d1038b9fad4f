"""Budgets by layer, and layers left whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from small_networks import cnn, convolutions, mlp
from torch import Tensor

from lrp_lightning import Fixed, MinError, PerLayer, SelectiveLRP, TopK
from lrp_lightning.errors import LayerError, SelectionError
from lrp_lightning.selection import Selection


def test_per_layer_budgets_and_layers_left_whole() -> None:
    model, x = mlp(10, 32, 24, 16, 4), torch.randn(5, 10)
    budgets = PerLayer(TopK(3), layers={"2": TopK(0.5)}, exclude=("4",))
    trace = SelectiveLRP(model, selection=budgets).trace(x, target=2)
    assert {layer: mask.sum(1).tolist() for layer, mask in trace.masks.items()} == {"0": [3] * 5, "2": [12] * 5}
    assert PerLayer(None, layers={"[02]": TopK(1)}).in_layer("4") is None
    assert PerLayer(TopK(1), exclude="features.0").exclude == ("features.0",)  # type: ignore[arg-type]
    alike = SelectiveLRP(model, selection=PerLayer(TopK(3))).trace(x, target=2)
    assert torch.equal(alike.inputs, SelectiveLRP(model, selection=TopK(3)).attribute(x, target=2))


def test_per_layer_patterns_fit_a_layer() -> None:
    for selection in (PerLayer(TopK(1), layers={"head.*": TopK(2)}), PerLayer(TopK(1), exclude=("head.*",))):
        with pytest.raises(LayerError, match=r"layer 'head\.\*' matches no hidden layer;.* hidden layers are '0', '4'"):
            SelectiveLRP(cnn(), selection=selection).attribute(torch.rand(3, 1, 8, 8), target=1)
    with pytest.raises(SelectionError, match="default must be a selection"):
        PerLayer(0.1)  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match=r"features\.0 must be a selection"):
        PerLayer(TopK(1), layers={"features.0": 3})  # type: ignore[dict-item]
    with pytest.raises(SelectionError, match="default must be a selection"):
        PerLayer(TopK)  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match=r"layers must be \{pattern: selection\}, got list"):
        PerLayer(TopK(1), layers=[("0", TopK(1))])  # type: ignore[arg-type]


def test_a_layer_may_be_called_default() -> None:
    assert PerLayer(TopK(1), layers={"default": TopK(2)}).in_layer("default") == TopK(2)
    for default, layers in ((0.1, {"default": TopK(1)}), (TopK(1), {"default": None}), (TopK(1), {"0": None})):
        with pytest.raises(SelectionError, match="must be a selection such as TopK"):
            PerLayer(default, layers=layers)  # type: ignore[arg-type]


def test_the_first_match_decides_and_exceptions_come_before_it() -> None:
    budgets = PerLayer(TopK(1), layers={"a.*": TopK(2), "a.b": TopK(3)}, exclude=("*.c",))
    found = [budgets.in_layer(layer) for layer in ("a.b", "a.c", "b", "c", "A.b")]
    assert found == [TopK(2), None, TopK(1), TopK(1), TopK(1)]
    relevance = torch.tensor([[3.0, 1.0, 2.0]])
    kept = [budgets.select(relevance, layer=layer, output=torch.ones(1)) for layer in ("a.b", "a.c")]
    assert kept[0] is not None
    assert kept[0].tolist() == [[True, False, True]]
    assert kept[1] is None


def test_selections_by_layer_are_values() -> None:
    one, equal = (PerLayer(TopK(1), layers={"0": TopK(2)}, exclude=("1",)) for _ in range(2))
    assert one == equal
    assert hash(one) == hash(equal)


def test_layers_that_must_be_there() -> None:
    budgets = PerLayer(Fixed({"a": 0}), layers={"b.*": Fixed({"c": 1}), "d": TopK(1)}, exclude=("e",))
    assert list(budgets.patterns) == ["e", "b.*", "d", "a", "c"]


@dataclass(frozen=True)
class Looking:
    """A search that finds the first neuron of each of its layers."""

    layers: tuple[str, ...] = ()

    def within(self, layers: Callable[[str], bool]) -> Looking:
        return Looking(tuple(filter(layers, ("0", "2", "4"))))

    def search(self, *given: object) -> tuple[Selection, Tensor]:
        return Fixed(dict.fromkeys(self.layers, 0)), torch.tensor([[len(self.layers), len(given)]])

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        raise AssertionError("what it found selects")


def test_a_search_given_twice_searches_once_and_two_that_are_equal_twice() -> None:
    one, equal = Looking(), Looking()
    given = torch.nn.Identity(), torch.ones(1), None, None, None
    found, history = PerLayer(one, layers={"0": equal, "2": one, "4": TopK(1)}).search(*given)
    assert isinstance(found, PerLayer)
    assert [list(s.layers) for s in (found.default, *found.layers.values()) if isinstance(s, Fixed)] == [["2"], ["0"], ["2"]]
    assert found.default is found.layers["2"]
    assert found.layers["4"] == TopK(1)
    assert history is not None
    assert history.tolist() == [[1, 6], [1, 6]]
    assert PerLayer(TopK(1), layers={"0": TopK(2)}).search(*given) == (PerLayer(TopK(1), layers={"0": TopK(2)}), None)


def test_a_search_in_it_searches_in_its_own_layers() -> None:
    torch.manual_seed(0)
    model = mlp(8, 32, 24, 3)
    x = torch.randn(6, 8)
    selection = PerLayer(MinError(keep=0.25), layers={"2": TopK(0.5)})
    trace = SelectiveLRP(model, selection=selection).trace(x, 1)
    assert trace.history is not None
    assert (trace.history[-1] <= trace.history[0]).all()
    assert (trace.history[-1] < trace.history[0]).any()
    assert trace.masks["0"].sum(1).tolist() == [8] * 6
    assert trace.masks["2"].sum(1).tolist() == [12] * 6
    alone = SelectiveLRP(model, selection=PerLayer(MinError(keep=0.25), exclude=("2",))).trace(x, 1)
    assert torch.equal(alone.masks["0"], trace.masks["0"])  # the other layer is whole while it searches
    assert "2" not in alone.masks


def test_what_is_in_it_is_reached_through_it() -> None:
    torch.manual_seed(0)
    model = convolutions(1, 4, side=8, classes=3)
    x = torch.rand(2, 1, 8, 8)
    elements = TopK(10, unit="element")
    for selection in (PerLayer(elements), PerLayer(PerLayer(elements)), PerLayer(None, layers={"0": elements})):
        assert SelectiveLRP(model, selection=selection).trace(x, 1).masks["0"].shape == (2, 4, 6, 6)
    fixed = PerLayer(Fixed({model[0]: [1]}))
    assert SelectiveLRP(model, selection=fixed).trace(x, 1).masks["0"].nonzero()[:, 1].tolist() == [1, 1]
    with pytest.raises(LayerError, match="'5' matches no hidden layer"):
        SelectiveLRP(model, selection=PerLayer(Fixed({"5": [1]}))).trace(x, 1)
