"""The attribution classes stand wherever Captum's LRP and LayerLRP do: the same calls, and results where it is right."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LRP, LayerLRP, NoiseTunnel
from captum.attr import visualization as captum_visualization
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

from lrp_lightning import Composite, Epsilon, Flat, LayerSelectiveLRP, Pass, SelectiveLRP, TopK, WSquare
from lrp_lightning.errors import LayerError, RuleError, TargetError

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
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).double()
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
    with pytest.raises(LayerError, match="no module of the model"):
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
