"""Budgets by layer, and layers left whole."""

from __future__ import annotations

import pytest
import torch
from small_networks import cnn, mlp

from lrp_lightning import PerLayer, SelectiveLRP, TopK
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
        with pytest.raises(LayerError, match=r"layer 'head\.\*' is none of the hidden layers '0', '4'"):
            SelectiveLRP(cnn(), selection=selection).attribute(torch.rand(3, 1, 8, 8), target=1)
    with pytest.raises(SelectionError, match="default must be a selection"):
        PerLayer(0.1)  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match=r"features\.0 must be a selection"):
        PerLayer(TopK(1), layers={"features.0": 3})  # type: ignore[dict-item]
