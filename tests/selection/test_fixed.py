"""The neurons that the caller names, and nothing else."""

from __future__ import annotations

import pytest
import torch
from small_networks import cnn
from torch import Tensor, nn

from lrp_lightning import Fixed, SelectiveLRP, TopK
from lrp_lightning.errors import LayerError, SelectionError

NEURONS = [
    (2, [2]),
    ([1, 5], [1, 5]),
    ((5, 1, 1), [1, 5]),
    (range(3), [0, 1, 2]),
    (torch.tensor([3, 0]), [0, 3]),
    (torch.tensor(3), [3]),
    ({5, 1}, [1, 5]),
    (frozenset({4}), [4]),
    ([], []),
    (torch.arange(8) % 3 == 0, [0, 3, 6]),
]


@pytest.mark.parametrize(("neurons", "kept"), NEURONS, ids=[repr(n)[:20] for n, _ in NEURONS])
def test_fixed_keeps_what_the_caller_names(neurons: object, kept: list[int]) -> None:
    trace = SelectiveLRP(cnn(), selection=Fixed({"0": neurons})).trace(torch.rand(3, 1, 8, 8), target=1)  # type: ignore[dict-item]
    assert list(trace.masks) == ["0"]  # what is not named is left whole
    for row in trace.masks["0"]:
        assert row.nonzero().flatten().tolist() == kept
    assert trace.conservation_error.max() < 1e-5


def test_fixed_is_the_pass_of_each_neuron_and_they_add_up() -> None:
    """(N, C) masks: one batched pass for all neurons of a layer, against one pass each, and their sum against the whole."""
    model, x = cnn().double(), torch.rand(1, 1, 8, 8, dtype=torch.double)
    whole = SelectiveLRP(model).trace(x, target=1)
    together = SelectiveLRP(model, selection=Fixed({"4": torch.eye(16, dtype=torch.bool)})).trace(
        x.expand(16, -1, -1, -1), target=1
    )
    one_by_one = [SelectiveLRP(model, selection=Fixed({"4": n})).attribute(x, target=1) for n in range(16)]
    torch.testing.assert_close(together.inputs, torch.cat(one_by_one))
    assert isinstance(together.inputs, Tensor)
    torch.testing.assert_close(together.inputs.sum(0, keepdim=True), whole.inputs)


def test_fixed_by_module_and_of_the_masks_of_a_trace() -> None:
    model, x = cnn(), torch.rand(3, 1, 8, 8)
    by_name, by_module = (SelectiveLRP(model, selection=Fixed({key: 2})).attribute(x, target=1) for key in ("4", model[4]))
    assert torch.equal(by_name, by_module)
    top = SelectiveLRP(model, selection=TopK(3)).trace(x, target=1)
    again = SelectiveLRP(model, selection=Fixed(top.masks)).trace(x, target=1)
    assert torch.equal(again.inputs, top.inputs)
    assert hash(Fixed(top.masks))


@pytest.mark.parametrize("layer", ["7", "2", "conv", "input"])
def test_fixed_of_a_layer_that_has_no_neurons_to_select(layer: str) -> None:
    with pytest.raises(LayerError, match=rf"layer '{layer}' matches no hidden layer;.* hidden layers are '0', '4'"):
        SelectiveLRP(cnn(), selection=Fixed({layer: 0})).attribute(torch.rand(3, 1, 8, 8), target=1)
    with pytest.raises(LayerError, match="Conv2d is neither a module of the model nor"):
        SelectiveLRP(cnn(), selection=Fixed({nn.Conv2d(1, 1, 1): 0})).attribute(torch.rand(3, 1, 8, 8), target=1)


@pytest.mark.parametrize(
    "neurons", ["2", "", 1.0, [1.5], True, [True, False], None, torch.rand(8), {"a": 1}, torch.tensor(True)]
)
def test_fixed_of_what_are_no_neurons(neurons: object) -> None:
    with pytest.raises(SelectionError, match="neurons of layer '0' must be"):
        Fixed({"0": neurons})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("neurons", "message"),
    [
        (8, "layer '0' has 8 neurons, 0 to 7, got 8"),
        ([7, 9, 12], "0 to 7, got 9"),
        ([0, -1], "0 to 7, got -1"),
        (torch.ones(7, dtype=torch.bool), r"shape \(7,\).*must be \(8,\) or \(3, 8\)"),
        (torch.ones(2, 8, dtype=torch.bool), r"shape \(2, 8\).*must be \(8,\) or \(3, 8\)"),
        (torch.ones(3, 8, 2, 2, dtype=torch.bool), r"torch.bool \(3, 8, 2, 2\) for layer '0'"),
    ],
)
def test_fixed_that_does_not_fit_its_layer(neurons: object, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        SelectiveLRP(cnn(), selection=Fixed({"0": neurons})).attribute(torch.rand(3, 1, 8, 8), target=1)  # type: ignore[dict-item]


def test_fixed_needs_a_mapping() -> None:
    with pytest.raises(SelectionError, match=r"expected \{layer: neurons\}, got list"):
        Fixed([("0", 1)])  # type: ignore[arg-type]


def test_elements_by_the_caller() -> None:
    model, x = cnn(), torch.rand(3, 1, 8, 8)
    top = SelectiveLRP(model, selection=TopK(0.2, unit="element")).trace(x, target=1)
    again = SelectiveLRP(model, selection=Fixed(top.masks)).trace(x, target=1)
    assert torch.equal(again.inputs, top.inputs)


def test_elements_of_a_sequence_by_the_caller() -> None:
    """A mask with three dimensions is one of single values, not one of channels that does not fit."""
    mask = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(Fixed({"0": mask}).select(torch.rand(2, 4), layer="0", output=torch.ones(2)), mask)
