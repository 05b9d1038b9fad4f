"""Every rule against its formula over a dense matrix, in float64."""

from __future__ import annotations

import pickle
from typing import NamedTuple

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lrp_lightning import AlphaBeta, Composite, Epsilon, Flat, Gamma, Pass, SelectiveLRP, WSquare, ZBox, ZPlus
from lrp_lightning.errors import LRPError, RuleError
from lrp_lightning.rules import Part, Rule, rule_on

pytestmark = pytest.mark.filterwarnings("ignore:.*values outside of its box")  # formulas hold for any input

EPS = 0.05  # large, so that a stabiliser of another scale or sign would show


class Case(NamedTuple):
    rule: Rule
    formula: oracles.Formula
    eps: float


RULES = {
    "epsilon": Case(Epsilon(EPS), oracles.epsilon(), EPS),
    "zplus": Case(ZPlus(EPS), oracles.zplus(), EPS),
    "gamma": Case(Gamma(0.25, EPS), oracles.gamma(0.25), EPS),
    "alpha2beta1": Case(AlphaBeta(2, 1, EPS), oracles.alpha_beta(2, 1), EPS),
    "alpha1beta0": Case(AlphaBeta(1, 0, EPS), oracles.alpha_beta(1, 0), EPS),
    "zbox": Case(ZBox(-3.0, 4.0, EPS), oracles.zbox(torch.tensor(-3.0), torch.tensor(4.0)), EPS),
    "wsquare": Case(WSquare(), oracles.wsquare(), 1e-6),
    "flat": Case(Flat(), oracles.flat(), 1e-6),
}

CONVOLUTIONS = {
    "conv1d": (nn.Conv1d(3, 4, 3), (3, 7)),
    "conv1d-stride-padding": (nn.Conv1d(2, 3, 4, stride=3, padding=2), (2, 8)),
    "conv2d": (nn.Conv2d(3, 4, 3), (3, 5, 5)),
    "conv2d-wide": (nn.Conv2d(9, 3, 3, stride=2), (9, 4, 5)),
    "conv2d-no-bias": (nn.Conv2d(3, 4, 3, bias=False), (3, 5, 5)),
    "conv2d-padding": (nn.Conv2d(2, 3, 3, padding=1), (2, 5, 4)),
    "conv2d-stride": (nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 6, 5)),
    "conv2d-oblong": (nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(0, 1)), (2, 5, 6)),
    "conv2d-dilation": (nn.Conv2d(2, 3, 3, dilation=2, padding=2), (2, 6, 6)),
    "conv2d-groups": (nn.Conv2d(4, 6, 3, groups=2, padding=1), (4, 4, 4)),
    "conv2d-depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding=1, bias=False), (4, 4, 4)),
    "conv2d-same": (nn.Conv2d(2, 3, 3, padding="same", dilation=2), (2, 5, 5)),
    "conv2d-valid": (nn.Conv2d(2, 3, 3, padding="valid"), (2, 5, 5)),
    "conv3d": (nn.Conv3d(2, 3, 2, stride=(1, 2, 1), padding=(0, 1, 1)), (2, 3, 4, 3)),
}
SAME_EVEN = {  # an even kernel needs one more value on the right than on the left
    "conv1d-same-even": (nn.Conv1d(2, 3, 4, padding="same"), (2, 6)),
    "conv2d-same-even": (nn.Conv2d(2, 3, (2, 4), padding="same", bias=False), (2, 5, 5)),
}
LINEARS = {
    "linear": (nn.Linear(6, 5), (6,)),
    "linear-no-bias": (nn.Linear(6, 5, bias=False), (6,)),
    "linear-tokens": (nn.Linear(4, 3), (5, 4)),
}
NORMALISED = {
    "conv2d-bn": (nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)), (2, 4, 4)),
    "conv2d-no-bias-groups-bn": (nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6)), (4, 4, 4)),
    "conv1d-bn-not-affine": (nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3, affine=False)), (2, 6)),
    "conv3d-bn": (nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3)), (2, 3, 3, 3)),
    "linear-bn": (nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)), (6,)),
    "bn-alone": (nn.BatchNorm2d(3), (3, 4, 4)),
}
LAYERS = CONVOLUTIONS | SAME_EVEN | LINEARS | NORMALISED


