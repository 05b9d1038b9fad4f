"""Captum's interface, and the same numbers as Captum and zennit wherever these are right."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import captum.attr
import pytest
import torch
import torchvision
import zennit.attribution
import zennit.composites
from captum.attr import InputXGradient
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule
from small_networks import mlp
from torch import Tensor, nn

from lrp_lightning import (
    Composite,
    Epsilon,
    EpsilonAlpha2Beta1,
    EpsilonGammaBox,
    EpsilonPlus,
    SelectiveLRP,
    TopK,
    ZPlus,
    masked_forward,
)
from lrp_lightning.errors import ModelError, RuleError, SelectionError, TargetError

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor . did not already require gradients")  # Captum

TINY = 1e-12  # a stabiliser that does not matter, be it absolute, as Captum's and zennit's, or relative to z, as ours


def narrow_head() -> nn.Module:
    """VGG11 with fewer neurons in its linear layers, which are nine tenths of its parameters."""
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["A"])
    head = [nn.Flatten(), nn.Linear(512 * 4, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, 10)]
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), *head)


@pytest.fixture(scope="module", params=["narrow-head", pytest.param("vgg11", marks=pytest.mark.slow)])
def vgg(request: pytest.FixtureRequest) -> nn.Module:
    """VGG11 in float64 with biases of both signs (torchvision starts them at zero, where they would not be tested)."""
    torch.manual_seed(0)
    full = request.param == "vgg11"
    model = torchvision.models.vgg11(weights=None, num_classes=10) if full else narrow_head()
    for name, parameter in model.double().eval().named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
        else:
            nn.init.kaiming_normal_(parameter)
    return model


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    assert theirs.abs().max() > 0
    torch.testing.assert_close(ours, theirs.detach(), rtol=tolerance, atol=tolerance * theirs.abs().max().item())


# Captum


def captum_lrp(model: nn.Module, rule_of: Any, x: Tensor, target: Any) -> tuple[Tensor, Tensor]:
    """Captum leaves its rules on the modules, so on a copy."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if not list(module.children()) and not isinstance(module, nn.ReLU):
            module.rule = rule_of(module)
    return captum.attr.LRP(model).attribute(x.clone(), target, return_convergence_delta=True)


@pytest.mark.parametrize("target", [3, torch.tensor([3, 7])], ids=["int", "tensor"])
def test_epsilon_is_captums(vgg: nn.Module, images: Tensor, target: int | Tensor) -> None:
    x = images - 0.5
    theirs, their_delta = captum_lrp(vgg, lambda _: EpsilonRule(TINY), x, target)
    ours, our_delta = SelectiveLRP(vgg, Epsilon(TINY)).attribute(x, target, return_convergence_delta=True)
    assert_same(ours, theirs)
    assert_same(our_delta, their_delta)


