"""The attribution classes stand wherever Captum's LRP and LayerLRP do: the same calls, and results where it is right."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import captum.attr
import oracles
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LRP, LayerLRP, NoiseTunnel
from captum.attr import visualization as captum_visualization
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule
from captum.metrics import infidelity, sensitivity_max
from small_networks import mlp
from torch import Tensor, nn

from lrp_lightning import (
    AlphaBeta,
    Composite,
    Epsilon,
    EpsilonGammaBox,
    Flat,
    Gamma,
    LayerSelectiveLRP,
    Pass,
    SelectiveLRP,
    TopK,
    WSquare,
    ZBox,
    ZPlus,
)
from lrp_lightning.errors import InputError, LayerError, RuleError, TargetError
from lrp_lightning.rules import Rule

TINY = 1e-12

pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")  # Captum's own


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 5),
    )  # fmt: skip
    return net.double().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def ruled(model: nn.Module, rule: Any = EpsilonRule, **how: Any) -> nn.Module:
    """A copy with one of Captum's rules on every layer that Captum wants one on."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.rule = rule(**how)
        elif isinstance(module, nn.MaxPool2d | nn.AdaptiveAvgPool2d | nn.Flatten):
            module.rule = EpsilonRule(TINY)
    return model


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-6) -> None:
    theirs = theirs.detach()
    assert theirs.any()
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * theirs.abs().max().item())


# signatures


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SelectiveLRP.attribute, LRP.attribute),
        (LayerSelectiveLRP.attribute, LayerLRP.attribute),
        (SelectiveLRP.compute_convergence_delta, LRP.compute_convergence_delta),
        (SelectiveLRP.has_convergence_delta, LRP.has_convergence_delta),
    ],
    ids=lambda f: f.__qualname__,
)
def test_arguments_their_order_and_defaults(ours: Any, theirs: Any) -> None:
    def arguments(function: Any) -> list[tuple]:
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    assert arguments(ours) == arguments(theirs)


@pytest.mark.parametrize(("ours", "theirs"), [(SelectiveLRP, LRP), (LayerSelectiveLRP, LayerLRP)])
def test_constructors_begin_alike(ours: type, theirs: type) -> None:
    names = list(inspect.signature(theirs).parameters)
    assert list(inspect.signature(ours).parameters)[: len(names)] == names


def test_they_are_captum_attributions(model: nn.Module) -> None:
    layered = LayerSelectiveLRP(model, model[0])
    assert isinstance(layered, captum.attr.LayerAttribution)
    assert isinstance(layered, captum.attr._utils.attribution.GradientAttribution)
    assert layered.layer is model[0]
    for attribution in (SelectiveLRP(model), layered):
        assert attribution.has_convergence_delta() is LRP(model).has_convergence_delta()
        assert attribution.multiplies_by_inputs is LRP(model).multiplies_by_inputs


# rules set on modules


@pytest.mark.parametrize(
    ("rule", "how"),
    [(EpsilonRule, {"epsilon": 1e-2}), (EpsilonRule, {}), (GammaRule, {"gamma": 0.3}), (Alpha1_Beta0_Rule, {}),
     (GammaRule, {"gamma": 0.3, "set_bias_to_zero": True})],
    ids=["epsilon-large", "epsilon", "gamma", "alpha1-beta0", "gamma-without-bias"],
)  # fmt: skip
def test_captums_rules_on_modules_are_honoured(model: nn.Module, x: Tensor, rule: Any, how: dict) -> None:
    with_rules = ruled(model, rule, **how)
    if rule is Alpha1_Beta0_Rule:  # Captum's takes the whole bias, so the two agree where it is not negative
        for module in (m for m in with_rules.modules() if isinstance(m, nn.Conv2d | nn.Linear)):
            module.bias.data.abs_()
    ours = SelectiveLRP(with_rules).attribute(x, target=2)
    assert isinstance(with_rules[0].rule, rule)  # the caller's, where it was
    close(ours, LRP(copy.deepcopy(with_rules)).attribute(x.clone(), target=2))