class Weighted(nn.Module):
    """The outputs of a layer, each times a constant: so the relevance of output ``y`` is ``y v``, of any sign and size."""

    def __init__(self, layer: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("v", torch.randn_like(layer(x)[:1]))

    def forward(self, x: Tensor) -> Tensor:
        return (self.layer(x) * self.v).flatten(1).sum(1)


@torch.no_grad()
def randomised(layer: nn.Module, seed: int) -> nn.Module:
    """Parameters and statistics such that none of them is trivial, in float64, in eval."""
    g = torch.Generator().manual_seed(seed)
    for name, t in layer.double().eval().state_dict().items():
        if t.is_floating_point():
            t.copy_(torch.randn(t.shape, generator=g, dtype=t.dtype))
            if name.endswith("running_var"):
                t.abs_().add_(0.3)
    return layer


def inputs(shape: tuple[int, ...], sign: str, seed: int = 0) -> Tensor:
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.clamp(min=0) if sign == "nonnegative" else x  # clamped, so that some are zero


def assert_same(ours: Tensor, oracle: Tensor, tolerance: float = 1e-10) -> None:
    assert ours.shape == oracle.shape
    assert oracle.abs().max() > 1e-6  # or it would be a comparison of nothing
    torch.testing.assert_close(ours, oracle, rtol=0, atol=tolerance * oracle.abs().max().item())


def check(layer: nn.Module, x: Tensor, case: Case) -> None:
    model = Weighted(layer, x)
    with torch.no_grad():
        r = layer(x) * model.v
    trace = SelectiveLRP(model, case.rule).trace(x)
    oracle = oracles.hand_down(layer, x, r, case.formula, case.eps)
    assert_same(trace.inputs, oracle.inputs)
    scale = max(r.abs().sum(), oracle.inputs.abs().sum()).item()
    absorbed = sum((v for k, v in trace.absorbed.items() if k.endswith(".bias")), torch.zeros(len(x), dtype=x.dtype))
    torch.testing.assert_close(absorbed, oracle.bias, rtol=0, atol=1e-10 * scale)
    explained = trace.inputs.flatten(1).sum(1) + sum(trace.absorbed.values())
    torch.testing.assert_close(explained, trace.explained, rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("sign", ["nonnegative", "mixed"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rule", RULES)
def test_rule_is_its_formula(rule: str, name: str, sign: str) -> None:
    layer, shape = LAYERS[name]
    check(randomised(layer, seed=1), inputs(shape, sign), RULES[rule])


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    rule=st.sampled_from(sorted(RULES)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    sign=st.sampled_from(["nonnegative", "mixed"]),
)
def test_rule_is_its_formula_for_any_geometry(
    rule: str, kernel: tuple[int, int], stride: int, padding: int, dilation: int, groups: int, bias: bool, sign: str
) -> None:
    layer = nn.Conv2d(2, 4, kernel, stride, padding, dilation, groups, bias)
    check(randomised(layer, seed=2), inputs((2, 5, 6), sign), RULES[rule])


def test_zbox_per_channel() -> None:
    low, high = (-3.0, -1.0, -2.5), (3.0, 3.5, 2.0)
    layer = randomised(nn.Conv2d(3, 4, 3, padding=1), seed=3)
    wide = [torch.tensor(v, dtype=torch.float64).view(3, 1, 1).expand(3, 4, 4).flatten() for v in (low, high)]
    check(layer, inputs((3, 4, 4), "mixed"), Case(ZBox(low, high, EPS), oracles.zbox(*wide), EPS))


def test_zbox_needs_a_value_for_every_channel() -> None:
    model = Weighted(nn.Conv2d(3, 4, 3), torch.rand(1, 3, 4, 4))
    with pytest.raises(RuleError, match=r"2 values, one per channel.*\(2, 3, 4, 4\)"):
        SelectiveLRP(model, ZBox((0.0, 0.0), (1.0, 1.0))).trace(torch.rand(2, 3, 4, 4))


def test_pass_hands_relevance_down_value_by_value() -> None:
    layer = randomised(nn.Conv2d(3, 3, 3, padding=1), seed=4)
    x = inputs((3, 4, 4), "nonnegative")
    model = Weighted(layer, x)
    trace = SelectiveLRP(model, Pass()).trace(x)
    with torch.no_grad():
        assert_same(trace.inputs, layer(x) * model.v)


def test_pass_needs_the_same_shape() -> None:
    model = Weighted(nn.Conv2d(3, 4, 3), torch.rand(1, 3, 4, 4))
    with pytest.raises(RuleError, match=r"Pass\(\) needs an input shaped like the output.*\(2, 3, 4, 4\).*\(2, 4, 2, 2\)"):
        SelectiveLRP(model, Pass()).trace(torch.rand(2, 3, 4, 4))


def net(normalised: bool) -> list[nn.Module]:
    """Affine maps and what stands between them; a batch norm belongs to the map before it."""
    first: nn.Module = nn.Conv2d(3, 4, 3, padding=1)
    second: nn.Module = nn.Conv2d(4, 5, 3, stride=2)
    third: nn.Module = nn.Linear(20, 6)
    if normalised:
        first = nn.Sequential(first, nn.BatchNorm2d(4))
        second = nn.Sequential(second, nn.BatchNorm2d(5))
        third = nn.Sequential(third, nn.BatchNorm1d(6))
    return [first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), third, nn.ReLU(), nn.Linear(6, 3)]


@pytest.mark.parametrize("normalised", [False, True], ids=["plain", "batch-norm"])
@pytest.mark.parametrize("sign", ["nonnegative", "mixed"])
@pytest.mark.parametrize("rule", RULES)
def test_net_is_its_formulas(rule: str, sign: str, normalised: bool) -> None:
    case, stages = RULES[rule], net(normalised)
    model = randomised(nn.Sequential(*stages), seed=5)
    x, target = inputs((3, 6, 6), sign), torch.tensor([2, 0, 1])
    affine = [not isinstance(stage, nn.ReLU | nn.Flatten) for stage in stages]
    v = nn.functional.one_hot(target, 3)
    formulas = [(stage, case.formula if is_affine else None) for stage, is_affine in zip(stages, affine, strict=True)]
    oracle = oracles.hand_down_net(formulas, x, v, case.eps)
    trace = SelectiveLRP(model, case.rule).trace(x, target)
    assert_same(trace.inputs, oracle[0])
    for i, name in ((1, "0"), (3, "2")):  # the relevance of a convolution is that of the ReLU's input
        assert_same(trace.relevance[name + ".0" * normalised], oracle[i].sum((2, 3)))
    assert_same(trace.relevance["5" + ".0" * normalised], oracle[6])


def test_rules_of_a_composite_each_in_its_place() -> None:
    stages = net(normalised=True)
    model = randomised(nn.Sequential(*stages), seed=6)
    x = inputs((3, 6, 6), "mixed").clamp(-2, 2)
    low, high = torch.tensor(-2.0), torch.tensor(2.0)
    composite = Composite(Epsilon(EPS), convolution=Gamma(0.25, EPS), first=ZBox(-2.0, 2.0, EPS))
    formulas = [oracles.zbox(low, high), None, oracles.gamma(0.25), None, None, oracles.epsilon(), None, oracles.epsilon()]
    v = nn.functional.one_hot(torch.tensor([1, 1, 1]), 3)
    oracle = oracles.hand_down_net(list(zip(stages, formulas, strict=True)), x, v, EPS)
    assert_same(SelectiveLRP(model, composite).attribute(x, 1), oracle[0])


@pytest.mark.parametrize("rule", [Epsilon(), ZPlus(), AlphaBeta(), Gamma()], ids=repr)
def test_no_relevance_where_nothing_contributed(rule: Rule) -> None:
    model = nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 2, bias=False))
    x = torch.rand(2, 4)
    x[0] = 0.0
    r = SelectiveLRP(model, rule).attribute(x, 1)
    assert torch.equal(r[0], torch.zeros(4))
    assert torch.isfinite(r).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Epsilon(-1e-6), "eps must be finite and not negative"),
        (lambda: Epsilon(float("nan")), "eps must be finite and not negative"),
        (lambda: ZPlus(float("inf")), "eps must be finite and not negative"),
        (lambda: Gamma(-0.1), "gamma must be finite and not negative, got -0.1"),
        (lambda: Gamma(float("inf")), "gamma must be finite and not negative, got inf"),
        (lambda: Gamma(0.25, eps=-1.0), "eps must be finite and not negative"),
        (lambda: AlphaBeta(2, 2), "alpha - beta must be 1.*alpha=2, beta=2"),
        (lambda: AlphaBeta(0, -1), "beta at least 0.*alpha=0, beta=-1"),
        (lambda: AlphaBeta(2, 1, eps=-1.0), "eps must be finite and not negative"),
        (lambda: ZBox(1.0, 0.0), "low must be below high.*low=1.0, high=0.0"),
        (lambda: ZBox(1.0, 1.0), "low must be below high"),
        (lambda: ZBox(float("nan"), 1.0), "low must be below high"),
        (lambda: ZBox((0.0, 0.0), (1.0, 1.0, 1.0)), "low must be below high"),
        (lambda: ZBox((0.0, 2.0), (1.0, 1.0)), "low must be below high"),
        (lambda: ZBox(0.0, 1.0, eps=-1.0), "eps must be finite and not negative"),
    ],
)
def test_parameters_out_of_range(make, message: str) -> None:
    with pytest.raises(RuleError, match=message) as caught:
        make()
    assert isinstance(caught.value, LRPError)
    assert isinstance(caught.value, ValueError)


