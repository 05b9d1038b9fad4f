"""Recurrent layers as sequences of cells: gates are constants, and the signal gets all relevance (Arras et al. 2017, 2019).

The result of a fused layer keeps its value bit for bit; relevance follows the cells. Packed sequences are rows of all
samples, longest first: at each step those that have not ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lrp_lightning.engine.calls import Call
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.neuron_numbers import values_of

__all__ = ["ROWS"]

Do = Callable[..., Tensor]
State = tuple[Tensor, ...]
"""A cell's hidden state and, for an LSTM, its memory."""


def _plain(activation: Callable, do: Do, x: Tensor, state: State, w: Tensor, b: Any, project: Any) -> State:
    """``h = tanh(W x + b + V h + c)``; ``x`` is already multiplied."""
    return (do(activation, do(torch.add, x, do(F.linear, state[0], w, b))),)


def _lstm(do: Do, x: Tensor, state: State, w: Tensor, b: Any, project: Any) -> State:
    h, c = state
    i, f, g, o = do(torch.chunk, do(torch.add, x, do(F.linear, h, w, b)), 4, -1)
    i, f, o = (do(torch.sigmoid, gate) for gate in (i, f, o))
    c = do(torch.add, do(torch.mul, f, c), do(torch.mul, i, do(torch.tanh, g)))
    h = do(torch.mul, o, do(torch.tanh, c))
    return h if project is None else do(F.linear, h, project), c


def _gru(do: Do, x: Tensor, state: State, w: Tensor, b: Any, project: Any) -> State:
    [h] = state
    of_x, of_h = do(torch.chunk, x, 3, -1), do(torch.chunk, do(F.linear, h, w, b), 3, -1)
    r, z = (do(torch.sigmoid, do(torch.add, one, other)) for one, other in zip(of_x[:2], of_h[:2], strict=True))
    n = do(torch.tanh, do(torch.add, of_x[2], do(torch.mul, r, of_h[2])))
    return (do(torch.add, do(torch.mul, do(torch.rsub, z, 1), n), do(torch.mul, z, h)),)


CELLS: dict[str, Callable[..., State]] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": partial(_plain, torch.tanh),
    "rnn_relu": partial(_plain, torch.relu),
}


def _cell(
    run: Interpreter, call: Call, input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None
) -> tuple[Any, Any]:
    state = tuple(hx) if isinstance(hx, list | tuple) else (hx,)
    new = CELLS[call.name.removesuffix("_cell")](
        run.dispatch, run.dispatch(F.linear, input, w_ih, b_ih), state, w_hh, b_hh, None
    )
    given = call.values()
    return _valued(run, new, given if isinstance(given, tuple) else (given,), isinstance(given, Tensor))


def _valued(run: Interpreter, made: Sequence[Tensor], given: Sequence[Tensor], single: bool = False) -> tuple[Any, Any]:
    """The cells' result with the values of the fused layer."""
    values = [run.visitor.taken_apart(t, value) if run.known(t) else value for t, value in zip(made, given, strict=True)]
    facts: list[Facts | None] = [run.of(t) if run.known(t) else None for t in made]
    return (values[0], facts[0]) if single else (tuple(values), facts)


