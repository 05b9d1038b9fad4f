"""Every row of the table of operators, in every form it is called: relevance is conserved, the outputs are the model's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from lrp_lightning import (
    Composite,
    Epsilon,
    EpsilonAlpha2Beta1,
    EpsilonGammaBox,
    SelectiveLRP,
    WSquare,
    register_operator,
    unregister_operator,
)
from lrp_lightning.engine.operators.table import TABLE
from lrp_lightning.errors import RuleError, UnsupportedOperatorError

CHANNELS = 6


class Between(nn.Module):
    """A convolution, what is tested, and a linear head."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.middle = middle
        with torch.no_grad():
            features = middle(torch.rand(1, CHANNELS, 8, 8)).flatten(1).shape[1]
        self.head = nn.Linear(features, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.conv(x)).flatten(1))


class GlobalResponseNorm(nn.Module):
    """Of ConvNeXt V2."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.randn(CHANNELS)), nn.Parameter(torch.randn(CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        norm = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        return (self.scale * (x * (norm / (norm.mean(-1, keepdim=True) + 1e-6))) + self.shift + x).permute(0, 3, 1, 2)


class StandardisedConvolution(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        std, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / (std + 1e-5), self.bias)


class SqueezeExcitation(nn.Module):
    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.squeeze, self.excite, self.in_place = nn.Conv2d(CHANNELS, 2, 1), nn.Conv2d(2, CHANNELS, 1), in_place

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        if self.in_place:
            x *= gate
            return x
        return x * gate


class LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(CHANNELS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * F.gelu(x)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(F.relu(self.conv(x))))


class SharedWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.other(F.relu(self.one(x)))


class Tokens(nn.Module):
    """A module of token sequences, ``(N, L, C)``."""

    def __init__(self, of_tokens: Callable[..., Tensor], *more: nn.Module) -> None:
        super().__init__()
        self.of_tokens, self.more = of_tokens, nn.ModuleList(more)

    def forward(self, x: Tensor) -> Tensor:
        return self.of_tokens(x.flatten(2).transpose(1, 2), *self.more)


def attention(need_weights: bool, **how: bool) -> nn.Module:
    module = nn.MultiheadAttention(CHANNELS, 2, batch_first=True, **how)
    return Tokens(lambda t, m: m(t, t, t, need_weights=need_weights)[0], module)


def encoder(**how: object) -> nn.Module:
    layer = nn.TransformerEncoderLayer(CHANNELS, 2, 12, batch_first=True, **how)  # type: ignore[arg-type]
    return Tokens(lambda t, m: m(t), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


def windows(x: Tensor) -> Tensor:
    """Of a Swin transformer: roll, partition into windows, and back."""
    x = torch.roll(x.permute(0, 2, 3, 1), (-2, -2), (1, 2))
    n, h, w, c = x.shape
    x = x.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
    x = x.view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
    return torch.roll(x, (2, 2), (1, 2)).permute(0, 3, 1, 2)


def grid(x: Tensor) -> Tensor:
    places = F.affine_grid(torch.eye(2, 3)[None].expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, places * 0.9, align_corners=False)


ACTIVATIONS = [
    "GELU", "SiLU", "Hardswish", "Hardsigmoid", "Hardtanh", "ReLU", "ReLU6", "LeakyReLU", "ELU", "PReLU", "Mish", "Sigmoid",
    "Tanh", "Softplus", "CELU", "SELU", "Softsign", "Softshrink", "Hardshrink", "Tanhshrink", "LogSigmoid", "RReLU",
]  # fmt: skip

MODULES: dict[str, Callable[[], nn.Module]] = {
    **{name: getattr(nn, name) for name in ACTIVATIONS},
    "gelu-tanh": lambda: nn.GELU("tanh"),
    "threshold": lambda: nn.Threshold(0.1, 0.0),
    "glu": lambda: nn.GLU(1),
    "softmax": lambda: nn.Softmax(1),
    "softmin": lambda: nn.Softmin(1),
    "log-softmax": lambda: nn.LogSoftmax(1),
    "hardswish-in-place": lambda: nn.Hardswish(True),
    "grouped": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, groups=3, padding=1),
    "depthwise": lambda: nn.Conv2d(CHANNELS, 12, 3, groups=6),
    "dilated": lambda: nn.Conv2d(CHANNELS, 4, 3, dilation=2, stride=2),
    "transposed": lambda: nn.ConvTranspose2d(CHANNELS, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
    "same-even": lambda: nn.Conv2d(CHANNELS, CHANNELS, 4, padding="same"),
    "reflect": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, padding_mode="reflect"),
    "circular": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, padding_mode="circular"),
    "asymmetric": lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 2, 3)), nn.Conv2d(CHANNELS, CHANNELS, 3)),
    "constant-pad": lambda: nn.ConstantPad2d(1, 3.0),
    "replication-pad": lambda: nn.ReplicationPad2d(1),
    "batch-norm": lambda: nn.BatchNorm2d(CHANNELS),
    "batch-norm-plain": lambda: nn.BatchNorm2d(CHANNELS, affine=False),
    "batch-norm-of-batch": lambda: nn.BatchNorm2d(CHANNELS, track_running_stats=False),
    "layer-norm": lambda: nn.LayerNorm([CHANNELS, 8, 8]),
    "group-norm": lambda: nn.GroupNorm(2, CHANNELS),
    "instance-norm": lambda: nn.InstanceNorm2d(CHANNELS, affine=True),
    "instance-norm-tracked": lambda: nn.InstanceNorm2d(CHANNELS, affine=True, track_running_stats=True),
    "rms-norm": lambda: nn.RMSNorm([8]),
    "response-norm": lambda: nn.LocalResponseNorm(3),
    "global-response-norm": GlobalResponseNorm,
    "weight-norm": lambda: parametrizations.weight_norm(nn.Conv2d(CHANNELS, 5, 3)),
    "weight-norm-by-hook": lambda: weight_norm(nn.Conv2d(CHANNELS, 5, 3)),
    "spectral-norm": lambda: parametrizations.spectral_norm(nn.Conv2d(CHANNELS, 5, 3)),
    "spectral-norm-by-hook": lambda: spectral_norm(nn.Conv2d(CHANNELS, 5, 3)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Conv2d(CHANNELS, 6, 1)),
    "standardised": lambda: StandardisedConvolution(CHANNELS, 5, 3),
    "squeeze-excitation": lambda: SqueezeExcitation(False),
    "squeeze-excitation-in-place": lambda: SqueezeExcitation(True),
    "layer-scale": LayerScale,
    "twice": Twice,
    "shared-weight": SharedWeight,
    "attention": lambda: attention(True),
    "attention-without-weights": lambda: attention(False),
    "attention-without-bias": lambda: attention(False, bias=False),
    "encoder": encoder,
    "encoder-norm-first": lambda: encoder(norm_first=True, activation="gelu"),
    "pixel-shuffle": lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.PixelShuffle(2)),
    "channel-shuffle": lambda: nn.ChannelShuffle(2),
    "bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "nearest": lambda: nn.Upsample(scale_factor=2),
    "bicubic": lambda: nn.Upsample(scale_factor=2, mode="bicubic"),
    "max-pool": lambda: nn.MaxPool2d(2, ceil_mode=True),
    "average-pool": lambda: nn.AvgPool2d(3, padding=1, count_include_pad=False),
    "adaptive-max-pool": lambda: nn.AdaptiveMaxPool2d(3),
    "adaptive-average-pool": lambda: nn.AdaptiveAvgPool2d((3, 2)),
    "unfold": lambda: nn.Unfold(2),
    "dropout": lambda: nn.Dropout(0.5),
    "alpha-dropout": lambda: nn.AlphaDropout(0.5),
}

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "windows": windows,
    "grid": grid,
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "masked-fill": lambda x: x.masked_fill(x < 0, -1.0),
    "index": lambda x: x[:, [0, 2, 4]],
    "slices": lambda x: x[..., 1:5, None],
    "unbind": lambda x: torch.stack(x.unbind(1)[::2], 1),
    "chunk": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    "split": lambda x: x.split([2, 4], 1)[1],
    "gather": lambda x: x.gather(1, torch.zeros(len(x), 1, 8, 8, dtype=torch.long)),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "flip": lambda x: x.flip(2),
    "fold": lambda x: F.fold(F.unfold(x, 2), (8, 8), 2),
    "cumsum": lambda x: x.cumsum(1),
    "diff": lambda x: x.diff(dim=1),
    "sum": lambda x: x.sum((2, 3)),
    "amax": lambda x: x.amax(1),
    "max": lambda x: x.max(1).values,
    "median": lambda x: x.median(1).values,
    "sort": lambda x: x.sort(1).values,
    "topk": lambda x: x.topk(3, 1).values,
    "maximum": lambda x: torch.maximum(x, -x),
    "maxout": lambda x: x.view(len(x), 3, 2, 8, 8).max(2)[0],
    "clamp": lambda x: x.clamp(-0.3, 0.4),
    "exp": torch.exp,
    "square": torch.square,
    "cube": lambda x: x.pow(3),
    "sqrt": lambda x: (x.abs() + 1).sqrt(),
    "log1p": lambda x: torch.log1p(x.abs()),
    "erf": torch.erf,
    "from-a-number": lambda x: 1 - x,
    "over-a-number": lambda x: x / 3,
    "of-a-number": lambda x: 1 / (x.abs() + 1),
    "over-a-signal": lambda x: x / (1 + x.abs()),
    "by-itself": lambda x: x * x,
    "to-itself": lambda x: x + x,
    "simple-gate": lambda x: x[:, :3] * x[:, 3:],
    "swish": lambda x: x * torch.sigmoid(x),
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / 1.414)),
    "hardswish": lambda x: x * F.relu6(x + 3) / 6,
    "normalize": lambda x: F.normalize(x, dim=1),
    "vector-norm": lambda x: x / torch.linalg.vector_norm(x, dim=1, keepdim=True),
    "standardise": lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True),
    "lerp": lambda x: torch.lerp(x, x * 2, 0.3),
    "addcmul": lambda x: torch.addcmul(x, x, x),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.abs() + 1),
    "bmm": lambda x: torch.bmm(x.flatten(2).transpose(1, 2), x.flatten(2)[:, :, :5]),
    "baddbmm": lambda x: torch.baddbmm(x.flatten(2).mT.new_ones(len(x), 64, 5), x.flatten(2).mT, x.flatten(2)[..., :5]),
    "matmul": lambda x: x @ torch.ones(8, 3),
    "addmm": lambda x: torch.addmm(torch.ones(3), x.flatten(1), torch.ones(384, 3)),
    "einsum": lambda x: torch.einsum("nchw,nkhw->nck", x, x),
    "einsum-with-a-constant": lambda x: torch.einsum("nchw,ck->nkhw", x, torch.ones(6, 5)),
    "scaled-dot-product": lambda x: F.scaled_dot_product_attention(x, x, x),
    "conv1d": lambda x: F.conv1d(x.flatten(2), torch.ones(2, 6, 3)),
    "conv3d": lambda x: F.conv3d(x[:, None], torch.ones(2, 1, 3, 3, 3)),
    "in-place-sigmoid": lambda x: x.sigmoid_(),
    "in-place-product": lambda x: x.mul_(2.0),
    "in-place-difference": lambda x: x.sub_(1.0),
    "in-place-quotient": lambda x: x.div_(2.0),
    "in-place-sum": lambda x: x.clone().add_(x, alpha=2),
}
COMPOSITES = [
    Composite(Epsilon()),
    EpsilonAlpha2Beta1(),
    EpsilonGammaBox(-1.0, 1.0),
    Composite(WSquare(), attention="attnlrp"),
]


def assert_conserved(middle: Callable[[Tensor], Tensor]) -> None:
    model = Between(middle).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d) and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    x = torch.rand(3, 3, 8, 8) - 0.3
    with torch.no_grad():
        expected = model(x)
    for composite in COMPOSITES:
        trace = SelectiveLRP(model, composite).trace(x, target=lambda logits: logits.argmax(1))
        torch.testing.assert_close(trace.output, expected, rtol=1e-5, atol=1e-5)
        assert trace.conservation_error.max() < 1e-3, composite
        assert trace.inputs.isfinite().all()
        assert trace.inputs.any()
        [one] = SelectiveLRP(model, composite).attribute(x[:1], target=int(expected[0].argmax()))
        if not isinstance(middle, nn.BatchNorm2d) or middle.running_mean is not None:  # else samples meet in the forward
            torch.testing.assert_close(one, trace.inputs[0], rtol=1e-2, atol=1e-3 * one.abs().max().item())


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str) -> None:
    torch.manual_seed(1)
    assert_conserved(MODULES[name]())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str) -> None:
    torch.manual_seed(1)
    assert_conserved(FUNCTIONS[name])


def test_padding_takes_its_share_of_a_box_and_it_is_counted() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
    )
    trace = SelectiveLRP(model, EpsilonGammaBox(-1.0, 1.0)).trace(torch.rand(2, 3, 8, 8), target=1)
    assert trace.absorbed["0.padding"].all()
    assert trace.conservation_error.max() < 1e-5


@pytest.mark.parametrize("samples", [1, 2])
def test_windows_that_lie_among_the_samples_belong_to_theirs(samples: int) -> None:
    """A linear layer on windows ``(N * windows, tokens, C)``: relevance is told by sample, for one sample too."""
    torch.manual_seed(0)
    linear = nn.Linear(CHANNELS, CHANNELS)

    def in_windows(x: Tensor) -> Tensor:
        n = len(x)
        parts = x.reshape(n * CHANNELS * 2, 4, 2, 4).transpose(1, 2).reshape(n, CHANNELS, 4, 16)
        tokens = linear(parts.transpose(1, 3).reshape(n * 16, 4, CHANNELS))
        return tokens.reshape(n, 16, 4, CHANNELS)

    model = Between(in_windows)
    x = torch.rand(samples, 3, 8, 8)
    trace = SelectiveLRP(model).trace(x, target=0)
    assert trace.conservation_error.max() < 1e-5
    assert all(len(relevance) == samples for relevance in trace.relevance.values())


# rows of one's own


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
        return 3 * ctx.saved_tensors[0] ** 2 * g


def test_a_function_of_ones_own_becomes_an_operator() -> None:
    torch.manual_seed(0)
    cube = register_operator(Cube.apply, "activation")
    assert_conserved(cube)
    with pytest.raises(UnsupportedOperatorError, match="Cube"):
        SelectiveLRP(Between(Cube.apply)).attribute(torch.rand(2, 3, 8, 8), target=0)
    TABLE.pop(cube)


def test_an_operator_of_torch_gets_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Between(lambda x: torch.cumprod(x, 1)), torch.rand(2, 3, 8, 8)
    with pytest.raises(UnsupportedOperatorError, match=r"torch\.cumprod.*register_operator"):
        SelectiveLRP(model).attribute(x, target=0)
    try:
        assert register_operator(torch.cumprod, "linear") is torch.cumprod
        SelectiveLRP(model).attribute(x, target=0)
    finally:
        unregister_operator(torch.cumprod)


def test_kinds_of_rows() -> None:
    with pytest.raises(RuleError, match="'activation', 'gate', 'movement', 'linear', 'product'"):
        register_operator(torch.cumprod, "sum")  # type: ignore[arg-type]


def test_by_plain_gradient_with_a_warning_and_a_list() -> None:
    torch.manual_seed(0)
    model, x = Between(lambda x: torch.cumprod(x, 1)), torch.rand(2, 3, 8, 8)
    with pytest.warns(UserWarning, match=r"plain gradient.*torch\.cumprod") as warned:
        trace = SelectiveLRP(model, on_unsupported="gradient").trace(x, target=0)
    assert len(warned) == 1
    assert trace.unsupported == ("torch.cumprod in the model",)
    assert trace.conservation_error.max() < 1e-3  # what the gradient does not hand on is counted
    assert "by plain gradient" in repr(trace)
