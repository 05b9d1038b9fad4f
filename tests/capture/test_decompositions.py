"""Backward operators in terms of forward ones are autograd's own backward, in double precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from lrp_lightning.capture.decompositions import FORWARD_ONLY

CALLS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "convolution": ((2, 3, 9, 8), lambda x: F.conv2d(x, weight(4, 3, 3, 3), padding=1)),
    "strided": ((2, 3, 9, 8), lambda x: F.conv2d(x, weight(4, 3, 3, 2), stride=(2, 3), padding=(1, 0))),
    "dilated": ((2, 3, 9, 9), lambda x: F.conv2d(x, weight(4, 3, 3, 3), dilation=2, stride=2)),
    "grouped": ((2, 4, 7, 7), lambda x: F.conv2d(x, weight(6, 2, 3, 3), groups=2, stride=2)),
    "of one dimension": ((2, 3, 11), lambda x: F.conv1d(x, weight(4, 3, 4), stride=3, padding=2)),
    "of three": ((1, 2, 5, 6, 5), lambda x: F.conv3d(x, weight(3, 2, 2, 3, 2), stride=2)),
    "transposed": ((2, 3, 5, 5), lambda x: F.conv_transpose2d(x, weight(3, 4, 3, 3), stride=2, padding=1, output_padding=1)),
    "max pooling": ((2, 3, 9, 9), lambda x: F.max_pool2d(x, 3, 2, 1)),
    "overlapping": ((2, 3, 9, 9), lambda x: F.max_pool2d(x, 3, 1, ceil_mode=True)),
    "average pooling": ((2, 3, 8, 9), lambda x: F.avg_pool2d(x, (2, 3), (2, 2))),
    "padded": ((2, 3, 8, 9), lambda x: F.avg_pool2d(x, 3, 2, 1)),
    "padding not counted": ((2, 3, 9, 9), lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
    "rounded up": ((2, 3, 8, 8), lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True)),
    "rounded up and padded": ((2, 3, 8, 8), lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)),
    "divided by": ((2, 3, 8, 8), lambda x: F.avg_pool2d(x, 2, divisor_override=3)),
    "adaptive": ((2, 3, 8, 6), lambda x: F.adaptive_avg_pool2d(x, (4, 3))),
    "adaptive, uneven": ((2, 3, 8, 7), lambda x: F.adaptive_avg_pool2d(x, (3, 5))),
    "adaptive, larger": ((2, 3, 3, 2), lambda x: F.adaptive_avg_pool2d(x, (7, 7))),
    "relu": ((2, 5), torch.relu),
    "gelu": ((2, 5), F.gelu),
    "silu": ((2, 5), F.silu),
    "hardswish": ((2, 5), F.hardswish),
    "hardsigmoid": ((2, 5), F.hardsigmoid),
    "sigmoid": ((2, 5), torch.sigmoid),
    "softmax": ((2, 5), lambda x: x.softmax(1)),
    "layer norm": ((2, 5), lambda x: F.layer_norm(x, (5,))),
    "group norm": ((2, 4, 5), lambda x: F.group_norm(x, 2)),
    "slice": ((4, 5), lambda x: x[1:3, ::2]),
    "attention": ((2, 2, 5, 4), lambda x: F.scaled_dot_product_attention(x, 2 * x, x.flip(-1))),
    "attention, scaled": (
        (2, 2, 5, 4),
        lambda x: F.scaled_dot_product_attention(x, x[..., :3, :], x[..., :3, :], scale=0.3),
    ),
    "attention, causal": ((2, 2, 5, 4), lambda x: F.scaled_dot_product_attention(x, x.sin(), x, is_causal=True)),
    "attention, masked": ((2, 2, 5, 4), lambda x: F.scaled_dot_product_attention(x, x.sin(), x, weight(5, 5))),
    "gather": ((4, 5), lambda x: x.gather(1, torch.tensor([[0], [3], [2], [2]]))),
}


def weight(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel(), dtype=torch.double).sin().view(shape)


def backward_of(name: str) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]:
    """Autograd's own backward of a call, and what it takes."""
    shape, function = CALLS[name]
    x = torch.randn(shape, dtype=torch.double)

    def gradient(x: Tensor, g: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(function(x), x, g)[0]

    return gradient, x, torch.randn_like(function(x))


@pytest.mark.parametrize("name", CALLS)
def test_backward_in_terms_of_forward_operators(name: str) -> None:
    gradient, x, g = backward_of(name)
    program = make_fx(make_fx(gradient)(x, g), FORWARD_ONLY)(x, g)
    assert not [node for node in program.graph.nodes if "backward" in str(node.target)]
    torch.testing.assert_close(program(x, g), gradient(x, g))


OWN = ("strided", "max pooling", "padding not counted", "adaptive, uneven", "attention, causal")


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_exported_programs_take_them(name: str) -> None:
    """Which asks more of a decomposition than make_fx does: nothing in place, no constants."""
    gradient, x, g = backward_of(name)
    exported = torch.export.export(make_fx(gradient)(x, g), (x, g)).run_decompositions(FORWARD_ONLY)
    assert not [node for node in exported.graph.nodes if "backward" in str(node.target)]
    torch.testing.assert_close(exported.module()(x, g), gradient(x, g))


def test_the_sign_of_a_stabiliser() -> None:
    def signed(scale: Tensor, z: Tensor) -> Tensor:
        return torch.copysign(scale, z)

    scale, z = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([-1.0, 0.0, 5.0, -0.5])
    program = make_fx(signed, FORWARD_ONLY)(scale, z)
    assert not [node for node in program.graph.nodes if "copysign" in str(node.target)]
    assert torch.equal(program(scale, z), signed(scale, z))
