"""A pass that keeps no accounts gives the relevance that one with them does, for fewer operators, and refuses the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import small_networks
import torch
import zoo
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lrp_lightning import (
    Composite,
    Coverage,
    Epsilon,
    EpsilonAlpha2Beta1,
    EpsilonGammaBox,
    EpsilonPlus,
    Gamma,
    LayerSelectiveLRP,
    Pass,
    SelectiveLRP,
    TopK,
)
from lrp_lightning.errors import UnsupportedOperatorError
from lrp_lightning.rules import as_rule
from lrp_lightning.selection import Selection

COMPOSITES = {
    "epsilon": Epsilon(),
    "epsilon_plus": EpsilonPlus(),
    "gamma_box": EpsilonGammaBox(0.0, 1.0),
    "alpha_beta": EpsilonAlpha2Beta1(),
    "gamma": Gamma(),
}
SELECTIONS = {
    "whole": None,
    "topk": TopK(0.3),
    "rescaled": Coverage(0.8, rescale=True),
    "element": TopK(0.3, unit="element"),
}


class Block(nn.Module):
    """A residual block of signs of both kinds, with a gate, constants, a normalisation, and a softplus that absorbs."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.writes, self.gate = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 6)
        self.fold, self.norm, self.head = nn.BatchNorm2d(6), nn.GroupNorm(2, 6), nn.Linear(6, 4)
        for t in (*self.fold.parameters(), *self.norm.parameters()):
            nn.init.normal_(t)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.silu(self.reads(x)) + 0.5
        h = h + self.fold(self.writes(h)) * torch.sigmoid(self.gate(h.mean((2, 3))))[:, :, None, None]
        return self.head(nn.functional.softplus(self.norm(h)).amax((2, 3)))


def networks() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]:
    return {"mlp": (lambda: small_networks.mlp(5, 8, 8, 4), (5,)), "cnn": (small_networks.cnn, (1, 8, 8)),
            "block": (Block, (3, 6, 6))}  # fmt: skip


def made(network: str, samples: int = 3) -> tuple[nn.Module, Tensor]:
    make, shape = networks()[network]
    torch.manual_seed(0)
    model = make().eval()
    return model, torch.rand(samples, *shape)


class Count(TorchDispatchMode):
    """How many operators run."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        self.operators += 1
        return func(*args, **kwargs or {})


def operators(work: Callable[[], Any]) -> int:
    with Count() as count:
        work()
    return count.operators


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("network", networks())
def test_relevance_is_the_same_bit_for_bit(network: str, composite: str, selection: str) -> None:
    model, x = made(network)
    lrp = SelectiveLRP(model, COMPOSITES[composite], SELECTIONS[selection])
    trace = lrp.trace(x, target=1)
    relevance, delta = lrp.attribute(x, target=1, return_convergence_delta=True)
    assert relevance.any()
    assert torch.equal(relevance, trace.inputs)
    assert torch.equal(delta, lrp.compute_convergence_delta(trace.inputs, trace.explained))


def test_of_a_rule_that_passes_relevance_through_too() -> None:
    model, x = made("mlp")
    lrp = SelectiveLRP(model, Composite(Epsilon(), layers={"2": Pass()}))
    assert torch.equal(lrp.attribute(x, target=1), lrp.trace(x, target=1).inputs)


@pytest.mark.parametrize("selection", [None, TopK(0.3)], ids=["whole", "topk"])
@pytest.mark.parametrize("network", networks())
def test_of_a_layer_too(network: str, selection: Selection | None) -> None:
    model, x = made(network)
    lrp = LayerSelectiveLRP(model, None, EpsilonPlus(), selection)
    trace, found = lrp.trace(x, target=1), lrp.attribute(x, target=1)
    layers = [name for name in trace.relevance if trace.kinds[name] != "input"]
    for layer, relevance in zip(layers, found, strict=True):
        total = trace.relevance[layer].sum(1)
        torch.testing.assert_close(relevance.flatten(1).sum(1), total, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121", "convnext_tiny", "swin_t", "vit_b_32"])
def test_of_the_zoo(name: str) -> None:
    model, x = zoo.build(name)
    for composite in COMPOSITES.values():
        lrp = SelectiveLRP(model, composite, TopK(0.1))
        assert torch.equal(lrp.attribute(x, target=1), lrp.trace(x, target=1).inputs), composite


@pytest.mark.parametrize("selection", [None, TopK(0.3)], ids=["whole", "topk"])
@pytest.mark.parametrize("network", networks())
def test_fewer_operators_run(network: str, selection: Selection | None) -> None:
    model, x = made(network)
    lrp = SelectiveLRP(model, EpsilonPlus(), selection)
    counted = operators(lambda: lrp.trace(x, target=1))
    assert operators(lambda: lrp.attribute(x, target=1)) < 0.9 * counted
    assert operators(lambda: lrp.attribute(x, target=1, verbose=True)) >= counted  # it prints them


def test_what_is_printed_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    model, x = made("cnn")
    SelectiveLRP(model).attribute(x, target=1, verbose=True)
    assert capsys.readouterr().out == f"{SelectiveLRP(model).trace(x, target=1)}\n"


class BesideConstants(nn.Module):
    """A constant row beside those of the samples, of which it gets some relevance."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.first, self.head, self.scale = nn.Linear(3, 4), nn.Linear(4, 2, bias=False), scale

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        y = self.head(torch.cat([h, torch.ones_like(h[:1])]))
        return y[: len(x)] + self.scale * y[len(x) :]


@pytest.mark.parametrize("ask", [SelectiveLRP.attribute, SelectiveLRP.trace])
def test_relevance_in_rows_of_no_sample_is_refused(ask: Callable) -> None:
    x = torch.rand(2, 3)
    with pytest.raises(UnsupportedOperatorError, match="belong to no sample"):
        ask(SelectiveLRP(BesideConstants(1.0), Epsilon()), x, target=1)
    ask(SelectiveLRP(BesideConstants(0.0), Epsilon()), x, target=1)


class Constant(nn.Module):
    """Constants that are added to rows beside those of the samples."""

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.cat([x, torch.ones_like(x[:1])]) + 1
        return rows[: len(x)] + rows[len(x) :]


@pytest.mark.parametrize("ask", [SelectiveLRP.attribute, SelectiveLRP.trace])
def test_what_a_constant_takes_in_such_rows_is_refused(ask: Callable) -> None:
    with pytest.raises(UnsupportedOperatorError, match="belong to no sample"):
        ask(SelectiveLRP(Constant(), Epsilon()), torch.rand(2, 3), target=1)


def test_captum_rules_of_an_absolute_stabiliser_too() -> None:
    from captum.attr._utils.lrp_rules import EpsilonRule, GammaRule

    model, x = made("cnn")
    for rule in (EpsilonRule(), GammaRule()):
        lrp = SelectiveLRP(model, as_rule(rule))
        assert torch.equal(lrp.attribute(x, target=1), lrp.trace(x, target=1).inputs)
