"""One forward and one backward: what they conserve, follow, refuse and leave alone."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import oracles
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from lrp_lightning import (
    Composite,
    Epsilon,
    EpsilonAlpha2Beta1,
    EpsilonGammaBox,
    EpsilonPlus,
    Flat,
    Gamma,
    Pass,
    SelectiveLRP,
    TopK,
    Trace,
    WSquare,
    ZBox,
    ZPlus,
)
from lrp_lightning.errors import InputError, LRPError, ModelError, RuleError, TargetError, UnsupportedOperatorError
from lrp_lightning.rules import Rule

COMPOSITES = {
    "epsilon_plus": EpsilonPlus(),
    "epsilon": Composite(Epsilon()),
    "epsilon_gamma_box": EpsilonGammaBox(-6.0, 6.0),
    "epsilon_alpha2_beta1": EpsilonAlpha2Beta1(),
}
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}


def images(samples: int = 2, size: int = 8, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(samples, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@torch.no_grad()
def with_biases(model: nn.Module, seed: int = 0) -> nn.Module:
    """Biases, affine parameters and running statistics such that none is trivial: conservation has to count them all."""
    g = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.2, generator=g)
            module.running_var.uniform_(0.5, 1.5, generator=g)
            if module.affine:
                module.weight.uniform_(0.5, 1.5, generator=g)
                module.bias.normal_(std=0.2, generator=g)
        elif isinstance(getattr(module, "bias", None), Tensor):
            module.bias.normal_(std=0.1, generator=g)  # type: ignore[union-attr, operator]
    return model


def small_net() -> nn.Sequential:
    """Convolutions with batch norm, a max and an average pooling, two linear layers."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 5),
    )  # fmt: skip
    return with_biases(model).double().eval()  # type: ignore[return-value]


class Net(nn.Module):
    """A convolution, whatever ``middle`` does, and a linear layer: for operators in functional form."""

    def __init__(self, middle: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.middle = middle
        self.conv, self.other = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.rand(1, 4, 1, 1) + 0.5)
        self.head = nn.LazyLinear(3)
        self.eval()(torch.zeros(1, 3, 8, 8))
        with_biases(self).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self, self.conv(x)).flatten(1))


def relevance(model: nn.Module, x: Tensor, composite: Any = "epsilon_plus", target: Any = 1) -> Tensor:
    return SelectiveLRP(model, composite).attribute(x, target)


def assert_close(one: Tensor, other: Tensor, tolerance: float = 1e-10) -> None:
    assert other.abs().max() > 0
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance * other.abs().max().item())


def assert_conserves(trace: Trace) -> None:
    assert trace.conservation_error.max() <= TOLERANCE[trace.output.dtype]


# conservation, and the forward's own numbers

NETWORKS = [  # all of torchvision's: test_zoo.py
    *(pytest.param("resnet18", name) for name in COMPOSITES),
    *(pytest.param("vgg11_bn", name, marks=pytest.mark.slow) for name in COMPOSITES),
    pytest.param("resnet50", "epsilon_plus", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "float64"])