def test_epsilon_of_captum_is_absolute_ours_relative() -> None:
    """With one output, mean ``|z|`` is ``|z|``: then a relative ``eps`` is Captum's ``eps |z|``."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 1)).double(), torch.randn(1, 4, dtype=torch.float64)
    scale = model(x).abs().item()
    theirs, _ = captum_lrp(model, lambda _: EpsilonRule(0.25 * scale), x, 0)
    assert_same(SelectiveLRP(model, Epsilon(0.25)).attribute(x, 0), theirs, 1e-12)


def test_zplus_is_captums_where_both_are_defined_alike(vgg: nn.Module, images: Tensor) -> None:
    """Captum's Alpha1_Beta0 clamps the weights and nothing else, so it is z+ only

    - for inputs that are not negative: of others, z+ counts ``a- w-``, and Captum ``a- w+``; hence images in [0, 1];
    - for biases that are not negative: Captum adds the whole bias to ``z``, or none of it, z+ its positive part.
    """
    model = copy.deepcopy(vgg)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.bias.abs_()
    rules = {nn.Conv2d: Alpha1_Beta0_Rule}
    theirs, _ = captum_lrp(model, lambda m: rules.get(type(m), lambda: EpsilonRule(TINY))(), images, 5)
    assert_same(SelectiveLRP(model, EpsilonPlus(TINY)).attribute(images, 5), theirs)


def test_stands_wherever_captums_class_stands(vgg: nn.Module) -> None:
    lrp = SelectiveLRP(vgg)
    assert isinstance(lrp, captum.attr.Attribution)
    assert lrp.has_convergence_delta()
    assert lrp.multiplies_by_inputs
    assert lrp.forward_func is lrp.model is vgg


# zennit


@pytest.mark.parametrize("name", ["epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1"])
def test_composite_is_zennits(name: str, vgg: nn.Module, images: Tensor) -> None:
    x, target = images * 2 - 1, torch.tensor([3, 7])  # mixed signs
    box = {"low": torch.full_like(x[:1], -1.0), "high": torch.full_like(x[:1], 1.0)}
    ours, theirs = {
        "epsilon_plus": (EpsilonPlus(TINY), zennit.composites.EpsilonPlus),
        "epsilon_gamma_box": (EpsilonGammaBox(-1.0, 1.0, eps=TINY), zennit.composites.EpsilonGammaBox),
        "epsilon_alpha2_beta1": (EpsilonAlpha2Beta1(TINY), zennit.composites.EpsilonAlpha2Beta1),
    }[name]
    composite = theirs(epsilon=TINY, stabilizer=TINY, **(box if name == "epsilon_gamma_box" else {}))
    one_hot = nn.functional.one_hot(target, 10)
    with zennit.attribution.Gradient(copy.deepcopy(vgg), composite) as attributor:
        logits, expected = attributor(x.clone().requires_grad_(), lambda output: output * one_hot)
    trace = SelectiveLRP(vgg, ours).trace(x, target)
    assert_same(trace.output, logits)
    assert_same(trace.inputs, expected)


# Captum's meanings of target, of extra arguments, and of several inputs: with a tiny epsilon, a net of ReLUs has
# LRP = input x gradient, whatever its biases, and Captum's InputXGradient says what each call means.


class TwoInputs(nn.Module):
    """``(a, b, scale, shift, power)`` to an output of any shape."""

    def __init__(self, *output: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(5, 8), nn.Linear(3, 8)
        self.head = nn.Linear(8, int(torch.tensor(output).prod()))
        self.output = output
        self.double()

    def forward(
        self, a: Tensor, b: Tensor | None = None, scale: Any = 1.0, shift: Any = 0.0, negate: bool = False
    ) -> Tensor:
        h = torch.relu(self.a(a)) if b is None else torch.relu(self.a(a) + self.b(b))
        y = self.head(h * scale + shift)
        return (-y if negate else y).view(len(a), *self.output)


def batch(features: int, seed: int = 0) -> Tensor:
    return torch.randn(3, features, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


TARGETS: list[tuple[tuple[int, ...], Any]] = [
    ((4,), 2),
    ((4,), -1),
    ((4,), torch.tensor(2)),
    ((4,), torch.tensor([2])),
    ((4,), torch.tensor([2, 0, 3])),
    ((4,), [2, 0, 3]),
    ((4,), (2,)),
    ((4,), [(2,), (0,), (3,)]),
    ((2, 4), (1, 3)),
    ((2, 4), [(1, 3), (0, 0), (1, 2)]),
    ((2, 2, 3), (1, 0, 2)),
    ((2, 1), 1),
    ((1,), None),
    ((1,), 0),
    ((), None),
]


@pytest.mark.parametrize(("output", "target"), TARGETS, ids=str)
def test_target_means_what_it_means_to_captum(output: tuple[int, ...], target: Any) -> None:
    model, x = TwoInputs(*output), batch(5)
    expected = InputXGradient(model).attribute(x.clone(), target)
    assert_same(SelectiveLRP(model, Epsilon(TINY)).attribute(x, target), expected, 1e-9)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_targets_are_whole_numbers_of_any_size(dtype: torch.dtype) -> None:
    model, x, target = nn.Linear(4, 3), torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1])
    assert torch.equal(SelectiveLRP(model).attribute(x, target.to(dtype)), SelectiveLRP(model).attribute(x, target))


def test_target_may_be_a_function_of_the_output() -> None:
    model, x = TwoInputs(4), batch(5)
    lrp = SelectiveLRP(model)
    trace = lrp.trace(x, lambda logits: logits.argmax(1))
    assert torch.equal(trace.explained, model(x).amax(1))
    assert torch.equal(trace.inputs, lrp.attribute(x, model(x).argmax(1)))


@pytest.mark.parametrize("target", [[3, 0, 1], torch.tensor([3, 0, 1]), [(3, 0, 0), (0, 0, 0), (1, 0, 0)]], ids=str)
def test_classes_of_a_map_of_one_place(target: Any) -> None:
    model, x = TwoInputs(4, 1, 1), batch(5)
    trace = SelectiveLRP(model, Epsilon(TINY)).trace(x, target)
    assert torch.equal(trace.explained, model(x)[torch.arange(3), [3, 0, 1], 0, 0])


def test_a_pair_of_classes_is_explained_by_the_difference_of_their_outputs() -> None:
    model, x = TwoInputs(4), batch(5)
    lrp = SelectiveLRP(model, Epsilon(TINY))
    pair = lrp.trace(x, (2, -1))
    torch.testing.assert_close(pair.explained, model(x)[:, 2] - model(x)[:, 3])
    torch.testing.assert_close(pair.inputs, lrp.attribute(x, 2) - lrp.attribute(x, 3))
    each = lrp.trace(x, [(0, 1), (1, 2), (2, 0)])
    torch.testing.assert_close(each.explained[1], model(x)[1, 1] - model(x)[1, 2])
    with pytest.raises(TargetError, match=r"target 4 does not fit"):
        lrp.attribute(x, (1, 4))


def test_a_function_may_give_the_values_to_explain() -> None:
    """As a segmentation is explained: the mean of a class over its map."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)).double()
    x = torch.randn(3, 3, 8, 8, dtype=torch.double)
    lrp = SelectiveLRP(model, Epsilon(TINY))
    trace = lrp.trace(x, lambda y: y[:, 2].mean((1, 2)), edges=True)
    torch.testing.assert_close(trace.explained, model(x)[:, 2].mean((1, 2)))
    assert trace.conservation_error.max() < 1e-9
    parts = sum(lrp.attribute(x, (2, i, j)) for i in range(6) for j in range(6)) / 36
    torch.testing.assert_close(trace.inputs, parts)
    with pytest.raises(TargetError, match=r"explain their mean with a function"):
        lrp.attribute(x, 2)


