"""Functions that are written out as several operators are what their one operator is; gates stay gates on their way."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from small_networks import Between
from torch import Tensor, nn

from lrp_lightning import Composite, Epsilon, EpsilonPlus, SelectiveLRP, TopK

Form = Callable[[Tensor], Tensor]


X = torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SCORE = torch.randn(8, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def pooled(softmax: Form) -> Form:
    """Tokens weighed by scores."""
    return lambda h: (softmax(h @ SCORE).transpose(1, 2) @ h).squeeze(1)


def minus_max(s: Tensor) -> Tensor:
    e = torch.exp(s - s.max(1, keepdim=True).values)
    return e / e.sum(1, keepdim=True)


def twice(s: Tensor) -> Tensor:
    return s.exp() / s.exp().sum(dim=1, keepdim=True)


def in_place(s: Tensor) -> Tensor:
    e = (s - s.amax(1, keepdim=True)).exp_()
    e /= e.sum(1, keepdim=True)
    return e


def layer_norm(h: Tensor, sqrt: bool) -> Tensor:
    centred = h - h.mean(-1, keepdim=True)
    variance = centred.pow(2).mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + 1e-5) if sqrt else centred * torch.rsqrt(variance + 1e-5)


WRITTEN: dict[str, tuple[Form, list[Form]]] = {
    "gelu tanh": (
        nn.GELU("tanh"),
        [
            lambda x: 0.5 * x * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0)))),
            lambda x: x * (1 + torch.tanh(0.7978845608028654 * x * (1 + 0.044715 * x * x))) * 0.5,
            lambda x: 0.5 * (x + x * torch.tanh(0.7978845608028654 * (x + 0.044715 * x**3))),
        ],
    ),
    "gelu erf": (
        nn.GELU(),
        [
            lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
            lambda x: 0.5 * x * (torch.special.erf(x * math.sqrt(0.5)) + 1),
        ],
    ),
    "mish": (F.mish, [lambda x: x * torch.tanh(F.softplus(x)), lambda x: x.mul(torch.log1p(x.exp()).tanh())]),
    "silu": (
        F.silu,
        [lambda x: x * torch.sigmoid(x), lambda x: x / (1 + torch.exp(-x)), lambda x: torch.sigmoid(x).mul_(x)],
    ),
    "hard-swish": (
        F.hardswish,
        [
            lambda x: x * F.relu6(x + 3) / 6,
            lambda x: x * (F.relu6(x + 3.0) * (1 / 6)),
            lambda x: x * F.hardsigmoid(x),
        ],
    ),
    "quick gelu": (
        lambda x: x * torch.sigmoid(1.702 * x),
        [lambda x: torch.sigmoid(1.702 * x) * x, lambda x: x.mul(x.mul(1.702).sigmoid())],
    ),
    "softsign": (F.softsign, [lambda x: x / (1 + x.abs()), lambda x: x.div(x.abs().add(1))]),
    "square": (torch.square, [lambda x: x * x, lambda x: x**2, lambda x: torch.mul(x, x), lambda x: x.pow(2)]),
    "softmax": (
        pooled(lambda s: s.softmax(1)),
        [pooled(minus_max), pooled(twice), pooled(in_place), pooled(lambda s: torch.exp(F.log_softmax(s, 1)))],
    ),
    "layer norm": (
        lambda h: F.layer_norm(h, (8,)),
        [
            lambda h: layer_norm(h, True),
            lambda h: layer_norm(h, False),
            lambda h: (h - h.mean(-1, keepdim=True)) / (h.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt(),
        ],
    ),
    "rms norm": (
        lambda h: F.rms_norm(h, (8,), eps=1e-6),
        [
            lambda h: h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6),
            lambda h: h / (h.square().mean(-1, keepdim=True) + 1e-6) ** 0.5,
            lambda h: h / torch.sqrt((h * h).mean(-1, keepdim=True) + 1e-6),
        ],
    ),
    "l2 norm": (
        lambda h: F.normalize(h, dim=-1),
        [lambda h: h / h.norm(dim=-1, keepdim=True), lambda h: h / torch.linalg.vector_norm(h, dim=-1, keepdim=True)],
    ),
}


@pytest.mark.parametrize("composite", [Epsilon(1e-12), EpsilonPlus(1e-12)], ids=["epsilon", "plus"])
@pytest.mark.parametrize("name", WRITTEN)
def test_it_is_the_one_operator(name: str, composite: Composite) -> None:
    whole, written = WRITTEN[name]
    wanted = SelectiveLRP(Between(whole).double(), composite).trace(X, 1)
    for form in written:
        found = SelectiveLRP(Between(form).double(), composite).trace(X, 1)
        torch.testing.assert_close(found.output, wanted.output, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.inputs, wanted.inputs, rtol=1e-5, atol=1e-6)


def test_different_tensors_are_no_one_function() -> None:
    """A product of functions of two tensors is none of one."""
    form: Form = lambda h: h * torch.tanh(h.flip(-1))  # noqa: E731
    x = X.clone().requires_grad_()
    model = Between(form).double()
    h = model.below(x)
    y = h * torch.tanh(h.flip(-1))
    g = model.above.weight[1].detach() / 5
    r = y.detach() * g
    want = (
        torch.autograd.grad((h * (0.5 * r / h.detach())).sum() + (h.flip(-1) * (0.5 * r / h.flip(-1).detach())).sum(), x)[0]
        * X
    )
    torch.testing.assert_close(SelectiveLRP(model, Epsilon(1e-12)).attribute(X, 1), want.detach(), rtol=1e-5, atol=1e-7)


class Attention(nn.Module):
    """Attention whose weights go through something before they weigh; ``cut`` makes a constant of them."""

    def __init__(self, way: Callable[[Attention, Tensor], Tensor], cut: bool) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.talk = nn.Parameter(torch.randn(2, 2))
        self.conv, self.norm, self.linear = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Linear(2, 2)
        self.layer_norm = nn.LayerNorm(5)
        self.way, self.cut = way, cut
        self.eval().double()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = self.way(self, (q @ k.mT / 2).softmax(-1))
        y = (weights.detach() if self.cut else weights) @ v
        return self.out(y.transpose(1, 2).flatten(2)).mean(1)


WAYS: dict[str, Callable[[Attention, Tensor], Tensor]] = {
    "as they are": lambda net, w: w,
    "dropped out": lambda net, w: F.dropout(w, 0.1, training=False),
    "moved": lambda net, w: w.permute(1, 0, 2, 3).contiguous().transpose(0, 1),
    "talking heads": lambda net, w: torch.einsum("hg,nhqk->ngqk", net.talk, w),
    "talking heads by matmul": lambda net, w: (net.talk.t() @ w.flatten(2)).view(w.shape),
    "re-attention": lambda net, w: net.norm(net.conv(w)),
    "linear over heads": lambda net, w: net.linear(w.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "normalised": lambda net, w: net.layer_norm(w),
    "renormalised": lambda net, w: w / (1e-9 + w.sum(dim=1, keepdim=True)),
    "scaled": lambda net, w: w * 2.0 + 0.1,
    "clipped": lambda net, w: w.clamp(min=1e-3),
}


@pytest.mark.parametrize("way", WAYS)
def test_attentions_weights_stay_gates(way: str) -> None:
    found, wanted = (SelectiveLRP(Attention(WAYS[way], cut), Epsilon()).attribute(X, 1) for cut in (False, True))
    assert wanted.any()
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


class Squeeze(nn.Module):
    """A gate for each channel, which reaches the signal by some way."""

    def __init__(self, way: Callable[[Tensor, Tensor], Tensor], cut: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 8, 3)
        self.excite = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8), nn.Sigmoid())
        self.head = nn.Linear(8, 3)
        self.way, self.cut = way, cut
        self.eval().double()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x).relu()
        gate = self.excite(h.mean((2, 3)))
        return self.head(self.way(h, gate.detach() if self.cut else gate).mean((2, 3)))


GATED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "broadcast": lambda h, g: h * g[:, :, None, None],
    "expand_as": lambda h, g: h * g[:, :, None, None].expand_as(h),
    "expand": lambda h, g: h * g.view(*g.shape, 1, 1).expand(-1, -1, *h.shape[2:]),
    "repeated": lambda h, g: h * g[:, :, None, None].repeat(1, 1, *h.shape[2:]),
    "in place": lambda h, g: h.mul_(g[:, :, None, None]),
    "interpolated": lambda h, g: h * F.interpolate(g[:, :, None, None], h.shape[2:]),
    "einsum": lambda h, g: torch.einsum("nchw,nc->nchw", h, g),
    "gathered": lambda h, g: h * g.index_select(1, torch.arange(8))[..., None, None],
    "and the rest": lambda h, g: h + h * g[:, :, None, None],
    "one less": lambda h, g: h * (1 - g[:, :, None, None]),
}


@pytest.mark.parametrize("way", GATED)
def test_a_gate_is_a_constant_whichever_way_it_comes(way: str) -> None:
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, wanted = (SelectiveLRP(Squeeze(GATED[way], cut), EpsilonPlus()).attribute(x, 1) for cut in (False, True))
    assert wanted.any()
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def test_a_hidden_layer_of_sigmoids_makes_no_gates_of_what_is_above() -> None:
    class Net(nn.Module):
        def __init__(self, cut: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.c, self.head, self.cut = *(nn.Linear(8, 8) for _ in range(3)), nn.Linear(8, 3), cut
            self.double()

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.b(torch.sigmoid(self.a(x))))
            gate = torch.sigmoid(self.c(h))
            return self.head(h * (gate.detach() if self.cut else gate))

    x = X[:, 0]
    found, wanted = (SelectiveLRP(Net(cut), Epsilon()).attribute(x, 1) for cut in (False, True))
    torch.testing.assert_close(found, wanted)


HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda z: z.softmax(1),
    "softmax module": nn.Softmax(1),
    "log_softmax": lambda z: F.log_softmax(z, 1),
    "log of softmax": lambda z: torch.log(torch.softmax(z, 1)),
    "sigmoid": torch.sigmoid,
    "logsigmoid": F.logsigmoid,
    "clamped sigmoid": lambda z: z.sigmoid().clamp(1e-7, 1 - 1e-7),
    "exp": torch.exp,
    "softplus": F.softplus,
    "softmax written out": lambda z: torch.exp(z) / torch.exp(z).sum(1, keepdim=True),
    "and moved": lambda z: z[:, :, None].softmax(1).squeeze(-1),
    "and scaled": lambda z: z.softmax(1) * 100.0,
    "percent": lambda z: 100 * z.sigmoid() + 1,
    "in place": lambda z: z.sigmoid_(),
}


class Headed(nn.Module):
    def __init__(self, head: Callable[[Tensor], Tensor], shift: float, convolution: bool) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.conv, self.top = nn.Conv2d(1, 12, 3), nn.Conv2d(12, 3, 6) if convolution else nn.Linear(432, 3)
        self.top.bias.data += shift
        object.__setattr__(self, "head", head)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x).relu()
        return self.head(self.top(h).flatten(1) if isinstance(self.top, nn.Conv2d) else self.top(h.flatten(1)))


@pytest.mark.parametrize("convolution", [False, True], ids=["linear", "convolution"])
@pytest.mark.parametrize("shift", [-30.0, 0.0, 30.0])
@pytest.mark.parametrize("head", HEADS)
def test_one_decision_has_one_explanation(head: str, shift: float, convolution: bool) -> None:
    if "softplus" in head and shift > 20:
        pytest.skip("softplus is the identity there")
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted, found = (
        SelectiveLRP(Headed(h, shift, convolution), EpsilonPlus(), TopK(3)).trace(x, lambda z: z.argmax(1) * 0 + 1)
        for h in (lambda z: z, HEADS[head])
    )
    assert not wanted.explains
    assert wanted.below is None
    assert "logits below" in found.explains
    torch.testing.assert_close(found.explained, wanted.explained)
    torch.testing.assert_close(found.logits, wanted.output)
    torch.testing.assert_close(found.inputs, wanted.inputs)
    assert all(torch.equal(found.masks[name], mask) for name, mask in wanted.masks.items())
    assert found.conservation_error.max() < 1e-4
    assert "logits below" in repr(found)


def test_a_convolution_that_makes_the_output_is_explained_as_a_linear_layer() -> None:
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    linear, convolution = Headed(nn.Identity(), -3.0, False), Headed(nn.Identity(), -3.0, True)
    convolution.top.weight.data = linear.top.weight.data.view(3, 12, 6, 6)
    convolution.top.bias.data, convolution.conv = linear.top.bias.data, linear.conv
    found, wanted = (SelectiveLRP(model, EpsilonPlus()).attribute(x, 1) for model in (convolution, linear))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_probabilities_of_two_classes_are_explained_by_their_logit() -> None:
    def probabilities(z: Tensor) -> Tensor:
        p = z[:, :1].sigmoid()
        return torch.cat([1 - p, p], 1)

    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    trace = SelectiveLRP(Headed(probabilities, -5.0, False)).trace(x, 1)
    plain = SelectiveLRP(Headed(lambda z: torch.cat([-z[:, :1], z[:, :1]], 1), -5.0, False)).trace(x, 1)
    torch.testing.assert_close(trace.inputs, plain.inputs)