@pytest.mark.parametrize(("network", "composite"), NETWORKS)
def test_relevance_is_conserved_and_the_forward_the_same_bits(network: str, composite: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = with_biases(getattr(torchvision.models, network)(weights=None, num_classes=10)).to(dtype).eval()
    x = images(2, 64, dtype)
    trace = SelectiveLRP(model, COMPOSITES[composite]).trace(x, torch.tensor([3, 7]))
    assert_conserves(trace)
    with torch.no_grad():
        assert torch.equal(trace.output, model(x))
    in_biases = sum(r.abs() for name, r in trace.absorbed.items() if name.endswith(".bias"))
    assert (in_biases > 1e-2 * trace.explained.abs()).all()  # they matter here, so a bias forgotten would show


@pytest.mark.parametrize("composite", COMPOSITES)
def test_relevance_is_conserved_in_a_trained_net(composite: str) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    x = torch.as_tensor(digits.images[:512], dtype=torch.float32).unsqueeze(1) / 16
    y = torch.as_tensor(digits.target[:512])
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(16):
        batch = slice(32 * step, 32 * step + 32)
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        assert (model(x).argmax(1) == y).float().mean() > 0.8  # it learned something
    x = x[:64] + 0.01 if composite == "epsilon_gamma_box" else x[:64]
    assert_conserves(SelectiveLRP(model, COMPOSITES[composite]).trace(x, y[:64]))


def test_selection_is_counted_too() -> None:
    trace = SelectiveLRP(small_net(), selection=TopK(3)).trace(images(), 1)
    assert_conserves(trace)
    assert {name for name in trace.absorbed if name.endswith(".unselected")} == {
        "0.unselected",
        "4.unselected",
        "9.unselected",
    }


# edges


@dataclass(frozen=True)
class Only:
    """Keeps one neuron of one layer, and every neuron of the others."""

    layer: str
    neuron: int

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        kept = torch.ones_like(relevance, dtype=torch.bool)
        if layer == self.layer:
            kept[:] = False
            kept[:, self.neuron] = True
        return kept


@pytest.mark.parametrize("composite", [*COMPOSITES.values(), WSquare()], ids=[*COMPOSITES, "wsquare"])
def test_an_edge_is_what_a_pass_of_one_neuron_brings(composite: Any) -> None:
    """One pass a neuron, as concept relevance propagation does it, gives the columns of the edge matrices."""
    model, x = small_net(), images()
    trace = SelectiveLRP(model, composite).trace(x, 2, edges=True)
    assert list(trace.edges) == [("input", "0"), ("0", "4"), ("4", "9"), ("9", "12")]
    for (lower, upper), edges in trace.edges.items():
        assert edges.shape == (trace.relevance[lower].shape[1], trace.relevance[upper].shape[1])
        if upper == "12":  # the output, where a selection has no say: its one neuron is the target
            assert_close(edges[:, 2], trace.relevance[lower].sum(0))
            assert torch.equal(edges[:, [0, 1, 3, 4]], torch.zeros_like(edges[:, 1:]))
            continue
        for neuron in range(edges.shape[1]):
            alone = SelectiveLRP(model, composite, Only(upper, neuron)).trace(x, 2)
            scale = edges.abs().max().item()
            torch.testing.assert_close(edges[:, neuron], alone.relevance[lower].sum(0), rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("selection", [None, TopK(3)], ids=repr)
@pytest.mark.parametrize("composite", COMPOSITES)
def test_edges_add_up(composite: str, selection: TopK | None) -> None:
    """Over the upper neurons to the relevance below; over the lower to that above, less what biases and stabilisers took."""
    trace = SelectiveLRP(small_net(), COMPOSITES[composite], selection).trace(images(), 2, edges=True)
    assert len(trace.edges) == 4
    for (lower, upper), edges in trace.edges.items():
        assert_close(edges.sum(1), trace.relevance[lower].sum(0))
        carried = trace.relevance[upper]
        if upper in trace.masks:
            carried = carried * trace.masks[upper]
        stayed = sum(trace.absorbed[f"{upper}.{where}"].sum() for where in ("bias", "stabiliser"))
        torch.testing.assert_close(edges.sum() + stayed, carried.sum())


class Windows(nn.Module):
    """A convolution, and linear layers over windows, of which several of one sample lie in the dimension of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.mixed, self.above = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.below(x)))
        windows = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 4, 5, 1).reshape(-1, 16, 6)
        windows = windows + self.mixed(windows)
        return self.above(windows.reshape(len(x), -1, 6).mean(1))


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("selection", [None, TopK(0.5), TopK(0.5, rescale=True), TopK(0.5, unit="element")])
@pytest.mark.parametrize("composite", list(COMPOSITES))
def test_blocks_of_samples_do_not_matter(
    composite: str, selection: TopK | None, per_sample: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = with_biases(Windows()).double().eval(), images(5)

    def traced() -> Trace:
        return SelectiveLRP(model, COMPOSITES[composite], selection).trace(x, target=1, edges=True, per_sample=per_sample)

    whole = traced()
    for values in (1, 2 * 6 * 8 * 8):  # a sample at a time, and two of the first layer's
        monkeypatch.setattr("lrp_lightning.engine.affine._BLOCK", values)
        blocks = traced()
        assert_close(blocks.inputs, whole.inputs)
        for one, other in (
            (blocks.relevance, whole.relevance),
            (blocks.edges, whole.edges),
            (blocks.absorbed, whole.absorbed),
        ):
            assert one.keys() == other.keys()
            for key in one:
                scale = max(1.0, other[key].abs().max().item())
                torch.testing.assert_close(one[key], other[key], rtol=0, atol=1e-10 * scale)
        assert all(torch.equal(mask, whole.masks[layer]) for layer, mask in blocks.masks.items())
        assert_conserves(blocks)


def test_edges_of_neurons_without_a_bias_are_their_relevance() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, groups=1, bias=False), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(96, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False),
    ).double()  # fmt: skip
    trace = SelectiveLRP(model, Epsilon(1e-14)).trace(images(), 1, edges=True)
    for (lower, upper), edges in trace.edges.items():
        assert_close(edges.sum(0), trace.relevance[upper].sum(0), 1e-9)
        assert_close(edges.sum(1), trace.relevance[lower].sum(0), 1e-9)
    grouped = trace.edges["0", "2"]
    assert torch.equal(grouped[:2, 3:], torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(grouped[2:, :3], torch.zeros(2, 3, dtype=torch.float64))


def test_edges_of_a_residual_junction() -> None:
    net = Net(lambda net, x: torch.relu(net.other(torch.relu(x)) + x))
    trace = SelectiveLRP(net, Epsilon()).trace(images(), 1, edges=True)
    assert trace.kinds["add"] == "junction"
    one, other = trace.edges["conv", "add"], trace.edges["other", "add"]
    assert one.shape == other.shape == (4,)
    assert_close(one + other, trace.relevance["add"].sum(0))
    assert_close(other, trace.relevance["other"].sum(0))
    assert_close(one + trace.edges["conv", "other"].sum(1), trace.relevance["conv"].sum(0))


# functional, in-place and module forms

SAME_NET: dict[str, list[Callable[[Net, Tensor], Tensor]]] = {
    "relu": [
        lambda net, x: nn.ReLU()(x),
        lambda net, x: nn.ReLU(inplace=True)(x),
        lambda net, x: F.relu(x),
        lambda net, x: F.relu(x, True),
        lambda net, x: F.relu(input=x, inplace=True),
        lambda net, x: F.relu_(x),
        lambda net, x: x.relu(),
        lambda net, x: x.relu_(),
        lambda net, x: torch.relu(x),
        lambda net, x: torch.relu_(x),
        lambda net, x: (torch.relu_(x), x)[1],  # the name that was there before
    ],
    "leaky-relu": [
        lambda net, x: nn.LeakyReLU(0.1)(x),
        lambda net, x: F.leaky_relu(x, 0.1),
        lambda net, x: F.leaky_relu(x, negative_slope=0.1, inplace=True),
        lambda net, x: F.leaky_relu_(x, 0.1),
    ],
    "relu6": [lambda net, x: nn.ReLU6()(x), lambda net, x: F.relu6(x), lambda net, x: F.relu6(x, inplace=True)],
    "add": [
        lambda net, x: x + net.other(x),
        lambda net, x: torch.add(x, net.other(x)),
        lambda net, x: x.add(net.other(x)),
        lambda net, x: x.add_(net.other(x)),
        lambda net, x: added_in_place(x, net.other(x)),
        lambda net, x: (x.add_(net.other(x)), x)[1],
        lambda net, x: x - net.other(x) * -1,
        lambda net, x: x.clone().sub_(net.other(x), alpha=-1),
    ],
    "scale": [
        lambda net, x: x * 2.5,
        lambda net, x: 2.5 * x,
        lambda net, x: x.mul(2.5),
        lambda net, x: x.mul_(2.5),
        lambda net, x: torch.mul(x, 2.5),
        lambda net, x: x / 0.4,
        lambda net, x: x.div_(0.4),
        lambda net, x: (x.mul_(5), x.mul_(0.5), x)[2],
    ],
    "scale-by-parameter": [
        lambda net, x: x * net.scale,
        lambda net, x: net.scale * x,
        lambda net, x: x.mul_(net.scale),
        lambda net, x: x / (1 / net.scale),
    ],
    "shift": [
        lambda net, x: x + 0.5,
        lambda net, x: 0.5 + x,
        lambda net, x: x.add_(0.5),
        lambda net, x: x - -0.5,
        lambda net, x: -(-0.5 - x),
    ],
    "mean": [
        lambda net, x: nn.AdaptiveAvgPool2d(1)(x),
        lambda net, x: x.mean([2, 3]),
        lambda net, x: x.mean((2, 3), keepdim=True),
        lambda net, x: torch.mean(x, dim=(-2, -1)),
        lambda net, x: x.flatten(2).mean(2),
        lambda net, x: F.avg_pool2d(x, 8),
        lambda net, x: x.sum([2, 3]) / 64,
    ],
    "flatten": [
        lambda net, x: nn.Flatten()(x),
        lambda net, x: torch.flatten(x, 1),
        lambda net, x: x.flatten(1),
        lambda net, x: x.view(x.size(0), -1),
        lambda net, x: x.reshape(len(x), -1),
        lambda net, x: x.unflatten(1, (2, 2)),
        lambda net, x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        lambda net, x: x.transpose(1, 2).transpose(2, 1),
        lambda net, x: torch.cat(x.chunk(2, dim=1), 1),
        lambda net, x: torch.cat([x[:, :1], x[:, 1:]], 1),
        lambda net, x: torch.stack(x.unbind(1), 1),
    ],
    "slice": [
        lambda net, x: x[:, :2],
        lambda net, x: x[:, :-2],
        lambda net, x: x[:, [0, 1]],
        lambda net, x: x.narrow(1, 0, 2),
        lambda net, x: x.split(2, dim=1)[0],
        lambda net, x: x.chunk(2, 1)[0],
    ],
    "max-pool": [
        lambda net, x: nn.MaxPool2d(2)(x),
        lambda net, x: F.max_pool2d(x, 2),
        lambda net, x: torch.max_pool2d(x, 2),
        lambda net, x: F.max_pool2d(x, 2, return_indices=True)[0],
        lambda net, x: F.adaptive_max_pool2d(x, 4),
    ],
    "dropout": [
        lambda net, x: x,
        lambda net, x: nn.Dropout(0.9).eval()(x),
        lambda net, x: F.dropout(x, 0.9, training=net.training),
        lambda net, x: F.dropout2d(x, 0.9, net.training, inplace=True),
    ],
    "no-grad": [lambda net, x: net.other(x).relu(), lambda net, x: frozen(net, x)],
    "convolution": [
        lambda net, x: net.other(x),
        lambda net, x: F.conv2d(x, net.other.weight, net.other.bias, padding=1),
        lambda net, x: torch.conv2d(x, net.other.weight, net.other.bias, 1, 1),
        lambda net, x: F.conv2d(x, net.other.weight, net.other.bias, padding="same"),
        lambda net, x: F.conv2d(F.pad(x, (1, 1, 1, 1)), net.other.weight, net.other.bias),
    ],
    "batch-norm": [
        lambda net, x: net.norm(x),
        lambda net, x: F.batch_norm(
            x, net.norm.running_mean, net.norm.running_var, net.norm.weight, net.norm.bias, eps=net.norm.eps
        ),
    ],
}


def added_in_place(x: Tensor, y: Tensor) -> Tensor:
    x += y
    return x


@torch.no_grad()
def frozen(net: Net, x: Tensor) -> Tensor:
    return net.other(x).relu()


@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon", "epsilon_alpha2_beta1"])
@pytest.mark.parametrize(
    ("middle", "form"), [pytest.param(m, f, id=f"{m}-{f}") for m, forms in SAME_NET.items() for f in range(len(forms))]
)
def test_forms_of_one_net_have_one_relevance(middle: str, form: int, composite: str) -> None:
    model, reference, x = Net(SAME_NET[middle][form]), Net(SAME_NET[middle][0]), images()
    trace = SelectiveLRP(model, composite).trace(x, 1)
    assert_conserves(trace)
    with torch.no_grad():
        assert torch.equal(trace.output, model(x))
    assert_close(trace.inputs, relevance(reference, x, composite))


def test_in_place_operators_do_not_reach_the_callers_input() -> None:
    class Normalises(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x -= 0.5
            return self.layer(x.div_(0.25).relu_())

    model, x = Normalises(), torch.rand(2, 4)
    before = x.clone()
    trace = SelectiveLRP(model).trace(x, 1)
    assert torch.equal(x, before)
    assert torch.equal(trace.output, model(x.clone()))


@pytest.mark.parametrize(("one", "other"), [((8, 3), (3,)), ((4, 5), (7, 5))], ids=["linear", "tokens"])
def test_shapes_of_linear_inputs(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    for shape in (one, other):
        model = nn.Sequential(nn.Linear(shape[-1], 6), nn.ReLU(), nn.Linear(6, 4), nn.Flatten()).double()
        trace = SelectiveLRP(model).trace(torch.randn(2, *shape, dtype=torch.float64), 1)
        assert trace.inputs.shape == (2, *shape)
        assert trace.relevance["0"].shape == (2, 6)
        assert_conserves(trace)


# batch norm


@pytest.mark.parametrize("composite", COMPOSITES)
def test_batch_norm_folds_as_torch_folds_it(composite: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, bias=False), nn.BatchNorm2d(4),
        nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3),
    )  # fmt: skip
    conv, norm, relu, conv2, norm2, flatten, linear, norm3, relu3, head = with_biases(model).double().eval()
    fused = nn.Sequential(
        fuse_conv_bn_eval(conv, norm), relu, fuse_conv_bn_eval(conv2, norm2), flatten, fuse_linear_bn_eval(linear, norm3),
        relu3, head,
    )  # fmt: skip
    x, c = images(), COMPOSITES[composite]
    trace, plain = SelectiveLRP(model, c).trace(x, 1, edges=True), SelectiveLRP(fused, c).trace(x, 1, edges=True)
    assert list(trace.relevance) == ["input", "0", "3", "6", "9"]
    assert_close(trace.inputs, plain.inputs)
    for one, other in zip(trace.relevance.values(), plain.relevance.values(), strict=True):
        assert_close(one, other)
    for one, other in zip(trace.edges.values(), plain.edges.values(), strict=True):
        assert_close(one, other)


def test_batch_norm_folds_only_for_those_who_read_it() -> None:
    """The convolution's own output is read as well, before and after it is normalised: both readers are right."""
    x = images()
    once = Net(lambda net, x: net.norm(x) + x)
    trace = SelectiveLRP(once, Epsilon()).trace(x, 1)
    assert_conserves(trace)
    assert_close(relevance(once, x, Epsilon(1e-14)), oracles.input_times_gradient(once, x), 1e-8)


@pytest.mark.parametrize("middle", [middle for middle in SAME_NET if middle != "relu6"])  # which is flat, not zero, above 6
def test_epsilon_is_input_times_gradient(middle: str) -> None:
    model, x = Net(SAME_NET[middle][0]), images()
    assert_close(relevance(model, x, Epsilon(1e-14)), oracles.input_times_gradient(model, x), 1e-8)


# one layer, several calls


class Recurrent(nn.Module):
    """A convolution that runs twice, and a second module that shares its weights."""

    def __init__(self, copies: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(192, 4).double()
        self.conv = nn.Conv2d(3, 3, 3, padding=1).double()
        self.again = copy.deepcopy(self.conv) if copies else self.conv
        self.shared = copy.deepcopy(self.conv) if copies else nn.Conv2d(3, 3, 3, padding=1).double()
        if not copies:
            self.shared.weight, self.shared.bias = self.conv.weight, self.conv.bias

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv, self.again, self.shared):
            x = torch.relu(conv(x))
        return self.head(x.flatten(1))


@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_layer_that_runs_several_times_is_numbered(composite: str) -> None:
    twice = SelectiveLRP(Recurrent(False), COMPOSITES[composite]).trace(images(), 1, edges=True)
    copies = SelectiveLRP(Recurrent(True), COMPOSITES[composite]).trace(images(), 1, edges=True)
    assert list(twice.relevance) == ["input", "conv#1", "conv#2", "conv#3", "head"]
    assert list(copies.relevance) == ["input", "conv", "again", "shared", "head"]
    assert list(twice.edges) == [("input", "conv#1"), ("conv#1", "conv#2"), ("conv#2", "conv#3"), ("conv#3", "head")]
    assert_conserves(twice)
    for kept in ("relevance", "edges"):
        for one, other in zip(getattr(twice, kept).values(), getattr(copies, kept).values(), strict=True):
            assert torch.equal(one, other)


# the model is left as it was found


def state(model: nn.Module) -> dict[str, Any]:
    """All that a pass could leave a trace in."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {
        "values": {name: t.detach().clone() for name, t in tensors.items()},
        "identity": {
            name: (id(t), t._version, t.requires_grad, t.grad_fn, t._backward_hooks) for name, t in tensors.items()
        },
        "grad": {name: (id(t.grad), None if t.grad is None else t.grad.clone()) for name, t in tensors.items()},
        "modules": {
            name: {k: dict(v) if isinstance(v, dict) else v for k, v in vars(module).items()}
            for name, module in model.named_modules()
        },  # train and eval, hooks, and what the user put there
        "global hooks": {
            k: dict(v) for k, v in vars(torch_module).items() if k.startswith("_global") and isinstance(v, dict)
        },
        "rng": torch.get_rng_state(),
        "modes": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.is_autocast_cache_enabled(),
            torch.overrides._get_current_function_mode_stack(),
            torch.get_default_dtype(),
        ),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one is other or (torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other))


def lived_in() -> nn.Module:
    """A model in the middle of training: some modules in train mode, gradients, hooks, frozen and annotated parts."""
    model = small_net()
    model.train()
    model[1].eval()
    model(images()).sum().backward()
    model[0].weight.requires_grad_(False)
    model[4].weight.grad = None
    model[6].register_forward_hook(lambda module, args, output: None)
    model[9].register_full_backward_hook(lambda module, grad_input, grad_output: None)
    model[0].note = {"of": "the user"}
    model.activations = [1, 2]
    return model


class Raises(nn.Module):
    """In the forward, after what is before it has run."""

    def forward(self, x: Tensor) -> Tensor:
        raise ZeroDivisionError("in the forward")


@dataclass(frozen=True)
class RaisesInBackward:
    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        raise ZeroDivisionError("in the backward")


def unsupported(x: Tensor) -> Tensor:
    return x.cumprod(1)


class Calls(nn.Module):
    """A module of the user's, whose forward is a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


PASSES: dict[str, tuple[Callable[[nn.Module], nn.Module], dict[str, Any], dict[str, Any], type[Exception] | None]] = {
    # what is appended to the model, arguments of the class, arguments of the pass, what is raised
    "succeeds": (lambda m: m, {}, {}, None),
    "succeeds-edges": (lambda m: m, {"selection": TopK(0.5)}, {"edges": True}, None),
    "raises-in-forward": (lambda m: m.append(Raises()), {}, {}, ZeroDivisionError),
    "raises-in-backward": (lambda m: m, {"selection": RaisesInBackward()}, {}, ZeroDivisionError),
    "rule-does-not-fit": (lambda m: m, {"composite": Composite(Epsilon(), layers={"4": Pass()})}, {}, RuleError),
    "unknown-operator": (lambda m: m.append(Calls(unsupported)), {}, {}, UnsupportedOperatorError),
    "unknown-target": (lambda m: m, {}, {"target": 99}, TargetError),
    "no-target": (lambda m: m, {}, {"target": None}, TargetError),
    "bad-input": (lambda m: m, {}, {"inputs": torch.full((2, 3, 8, 8), float("nan"))}, InputError),
    "bad-output": (lambda m: m.append(Calls(lambda x: [x])), {}, {}, ModelError),
}  # fmt: skip


@pytest.mark.parametrize("grad_enabled", [True, False], ids=["grad", "no-grad"])
@pytest.mark.parametrize("name", PASSES)
def test_the_model_is_left_as_it_was_found(name: str, grad_enabled: bool) -> None:
    appended, how, what, error = PASSES[name]
    model = appended(lived_in())
    x = what.get("inputs", images()).clone().requires_grad_(name == "succeeds")
    given = x.detach().clone()
    lrp = SelectiveLRP(model, **how)
    with torch.set_grad_enabled(grad_enabled), torch.autocast("cpu", dtype=torch.bfloat16):
        before = state(model)
        if error is None:
            lrp.trace(x, **({"target": 1} | what))
        else:
            with pytest.raises(error):
                lrp.trace(**({"inputs": x, "target": 1} | what))
        after = state(model)
    for part in before:
        assert same(before[part], after[part]), part
    assert torch.equal(x.detach().nan_to_num(), given.nan_to_num())
    assert x.grad is None


# the circumstances of a call


def circumstances() -> dict[str, Callable[[], Any]]:
    return {
        "no_grad": torch.no_grad,
        "inference_mode": torch.inference_mode,
        "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    }


@pytest.mark.parametrize("name", circumstances())
def test_the_same_bits_in_any_circumstances(name: str) -> None:
    model = small_net().float()
    expected = SelectiveLRP(model).trace(images(dtype=torch.float32), torch.tensor([1, 2]), edges=True)
    with circumstances()[name]():
        x, target = images(dtype=torch.float32), torch.tensor([1, 2])
        assert x.is_inference() == (name == "inference_mode")
        trace = SelectiveLRP(model, selection=TopK(1.0)).trace(x, target, edges=True)
    assert torch.equal(trace.inputs, expected.inputs)
    assert torch.equal(trace.output, expected.output)
    assert not trace.inputs.is_inference()
    for pair, edges in expected.edges.items():
        assert torch.equal(trace.edges[pair], edges)


def test_a_model_in_train_mode_is_explained_as_in_eval() -> None:
    model, x = small_net(), images()
    expected = SelectiveLRP(model).trace(x, 1)
    trace = SelectiveLRP(model.train()).trace(x, 1)
    assert torch.equal(trace.inputs, expected.inputs)
    assert torch.equal(trace.output, expected.output)
    assert all(module.training for module in model.modules())


def test_a_model_with_nothing_to_train() -> None:
    x = images()
    assert torch.equal(relevance(small_net().requires_grad_(False), x), relevance(small_net(), x))


def test_the_inputs_of_one_call_do_not_meet() -> None:
    x, target = images(4), torch.tensor([0, 1, 2, 3])
    together = SelectiveLRP(small_net()).attribute(x, target)
    for i in range(4):
        assert_close(SelectiveLRP(small_net()).attribute(x[i : i + 1], target[i : i + 1]), together[i : i + 1])


# what is refused


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.ones(2, 3, 8, 8, dtype=torch.int64), "floating-point tensor, got torch.int64"),
        (torch.ones(2, 3, 8, 8, dtype=torch.bool), "floating-point tensor, got torch.bool"),
        (torch.ones(2, 3, 8, 8, dtype=torch.complex128), "floating-point tensor, got torch.complex128"),
        (torch.ones(2, 3, 8, 8, dtype=torch.float32), "torch.float32.*the model torch.float64"),
        (torch.full((2, 3, 8, 8), float("nan"), dtype=torch.float64), "holds NaN or infinite"),
        (torch.full((2, 3, 8, 8), float("inf"), dtype=torch.float64), "holds NaN or infinite"),
        (torch.full((2, 3, 8, 8), -float("inf"), dtype=torch.float64), "holds NaN or infinite"),
        (torch.zeros(0, 3, 8, 8, dtype=torch.float64), r"at least one sample, got \(0, 3, 8, 8\)"),
        (torch.zeros(8, dtype=torch.float64), r"samples first.*got \(8,\)"),
        ("image", "must be a tensor, got str"),
        (None, "must be a tensor, got NoneType"),
        ([images()], "must be a tensor, got list"),
        ((images(2), images(3)), "input 1 has 3 samples, the first input has 2"),
    ],
)
def test_inputs_that_cannot_be_explained(inputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        SelectiveLRP(small_net()).trace(inputs, 1)
    assert isinstance(caught.value, LRPError)


def test_one_bad_value_is_enough() -> None:
    x = images()
    x[1, 2, 7, 7] = float("nan")
    with pytest.raises(InputError, match="holds NaN"):
        SelectiveLRP(small_net()).trace(x, 1)


class RunningSum(torch.autograd.Function):
    """What it computes, torch's overrides cannot see."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.cumsum(1)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g.flip(1).cumsum(1).flip(1)


OPERATORS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "method": (lambda x: x.cumprod(1), r"torch\.Tensor\.cumprod in module '3\.inner'"),
    "function": (lambda x: torch.cumprod(x, 1), r"torch\.cumprod in module '3\.inner'"),
    "namespace": (torch.special.i0e, r"torch\.special\.i0e in module '3\.inner'"),
    "functional": (lambda x: F.linear(x, x[:1]), r"linear in module '3\.inner'"),
}


class Holds(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_unknown_operator_is_named_with_its_module(name: str) -> None:
    function, message = OPERATORS[name]
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), Holds(Calls(function)), nn.LazyLinear(2)).double()
    model(images())
    with pytest.raises(UnsupportedOperatorError, match=message) as caught:
        SelectiveLRP(model).trace(images(), 1)
    assert isinstance(caught.value, LRPError)
    assert isinstance(caught.value, NotImplementedError)


def test_an_unknown_operator_beside_the_path_is_harmless() -> None:
    """Sizes, comparisons and what is made of constants carry no relevance."""

    def masked(x: Tensor) -> Tensor:
        assert x.size(0) == x.shape[0] == len(x)
        assert not torch.isnan(x).any()
        weights = torch.linspace(0, 1, x.shape[1], dtype=x.dtype).softmax(0).cumsum(0)
        return x * (x > 0) * weights

    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), Calls(masked), nn.Linear(6, 2)).double()
    x = images()
    assert_close(relevance(model, x, Epsilon(1e-14)), oracles.input_times_gradient(model, x), 1e-8)


def test_a_custom_function_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), Calls(RunningSum.apply), nn.Linear(6, 2)).double()
    with pytest.raises(UnsupportedOperatorError, match=r"module '3'.*RunningSumBackward.*custom autograd\.Function"):
        SelectiveLRP(model).trace(images(), 1)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (lambda x: (x, x), "one tensor of outputs, got tuple"),
        (lambda x: {"hidden": x}, "one tensor of outputs, got dict"),
        (lambda x: x.detach(), "does not depend on its input"),
        (lambda x: torch.zeros(2, 2), "does not depend on its input"),
        (lambda x: RunningSum.apply(x), "does not depend on its input: it was made by RunningSumBackward"),
        (lambda x: x / 0, "output is not finite"),
    ],
    ids=["tuple", "dict", "detached", "constant", "custom", "infinite"],
)
def test_an_output_that_cannot_be_explained(last: Callable[[Tensor], Any], message: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2), Calls(last)).double()
    with pytest.raises(ModelError, match=message):
        SelectiveLRP(model).trace(images(), 1)


def test_a_model_of_weights_that_are_not_finite() -> None:
    model = small_net()
    with torch.no_grad():
        model[0].weight[0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        SelectiveLRP(model).trace(images(), 1)


@dataclass(frozen=True)
class OfWrongShape:
    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        return relevance[:, :1] > 0


def test_an_error_in_a_layer_says_which() -> None:
    with pytest.raises(RuleError, match=r"layer '4' with Pass\(\)"):
        SelectiveLRP(small_net(), Composite(Epsilon(), layers={"4": Pass()})).trace(images(), 1)
    with pytest.raises(LRPError, match="for layer '9'"):
        SelectiveLRP(small_net(), selection=OfWrongShape()).trace(images(), 1)


# normalisations that stand alone


@pytest.mark.parametrize(
    ("rule", "formula"),
    [(Epsilon(), oracles.epsilon()), (ZPlus(), oracles.zplus()), (Gamma(), oracles.gamma(0.25))],
    ids=["epsilon", "zplus", "gamma"],
)
@pytest.mark.parametrize("place", ["before-convolution", "after-relu", "after-pooling"])
def test_batch_norm_standing_alone(place: str, rule: Any, formula: oracles.Formula) -> None:
    torch.manual_seed(0)
    stages = {
        "before-convolution": [nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU()],
        "after-relu": [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)],
        "after-pooling": [nn.AvgPool2d(1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU()],
    }[place]
    stages += [nn.Flatten(), nn.Linear(4 * 36, 3)]
    model, x = with_biases(nn.Sequential(*stages)).double().eval(), images()
    affine = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    v = F.one_hot(torch.tensor([1, 1]), 3)
    expected = oracles.hand_down_net([(s, formula if isinstance(s, affine) else None) for s in stages], x, v)
    trace = SelectiveLRP(model, rule).trace(x, 1)
    assert_close(trace.inputs, expected[0])
    name = next(str(i) for i, s in enumerate(stages) if isinstance(s, nn.BatchNorm2d))
    assert trace.kinds[name] == "normalisation"
    assert_conserves(trace)


# values and views


@pytest.mark.parametrize("first", [ZBox(-4.0, 4.0), WSquare(), Flat()], ids=repr)
def test_an_input_of_zero_gets_its_share_in_the_first_layer(first: Rule) -> None:
    model, x = small_net(), images()
    x[:, :, 2:5] = 0.0
    trace = SelectiveLRP(model, Composite(Epsilon(), convolution=Gamma(), first=first)).trace(x, 1)
    assert_conserves(trace)
    assert (trace.inputs[:, :, 2:5] != 0).any()


CONSTANTS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "cat-parameter": lambda net, x: torch.cat([x.relu(), net.scale.expand(len(x), 4, 1, 8)], 2),
    "cat-constant": lambda net, x: torch.cat([x.relu(), -torch.ones_like(x)], 1),
    "stack-parameter": lambda net, x: torch.stack([x.relu(), net.scale.expand_as(x)], 1),
    "pad-positive": lambda net, x: F.pad(x.relu(), (1, 0), value=0.5),
    "pad-negative": lambda net, x: F.pad(x.relu(), (1, 0), "constant", -0.5),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_beside_the_signal_are_counted(name: str) -> None:
    model, x = Net(CONSTANTS[name]), images()
    trace = SelectiveLRP(model, ZPlus()).trace(x, 1)
    assert_conserves(trace)
    with torch.no_grad():
        below = model.middle(model, model.conv(x)).flatten(1)
        r = trace.output * F.one_hot(torch.tensor([1, 1]), 3)
    arrived = oracles.hand_down(model.head, below, r, oracles.zplus()).inputs
    in_constants = sum(v.sum() for k, v in trace.absorbed.items() if "constant" in k or k == "scale")
    torch.testing.assert_close(arrived.sum() - trace.relevance["conv"].sum(), in_constants)


VIEWS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "read-base": lambda net, x: (x[:, :2].relu_(), x)[1],
    "read-flat-view": lambda net, x: (lambda flat: (x.relu_(), flat)[1])(x.flatten(1)),
    "read-other-view": lambda net, x: (lambda one, other: (one.mul_(2.0), other)[1])(x[:, :3], x[:, 1:]),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_changed_in_place_is_followed_or_refused(name: str) -> None:
    model, x = Net(VIEWS[name]), images()
    with contextlib.suppress(UnsupportedOperatorError):
        trace = SelectiveLRP(model).trace(x, 1)
        with torch.no_grad():
            assert torch.equal(trace.output, model(x))


def test_views_without_a_value_in_common_do_not_meet() -> None:
    model, x = Net(lambda net, x: (lambda one, other: torch.cat([one.relu_(), other], 1))(x[:, :2], x[:, 2:])), images()
    trace = SelectiveLRP(model).trace(x, 1)
    assert_conserves(trace)
    with torch.no_grad():
        assert torch.equal(trace.output, model(x))


class Swish(torch.autograd.Function):
    """Made of operators that are known, but with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        return g * (s + x * s * (1 - s))


class Reversal(torch.autograd.Function):
    """The gradient reversal of domain adaptation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return -g


@pytest.mark.parametrize("function", [Swish, Reversal])
@pytest.mark.parametrize("last", [False, True], ids=["inside", "last"])
def test_a_custom_function_of_known_operators_is_refused(function: Any, last: bool) -> None:
    stages = [nn.Flatten(), nn.Linear(192, 6), nn.Linear(6, 2)]
    stages.insert(3 if last else 2, Calls(function.apply))
    with pytest.raises(LRPError, match=f"{function.__name__}Backward"):
        SelectiveLRP(nn.Sequential(*stages).double()).trace(images(), 1)


def test_hooks_on_the_backward_of_a_module_do_not_matter() -> None:
    x, hooked = images(), small_net()
    hooked[4].register_full_backward_hook(lambda module, grad_input, grad_output: None)
    hooked[9].register_full_backward_pre_hook(lambda module, grad_output: None)
    assert torch.equal(relevance(hooked, x), relevance(small_net(), x))


def test_a_part_in_inference_mode_is_refused() -> None:
    def inferred(net: Net, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return net.other(x)

    model = Net(lambda net, x: x)
    model.middle = inferred
    with pytest.raises(UnsupportedOperatorError, match=r"module 'other'.*inference mode"):
        SelectiveLRP(model).trace(images(), 1)


class Wrapped(nn.Module):
    def __init__(self, forward: Callable[..., Tensor]) -> None:
        super().__init__()
        self.net = small_net()
        self.call = forward

    def forward(self, x: Tensor, *extra: Any) -> Tensor:
        return self.call(self.net, x, *extra)


def test_autocast_in_the_models_own_forward() -> None:
    def cast(net: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return net(x)

    x = images(dtype=torch.float32)
    assert torch.equal(relevance(Wrapped(cast).float().eval(), x), relevance(small_net().float(), x))


@pytest.mark.parametrize("extra", [False, True], ids=["target", "extra"])
def test_tensors_made_in_inference_mode_may_be_given(extra: bool) -> None:
    lrp = SelectiveLRP(Wrapped(lambda net, x, scale: net(x * scale)))
    expected = lrp.attribute(images(), [1, 2], 2.0)
    with torch.inference_mode():
        target, scale = torch.tensor([1, 2]), torch.full((1, 3, 1, 1), 2.0, dtype=torch.float64)
        r = lrp.attribute(images(), [1, 2] if extra else target, scale if extra else 2.0)
    assert torch.equal(r, expected)


def test_products_by_keyword() -> None:
    model, plain = Net(lambda net, x: torch.mul(input=x, other=2.0)), Net(lambda net, x: x * 2.0)
    assert torch.equal(relevance(model, images()), relevance(plain, images()))


# what a layer's backward keeps


class ReadTwice(nn.Module):
    """A convolution's output read by a rectifier, in place or not, and by something else before or after it."""

    def __init__(self, in_place: bool, also: str) -> None:
        super().__init__()
        self.conv, self.head, self.in_place, self.also = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), in_place, also

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        before = torch.tanh(z) if self.also == "before" else 0
        y = F.relu(z, inplace=self.in_place)
        after = torch.tanh(z) if self.also == "after" else 0  # of what was rectified, if that was in place
        return self.head((y + before + after).mean((2, 3)))


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("also", ["before", "after", "not"])
@pytest.mark.parametrize("in_place", [False, True])
def test_an_output_that_is_read_twice_is_kept_whole(in_place: bool, also: str, composite: str) -> None:
    torch.manual_seed(0)
    model = ReadTwice(in_place, also).double()
    twin = ReadTwice(False, also).double()
    twin.load_state_dict(model.state_dict())

    def forward(x: Tensor) -> Tensor:
        z = twin.conv(x)
        y = torch.clamp(z, min=0)  # for which no layer keeps anything else
        read = {"before": z, "after": y if in_place else z}.get(also)
        return twin.head((y + (0 if read is None else torch.tanh(read))).mean((2, 3)))

    twin.forward = forward  # type: ignore[method-assign]
    x = images()
    with torch.no_grad():
        torch.testing.assert_close(model(x), twin(x))
    trace = SelectiveLRP(model, COMPOSITES[composite]).trace(x, 1, edges=False)
    assert trace.conservation_error.max() < 1e-9
    torch.testing.assert_close(trace.inputs, SelectiveLRP(twin, COMPOSITES[composite]).attribute(x, 1))