SHOWN = {
    "Epsilon(eps=1e-06)": Epsilon,
    "ZPlus(eps=1e-06)": ZPlus,
    "Gamma(gamma=0.25, eps=1e-06)": Gamma,
    "AlphaBeta(alpha=2, beta=1, eps=1e-06)": AlphaBeta,
    "ZBox(low=0.0, high=1.0)": lambda: ZBox(0.0, 1.0),
    "WSquare()": WSquare,
    "Flat()": Flat,
    "Pass()": Pass,
}


@pytest.mark.parametrize("shown", SHOWN)
def test_rules_are_values(shown: str) -> None:
    one, other = SHOWN[shown](), SHOWN[shown]()
    assert repr(one) == shown
    assert one == other
    assert hash(one) == hash(other)
    with pytest.raises(AttributeError):
        one.eps = 1.0  # type: ignore[misc]


def test_rules_that_differ_are_not_equal() -> None:
    rules = [make() for make in SHOWN.values()]
    rules += [Epsilon(1e-3), Gamma(0.5), AlphaBeta(3, 2), AlphaBeta(1, 0), ZBox(0.0, 2.0), ZBox((0.0,) * 3, (1.0,) * 3)]
    assert len(set(rules)) == len(rules)


@pytest.mark.parametrize("rule", [Epsilon, ZPlus, Gamma, AlphaBeta])
def test_no_stabiliser_is_a_stabiliser_of_zero(rule: type) -> None:
    formula = {Epsilon: oracles.epsilon(), ZPlus: oracles.zplus(), Gamma: oracles.gamma(0.25)}
    layer = randomised(nn.Linear(6, 5), seed=7)
    check(layer, inputs((6,), "mixed"), Case(rule(eps=0), formula.get(rule, oracles.alpha_beta(2, 1)), 0.0))