def _layers(run: Interpreter, call: Call, input: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """A fused recurrent layer of torch, with several layers, in one or both directions, for tensors or packed sequences."""
    packed = isinstance(args[0], Tensor) and not args[0].is_floating_point()
    sizes = values_of(args[0]) if packed else None
    hx, params, has_biases, num_layers, _, _, bidirectional, *rest = args[1:] if packed else args
    do, batch_first = run.dispatch, bool(rest and rest[0])
    states = list(hx) if isinstance(hx, list | tuple) else [hx]
    directions = 2 if bidirectional else 1
    each = len(params) // (num_layers * directions)
    x = do(torch.transpose, input, 0, 1) if batch_first else input
    final: list[list[Tensor]] = [[] for _ in states]
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            place = layer * directions + direction
            w_ih, w_hh, *more = params[place * each : (place + 1) * each]
            b_ih, b_hh = more[:2] if has_biases else (None, None)
            project = more[2 if has_biases else 0] if len(more) > (2 if has_biases else 0) else None
            cell = partial(CELLS[call.name], do, w=w_hh, b=b_hh, project=project)
            first = tuple(do(torch.select, state, 0, place) for state in states)
            steps = _steps(do, do(F.linear, x, w_ih, b_ih), sizes)
            made, last = _along_time(do, cell, steps, first, backwards=direction == 1)
            outputs.append(do(torch.stack, made, 0) if sizes is None else do(torch.cat, made, 0))
            for found, state in zip(final, last, strict=True):
                found.append(state)
        x = outputs[0] if len(outputs) == 1 else do(torch.cat, outputs, -1)
    x = do(torch.transpose, x, 0, 1) if batch_first else x
    return _valued(run, [x, *(do(torch.stack, found, 0) for found in final)], call.values())


def _steps(do: Do, x: Tensor, sizes: list[int] | None) -> list[Tensor]:
    """The input of each step, ``(samples that have not ended, F)``."""
    return list(do(torch.unbind, x, 0) if sizes is None else do(torch.split, x, sizes, 0))


def _along_time(
    do: Do, cell: Callable[..., State], steps: list[Tensor], first: State, backwards: bool
) -> tuple[list[Tensor], State]:
    """The output of each step, and the final state of each sample.

    Samples are ordered by length, longest first. In forward direction the last ones end successively; in backward direction
    they join, by a cell of their own, because their initial state may be a constant while that of the others is not.
    """
    made: list[Tensor] = []
    ended: list[State] = []
    state = first if not backwards else _rows(do, first, 0, len(steps[-1]))
    for x in reversed(steps) if backwards else steps:
        many, here = len(state[0]), len(x)
        if here < many:
            ended.append(_rows(do, state, here, many))
            state = _rows(do, state, 0, here)
        if here > many:
            parts = [(*_rows(do, (x,), 0, many), state), (*_rows(do, (x,), many, here), _rows(do, first, many, here))]
            new = [cell(x=rows, state=before) for rows, before in parts]
            state = tuple(do(torch.cat, list(both), 0) for both in zip(*new, strict=True))
        else:
            state = cell(x=x, state=state)
        made.append(state[0])
    last = [state, *reversed(ended)]
    whole = state if len(last) == 1 else tuple(do(torch.cat, list(parts), 0) for parts in zip(*last, strict=True))
    return made[::-1] if backwards else made, whole


def _rows(do: Do, state: State, start: int, end: int) -> State:
    return tuple(do(torch.narrow, t, 0, start, end - start) if end - start < len(t) else t for t in state)


def _packed(run: Interpreter, call: Call, input: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Any, Any]:
    """``pack_padded_sequence``, whose lengths are sorted: rows of all steps, one step after the other."""
    do = run.dispatch
    x = do(torch.transpose, input, 0, 1) if batch_first else input
    places = [t * x.shape[1] + i for t, i in _places(values_of(lengths))]
    rows = do(torch.flatten, x, 0, 1)
    data = do(Tensor.index_select, rows, 0, torch.tensor(places, device=x.device))
    return (data, call.values()[1]), [run.of(data), None]


def _unpacked(
    run: Interpreter,
    call: Call,
    input: Tensor,
    batch_sizes: Tensor,
    batch_first: bool,
    padding_value: float,
    total_length: int,
) -> tuple[Any, Any]:
    """``pad_packed_sequence``."""
    do, (shape, lengths) = run.dispatch, (lambda y: (y[0].shape, y[1]))(call.values())
    steps, samples = (shape[1], shape[0]) if batch_first else (shape[0], shape[1])
    at = {place: row for row, place in enumerate(_places(values_of(lengths)))}
    beside = input.new_full((1, *input.shape[1:]), padding_value)
    rows = [at.get((t, i), len(input)) for t in range(steps) for i in range(samples)]
    padded = do(Tensor.index_select, do(torch.cat, [input, beside], 0), 0, torch.tensor(rows, device=input.device))
    padded = do(torch.unflatten, padded, 0, (steps, samples))
    padded = do(torch.transpose, padded, 0, 1) if batch_first else padded
    return (padded, lengths), [run.of(padded), None]


def _places(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Step and sample of each packed row."""
    return ((t, i) for t in range(max(lengths, default=0)) for i, length in enumerate(lengths) if t < length)


ROWS: dict[str, Callable] = {
    **dict.fromkeys(CELLS, _layers),
    **dict.fromkeys((f"{name}_cell" for name in CELLS), _cell),
    "_pack_padded_sequence": _packed,
    "_pad_packed_sequence": _unpacked,
}
