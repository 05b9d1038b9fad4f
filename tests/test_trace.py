"""What a pass leaves behind: names in the order of the forward, nothing attached, everything accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields

import pytest
import torch
import torch.nn.functional as F
from small_networks import convolutions
from torch import Tensor, nn

from lrp_lightning import SelectiveLRP, TopK, Trace
from lrp_lightning.errors import LayerError


class Residual(nn.Module):
    """Registered in another order than it runs in; a block, a shared convolution, and two heads' worth of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 4)
        self.shared = nn.Conv2d(6, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.stem = nn.Conv2d(2, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        y = self.shared(F.relu(self.shared(x)))
        return self.head(F.relu(x + y).mean([2, 3]))


@pytest.fixture
def trace() -> Trace:
    torch.manual_seed(0)
    return SelectiveLRP(Residual(), selection=TopK(2)).trace(torch.rand(3, 2, 7, 7), target=1, edges=True)


def hand_made(inputs: Tensor | tuple[Tensor, ...], explained: Tensor, absorbed: dict[str, Tensor]) -> Trace:
    return Trace(inputs, explained[:, None], explained, relevance={}, kinds={}, places={}, absorbed=absorbed)


def test_names_stand_in_the_order_of_the_forward(trace: Trace) -> None:
    order = ["input", "stem", "shared#1", "shared#2", "add", "head"]
    assert list(trace.relevance) == order
    assert list(trace.kinds) == order
    assert list(trace.activation) == order
    assert list(trace.masks) == ["stem", "shared#1", "shared#2"]
    assert list(trace.edges) == [
        ("input", "stem"), ("stem", "shared#1"), ("shared#1", "shared#2"), ("stem", "add"), ("shared#2", "add"),
        ("add", "head"),
    ]  # fmt: skip
    where = [name.split(".")[0] for name in trace.absorbed]
    assert where == sorted(where, key=order.index)


def test_kinds_and_shapes(trace: Trace) -> None:
    assert trace.kinds == {
        "input": "input", "stem": "convolution", "shared#1": "convolution", "shared#2": "convolution", "add": "junction",
        "head": "linear",
    }  # fmt: skip
    neurons = {"input": 2, "stem": 6, "shared#1": 6, "shared#2": 6, "add": 6, "head": 4}
    assert {name: tuple(r.shape) for name, r in trace.relevance.items()} == {name: (3, c) for name, c in neurons.items()}
    assert {name: tuple(a.shape) for name, a in trace.activation.items()} == {name: (3, c) for name, c in neurons.items()}
    for (lower, upper), edges in trace.edges.items():
        expected = (neurons[upper],) if upper == "add" else (neurons[lower], neurons[upper])
        assert tuple(edges.shape) == expected
    assert all(mask.dtype == torch.bool for mask in trace.masks.values())
    assert trace.inputs.shape == (3, 2, 7, 7)  # type: ignore[union-attr]
    assert (trace.output.shape, trace.explained.shape) == ((3, 4), (3,))
    assert torch.equal(trace.explained, trace.output[:, 1])
    assert all(stayed.shape == (3,) for stayed in trace.absorbed.values())


def test_what_was_not_asked_for_is_empty() -> None:
    trace = SelectiveLRP(Residual()).trace(torch.rand(1, 2, 7, 7), target=1)
    assert (trace.masks, trace.edges, trace.activation) == ({}, {}, {})


def tensors(trace: Trace) -> Iterator[tuple[str, Tensor]]:
    for field in fields(trace):
        value = getattr(trace, field.name)
        for key, t in value.items() if isinstance(value, dict) else [("", value)]:
            if isinstance(t, Tensor):
                yield f"{field.name} {key}", t


def test_nothing_is_attached_to_the_pass(trace: Trace) -> None:
    found = dict(tensors(trace))
    assert {name.split()[0] for name in found} == {
        "inputs", "output", "explained", "relevance", "activation", "masks", "edges", "absorbed", "absorbed_by",
    }  # fmt: skip
    assert [name for name, t in found.items() if t.requires_grad or t.grad_fn is not None or t.is_inference()] == []


def test_nothing_is_an_inference_tensor_even_when_made_under_inference_mode() -> None:
    lrp = SelectiveLRP(Residual(), selection=TopK(2))
    with torch.inference_mode():
        trace = lrp.trace(torch.rand(1, 2, 7, 7), target=1, edges=True)
    assert [name for name, t in tensors(trace) if t.is_inference() or t.requires_grad] == []


def test_conservation_error_is_what_is_not_accounted_for() -> None:
    explained = torch.tensor([2.0, -4.0, 1.0])
    inputs = torch.tensor([[1.0, 0.5], [-1.0, -1.0], [0.0, 0.0]])
    absorbed = {"bias": torch.tensor([0.5, 0.0, 0.25]), "stabiliser": torch.tensor([0.0, -1.0, 0.25])}
    error = hand_made(inputs, explained, absorbed).conservation_error
    torch.testing.assert_close(error, torch.tensor([0.0, 0.25, 0.5]))
    assert error.dtype == explained.dtype
    halves = hand_made((inputs[:, :1], inputs[:, 1:]), explained, absorbed)  # several inputs count together
    assert torch.equal(halves.conservation_error, error)


def test_conservation_error_is_added_up_in_double_precision() -> None:
    many = torch.full((1, 10_000), 1e-4)
    many[0, 0] = 1e4
    exact = many.double().sum()
    assert hand_made(many, exact[None].float(), {}).conservation_error < 1e-7


def test_repr_shows_layers_with_their_critical_neurons(trace: Trace) -> None:
    first, *rows, last = repr(trace).splitlines()
    assert first.startswith("Trace of 3 samples through 5 layers, conservation error at most ")
    assert float(first.rsplit(" ", 1)[1]) == pytest.approx(trace.conservation_error.max().item(), rel=0.1)
    assert [row.split()[:3] for row in rows] == [
        [name, kind, str(trace.relevance[name].shape[1])] for name, kind in trace.kinds.items()
    ]
    assert [row.split()[0] for row in rows if row.endswith("    2 critical")] == list(trace.masks)
    assert last == "  edges between 6 pairs of layers"


def test_repr_of_one_sample_without_selection() -> None:
    text = repr(SelectiveLRP(nn.Sequential(nn.Linear(3, 2))).trace(torch.rand(1, 3), target=0))
    assert text.startswith("Trace of 1 sample through 1 layer,")
    assert "critical" not in text
    assert "edges" not in text


def test_a_trace_is_not_changed_by_accident(trace: Trace) -> None:
    with pytest.raises(FrozenInstanceError):
        trace.output = torch.zeros(3, 4)  # type: ignore[misc]
    assert trace != SelectiveLRP(Residual()).trace(torch.rand(3, 2, 7, 7), target=1)  # eq by identity: no ambiguous truth
    assert trace == trace


def test_one_sample_of_tokens_is_explained_as_among_others() -> None:
    """Heads, split from samples by a view, are not taken for samples where there is only one."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0).eval()
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(80, 3))
    x = torch.randn(3, 5, 16)
    lrp = SelectiveLRP(model, selection=TopK(4))
    together, alone = lrp.trace(x, target=1), lrp.trace(x[:1], target=1)
    assert list(alone.relevance) == list(together.relevance)
    for name, relevance in alone.relevance.items():
        torch.testing.assert_close(relevance, together.relevance[name][:1], rtol=1e-4, atol=1e-5)
    for name, mask in alone.masks.items():
        assert torch.equal(mask, together.masks[name][:1])


def test_places_are_the_values_of_a_neuron() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))
    trace = SelectiveLRP(model).trace(torch.rand(2, 3, 8, 8), target=1)
    assert trace.places == {"input": 64, "0": 36, "5": 1}
    tokens = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 6), nn.ReLU(), nn.Flatten(), nn.Linear(42, 2))
    assert SelectiveLRP(tokens, "epsilon").trace(torch.randint(9, (2, 7)), target=1).places == {"input": 7, "1": 7, "4": 1}


def test_neurons_place_by_place_are_what_arrived_at_them() -> None:
    torch.manual_seed(0)
    model = convolutions(1, 4, side=5, classes=3)
    x = torch.rand(5, 1, 5, 5)
    trace = SelectiveLRP(model).trace(x, target=1, by_place={"0": [3, 1], "3": (1,)})
    activation, relevance = trace.by_place["0"]
    with torch.no_grad():
        torch.testing.assert_close(activation, model[:2](x).flatten(2)[:, [3, 1]])
    torch.testing.assert_close(relevance.sum(2), trace.relevance["0"][:, [3, 1]])
    assert trace.by_place["3"][0].shape == (5, 1, 1)
    assert SelectiveLRP(model).trace(x, target=1).by_place == {}
    with pytest.raises(LayerError, match="0 to 3, got 4"):
        SelectiveLRP(model).trace(x, target=1, by_place={"0": [4]})
    with pytest.raises(LayerError, match="'1'"):
        SelectiveLRP(model).trace(x, target=1, by_place={"1": [0]})
