"""Edges against one conditional pass a neuron: our own on a residual network, zennit-crp's on a VGG."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from flow import flow_error
from small_networks import Between
from torch import Tensor, nn
from torchvision.models import vgg11
from torchvision.models.resnet import BasicBlock

from lrp_lightning import AlphaBeta, Epsilon, EpsilonPlus, Fixed, Gamma, SelectiveLRP, ZBox, ZPlus
from lrp_lightning.engine import affine


class ResNet(nn.Module):
    """torchvision's own blocks with few channels, the second with a convolution in its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.layer1 = BasicBlock(4, 4)
        down = nn.Sequential(nn.Conv2d(4, 6, 1, 2, bias=False), nn.BatchNorm2d(6))
        self.layer2 = BasicBlock(4, 6, 2, down)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean([2, 3]))


def resnet() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = ResNet().double().eval()
    with torch.no_grad():
        for name, t in [*model.named_parameters(), *model.named_buffers()]:
            if "bn" in name or "downsample.1" in name or name.endswith("bias"):
                t.copy_(torch.rand(t.shape).mul(0.5).add(0.5) if t.is_floating_point() else t)
    return model, torch.rand(3, 2, 8, 8, dtype=torch.double)


@pytest.mark.filterwarnings("ignore:.*values outside of its box")  # of hidden layers
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("rule", [ZPlus(), Gamma(0.25), AlphaBeta(2, 1), ZBox(-1.0, 1.0)], ids=repr)
def test_terms_are_computed_together_or_apart(monkeypatch: pytest.MonkeyPatch, rule: Any, per_sample: bool) -> None:
    """A convolution of few channels computes all terms of a rule in one, with the same result."""
    model, x = resnet()
    forward, ran, traces = affine.Convolution.forward, [], []
    monkeypatch.setattr(affine.Convolution, "forward", lambda *given: ran.append(given) or forward(*given))
    counts = []
    for narrow in (0, 64):
        monkeypatch.setattr(affine, "_NARROW", narrow)
        traces.append(SelectiveLRP(model, rule).trace(2 * x - 1, 1, edges=True, per_sample=per_sample))
        counts.append(len(ran))
        ran.clear()
    apart, together = traces
    assert counts[1] < counts[0]
    torch.testing.assert_close(together.inputs, apart.inputs, rtol=1e-9, atol=1e-12)
    assert apart.edges.keys() == together.edges.keys()
    for pair, edges in apart.edges.items():
        torch.testing.assert_close(together.edges[pair], edges, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", [Epsilon(), EpsilonPlus(), Gamma(0.25), AlphaBeta(2, 1), ZPlus()], ids=repr)
def test_an_edge_of_a_residual_network_is_what_a_pass_of_one_neuron_brings(rule: Any) -> None:
    """What reaches a layer more when one neuron above it, and nothing beside it, carries relevance on."""
    model, x = resnet()
    trace = SelectiveLRP(model, rule).trace(x, 1, edges=True)
    hidden = [layer for layer in trace.relevance if trace.kinds[layer] == "convolution"]
    looked_at = 0
    for upper in hidden:
        lowers = [lower for lower, above in trace.edges if above == upper]
        # layers that run before the upper one, or beside it, are closed: only what it hands down itself arrives
        beside = {"layer2.downsample.0"} if upper.startswith("layer2.conv") else {"layer2.conv1", "layer2.conv2"}
        closed = [layer for layer in hidden[: hidden.index(upper)] if layer != upper]
        closed += [layer for layer in beside if upper.startswith("layer2") and layer in hidden and layer not in closed]
        if upper == "layer2.conv1":
            closed = [layer for layer in closed if layer != "layer2.conv2"]
        none = SelectiveLRP(model, rule, Fixed({**dict.fromkeys(closed, ()), upper: []})).trace(x, 1)
        for neuron in range(trace.relevance[upper].shape[1]):
            one = SelectiveLRP(model, rule, Fixed({**dict.fromkeys(closed, ()), upper: neuron})).trace(x, 1)
            for lower in lowers:
                alone = one.relevance[lower].sum(0) - none.relevance[lower].sum(0)
                edges = trace.edges[lower, upper]
                torch.testing.assert_close(edges[:, neuron], alone, rtol=1e-8, atol=1e-8 * edges.abs().max().item())
                looked_at += 1
    assert looked_at == 4 + 4 + 4 + 6 + 6 + 6
    for (lower, upper), edges in trace.edges.items():
        if trace.kinds[upper] == "junction" and not lower.endswith("add") and lower != "conv1":  # its only way down
            torch.testing.assert_close(edges, trace.relevance[lower].sum(0), rtol=1e-8, atol=1e-12)


@pytest.mark.slow
def test_edges_are_those_of_zennit_crp_on_a_vgg() -> None:
    attribution = pytest.importorskip("crp.attribution", reason="needs zennit-crp")
    zennit_rules = pytest.importorskip("zennit.rules")
    from zennit.composites import LayerMapComposite
    from zennit.types import Convolution, Linear

    torch.manual_seed(0)
    model = vgg11(num_classes=5).double().eval()
    x = torch.rand(1, 3, 32, 32, dtype=torch.double)
    trace = SelectiveLRP(model, Epsilon(1e-12)).trace(x, 2, edges=True)

    epsilon = zennit_rules.Epsilon(epsilon=1e-14)
    composite = LayerMapComposite([(Convolution, epsilon), (Linear, epsilon)])
    crp = attribution.CondAttribution(model)
    names = [name for name in trace.relevance if name.startswith("features")]
    for (lower, upper), edges in trace.edges.items():
        if upper not in names or lower == "input":
            continue
        neurons = trace.relevance[upper].sum(0).abs().topk(4).indices.tolist()
        result = crp(
            x.clone().requires_grad_(), [{upper: [neuron], "y": [2]} for neuron in neurons], composite, record_layer=[lower]
        )
        expected = result.relevances[lower].sum((2, 3)).T  # (C_lower, neurons)
        ours = edges[:, neurons]
        torch.testing.assert_close(ours, expected.to(ours), rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert len(names) == 8


@pytest.mark.parametrize("choose", [torch.maximum, torch.minimum])
def test_a_constant_that_is_chosen_is_no_neuron(choose: Any) -> None:
    model = Between(lambda h: choose(h, torch.full((6,), 0.1)), 4, 6)
    assert flow_error(SelectiveLRP(model).trace(torch.randn(5, 4), 1, edges=True)) < 1e-5
