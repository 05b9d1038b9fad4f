"""Networks that change tensors in place, each beside its twin that does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrp_lightning import Epsilon, EpsilonPlus, LayerSelectiveLRP, SelectiveLRP, TopK, reconstruct

Form = Callable[["Twin", Tensor], Tensor]


class Twin(nn.Module):
    """Convolutions and a linear layer, used as ``form`` says; the same weights every time."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form = form
        self.one, self.two, self.three = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.fc = nn.BatchNorm2d(6), nn.Linear(6, 4)
        nn.init.normal_(self.norm.running_mean)
        self.eval().double()

    def head(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.form(self, x)


def statements(net: Twin, x: Tensor) -> Tensor:
    x = net.one(x)
    x.relu_()
    x.mul_(2.0)
    y = net.two(x)
    y += x
    F.relu(y, inplace=True)
    y.add_(0.5)
    return net.head(y)


def without_statements(net: Twin, x: Tensor) -> Tensor:
    x = net.one(x).relu() * 2.0
    return net.head((net.two(x) + x).relu() + 0.5)


def read_before(net: Twin, x: Tensor) -> Tensor:
    sum_ = net.two(net.one(x)) + net.one(x)
    raw = net.three(sum_)
    return net.head(sum_.relu_() + raw)


def read_without(net: Twin, x: Tensor) -> Tensor:
    sum_ = net.two(net.one(x)) + net.one(x)
    return net.head(sum_.relu() + net.three(sum_))


def folded(net: Twin, x: Tensor) -> Tensor:
    x = net.one(x)
    y = net.norm(x)
    return net.head(net.two(F.relu_(y)) + net.three(torch.relu_(x)))


def folded_without(net: Twin, x: Tensor) -> Tensor:
    x = net.one(x)
    return net.head(net.two(F.relu(net.norm(x))) + net.three(torch.relu(x)))


def returned(net: Twin, x: Tensor) -> Tensor:
    y = net.head(net.one(x))
    y.mul_(2.0)
    y.add_(net.head(net.two(net.one(x))))
    y.relu_()
    return y


def returned_without(net: Twin, x: Tensor) -> Tensor:
    return (net.head(net.one(x)) * 2.0 + net.head(net.two(net.one(x)))).relu()


FORMS: dict[str, tuple[Form, Form]] = {
    "statements": (statements, without_statements),
    "read before": (read_before, read_without),
    "folded": (folded, folded_without),
    "returned": (returned, returned_without),
}


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("edges", [False, True], ids=["", "edges"])
@pytest.mark.parametrize("selection", [None, TopK(0.5)], ids=["all", "selected"])
@pytest.mark.parametrize("composite", [EpsilonPlus(), Epsilon()], ids=["plus", "epsilon"])
@pytest.mark.parametrize("name", FORMS)
def test_relevance_is_that_of_the_twin(
    x: Tensor, name: str, composite: Epsilon, selection: TopK | None, edges: bool
) -> None:
    def highest(logits: Tensor) -> Tensor:
        return logits.argmax(1)

    ours, twins = (SelectiveLRP(Twin(f), composite, selection).trace(x, target=highest, edges=edges) for f in FORMS[name])
    with torch.no_grad():
        assert torch.equal(ours.output, Twin(FORMS[name][0])(x))
    assert twins.inputs.any()
    torch.testing.assert_close(ours.inputs, twins.inputs, atol=1e-10, rtol=1e-10)
    assert list(ours.edges) == list(twins.edges)
    assert bool(ours.edges) == edges
    for pair, relevance in twins.edges.items():
        torch.testing.assert_close(ours.edges[pair], relevance, atol=1e-10, rtol=1e-10)


class Block(nn.Module):
    """Ends in statements that change what it returns, or in none that do."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.conv, self.in_place = nn.Conv2d(3, 4, 3), in_place

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if not self.in_place:
            return x.relu() * 2.0
        x.relu_()
        x.mul_(2.0)
        return x


def of_blocks(in_place: bool) -> nn.Module:
    torch.manual_seed(0)
    block = Block(in_place)
    return nn.Sequential(block, nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 3)).double()


@pytest.mark.parametrize("of_input", [False, True], ids=["output", "input"])
@pytest.mark.parametrize("layer", ["0", "0.conv", "1"])
def test_relevance_at_a_layer_is_that_of_the_twin(x: Tensor, layer: str, of_input: bool) -> None:
    ours, twins = (
        LayerSelectiveLRP(of_blocks(in_place), layer).attribute(x, target=1, attribute_to_layer_input=of_input)
        for in_place in (True, False)
    )
    torch.testing.assert_close(ours, twins, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("layer", ["0", "0.conv"])
def test_reconstruction_is_that_of_the_twin(x: Tensor, layer: str) -> None:
    ours, twins = (reconstruct(of_blocks(in_place), x, layer, [0, 1]) for in_place in (True, False))
    assert twins.any()
    torch.testing.assert_close(ours, twins, atol=1e-10, rtol=1e-10)


def test_an_output_changed_through_a_view(x: Tensor) -> None:
    def through_a_view(net: Twin, x: Tensor) -> Tensor:
        y = net.head(net.one(x))
        y[:, :2].mul_(2.0)
        return y

    def without(net: Twin, x: Tensor) -> Tensor:
        y = net.head(net.one(x))
        return torch.cat([y[:, :2] * 2.0, y[:, 2:]], 1)

    ours, twins = (SelectiveLRP(Twin(form), Epsilon()).trace(x, target=0) for form in (through_a_view, without))
    torch.testing.assert_close(ours.output, twins.output)
    torch.testing.assert_close(ours.inputs, twins.inputs, atol=1e-10, rtol=1e-10)