def test_the_identity_rule(x: Tensor) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 192), nn.ReLU(), nn.Linear(192, 3)).double()
    net[1].rule, net[3].rule, net[0].rule = IdentityRule(), EpsilonRule(TINY), EpsilonRule(TINY)
    close(SelectiveLRP(net).attribute(x, target=1), LRP(copy.deepcopy(net)).attribute(x.clone(), target=1))


def test_a_rule_of_our_own_on_a_module(model: nn.Module, x: Tensor) -> None:
    expected = SelectiveLRP(model, Epsilon(0.1)).attribute(x, target=2)
    for module in model.modules():
        module.rule = Epsilon(0.1)
    assert torch.equal(SelectiveLRP(model).attribute(x, target=2), expected)


@pytest.mark.parametrize("rule", [Flat(), WSquare(), Pass()], ids=repr)
def test_a_rule_that_gives_to_activations_of_zero_on_a_module(rule: Any) -> None:
    torch.manual_seed(0)
    net = mlp(6, 8, 8, 3).double()
    x = torch.randn(4, 6, dtype=torch.float64)
    expected = SelectiveLRP(net, Composite(Epsilon(), layers={"2": rule})).attribute(x, target=1)
    net[2].rule = rule
    trace = SelectiveLRP(net, Epsilon()).trace(x, target=1)
    assert torch.equal(trace.inputs, expected)
    assert trace.conservation_error.max() < 1e-9


@pytest.mark.parametrize("given", ["epsilon", "AlphaBeta", Epsilon, EpsilonRule], ids=["a", "b", "ours", "captum's"])
def test_what_is_no_rule_is_refused_when_the_class_is_made(model: nn.Module, given: Any) -> None:
    model[3].rule = given
    with pytest.raises(RuleError, match=r"\.rule must be a rule, such as Epsilon\(\), got"):
        SelectiveLRP(model)


@pytest.mark.parametrize(
    "own", [3, "nearest", {"a": 1}, print, torch.relu], ids=["number", "text", "dict", "function", "torch's"]
)
def test_an_attribute_of_the_models_own_is_none_of_ours(model: nn.Module, x: Tensor, own: Any) -> None:
    expected = SelectiveLRP(model).attribute(x, target=2)
    model[3].rule = own
    assert torch.equal(SelectiveLRP(model).attribute(x, target=2), expected)


def test_attribute_future_is_not_there_as_in_captum(model: nn.Module) -> None:
    for lrp in (LRP(model), SelectiveLRP(model)):
        with pytest.raises(NotImplementedError, match="attribute_future is not implemented for LRP"):
            lrp.attribute_future()


# layers


@pytest.mark.parametrize("index", [0, 2, 3, 5, 6, 7])
@pytest.mark.parametrize("of_input", [False, True], ids=["output", "input"])
def test_a_layers_relevance_is_captums(model: nn.Module, x: Tensor, index: int, of_input: bool) -> None:
    theirs = ruled(model, epsilon=TINY)
    expected = LayerLRP(theirs, theirs[index]).attribute(x.clone(), target=2, attribute_to_layer_input=of_input)
    lrp = LayerSelectiveLRP(model, model[index], Epsilon(TINY))
    found = lrp.attribute(x, target=2, attribute_to_layer_input=of_input)
    close(found, expected)
    assert not found.requires_grad
    assert torch.equal(
        found, LayerSelectiveLRP(model, str(index), Epsilon(TINY)).attribute(x, 2, attribute_to_layer_input=of_input)
    )


def test_an_activation_has_its_layers_relevance_where_captum_raises(model: nn.Module, x: Tensor) -> None:
    theirs = ruled(model)
    with pytest.raises(AttributeError):
        LayerLRP(theirs, theirs[1]).attribute(x.clone(), target=2)
    through, below = LayerSelectiveLRP(model, [model[1], model[0]], Epsilon()).attribute(x, target=2)
    torch.testing.assert_close(through, below)


