"""Budgets by layer, and layers left whole."""

from __future__ import annotations

import pytest
import torch
from small_networks import cnn, convolutions, mlp

from lrp_lightning import Fixed, MinError, PerLayer, SelectiveLRP, TopK
from lrp_lightning.errors import LayerError, SelectionError


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
