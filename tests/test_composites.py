"""Which layer gets which rule."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from lrp_lightning import (
    AlphaBeta,
    Composite,
    Epsilon,
    EpsilonAlpha2Beta1,
    EpsilonGammaBox,
    EpsilonPlus,
    Flat,
    Gamma,
    Pass,
    SelectiveLRP,
    WSquare,
    ZBox,
    ZPlus,
)
from lrp_lightning.composites import as_composite
from lrp_lightning.errors import LayerError, RuleError
from lrp_lightning.rules import Rule


@pytest.mark.parametrize(
    ("composite", "convolution", "linear", "normalisation", "first"),
    [
        (EpsilonPlus(), ZPlus(), Epsilon(), Epsilon(), ZPlus()),
        (EpsilonPlus(1e-3), ZPlus(1e-3), Epsilon(1e-3), Epsilon(1e-3), ZPlus(1e-3)),
        (EpsilonAlpha2Beta1(), AlphaBeta(2, 1), Epsilon(), Epsilon(), AlphaBeta(2, 1)),
        (EpsilonGammaBox(0.0, 1.0), Gamma(0.25), Epsilon(), Epsilon(), ZBox(0.0, 1.0)),
        (EpsilonGammaBox(0.0, 1.0, 0.5, 1e-3), Gamma(0.5, 1e-3), Epsilon(1e-3), Epsilon(1e-3), ZBox(0.0, 1.0, 1e-3)),
        (Composite(Flat()), Flat(), Flat(), Flat(), Flat()),
        (Composite(Epsilon(), linear=Gamma()), Epsilon(), Gamma(), Epsilon(), Epsilon()),
    ],
    ids=lambda v: f"{v.default}" if isinstance(v, Composite) else "",
)
def test_rule_by_kind(composite: Composite, convolution: Rule, linear: Rule, normalisation: Rule, first: Rule) -> None:
    assert composite.rule_for("a", "convolution", first=False) == convolution
    assert composite.rule_for("a", "linear", first=False) == linear
    assert composite.rule_for("a", "normalisation", first=False) == normalisation
    assert composite.rule_for("a", "convolution", first=True) == first


def test_pattern_then_first_then_kind_then_default() -> None:
    composite = Composite(
        Epsilon(), convolution=ZPlus(), first=WSquare(), layers={"features.1?": Gamma(), "*.1*": Flat(), "head": Pass()}
    )
    assert composite.rule_for("features.10", "convolution", first=True) == Gamma()  # the first pattern that matches
    assert composite.rule_for("features.1", "convolution", first=True) == Flat()
    assert composite.rule_for("features.0", "convolution", first=True) == WSquare()
    assert composite.rule_for("features.0", "convolution", first=False) == ZPlus()
    assert composite.rule_for("head", "linear", first=False) == Pass()
    assert composite.rule_for("Head", "linear", first=False) == Epsilon()  # names are case-sensitive


class Branches(nn.Module):
    """Two convolutions read the input, one through movement and normalisation, and a third comes after them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.later = nn.Conv2d(4, 4, 3)  # registered first, and yet not the first
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(16, 3)
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        normalised = (x - self.mean) / 0.25
        left, right = self.left(x), self.right(normalised.flip(3))
        return self.head(torch.relu(self.later(torch.relu(left + right))).flatten(1))


def relevance(model: nn.Module, composite: Composite | Rule | str, x: Tensor) -> Tensor:
    return SelectiveLRP(model, composite).attribute(x, 1)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def same_relevance(x: Tensor, composite: Composite, layers: Mapping[str, Rule]) -> None:
    model = Branches().double().eval()
    by_name = relevance(model, Composite(Epsilon(), layers=layers), x)
    assert torch.equal(relevance(model, composite, x), by_name)
    assert not torch.allclose(by_name, relevance(model, Epsilon(), x), rtol=1e-3)  # the rules make a difference


def test_first_is_every_layer_that_reads_the_input(x: Tensor) -> None:
    same_relevance(x, Composite(Epsilon(), first=Gamma(5.0)), {"left": Gamma(5.0), "right": Gamma(5.0)})


