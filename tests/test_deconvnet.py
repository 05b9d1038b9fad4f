"""Reconstruction: beside Captum where it sees every rectifier, beside plain autograd of a twin where it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import Deconvolution, GuidedBackprop, NeuronDeconvolution, NeuronGuidedBackprop
from torch import Tensor, nn
from torchvision.models.vgg import VGG, cfgs, make_layers

from lrp_lightning import SelectiveLRP, reconstruct, reconstruct_top_activations
from lrp_lightning.errors import InputError, LayerError, RuleError

METHODS = ["deconvnet", "guided"]
CAPTUM = {"deconvnet": (Deconvolution, NeuronDeconvolution), "guided": (GuidedBackprop, NeuronGuidedBackprop)}

pytestmark = pytest.mark.filterwarnings(
    "ignore:Setting backward hooks on ReLU", "ignore:Setting forward, backward hooks", "ignore:.*required_grads has been set"
)


def vgg16(batch_norm: bool = False) -> nn.Module:
    """Its 13 convolutions at full width, with a small head instead of its three large layers."""
    torch.manual_seed(0)
    model = VGG(make_layers(cfgs["D"], batch_norm), num_classes=1, init_weights=False)
    model.avgpool = nn.Identity()
    model.classifier = nn.Sequential(nn.Linear(512, 32), nn.ReLU(inplace=True), nn.Linear(32, 10))
    return model.eval()


@pytest.fixture(scope="module")
def vgg() -> nn.Module:
    return vgg16()


def images(samples: int = 2, side: int = 32, channels: int = 3) -> Tensor:
    return torch.randn(samples, channels, side, side, generator=torch.Generator().manual_seed(1))


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-6) -> bool:
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max()) and bool(theirs.abs().max() > 0)


# Beside Captum


@pytest.mark.parametrize("method", METHODS)
def test_outputs_of_vgg16_as_captum(vgg: nn.Module, method: str) -> None:
    x = images()
    theirs = torch.stack([CAPTUM[method][0](vgg).attribute(x, target=n) for n in (0, 7)])
    assert close(reconstruct(vgg, x, "classifier.2", [0, 7], method), theirs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("at", "of_map"), [("everywhere", Tensor.sum), ("strongest", Tensor.amax)])
def test_convolutions_of_vgg16_as_captum(vgg: nn.Module, method: str, at: Any, of_map: Callable) -> None:
    x = images()
    neurons = [3, 100, 255]
    captum = CAPTUM[method][1](vgg, vgg.get_submodule("features.14"))
    theirs = torch.stack([captum.attribute(x, lambda y, n=n: of_map(y[:, n], (1, 2))) for n in neurons])
    assert close(reconstruct(vgg, x, "features.14", neurons, method, at), theirs)


@pytest.mark.parametrize("method", METHODS)
def test_batch_norm_as_captum(method: str) -> None:
    model, x = vgg16(batch_norm=True), images()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1, 1)
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    captum = CAPTUM[method][1](model, model.get_submodule("features.11"))  # of the convolution features.10
    theirs = captum.attribute(x, lambda y: y[:, 5].sum((1, 2)))
    assert close(reconstruct(model, x, "features.10", [5], method)[0], theirs, 1e-5)
    assert close(reconstruct(model, x, "features.11", [5], method)[0], theirs, 1e-5)


# Beside a twin whose rectifiers are of the method by themselves


class Rectifier(torch.autograd.Function):
    """The method's rectifier, written once more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, method: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.method = method
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        g = grad[0].clamp(min=0)
        return (g * (x > 0) if ctx.method == "guided" else g), None


