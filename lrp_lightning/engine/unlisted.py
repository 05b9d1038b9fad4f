"""Operators without a row: they run unchanged, and the samples of their results are found by trying."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.engine.calls import Call, tensors_in
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.following import why_lost

if TYPE_CHECKING:
    from lrp_lightning.engine.interpreter import Interpreter

__all__ = ["as_it_is", "samples_by_trial"]


def as_it_is(run: Interpreter, call: Call) -> tuple[Any, Facts | list[Facts | None] | None]:
    """The result with its own gradient. Facts are None if it has no gradient: a size, a comparison."""
    result = call()
    made = tensors_in((result,))
    if run.visitor.differentiates:
        carries = [t.requires_grad for t in made]
    else:
        carries = [t.is_floating_point() or t.is_complex() for t in made]
    if not any(carries):
        return result, None
    lost = why_lost(run, call, "has no rule, and may mix samples")
    facts: list[Facts | None] = []
    for t, does in zip(made, carries, strict=True):
        samples = samples_by_trial(run, call, t, made) if does else None
        facts.append(Facts(samples, lost="" if samples is not None else lost) if does else None)
    return result, facts[0] if isinstance(result, Tensor) else facts


def samples_by_trial(run: Interpreter, call: Call, y: Tensor, made: list[Tensor]) -> Axis | None:
    """Samples first, if that is so for every signal that is read, and the operator gives the same result for one sample."""
    n, place = run.samples, next(i for i, t in enumerate(made) if t is y)
    known = run.signals(call.tensors)
    if n == 1:
        return Axis.constant(tuple(y.shape))
    if not y.ndim or y.shape[0] != n or not all(_samples_first(run.of(t).samples, n) for t in known):
        return None
    for i in (0, n - 1):
        try:
            with torch.no_grad():
                alone = call.map(partial(_one, n, i))
                [of_one, *_] = [tensors_in((alone(),))[place]]
        except Exception:  # it does not accept one sample
            return None
        if of_one.shape != y[i : i + 1].shape or not torch.allclose(of_one, y[i : i + 1], 1e-3, 1e-5, equal_nan=True):
            return None
    return Axis.along(tuple(y.shape), 0)


def _one(n: int, i: int, t: Tensor) -> Tensor:
    return t.detach()[i : i + 1] if t.ndim and t.shape[0] == n else t


def _samples_first(axis: Axis | None, n: int) -> bool:
    return axis is not None and axis.is_along(0) and axis.shape[0] == n