def test_first_is_above_the_kind(x: Tensor) -> None:
    composite = Composite(Epsilon(), convolution=ZPlus(), first=Gamma(5.0), linear=AlphaBeta(2, 1))
    layers = {"left": Gamma(5.0), "right": Gamma(5.0), "later": ZPlus(), "head": AlphaBeta(2, 1)}
    same_relevance(x, composite, layers)


def test_patterns_in_a_pass(x: Tensor) -> None:
    same_relevance(x, Composite(Epsilon(), layers={"l*": ZPlus()}), {"left": ZPlus(), "later": ZPlus()})


def test_a_layer_after_an_activation_is_not_first() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    x = torch.rand(2, 4, dtype=torch.float64)
    assert torch.equal(relevance(model, Composite(Epsilon(), first=Flat()), x), relevance(model, Epsilon(), x))


def test_a_rule_for_one_of_two_calls_of_a_layer() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(16, 16), nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.layer(torch.relu(self.layer(x)))))

    torch.manual_seed(0)
    model, x = Twice().double(), torch.rand(2, 16, dtype=torch.float64)
    one, two, both = (
        relevance(model, Composite(Epsilon(), layers={name: ZPlus()}), x) for name in ("layer#1", "layer#2", "layer#?")
    )
    assert not torch.allclose(one, two)
    assert not torch.allclose(both, one)
    assert not torch.allclose(both, two)


@pytest.mark.parametrize("pattern", ["feature.*", "conv", "HEAD", "head.weight"])
def test_a_pattern_that_fits_no_layer(pattern: str, x: Tensor) -> None:
    with pytest.raises(LayerError) as caught:
        relevance(Branches().double(), Composite(Epsilon(), layers={"head": ZPlus(), pattern: ZPlus()}), x)
    assert repr(pattern) in str(caught.value)
    assert "'left', 'right'" in str(caught.value)  # what would be right
    assert isinstance(caught.value, KeyError)


@pytest.mark.parametrize("no_rule", [Epsilon, "epsilon", EpsilonPlus(), 1e-6], ids=["maker", "name", "composite", "eps"])
@pytest.mark.parametrize("place", ["default", "convolution", "linear", "first", "layers"])
def test_what_is_no_rule(place: str, no_rule: object) -> None:
    given = {"default": Epsilon()} | {place: {"head": no_rule} if place == "layers" else no_rule}
    with pytest.raises(RuleError, match=f"{'head' if place == 'layers' else place} must be a rule such as"):
        Composite(**given)  # type: ignore[arg-type]


def test_default_is_needed() -> None:
    with pytest.raises(RuleError, match="default must be a rule"):
        Composite(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "composite"),
    [
        ("epsilon", Composite(Epsilon())),
        ("epsilon_plus", EpsilonPlus()),
        ("epsilon_alpha2_beta1", EpsilonAlpha2Beta1()),
        (Flat(), Composite(Flat())),
        (EpsilonPlus(1e-3), EpsilonPlus(1e-3)),
    ],
    ids=repr,
)
def test_what_stands_for_a_composite(given: Composite | Rule | str, composite: Composite) -> None:
    assert as_composite(given) == composite
    assert SelectiveLRP(nn.Linear(2, 2), given).composite == composite


@pytest.mark.parametrize(
    "given", ["epsilon_minus", "", None, EpsilonPlus, 3, {"default": Epsilon()}], ids=lambda v: type(v).__name__
)
def test_what_is_no_composite(given: object) -> None:
    with pytest.raises(RuleError, match=r"composite must be.*epsilon_plus.*; got"):
        SelectiveLRP(nn.Linear(2, 2), given)  # type: ignore[arg-type]


def test_composites_are_values() -> None:
    one, other = EpsilonGammaBox((0.0,) * 3, (1.0,) * 3), EpsilonGammaBox((0.0,) * 3, (1.0,) * 3)
    assert one == other
    assert hash(one) == hash(other)
    assert len({EpsilonPlus(), EpsilonPlus(), EpsilonPlus(1e-3), EpsilonAlpha2Beta1()}) == 3
    assert "ZPlus(eps=1e-06)" in repr(EpsilonPlus())