class Named(nn.Module):
    """Gives what libraries wrap their outputs in."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.wrap = nn.Linear(4, 3), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.net(x))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: {"logits": y},
        lambda y: {"out": y, "aux": y * 2},
        lambda y: SimpleNamespace(logits=y, loss=None),
    ],
    ids=["logits", "out", "attribute"],
)
def test_an_output_with_logits_is_taken_as_they_are(wrap: Callable[[Tensor], Any]) -> None:
    x, model = torch.randn(5, 4), Named(wrap)
    trace = SelectiveLRP(model, selection=TopK(1.0)).trace(x, 1)
    assert torch.equal(trace.output, model.net(x))
    assert torch.equal(masked_forward(model, x, trace.masks), trace.output)


def test_an_output_without_a_tensor_to_explain_is_refused() -> None:
    with pytest.raises(ModelError, match=r"got dict of hidden without a tensor named logits or out; wrap it"):
        SelectiveLRP(Named(lambda y: {"hidden": y})).attribute(torch.randn(5, 4), 1)


@pytest.mark.parametrize(
    "target",
    [
        None,
        4,
        -5,
        True,
        1.0,
        "2",
        [2, 0],
        [2, 0, 4],
        [True, False, True],
        torch.tensor([2, 0]),
        torch.tensor([2, 0, 4]),
        torch.tensor([True, False, True]),
        torch.tensor([1.0, 0.0, 2.0]),
        (1, 1),
        [(1,), (2,)],
    ],
    ids=str,
)
def test_target_that_does_not_fit(target: Any) -> None:
    with pytest.raises(TargetError, match=r"target.*shape") as caught:
        SelectiveLRP(TwoInputs(4)).attribute(batch(5), target)
    assert isinstance(caught.value, AssertionError)  # what Captum raises


@pytest.mark.parametrize("wrong", [lambda logits: logits, lambda logits: logits.argmax(), lambda logits: 1])
def test_a_target_function_that_gives_no_classes(wrong: Callable) -> None:
    with pytest.raises(TargetError, match=r"one class per sample"):
        SelectiveLRP(TwoInputs(4)).attribute(batch(5), wrong)


@pytest.mark.parametrize("target", [1, (1,), [(1, 3)] * 2, (2, 0), (1, 4), (1, 1, 1), None], ids=str)
def test_target_that_does_not_fit_an_output_of_more_dimensions(target: Any) -> None:
    with pytest.raises(TargetError):
        SelectiveLRP(TwoInputs(2, 4)).attribute(batch(5), target)


@pytest.mark.parametrize(
    "extra",
    [None, batch(3, 1), (None, 2.0), (None, batch(8, 2).abs()), (batch(3, 1), 1.0, batch(8, 3)), (None, 1.0, 0.5, True)],
    ids=["none", "tensor", "number", "tensors", "both", "flag"],
)
def test_additional_forward_args(extra: Any) -> None:
    model, x = TwoInputs(4), batch(5)
    expected = InputXGradient(model).attribute(x.clone(), 1, extra)
    assert_same(SelectiveLRP(model, Epsilon(TINY)).attribute(x, 1, extra), expected, 1e-9)


def test_additional_forward_args_that_require_gradients() -> None:
    model, x = TwoInputs(4), batch(5)
    scale = batch(8, 2).requires_grad_()
    plain = SelectiveLRP(model).attribute(x, 1, (None, scale.detach()))
    assert torch.equal(SelectiveLRP(model).attribute(x, 1, (None, scale)), plain)
    assert scale.grad is None


def test_tuple_of_inputs() -> None:
    model, xs = TwoInputs(4), (batch(5), batch(3, 1))
    expected = InputXGradient(model).attribute(tuple(x.clone() for x in xs), 1, 2.0)
    ours = SelectiveLRP(model, Epsilon(TINY)).attribute(xs, 1, 2.0)
    assert isinstance(ours, tuple)
    for one, other in zip(ours, expected, strict=True):
        assert_same(one, other, 1e-9)


def test_tuple_of_one_input_gives_a_tuple_of_one() -> None:
    model, x = TwoInputs(4), batch(5)
    (ours,) = SelectiveLRP(model).attribute((x,), 1)
    assert torch.equal(ours, SelectiveLRP(model).attribute(x, 1))


def test_an_input_that_the_output_does_not_depend_on_gets_none() -> None:
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.layer(a)

    r_a, r_b = SelectiveLRP(First().double()).attribute((batch(5), batch(3)), 1)
    assert r_a.abs().sum() > 0
    assert torch.equal(r_b, torch.zeros(3, 3, dtype=torch.float64))


# the rest of the interface


@pytest.mark.parametrize("selection", [None, TopK(3)], ids=repr)
def test_convergence_delta_is_what_was_absorbed(selection: TopK | None) -> None:
    model, x = TwoInputs(4), batch(5)
    lrp = SelectiveLRP(model, Epsilon(1e-3), selection)
    r, delta = lrp.attribute(x, [1, 0, 3], return_convergence_delta=True)
    trace = lrp.trace(x, [1, 0, 3])
    assert delta.shape == (3,)
    assert delta.abs().min() > 0
    torch.testing.assert_close(delta, model(x)[range(3), [1, 0, 3]].detach() - r.sum(1))
    torch.testing.assert_close(delta, sum(trace.absorbed.values()))


def test_convergence_delta_of_a_tuple() -> None:
    model, xs = TwoInputs(4), (batch(5), batch(3, 1))
    (r_a, r_b), delta = SelectiveLRP(model).attribute(xs, 1, return_convergence_delta=True)
    torch.testing.assert_close(delta, model(*xs)[:, 1].detach() - r_a.sum(1) - r_b.sum(1))


def test_relevance_carries_no_graph() -> None:
    r, delta = SelectiveLRP(TwoInputs(4)).attribute(batch(5).requires_grad_(), 1, return_convergence_delta=True)
    assert not r.requires_grad
    assert not delta.requires_grad


def test_verbose_prints_each_layer(capsys: pytest.CaptureFixture[str]) -> None:
    SelectiveLRP(TwoInputs(4)).attribute(batch(5), 1)
    assert capsys.readouterr().out == ""
    SelectiveLRP(TwoInputs(4)).attribute(batch(5), 1, verbose=True)
    printed = capsys.readouterr().out
    assert "3 samples through 2 layers" in printed
    assert "head" in printed
    assert "linear" in printed


def test_repr_says_what_was_asked() -> None:
    assert repr(SelectiveLRP(nn.Linear(2, 2), Composite(Epsilon(), first=ZPlus()), TopK(0.1))) == (
        "SelectiveLRP(Linear, Composite(default=Epsilon(eps=1e-06), "
        "first=ZPlus(eps=1e-06)), selection=TopK(keep=0.1, by='magnitude'))"
    )


def test_epsilon_plus_is_the_default(vgg: nn.Module, images: Tensor) -> None:
    assert SelectiveLRP(vgg).composite == EpsilonPlus()
    assert torch.equal(SelectiveLRP(vgg).attribute(images, 1), SelectiveLRP(vgg, "epsilon_plus").attribute(images, 1))


@pytest.mark.parametrize("model", [None, "vgg", lambda x: x, nn.Linear], ids=["none", "str", "function", "class"])
def test_model_must_be_a_module(model: Any) -> None:
    with pytest.raises(ModelError, match=r"must be a torch\.nn\.Module, got"):
        SelectiveLRP(model)


@pytest.mark.parametrize("selection", [0.1, "topk", TopK], ids=repr)
def test_selection_must_be_one(selection: Any) -> None:
    with pytest.raises(SelectionError, match=r"selection such as TopK\(0.1\)"):
        SelectiveLRP(nn.Linear(2, 2), selection=selection)


def test_composite_must_be_one() -> None:
    with pytest.raises(RuleError, match="composite"):
        SelectiveLRP(nn.Linear(2, 2), composite=TopK(1))  # type: ignore[arg-type]


@pytest.mark.parametrize("edges", [False, True])
def test_each_samples_own_two_classes_may_be_set_against_one_another_however_it_is_written(edges: bool) -> None:
    torch.manual_seed(0)
    model = mlp(4, 8, 3).double()
    x, a = torch.rand(6, 4).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    b = (a + 1) % 3
    lrp = SelectiveLRP(model, Epsilon())
    expected = lrp.trace(x, [(i, j) for i, j in zip(a.tolist(), b.tolist(), strict=True)]).inputs
    for difference in (
        lambda y: (y.gather(1, a[:, None]) - y.gather(1, b[:, None]))[:, 0],
        lambda y: y.gather(1, a[:, None])[:, 0] - y.gather(1, b[:, None])[:, 0],
        lambda y: -y.gather(1, torch.stack([a, b], 1)).diff(dim=1)[:, 0],
    ):
        trace = lrp.trace(x, difference, edges=edges)
        torch.testing.assert_close(trace.inputs, expected, rtol=1e-9, atol=1e-12)
        assert trace.conservation_error.max() < 1e-9