def test_gamma_of_zero_is_epsilon() -> None:
    layer = randomised(nn.Linear(6, 5), seed=7)
    check(layer, inputs((6,), "mixed"), Case(Gamma(0, EPS), oracles.epsilon(), EPS))


@pytest.mark.parametrize("beta", [0, 0.0])
def test_alpha_beta_without_inhibition_is_zplus(beta: float) -> None:
    assert AlphaBeta(1.0, beta).groups == ZPlus().groups


def test_values_leave_a_box_by_more_than_a_hundredth_of_its_width() -> None:
    rule = ZBox((-3.0, 0.0), (4.0, 0.5))  # so by 0.07 and by 0.005
    for channel, inside, outside in ((0, (-3.06, 4.06), (-3.08, 4.08)), (1, (-0.004, 0.504), (-0.006, 0.506))):
        for value in (*inside, *outside):
            a = torch.tensor([[0.25, 0.25]])
            a[0, channel] = value
            assert bool(rule.leaves_box(a)) == (value in outside), (channel, value)


def test_a_box_of_hundreds_of_channels() -> None:
    low, high = (-1.0,) * 300, [1.0] * 300
    assert ZBox(low, high).groups[0].terms[1].input.value == (1.0,) * 300  # type: ignore[arg-type]
    with pytest.raises(RuleError, match="low must be below high"):
        ZBox(low, high[:-1])  # type: ignore[arg-type]