class Residual(nn.Module):
    """Rectifiers as functions, in place, reused, clamped; batch norm; a shortcut; a gate; a layer used twice."""

    def __init__(self, method: str | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.method = method
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 4)
        nn.init.uniform_(self.norm.running_mean, -1, 1)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)

    def rectified(self, x: Tensor, form: Callable) -> Tensor:
        return form(x) if self.method is None else Rectifier.apply(x, self.method)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rectified(self.norm(self.stem(x)), self.relu)
        y = self.rectified(self.twice(x), lambda t: F.relu(t, True))
        y = self.rectified(self.twice(y), lambda t: torch.clamp(t, min=0))
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        y = y + x if self.method else y.add_(x)
        y = self.rectified(y, Tensor.relu_)
        y = self.rectified(y - 0.1, lambda t: t.clamp_min_(0.0))
        y = self.rectified(F.max_pool2d(y, 2), self.relu)
        return self.head(torch.flatten(F.adaptive_avg_pool2d(y, 1), 1))


@pytest.mark.parametrize("method", METHODS)
def test_rectifiers_of_every_form_beside_a_twin(method: str) -> None:
    model, twin, x = Residual().eval().double(), Residual(method).eval().double(), images(3, 12).double()
    leaf = x.clone().requires_grad_()
    output = twin(leaf)
    theirs = torch.stack([torch.autograd.grad(output[:, n].sum(), leaf, retain_graph=True)[0] for n in range(4)])
    assert close(reconstruct(model, x, "head", range(4), method), theirs, 1e-12)
    leaf.grad = None
    plain = torch.autograd.grad(model(leaf.clone())[:, 0].sum(), leaf)[0]
    assert not close(theirs[0], plain, 0.1)  # so the method makes a difference here


@pytest.mark.parametrize("form", [
    lambda t: F.relu6(t), lambda t: F.hardtanh(t, 0.0, 6.0), lambda t: torch.clip(t, 0, None), lambda t: F.threshold(t, 0, 0)
])  # fmt: skip
def test_other_rectifiers(form: Callable) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.below, self.above = nn.Linear(6, 9), nn.Linear(9, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.above(form(self.below(x)))

    model, x = Model(), torch.randn(5, 6)
    g = model.above.weight[1].clamp(min=0).expand(5, -1)
    passed = model.below(x) > 0
    assert close(reconstruct(model, x, "above", [1])[0], g @ model.below.weight)
    assert close(reconstruct(model, x, "above", [1], "guided")[0], (g * passed) @ model.below.weight)


@pytest.mark.parametrize("form", [torch.tanh, F.leaky_relu, F.gelu, lambda t: torch.clamp(t, -1, 1)])
def test_what_is_no_rectifier_has_its_own_gradient(form: Callable) -> None:
    model = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 2))
    x = torch.randn(5, 6, requires_grad=True)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below, self.above = model[0], model[1]

        def forward(self, x: Tensor) -> Tensor:
            return self.above(form(self.below(x)))

    theirs = torch.autograd.grad(Model()(x)[:, 1].sum(), x)[0]
    assert close(reconstruct(Model(), x, "above", [1])[0], theirs)


# Layers and neurons


def test_calls_junctions_and_modules_are_layers() -> None:
    model, x = Residual().eval(), images(2, 12)
    first, second = (reconstruct(model, x, f"twice#{n}", [2]) for n in (1, 2))
    assert not torch.equal(first, second)
    assert reconstruct(model, x, "add", [2]).abs().sum() > 0  # the shortcut
    assert torch.equal(reconstruct(model, x, model.stem, [2]), reconstruct(model, x, "stem", [2]))
    assert torch.equal(reconstruct(model, x, "stem", [2]), reconstruct(model, x, "norm", [2]))  # folded into it
    trace = SelectiveLRP(model).trace(x, target=0)
    layers = [layer for layer in trace.relevance if layer != "input"]
    for layer in layers:
        assert reconstruct(model, x, layer, trace.relevance[layer].sum(0).topk(2).indices).shape == (2, *x.shape)
    block = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Conv2d(4, 2, 3))
    leaf = x.clone().requires_grad_()
    theirs = torch.autograd.grad(block[0](leaf)[:, 1].sum(), leaf)[0]
    assert close(reconstruct(block, x, "0", [1], "guided")[0], theirs)