def test_a_layer_may_read_some_of_the_samples() -> None:
    def form(net: Net, x: Tensor) -> Tensor:
        return torch.cat([net.other(x[:1]), x[1:]])

    def of_the_first(net: Net, x: Tensor) -> Tensor:
        return net.other(x)

    def of_the_others(net: Net, x: Tensor) -> Tensor:
        return x

    x = images()
    trace = SelectiveLRP(Net(form), "epsilon").trace(x, 1)
    for twin, part in ((of_the_first, slice(0, 1)), (of_the_others, slice(1, None))):
        alone = SelectiveLRP(Net(twin), "epsilon").trace(x[part], 1)
        torch.testing.assert_close(trace.inputs[part], alone.inputs)
    assert trace.conservation_error.max() < 1e-5


def test_samples_do_not_meet_in_the_stabiliser_where_tokens_come_first() -> None:
    torch.manual_seed(0)

    class TokensFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below, self.above = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.above(torch.relu(self.below(x.transpose(0, 1)))).mean(0)

    model, x = TokensFirst().double(), torch.randn(2, 5, 4, dtype=torch.float64)
    x[1] *= 100
    lrp = SelectiveLRP(model, Epsilon(0.1))
    torch.testing.assert_close(lrp.attribute(x, 1)[:1], lrp.attribute(x[:1], 1))
