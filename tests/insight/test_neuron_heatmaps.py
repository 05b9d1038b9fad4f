"""Heatmaps of neurons: each as a pass of its own would give it, all together the whole."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from lrp_lightning import Epsilon, EpsilonPlus, Fixed, LayerSelectiveLRP, SelectiveLRP, neuron_heatmaps
from lrp_lightning.errors import InputError, LayerError
from lrp_lightning.insight.heatmaps import through_own_neuron


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.head = nn.Conv2d(6, 5, 3), nn.Linear(5, 4)

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        x = x if shift is None else x + shift
        y = F.relu(self.second(F.relu(self.norm(self.first(x)))))
        return self.head(y.mean((2, 3)))


@pytest.fixture
def model() -> nn.Module:
    return Model().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 2, 7, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("composite", [EpsilonPlus(), Epsilon()])
@pytest.mark.parametrize("target", [1, torch.tensor([0, 3, 1]), [0, 3, 1], lambda output: output.argmax(1)])
def test_each_is_as_a_pass_of_its_own(model: nn.Module, x: Tensor, composite: object, target: object) -> None:
    heat = neuron_heatmaps(model, x, "second", [4, 0], target, composite)
    assert heat.shape == (2, *x.shape)
    for n, ours in zip((4, 0), heat, strict=True):
        alone = SelectiveLRP(model, composite, Fixed({"second": [n]})).attribute(x, target)
        torch.testing.assert_close(ours, alone)


def test_all_neurons_of_a_layer_add_up_to_the_whole(model: nn.Module, x: Tensor) -> None:
    heat = neuron_heatmaps(model, x, model.first, range(6), target=2)
    torch.testing.assert_close(heat.sum(0), SelectiveLRP(model).attribute(x, target=2), rtol=1e-4, atol=1e-5)


def test_each_sample_its_own_neurons(model: nn.Module, x: Tensor) -> None:
    top = SelectiveLRP(model).trace(x, target=2).relevance["second"].topk(2, dim=1).indices
    heat = neuron_heatmaps(model, x, "second", top, target=2)
    for n in range(3):
        alone = neuron_heatmaps(model, x[n : n + 1], "second", top[n], target=2)
        torch.testing.assert_close(heat[:, n : n + 1], alone)


def test_on_a_layer_below(model: nn.Module, x: Tensor) -> None:
    heat = neuron_heatmaps(model, x, "second", [1, 3], target=0, at="first")
    alone = LayerSelectiveLRP(model, "first", selection=Fixed({"second": [3]})).attribute(x, target=0)
    assert heat.shape == (2, 3, 6, 7, 7)
    torch.testing.assert_close(heat[1], alone)


def test_one_pass_for_many(model: nn.Module, x: Tensor) -> None:
    forwards = []
    handle = model.register_forward_hook(lambda *_: forwards.append(1))
    neuron_heatmaps(model, x, "second", range(5), target=0)
    handle.remove()
    assert len(forwards) == 1


def test_arguments_of_the_forward_are_repeated(model: nn.Module, x: Tensor) -> None:
    shift = torch.rand(3, 1, 1, 1)
    heat = neuron_heatmaps(model, x, "second", [1, 2], target=0, additional_forward_args=shift)
    alone = SelectiveLRP(model, selection=Fixed({"second": [2]})).attribute(x, 0, additional_forward_args=shift)
    torch.testing.assert_close(heat[1], alone)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layer": "third"}, LayerError, "third"),
        ({"layer": "head"}, LayerError, "head"),  # the output's neurons are no hidden ones
        ({"layer": nn.Linear(1, 1)}, LayerError, "not a module of the model"),
        ({"neurons": [5]}, LayerError, "has 5 neurons, 0 to 4, got 5"),
        ({"neurons": []}, LayerError, "at least one"),
        ({"neurons": [0.5]}, LayerError, "numbers of neurons"),
        ({"neurons": torch.zeros(2, 2, dtype=torch.long)}, LayerError, r"\(3, K\)"),
        ({"inputs": 1.0}, InputError, "must be a tensor"),
    ],
)
def test_what_cannot_be_drawn(model: nn.Module, x: Tensor, arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        neuron_heatmaps(**({"model": model, "inputs": x, "layer": "second", "neurons": [0], "target": 0} | arguments))


def test_a_residual_sum_has_heatmaps_of_its_neurons() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None, num_classes=4).eval()
    x = torch.rand(2, 3, 32, 32)
    heat = neuron_heatmaps(model, x, "layer2.0.add", range(128), target=1)
    torch.testing.assert_close(heat.sum(0), SelectiveLRP(model).attribute(x, target=1), rtol=1e-3, atol=1e-5)
    relevance = SelectiveLRP(model, "epsilon").trace(x, target=1).relevance["layer2.0.add"]
    of_one = neuron_heatmaps(model, x, "layer2.0.add", [7], target=1, composite="epsilon", at="layer2.0.add")[0]
    torch.testing.assert_close(of_one.sum((2, 3))[:, 7], relevance[:, 7])
    below = neuron_heatmaps(model, x, "layer2.0.add", [7], target=1, composite="epsilon", at="layer1.1.add")[0]
    torch.testing.assert_close(below.sum((1, 2, 3)), relevance[:, 7], rtol=1e-2, atol=1e-4)


class Residual(nn.Module):
    """Without biases, and with ReLU, so that the epsilon rule is gradient x input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem, self.inner = nn.Conv2d(2, 5, 3, bias=False), nn.Conv2d(5, 5, 3, padding=1, bias=False)
        self.side, self.head = nn.Conv2d(2, 3, 3, bias=False), nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor, layer: str = "", neuron: int = 0) -> Tensor:
        """With a layer, gradients run through one of its neurons alone."""

        def only(name: str, h: Tensor) -> Tensor:
            if not layer:
                return h
            if name != layer:
                return h if (name, layer) in (("stem", "inner"),) else h.detach()
            return torch.cat([h[:, :neuron].detach(), h[:, neuron : neuron + 1], h[:, neuron + 1 :].detach()], 1)

        stem = self.stem(x)
        below = F.relu(only("stem", stem) if layer == "stem" else stem)
        inner = only("inner", self.inner(below))
        inner = self.inner(below) if layer == "stem" else inner
        block = (below.detach() if layer in ("inner", "side") else below) + F.relu(inner)
        side = F.relu(only("side", self.side(x)))
        block = block.detach() if layer == "side" else block
        return self.head(torch.cat([block, side], 1).mean((2, 3)))


@pytest.mark.parametrize("layer", ["stem", "inner", "side"])
def test_what_runs_around_a_layer_is_left_out(layer: str) -> None:
    model = Residual().double().eval()
    x = torch.randn(3, 2, 7, 7, dtype=torch.double)
    heat = neuron_heatmaps(model, x, layer, [0, 2], target=1, composite=Epsilon(1e-12))
    own = through_own_neuron(model, x, [(layer, 2), ("stem", 1), (layer, 0)], torch.tensor([1, 1, 1]), Epsilon(1e-12))
    for n, ours in zip((0, 2), heat, strict=True):
        given = x.clone().requires_grad_()
        [gradient] = torch.autograd.grad(model(given, layer, n)[:, 1].sum(), given)
        torch.testing.assert_close(ours, gradient * x)
    torch.testing.assert_close(own[0], heat[1, 0])
    torch.testing.assert_close(own[2], heat[0, 2])