def test_many_neurons_at_once_are_as_one_by_one(vgg: nn.Module) -> None:
    x = images(3)
    together = reconstruct(vgg, x, "features.5", range(70))  # more than one backward
    apart = torch.cat([reconstruct(vgg, x, "features.5", [n]) for n in (0, 21, 69)])
    assert together.shape == (70, *x.shape)
    assert close(together[[0, 21, 69]], apart)


def test_one_backward_for_many_neurons(vgg: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, forwards = [], []
    ours = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or ours(*a, **k))
    handle = vgg.register_forward_hook(lambda *_: forwards.append(1))
    reconstruct(vgg, images(2), "features.28", range(32))
    handle.remove()
    assert (len(calls), len(forwards)) == (1, 1)


def test_tokens_one_sample_or_several() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0).eval()
    x = torch.randn(3, 5, 16)
    together = reconstruct(layer, x, "linear2", [0, 3])
    for n in range(3):
        assert close(reconstruct(layer, x[n : n + 1], "linear2", [0, 3]), together[:, n : n + 1], 1e-5)


# What must not change


def test_the_model_is_left_as_it_was_found() -> None:
    model, x = Residual().train(), images(2, 12)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    given, rng = x.clone(), torch.get_rng_state()
    with torch.no_grad(), torch.inference_mode():
        reconstruct(model, x, "twice#2", [0])
        with pytest.raises(LayerError):
            reconstruct(model, x, "stem", [99])
        with pytest.raises(LayerError):
            reconstruct(model, x, "relu", [0])  # runs twice
    assert torch.equal(x, given)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    for module in model.modules():
        assert module.training
        assert not module._forward_hooks
    assert all(p.requires_grad and torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layer": "heed"}, LayerError, "did you mean 'head'"),
        ({"layer": "twice"}, LayerError, "runs 2 times; name one: twice#1, twice#2"),
        ({"layer": nn.Linear(2, 2)}, LayerError, "Linear is not a module of the model"),
        ({"neurons": [4]}, LayerError, "there is no neuron 4; the layer has neurons 0 to 3"),
        ({"neurons": [-1]}, LayerError, "there is no neuron -1"),
        ({"neurons": []}, LayerError, "at least one"),
        ({"neurons": 3}, LayerError, "must be numbers of neurons"),
        ({"method": "gradient"}, RuleError, "'deconvnet', 'guided', got 'gradient'"),
        ({"at": "centre"}, RuleError, "'everywhere' or 'strongest'"),
        ({"inputs": [1.0]}, InputError, "must be a tensor"),
        ({"inputs": torch.full((1, 3, 12, 12), torch.nan)}, InputError, "NaN"),
        ({"inputs": torch.zeros(1, 3, 12, 12, dtype=torch.long)}, InputError, "floating-point"),
    ],
)
def test_what_cannot_be_reconstructed(arguments: dict, error: type[Exception], message: str) -> None:
    given = {"model": Residual().eval(), "inputs": images(2, 12), "layer": "head", "neurons": [0]} | arguments
    with pytest.raises(error, match=message):
        reconstruct(**given)


# Top activations


@pytest.fixture
def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(4, 6, 3, dilation=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    ).eval()  # fmt: skip


def test_the_samples_that_drive_a_neuron_most(small: nn.Module) -> None:
    x = images(23, 33, 1)
    labelled = [(part, torch.zeros(len(part))) for part in x.split(5)]
    top = reconstruct_top_activations(small, labelled, "4", neuron=2, k=6)
    with torch.no_grad():
        largest = small[:5](x)[:, 2].amax((1, 2))
    values, samples = largest.topk(6)
    assert close(top.values, values)
    assert top.samples.tolist() == samples.tolist()
    assert torch.equal(top.images, x[samples])
    assert torch.equal(top.reconstructions, reconstruct(small, x[samples], "4", [2], at="strongest")[0])
    for image, reconstruction in top.patches:
        assert image.shape == reconstruction.shape
    outside = top.reconstructions.clone()
    for sample, field in zip(outside, top.fields.tolist(), strict=True):
        (up, left), (down, right) = field
        sample[:, up:down, left:right] = 0
    assert outside.abs().max() == 0  # all of the reconstruction lies in the receptive field