def test_a_list_of_layers_gives_a_list_and_deltas(model: nn.Module, x: Tensor) -> None:
    lrp = LayerSelectiveLRP(model, [model[0], "7"], Epsilon())
    found, deltas = lrp.attribute(x, target=2, return_convergence_delta=True)
    assert [tuple(t.shape) for t in found] == [(4, 6, 8, 8), (4, 16)]
    output = model(x)[:, 2].detach()
    for relevance, delta in zip(found, deltas, strict=True):
        torch.testing.assert_close(relevance.flatten(1).sum(1) + delta, output)


def test_no_layer_is_every_layer(model: nn.Module, x: Tensor) -> None:
    found = LayerSelectiveLRP(model, None, Epsilon()).attribute(x, target=2)
    assert [t.shape[1] for t in found] == [6, 8, 16, 5]


class Block(nn.Module):
    """Where Captum is wrong: a functional sum, an activation used twice, a layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv(x))
        y = self.relu(self.conv(y) + y)
        return self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))


def test_calls_and_junctions_are_layers_too(x: Tensor) -> None:
    torch.manual_seed(0)
    model = Block().double()
    trace = SelectiveLRP(model, Epsilon()).trace(x, target=1)
    for name in ("conv#1", "conv#2", "add"):
        relevance = LayerSelectiveLRP(model, name, Epsilon()).attribute(x, target=1)
        torch.testing.assert_close(relevance.sum((2, 3)), trace.relevance[name])
    with pytest.raises(LayerError, match=r"'conv' runs 2 times.*conv#1"):
        LayerSelectiveLRP(model, model.conv).attribute(x, target=1)
    with pytest.raises(LayerError, match="did you mean 'conv#2'"):
        LayerSelectiveLRP(model, "conw").attribute(x, target=1)
    with pytest.raises(LayerError, match="not a module of the model"):
        LayerSelectiveLRP(model, nn.ReLU()).attribute(x, target=1)


def test_an_embeddings_relevance() -> None:
    torch.manual_seed(0)

    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(10, 6), nn.Linear(6, 3)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(torch.relu(self.embedding(tokens)).mean(1))

    model, tokens = Text(), torch.randint(10, (2, 5))
    relevance, delta = LayerSelectiveLRP(model, "embedding", Epsilon()).attribute(
        tokens, target=1, return_convergence_delta=True
    )
    assert relevance.shape == (2, 5, 6)
    torch.testing.assert_close(delta, model.head.bias[1].expand(2).detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fails", [False, True])
def test_no_hook_stays(model: nn.Module, x: Tensor, fails: bool) -> None:
    lrp = LayerSelectiveLRP(model, model[4])
    if fails:
        with pytest.raises(TargetError):
            lrp.attribute(x, target=99)
    else:
        lrp.attribute(x, target=1)
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


# in Captum's and others' hands


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_inside_a_noise_tunnel(model: nn.Module, x: Tensor, kind: str) -> None:
    tunnel = NoiseTunnel(SelectiveLRP(model, selection=TopK(0.5)))
    assert tunnel.attribute(x, nt_type=kind, nt_samples=3, stdevs=0.1, target=1).shape == x.shape
    relevance, delta = tunnel.attribute(
        x, nt_type=kind, nt_samples=3, nt_samples_batch_size=2, target=1, return_convergence_delta=True
    )
    assert relevance.shape == x.shape
    assert delta.shape == (12,)


def test_captums_metrics(model: nn.Module, x: Tensor) -> None:
    lrp = SelectiveLRP(model)

    def perturb(x: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.01 * torch.randn_like(x)
        return noise, x - noise

    assert infidelity(model, perturb, x, lrp.attribute(x, target=1), target=1).isfinite().all()
    assert sensitivity_max(lrp.attribute, x, target=1, n_perturb_samples=2).isfinite().all()


def test_captums_visualization(model: nn.Module, x: Tensor) -> None:
    relevance = SelectiveLRP(model).attribute(x, target=1)[0].permute(1, 2, 0).numpy()
    image = x[0].permute(1, 2, 0).numpy()
    figure, _ = captum_visualization.visualize_image_attr(relevance, image, method="heat_map", use_pyplot=False)
    assert figure.axes


def test_as_tools_built_on_captum_call_it(model: nn.Module, x: Tensor) -> None:
    """By keywords, on a copy of the inputs that requires gradients, and summed over channels afterwards."""
    given = x.clone().requires_grad_()
    relevance = SelectiveLRP(model.eval()).attribute(inputs=given, target=torch.tensor([0, 1, 2, 3]))
    assert relevance.sum(1, keepdim=True).detach().numpy().shape == (4, 1, 8, 8)
    assert given.grad is None


def test_a_missing_target_is_an_assertion_for_both(model: nn.Module, x: Tensor) -> None:
    for attribution in (LRP(ruled(model)), SelectiveLRP(model), LayerSelectiveLRP(model, model[0])):
        with pytest.raises(AssertionError):
            attribution.attribute(x)


# before the multiplication by the input


@pytest.fixture
def signed() -> Tensor:
    """Inputs of both signs, some of them 0."""
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return x.masked_fill_(x.abs() < 0.2, 0)


RULES = [Epsilon(), ZPlus(), AlphaBeta(2, 1), Gamma(0.25), "epsilon_plus", "epsilon_alpha2_beta1"]
DENSE = [(Epsilon(), oracles.epsilon()), (ZPlus(), oracles.zplus()), (AlphaBeta(2, 1), oracles.alpha_beta(2, 1)),
         (Gamma(0.25), oracles.gamma(0.25))]  # fmt: skip


@pytest.mark.parametrize("selection", [None, TopK(0.3)])
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_times_the_input_the_map_is_relevance(model: nn.Module, signed: Tensor, rule: Any, selection: TopK | None) -> None:
    for x in (signed, signed.abs()):
        found = SelectiveLRP(model, rule, selection, multiply_by_inputs=False).attribute(x, target=2)
        close(x * found, SelectiveLRP(model, rule, selection).attribute(x, target=2), 1e-12)


@pytest.mark.parametrize(("rule", "formula"), DENSE, ids=lambda v: repr(v) if isinstance(v, Rule) else "")
@pytest.mark.parametrize("signs", ["both", "positive"])
def test_the_map_against_the_dense_matrix(rule: Rule, formula: oracles.Formula, signs: str) -> None:
    torch.manual_seed(3)
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)]
    net = nn.Sequential(*layers).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    x = x.abs() if signs == "positive" else x
    x[:, ::3] = 0
    found = SelectiveLRP(net, rule, multiply_by_inputs=False).attribute(x, target=1)
    v = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    upper = oracles.hand_down_net([(layers[1], None), (layers[2], formula)], layers[0](x).detach(), v)[0]
    w, b = oracles.dense(layers[0], (6,))
    grown = torch.where(x == 0, 1e-9, x)  # in what is handed down, not in the denominators
    expected = torch.zeros_like(x)
    for n in range(len(x)):
        for (share, c, bias, served), (_, more, _, _) in zip(formula(w, b, x[n]), formula(w, b, grown[n]), strict=True):
            z = c.sum(1) + bias
            s = torch.where(z == 0, 0, share * served * upper[n] / oracles.stabilised(z, 1e-6))
            expected[n] += more.T @ s / grown[n]
    close(found, expected)
    assert found[:, ::3].any()


def test_of_epsilon_in_a_network_of_relus_the_map_is_the_gradient(model: nn.Module, signed: Tensor) -> None:
    found = SelectiveLRP(model, Epsilon(TINY), multiply_by_inputs=False).attribute(signed, target=(lambda y: y[:, 2]))
    close(found, captum.attr.Saliency(model).attribute(signed.clone(), target=2, abs=False), 1e-6)


@pytest.mark.parametrize("place", ["0", "1", "2", "3", "4", "7"])
@pytest.mark.parametrize("of_input", [False, True])
def test_at_a_layer_too(model: nn.Module, signed: Tensor, place: str, of_input: bool) -> None:
    module = model[int(place)]
    seen: dict[str, Tensor] = {}
    with module.register_forward_hook(lambda _, args, y: seen.update(value=args[0] if of_input else y)):
        model(signed)
    for rule in (Epsilon(TINY), "epsilon_plus"):
        of = {"target": 2, "attribute_to_layer_input": of_input}
        found = LayerSelectiveLRP(model, place, rule, multiply_by_inputs=False).attribute(signed, **of)
        close(seen["value"] * found, LayerSelectiveLRP(model, place, rule).attribute(signed, **of), 1e-12)
    theirs = captum.attr.LayerGradientXActivation(model, module, multiply_by_inputs=False)
    found = LayerSelectiveLRP(model, place, Epsilon(TINY), multiply_by_inputs=False).attribute(signed, **of)
    close(found, theirs.attribute(signed.clone(), **of), 1e-6)


@pytest.mark.parametrize("rule", [ZBox(-4, 4), WSquare(), Flat(), Pass()], ids=repr)
def test_rules_that_give_relevance_to_an_input_of_zero_have_no_such_map(rule: Rule) -> None:
    torch.manual_seed(3)
    net = mlp(6, 6, 3).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    x[:, 0] = 0
    composite = Composite(Epsilon(), first=rule)
    assert SelectiveLRP(net, composite).attribute(x, target=1)[:, 0].any(), "so no finite map times 0 is relevance"
    with pytest.raises(RuleError, match="input of zero"):
        SelectiveLRP(net, composite, multiply_by_inputs=False).attribute(x, target=1)
    net[0].rule = rule
    with pytest.raises(RuleError, match="input of zero"):
        SelectiveLRP(net, Epsilon(), multiply_by_inputs=False).attribute(x, target=1)


def test_with_a_box_on_the_input_layers_above_have_the_map(model: nn.Module, signed: Tensor) -> None:
    box = EpsilonGammaBox(-5, 5)
    for place in ("0", "1", "3"):
        found = LayerSelectiveLRP(model, place, box, multiply_by_inputs=False).attribute(signed, target=2)
        value = model[: int(place) + 1](signed).detach()
        close(value * found, LayerSelectiveLRP(model, place, box).attribute(signed, target=2), 1e-12)


def test_the_map_has_no_delta_and_the_trace_is_relevance(model: nn.Module, signed: Tensor) -> None:
    for make in (SelectiveLRP, lambda net, **how: LayerSelectiveLRP(net, "0", **how)):
        lrp = make(model, multiply_by_inputs=False)
        assert not lrp.multiplies_by_inputs
        assert not lrp.has_convergence_delta()
        assert "multiply_by_inputs=False" in repr(lrp)
        with pytest.raises(InputError, match="delta"):
            lrp.attribute(signed, target=2, return_convergence_delta=True)
        torch.testing.assert_close(lrp.trace(signed, target=2).inputs, SelectiveLRP(model).attribute(signed, target=2))
    lrp = SelectiveLRP(model, multiply_by_inputs=False)
    noisy = NoiseTunnel(lrp).attribute(signed, nt_samples=2, target=2)
    assert noisy.shape == signed.shape


def test_several_inputs_and_token_numbers() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.linear = nn.Embedding(7, 4), nn.Linear(4, 3)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.linear((self.embedding(b).mean(1) if not b.is_floating_point() else b) + a)

    torch.manual_seed(0)
    net, a, b = Two().double(), torch.randn(2, 4).double(), torch.randn(2, 4).double()
    maps = SelectiveLRP(net, multiply_by_inputs=False).attribute((a, b), target=1)
    for x, found, relevance in zip((a, b), maps, SelectiveLRP(net).attribute((a, b), target=1), strict=True):
        close(x * found, relevance, 1e-12)
    tokens = torch.tensor([[1, 2, 3], [3, 3, 0]])
    with pytest.raises(InputError, match="number"):
        SelectiveLRP(net, multiply_by_inputs=False).attribute((a, tokens), target=1)
    found = LayerSelectiveLRP(net, "embedding", multiply_by_inputs=False).attribute((a, tokens), target=1)
    relevance = LayerSelectiveLRP(net, "embedding").attribute((a, tokens), target=1)
    close(net.embedding(tokens).detach() * found, relevance, 1e-12)