def test_values_per_channel_need_channels() -> None:
    part = ZBox((-1.0, -2.0), (1.0, 1.0)).groups[0].terms[1].input
    assert part(torch.zeros(3, 2)).tolist() == [[1.0, 2.0]] * 3
    assert part(torch.zeros(1, 2, 2)).tolist() == [[[1.0] * 2, [2.0] * 2]]
    with pytest.raises(RuleError, match=r"2 values, one per channel, were given for an input of shape \(2,\)"):
        part(torch.zeros(2))


@pytest.mark.parametrize("shown", SHOWN)
def test_a_copy_of_a_rule_is_the_rule(shown: str) -> None:
    rule = SHOWN[shown]()
    again = pickle.loads(pickle.dumps(rule))
    assert again == rule
    assert again.needs_scale == rule.needs_scale == (shown.startswith("Epsilon"))
    assert [(g.plain, g.excitation) for g in again.groups] == [(g.plain, g.excitation) for g in rule.groups]
    assert again.groups == () or again.groups[0].excitation == (shown[:5] in ("ZPlus", "Alpha"))


def test_what_gives_nothing_to_inputs_of_zero() -> None:
    proportional = {shown for shown, make in SHOWN.items() if make().proportional}
    assert proportional == {shown for shown in SHOWN if shown.startswith(("Epsilon", "ZPlus", "Gamma", "AlphaBeta"))}


def test_a_rule_that_a_class_has() -> None:
    class Ruled(nn.Linear):
        rule = Gamma(0.5)

    class Computed(nn.Linear):
        @property
        def rule(self) -> Rule:
            return Flat()

    assert rule_on(Ruled(2, 2)) == Gamma(0.5)
    assert rule_on(Computed(2, 2)) == Flat()
    assert rule_on(nn.Linear(2, 2)) is None


def test_a_part_shows_its_value_if_it_has_one() -> None:
    assert [repr(part) for part in (Part("identity"), Part("negative"), Part("constant", 0.5))] == [
        "identity", "negative", "constant(0.5)"
    ]  # fmt: skip


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(RuleError, match="unknown part 'cubed'"):
        Part("cubed")(torch.zeros(2))