def test_receptive_fields_by_brute_force(small: nn.Module) -> None:
    """A pixel is in the field if some value of it changes the neuron at its strongest place."""
    x = images(1, 33, 1)
    top = reconstruct_top_activations(small, [x], "4", neuron=2)
    with torch.no_grad():
        place = small[:5](x)[0, 2].argmax()
        was = small[:5](x)[0, 2].flatten()[place]
        one_changed = x.expand(2 * 33 * 33, -1, -1, -1).clone().flatten(1)
        pixels = torch.arange(33 * 33)
        one_changed[pixels, pixels], one_changed[33 * 33 + pixels, pixels] = 1e4, -1e4
        now = small[:5](one_changed.view(-1, 1, 33, 33))[:, 2].flatten(1)[:, place]
    matters = ((now - was).abs() > 1e-3).view(2, 33, 33).any(0)
    rows, columns = matters.any(1).nonzero(), matters.any(0).nonzero()
    assert top.fields.tolist() == [[[rows.min(), columns.min()], [rows.max() + 1, columns.max() + 1]]]
    assert 5 < rows.max() - rows.min() < 32  # neither a point nor everything


def test_receptive_fields_of_inception_and_residuals() -> None:
    """Branches of different reach, a shortcut, another pooling: the widest counts."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.near, self.far, self.join = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 5, padding=2), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.join(torch.cat([self.near(x), F.hardswish(self.far(x))], 1))
            return F.avg_pool2d(y + y.roll(0, 1), 2)

    torch.manual_seed(0)
    top = reconstruct_top_activations(Branches(), [images(1, 40, 1)], "", neuron=0)
    (up, left), (down, right) = top.fields[0].tolist()
    assert (down - up, right - left) == (6, 6)  # two places of five by five


def test_signals_of_one_dimension_and_of_none() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 5), nn.ReLU(), nn.Conv1d(3, 4, 3))
    top = reconstruct_top_activations(model, [torch.randn(4, 2, 30)], "2", 1, k=2)
    assert (top.fields[:, 1] - top.fields[:, 0]).tolist() == [[7], [7]]
    flat = reconstruct_top_activations(nn.Sequential(nn.Linear(5, 3)), [torch.randn(4, 5)], "0", 1, k=2)
    assert flat.patches[0][0].shape == (5,)


def test_fewer_samples_than_asked_for(small: nn.Module) -> None:
    assert len(reconstruct_top_activations(small, images(3, 33, 1).split(2), "4", 0, k=9).values) == 3


@pytest.mark.parametrize(
    ("loader", "k", "message"), [([], 3, "no batch"), ([torch.rand(1, 1, 9, 9)], 0, "at least 1, got 0")]
)
def test_top_activations_that_cannot_be_found(small: nn.Module, loader: list, k: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        reconstruct_top_activations(small, loader, "4", 0, k)


def test_progress_is_for_terminals_only(small: nn.Module, capsys: pytest.CaptureFixture) -> None:
    reconstruct_top_activations(small, [images(1, 33, 1)], "4", 0)
    assert capsys.readouterr().err == ""


def test_layers_are_called_as_in_a_trace() -> None:
    model, x = Residual().eval(), images(2, 12)
    trace = SelectiveLRP(model).trace(x, target=0)
    for name in trace.relevance:
        if name != "input":
            assert reconstruct(model, x, name, [0]).shape == (1, *x.shape)
