"""What is written in place is seen through every view of that memory: of signals, and of constants."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_networks import Between
from torch import Tensor, nn

from lrp_lightning import Epsilon, SelectiveLRP, TopK, masked_forward

WIDTH = 8
X = torch.randn(4, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": lambda t: t,
    "slice": lambda t: t[:, 2:6],
    "steps": lambda t: t[:, ::3],
    "column": lambda t: t[:, 1],
    "row": lambda t: t[1],
    "narrow": lambda t: t.narrow(1, 3, 2),
    "select": lambda t: t.select(1, -1),
    "T": lambda t: t.T[1:4],
    "transpose": lambda t: t.transpose(0, 1)[2],
    "view": lambda t: t.view(4, 2, 4)[:, 1],
    "reshape": lambda t: t.reshape(-1)[3:11],
    "unflatten": lambda t: t.unflatten(1, (4, 2))[..., 0],
    "unsqueeze": lambda t: t[:, None][:, 0, 4:],
    "diagonal": lambda t: t.diagonal(),
    "movedim": lambda t: t.movedim(0, 1)[::2],
    "unfold": lambda t: t.unfold(1, 2, 2)[:, :, 1],
    "split": lambda t: t.split(3, 1)[1],
    "chunk": lambda t: torch.chunk(t, 2, 1)[0],
    "unbind": lambda t: t.unbind(1)[5],
    "expanded and back": lambda t: t[None][0],
    "as_strided": lambda t: t.view(2, 2, 8)[1],
    "view of a view": lambda t: t[:, 1:].T[:5][1:, 1:3],
    "detached": lambda t: t.detach()[:, :3],
    "data": lambda t: t.data[:, 3:5],
}
WRITES: dict[str, Callable[[Tensor], object]] = {
    "mul_": lambda v: v.mul_(2.0),
    "imul": lambda v: v.__imul__(3.0),
    "add_": lambda v: v.add_(0.5),
    "relu_": lambda v: v.relu_(),
    "clamp_": lambda v: v.clamp_(min=-0.1),
    "neg_": lambda v: v.neg_(),
    "zero_": lambda v: v.zero_(),
    "fill_": lambda v: v.fill_(0.25),
    "copy_": lambda v: v.copy_(torch.full_like(v, 0.75)),
    "setitem": lambda v: v.__setitem__(Ellipsis, v * 0.5),
    "masked_fill_": lambda v: v.masked_fill_(v > 0, 0.5),
    "out": lambda v: torch.mul(v, 2.0, out=v),
    "its own values": lambda v: v.add_(v.flip(0) * 0.5),
}
LINEAR = set(WRITES) - {"clamp_"}
"""With these a network's relevance by epsilon is gradient x input."""


def values(net: Between, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x)


def gradient_x_input(net: Between, x: Tensor) -> Tensor:
    """By finite differences: autograd refuses some of these views; the networks are linear near ``x``, or nearly."""
    rows = []
    for i in range(x.shape[1]):
        step = torch.zeros_like(x)
        step[:, i] = 1e-6
        rows.append((values(net, x + step)[:, 1] - values(net, x - step)[:, 1]) / 2e-6)
    return torch.stack(rows, 1) * x


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("view", VIEWS)
def test_of_a_signal(view: str, write: str) -> None:
    def form(h: Tensor) -> Tensor:
        h = h.clone()
        beside = h.view(2, 2, WIDTH)  # taken before, read after
        WRITES[write](VIEWS[view](h))
        return beside.flatten(0, 1) + h

    net = Between(form).double()
    if view in ("detached", "data") and write in ("setitem", "out", "its own values"):
        pytest.skip("what is read of it is a constant")
    if write == "its own values" and view not in ("T", "row", "movedim", "view of a view"):
        pytest.skip("brings samples together")
    if view in ("itself", "expanded and back") and write in ("zero_", "fill_", "copy_"):
        pytest.skip("leaves nothing of the signal")
    trace = SelectiveLRP(net, Epsilon(1e-12)).trace(X, 1)
    torch.testing.assert_close(trace.output, values(net, X))
    if write in LINEAR and write != "its own values":
        torch.testing.assert_close(trace.inputs, gradient_x_input(net, X), rtol=1e-4, atol=1e-6)
    assert trace.conservation_error.max() < 1e-6


@pytest.mark.parametrize("view", VIEWS)
def test_of_a_constant(view: str) -> None:
    """A buffer of zeros, into part of which the signal is written."""

    def form(h: Tensor) -> Tensor:
        base = torch.zeros(4, WIDTH, dtype=h.dtype)
        beside = base.T
        part = VIEWS[view](base)
        part.copy_(VIEWS[view](h) * 2.0)
        return beside.T + base

    net = Between(form).double()
    if view in ("detached", "data"):
        pytest.skip("what is copied is a constant")
    if view in ("row", "reshape", "as_strided", "view of a view"):
        pytest.skip("leaves rows of constants, which are of no sample")
    trace = SelectiveLRP(net, Epsilon(1e-12), TopK(8)).trace(X, 1)
    torch.testing.assert_close(trace.output, values(net, X))
    torch.testing.assert_close(trace.inputs, gradient_x_input(net, X), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(masked_forward(net, X, trace.masks), values(net, X))


def test_a_buffer_of_the_model_is_left_as_it_is() -> None:
    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below, self.above = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
            self.register_buffer("last", torch.zeros(4, WIDTH))
            self.double()

        def forward(self, x: Tensor) -> Tensor:
            self.last[:, :4].copy_(self.below(x)[:, :4])
            return self.above(self.last)

    net = Buffered()
    trace = SelectiveLRP(net, Epsilon()).trace(X, 1)
    assert not net.last.any()
    assert trace.inputs.any()
    masked_forward(net, X, {})
    assert not net.last.any()


def test_dimensions_changed_in_place() -> None:
    def form(h: Tensor) -> Tensor:
        h = h * 1.0
        h.unsqueeze_(1)
        assert h.shape == (4, 1, WIDTH)
        h.transpose_(1, 2)
        h.squeeze_(2)
        return h

    found, wanted = (SelectiveLRP(Between(f).double(), Epsilon()).attribute(X, 1) for f in (form, lambda h: h * 1.0))
    torch.testing.assert_close(found, wanted)
