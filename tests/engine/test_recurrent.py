"""Recurrent layers against the same written out by cells, each sample alone, and what is conserved."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from flow import flow_error
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lrp_lightning import Epsilon, SelectiveLRP, TopK, masked_forward

SIZE, HIDDEN, STEPS = 4, 6, 5
KINDS = {
    "rnn": nn.RNN,
    "rnn relu": lambda *sizes, **how: nn.RNN(*sizes, nonlinearity="relu", **how),
    "lstm": nn.LSTM,
    "gru": nn.GRU,
}
CELLS = {
    "rnn": nn.RNNCell,
    "rnn relu": lambda *s: nn.RNNCell(*s, nonlinearity="relu"),
    "lstm": nn.LSTMCell,
    "gru": nn.GRUCell,
}


class Fused(nn.Module):
    def __init__(self, kind: str, **how: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.recurrent = KINDS[kind](SIZE, HIDDEN, **{"batch_first": True, **how})
        width = (how.get("proj_size") or HIDDEN) * (2 if how.get("bidirectional") else 1)
        self.head = nn.Linear(width, 3)
        self.batch_first = how.get("batch_first", True)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.recurrent(x if self.batch_first else x.transpose(0, 1))
        return self.head(out.mean(1 if self.batch_first else 0))


class ByCells(nn.Module):
    """One layer, a step at a time."""

    def __init__(self, kind: str, of: Fused) -> None:
        super().__init__()
        self.cell, self.head, self.kind = CELLS[kind](SIZE, HIDDEN), of.head, kind
        self.cell.load_state_dict({n.removesuffix("_l0"): p for n, p in of.recurrent.state_dict().items()})

    def forward(self, x: Tensor) -> Tensor:
        state, found = None, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            found.append(state[0] if self.kind == "lstm" else state)
        return self.head(torch.stack(found, 1).mean(1))


class WrittenOut(ByCells):
    """A step at a time, of plain operators."""

    def forward(self, x: Tensor) -> Tensor:
        c = self.cell
        h = memory = x.new_zeros(len(x), HIDDEN)
        found = []
        for step in x.unbind(1):
            of_x, of_h = nn.functional.linear(step, c.weight_ih, c.bias_ih), nn.functional.linear(h, c.weight_hh, c.bias_hh)
            if self.kind == "lstm":
                i, f, g, o = (of_x + of_h).chunk(4, 1)
                memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
                h = o.sigmoid() * memory.tanh()
            elif self.kind == "gru":
                r, z = (
                    (one + other).sigmoid() for one, other in zip(of_x.chunk(3, 1)[:2], of_h.chunk(3, 1)[:2], strict=True)
                )
                n = (of_x.chunk(3, 1)[2] + r * of_h.chunk(3, 1)[2]).tanh()
                h = (1 - z) * n + z * h
            else:
                h = (of_x + of_h).tanh() if self.kind == "rnn" else (of_x + of_h).relu()
            found.append(h)
        return self.head(torch.stack(found, 1).mean(1))


class Packed(Fused):
    lengths = (5, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.tensor(self.lengths[: len(x)])
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, _ = self.recurrent(packed)
        padded, _ = pad_packed_sequence(out, batch_first=True)
        return self.head(padded.sum(1))


class Final(Fused):
    """Reads the state that a packed sequence ends with."""

    lengths = (5, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, torch.tensor(self.lengths[: len(x)]), batch_first=True, enforce_sorted=False)
        _, state = self.recurrent(packed)
        h = state[0] if isinstance(state, tuple) else state
        return self.head(h.transpose(0, 1)[:, -2:].flatten(1) if self.recurrent.bidirectional else h[-1])


def inputs() -> Tensor:
    return torch.randn(3, STEPS, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.double)


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "time first": {"batch_first": False},
    "two layers": {"num_layers": 2},
    "both directions": {"bidirectional": True, "num_layers": 2},
    "no bias": {"bias": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_fused_layer_is_its_cells(kind: str) -> None:
    fused, x = Fused(kind).double(), inputs()
    traces = [
        SelectiveLRP(model, Epsilon(1e-9)).trace(x, 1)
        for model in (fused, ByCells(kind, fused).double(), WrittenOut(kind, fused).double())
    ]
    for other in traces[1:]:
        torch.testing.assert_close(traces[0].inputs, other.inputs, rtol=1e-4, atol=1e-8)
    assert traces[0].inputs.abs().max() > 1e-3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_conserves_and_leaves_the_forward_as_it_is(kind: str, way: str) -> None:
    model, x = Fused(kind, **WAYS[way]).eval(), inputs().float()
    trace = SelectiveLRP(model, Epsilon(), TopK(1.0)).trace(x, 1)
    with torch.no_grad():
        assert torch.equal(trace.output, model(x))
    assert trace.conservation_error.max() < 1e-5
    torch.testing.assert_close(masked_forward(model, x, trace.masks), trace.output)


@pytest.mark.parametrize("model", [Fused, Packed, Final])
@pytest.mark.parametrize("how", [{}, {"bidirectional": True, "num_layers": 2}], ids=["plain", "both directions"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_samples(kind: str, how: dict[str, Any], model: type[Fused]) -> None:
    built, x = model(kind, **how).double(), inputs()
    lrp = SelectiveLRP(built, Epsilon(), TopK(0.5))
    whole = lrp.trace(x, 1)
    assert whole.conservation_error.max() < 1e-5
    for i in range(len(x)):
        built.lengths = Packed.lengths[i : i + 1]
        alone = lrp.trace(x[i : i + 1], 1)
        torch.testing.assert_close(whole.inputs[i : i + 1], alone.inputs)
        if model is not Fused:
            assert not whole.inputs[i, Packed.lengths[i] :].any(), "what is padded gets nothing"


def test_projections() -> None:
    model, x = Fused("lstm", proj_size=3, num_layers=2).double(), inputs()
    trace = SelectiveLRP(model).trace(x, 1)
    torch.testing.assert_close(trace.output, model(x).detach())
    assert trace.conservation_error.max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_edges_and_masks(kind: str) -> None:
    model, x = Fused(kind).double(), inputs()
    trace = SelectiveLRP(model, Epsilon(), TopK(0.5)).trace(x, 1, edges=True)
    assert flow_error(trace) < 1e-6
    assert not torch.equal(masked_forward(model, x, trace.masks), trace.output)
    assert any(name.startswith("recurrent.weight_hh_l0#") for name in trace.relevance)


def test_a_state_that_is_given_gets_relevance() -> None:
    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.recurrent, self.state, self.head = nn.GRU(SIZE, HIDDEN), nn.Linear(SIZE, HIDDEN), nn.Linear(HIDDEN, 3)

        def forward(self, x: Tensor) -> Tensor:
            out, _ = self.recurrent(x[:, 1:].transpose(0, 1), self.state(x[:, 0])[None])
            return self.head(out[-1])

    trace = SelectiveLRP(Given().double(), Epsilon(1e-9)).trace(inputs(), 1)
    assert trace.inputs[:, 0].abs().max() > 1e-4
    assert trace.conservation_error.max() < 1e-5
