"""Facts about a result, derived from the facts about an operator's arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lrp_lightning import axes
from lrp_lightning.axes import Axis
from lrp_lightning.compat import unrecorded
from lrp_lightning.engine.calls import Call, operator_name, tensors_in
from lrp_lightning.engine.facts import Below, Facts
from lrp_lightning.engine.neuron_numbers import axis_of, compact, known, numbers_of

if TYPE_CHECKING:
    from lrp_lightning.engine.interpreter import Interpreter

__all__ = [
    "Move",
    "assumed",
    "joined",
    "mapped",
    "moved",
    "moved_numbers",
    "samples_after",
    "samples_joined",
    "why_lost",
]

Move = Callable[[Axis], "Axis | None"]
"""The effect of an operator that moves values on an axis."""


def samples_after(
    run: Interpreter, call: Call, was: Facts, move: Move, why: str = "mixes samples"
) -> tuple[Axis | None, str]:
    """The samples of a result of one signal, or why they are unknown.

    Args:
        was: the facts of the signal.
        move: the operator's effect on an axis; returns None if it combines different samples.
        why: the reason to report then.
    """
    if was.samples is None:
        return None, was.lost
    samples = move(was.samples)
    return samples, "" if samples is not None else why_lost(run, call, why)


def samples_joined(
    run: Interpreter, call: Call, y: Tensor, signals: list[Tensor], found: list[Axis | None], why: str
) -> tuple[Axis | None, str]:
    """The samples of ``y``, a result of several signals with these samples, or why they are unknown."""
    if run.samples == 1:
        return Axis.constant(tuple(y.shape)), ""
    samples = None if None in found else axes.join(found, tuple(y.shape))  # type: ignore[arg-type]
    if samples is not None:
        return samples, ""
    return None, next((run.of(t).lost for t in signals if run.of(t).samples is None), "") or why_lost(run, call, why)


def joined(run: Interpreter, call: Call, y: Tensor, parts: list[Tensor]) -> Facts:
    """Facts of an element-wise result of signals, which must agree on the sample and the neuron of each value."""
    if len(parts) == 1 and parts[0].shape == y.shape:
        was = run.of(parts[0])
        return Facts(was.samples, was.neurons, lost=was.lost)
    facts = [run.of(t) for t in parts]
    shape = tuple(y.shape)
    why = "brings values of different samples together"
    samples, lost = samples_joined(run, call, y, parts, [f.samples for f in facts], why)
    neurons = [f.neurons for f in facts]
    one: Axis | Tensor | None = None
    if all(isinstance(n, Axis) for n in neurons):
        one = axes.join(neurons, shape)  # type: ignore[arg-type]
    elif len(parts) == 1 and isinstance(neurons[0], Tensor):
        one = neurons[0].view((1,) * (len(shape) - neurons[0].ndim) + tuple(neurons[0].shape))
    return Facts(samples, one, lost=lost)


def moved(run: Interpreter, call: Call, x: Tensor, y: Tensor, move: Move | None, facts: Facts | None = None) -> Facts:
    """Facts of ``y``, into which the values of ``x`` were moved and not mixed.

    Args:
        call: the operator.
        x: the signal.
        y: a result.
        move: its effect on an axis; None without a plan, then it is run on numbers.
        facts: those of ``x``, if known.
    """
    was = run.of(x) if facts is None else facts

    def placed(axis: Axis) -> Axis | None:
        planned = None if move is None else move(axis)
        return planned if planned is not None else by_numbers(run, call, x, y, axis, filled=True)

    samples, lost = samples_after(run, call, was, placed, "moves samples to unknown places")
    neurons: Axis | Tensor | None = None
    if isinstance(was.neurons, Axis) and move is not None:
        neurons = move(was.neurons)
    if neurons is None and was.neurons is not None and (isinstance(was.neurons, Axis) or run.visitor.follows):
        neurons = neurons_by_numbers(run, call, x, y, was.neurons)
    return Facts(samples, neurons, was.nonnegative, was.near_input, was.gate, lost)


def mapped(run: Interpreter, below: Below, make: Callable[[Tensor], Tensor]) -> Below:
    """Logits after the operator that was applied to the values above them.

    Args:
        below: the logits.
        make: applies it to the logits too, by :meth:`dispatch`.
    """

    def logits() -> tuple[Tensor, Facts]:
        t, run.facts[t] = below.logits()
        y = make(t)
        return y, run.of(y)

    return Below(below.map, logits)


def by_numbers(run: Interpreter, call: Call, x: Tensor, y: Tensor, axis: Axis, filled: bool) -> Axis | None:
    """The axis of ``y``, found by running the operator on the numbers of ``x``; None if they are not a sum."""
    numbers = moved_numbers(run, call, {id(x): axis}, y)
    return None if numbers is None else axis_of(numbers, filled)


def neurons_by_numbers(run: Interpreter, call: Call, x: Tensor, y: Tensor, neurons: Axis | Tensor) -> Axis | Tensor | None:
    numbers = moved_numbers(run, call, {id(x): neurons}, y)
    if numbers is None:
        return None
    found = axis_of(numbers)
    return found if found is not None or not run.visitor.follows else compact(numbers)


def moved_numbers(run: Interpreter, call: Call, of: dict[int, Axis | Tensor], y: Tensor | None = None) -> Tensor | None:
    """The result of an operator that moves values, run on numbers instead; constants are 0, which is nobody's."""

    def number(t: Tensor) -> Tensor:
        axis = of.get(id(t))
        if axis is None and not t.is_floating_point():
            return known(t)
        with unrecorded():
            if axis is None:
                return torch.zeros(t.shape, dtype=torch.double)
            return torch.broadcast_to(numbers_of(axis) if isinstance(axis, Axis) else axis, t.shape)

    try:
        instead = call.map(number)
        with torch.no_grad(), unrecorded():
            views: dict[str, Callable] = {"view": Tensor.reshape, "view_as": Tensor.reshape_as}
            result = views.get(call.name, call.func)(*instead.args, **instead.kwargs)
    except Exception:  # it does not accept such tensors; then nothing is known
        return None
    found = [t for t in tensors_in((result,)) if y is None or t.shape == y.shape]
    return found[0] if len(found) == 1 and found[0].is_floating_point() else None


def assumed(run: Interpreter, t: Tensor) -> Axis | None:
    """The samples of the result of an operator without a row, if they are in the first dimension."""
    if run.samples == 1:
        return Axis.constant(tuple(t.shape))
    return Axis.along(tuple(t.shape), 0) if t.ndim and t.shape[0] == run.samples else None


def why_lost(run: Interpreter, call: Call, why: str) -> str:
    """The error message if relevance cannot be attributed to single samples."""
    return (
        f"{operator_name(call.func)} in {run.where()} {why}, so relevance cannot be assigned to samples; keep samples in a "
        "dimension of their own, the first, and explain one sample at a time where the model brings them together"
    )
