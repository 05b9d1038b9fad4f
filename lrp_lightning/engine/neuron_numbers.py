"""The number of the neuron, or of the sample, of every value, as tensors, for cases beyond the algebra of axes.

An operator that moves values without a plan is run on a tensor of their numbers. Numbers are one more than those of the
axis, so that 0, which operators fill in, belongs to nobody. They are in double precision, because not every operator that
moves values accepts integers, and exact up to 2**53.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lrp_lightning.axes import NOBODY, Axis
from lrp_lightning.compat import depends_on_inputs, is_recording, unrecorded
from lrp_lightning.errors import UnsupportedOperatorError

__all__ = ["axis_of", "averaged", "compact", "known", "mixed", "numbers_of", "run_of", "values_of"]


def values_of(t: Tensor) -> Any:
    """The values of an index tensor, as a list.

    Raises:
        UnsupportedOperatorError: if they depend on the input while a pass is recorded.
    """
    t = known(t)
    with unrecorded():
        return t.tolist()


def known(t: Tensor) -> Tensor:
    """An index tensor on the host; errors as in :func:`values_of`."""
    if is_recording() and depends_on_inputs(t):
        raise UnsupportedOperatorError("where values go depends on the input, so a pass of this model cannot be captured")
    with unrecorded():
        return t.cpu()


@unrecorded()
def numbers_of(axis: Axis) -> Tensor:
    """The numbers of an axis; dimensions along which they do not change have size 1."""
    total = torch.full(
        (1,) * len(axis.shape), float(axis.base + 1) if axis.base != NOBODY else -torch.inf, dtype=torch.double
    )
    for dim, term in enumerate(axis.terms):
        if term is not None:
            labels = term.listed()
            if isinstance(labels, range):  # a list of a million labels takes a tenth of a second
                adds = torch.arange(labels.start, labels.stop, labels.step, dtype=torch.double)
            else:
                adds = torch.tensor([-torch.inf if label == NOBODY else label for label in labels], dtype=torch.double)
            total = total + adds.view([-1 if d == dim else 1 for d in range(len(axis.shape))])
    return total.clamp(min=0)


@unrecorded()
def axis_of(numbers: Tensor, filled: bool = False) -> Axis | None:
    """The axis of numbers; None if they are not a sum over dimensions, or values were not only moved.

    With ``filled``, values of nobody take the number of their neighbours, if only one dimension determines it.
    """
    shape = tuple(numbers.shape)
    if not numbers.numel():
        return Axis.constant(shape)
    if not bool((numbers.isfinite() & (numbers >= 0) & (numbers == numbers.round())).all()):
        return None
    if filled and bool((numbers == 0).any()):
        return _beside(numbers)
    if not bool(numbers.any()):
        return Axis.constant(shape, NOBODY)
    present = numbers > 0
    least = numbers[present].min()
    found, total, there = Axis.constant(shape, int(least) - 1), least.expand(shape), torch.ones_like(present)
    for dim in range(numbers.ndim):
        others = [d for d in range(numbers.ndim) if d != dim]
        adds = torch.where(present, numbers, torch.inf).amin(others) if others else torch.where(present, numbers, torch.inf)
        along = [-1 if d == dim else 1 for d in range(numbers.ndim)]
        somebody = adds.isfinite()
        total, there = total + (adds - least).view(along), there & somebody.view(along)
        if numbers.shape[dim] > 1:
            found = found._with(dim, tuple(int(a - least) if a < torch.inf else NOBODY for a in adds.tolist()))
    return found if torch.equal(there, present) and torch.equal(total[present], numbers[present]) else None


def _beside(numbers: Tensor) -> Axis | None:
    for dim in range(numbers.ndim):
        others = [d for d in range(numbers.ndim) if d != dim]
        adds = numbers.amax(others) if others else numbers
        along = adds.view([-1 if d == dim else 1 for d in range(numbers.ndim)])
        if bool(torch.where(numbers > 0, numbers == along, True).all()):
            return Axis.along(tuple(numbers.shape), dim, tuple(int(a) - 1 if a > 0 else NOBODY for a in adds.tolist()))
    return None


@unrecorded()
def compact(numbers: Tensor) -> Tensor:
    """The numbers with size 1 in dimensions along which they do not change."""
    for dim in range(numbers.ndim if numbers.numel() else 0):
        first, last = numbers.narrow(dim, 0, 1), numbers.narrow(dim, -1, 1)
        if numbers.stride(dim) == 0 or (torch.equal(first, last) and torch.equal(first.expand_as(numbers), numbers)):
            numbers = first
    return numbers


@unrecorded()
def run_of(numbers: Tensor | None) -> int:
    """The number of successive features of each neuron, such as 49 after flattening 7 x 7 pixels; 1 if it varies."""
    if numbers is None or len(numbers) < 2 or numbers[0] != numbers[1]:
        return 1
    other = (numbers != numbers[0]).nonzero()
    run = int(other[0]) if len(other) else len(numbers)
    return run if len(numbers) % run == 0 and torch.equal(numbers[::run].repeat_interleave(run), numbers) else 1


@unrecorded()
def mixed(numbers: Tensor, dims: list[int], keepdim: bool = True) -> Tensor | None:
    """Numbers after values along ``dims`` were mixed; None if values of several neurons were combined."""
    least, most = numbers.amin(dims, keepdim=keepdim), numbers.amax(dims, keepdim=keepdim)
    return most if torch.equal(least, most) else None


@unrecorded()
def averaged(func: Callable, values: Callable[[Callable[[Tensor], Tensor]], tuple[tuple, dict[str, Any]]]) -> Tensor | None:
    """Numbers after an operator that is linear in a signal; None if values of several neurons were combined.

    All weights are set to 1: if combined values have the same number, the mean of its square is the square of its mean.

    Args:
        func: the operator.
        values: returns its arguments, with a function of the numbers instead of the signal, and ones instead of all others.
    """
    count, total, squares = (
        func(*args, **kwargs).double() for args, kwargs in map(values, (torch.ones_like, lambda t: t, torch.square))
    )
    pure = torch.where(count > 0, (squares * count - total.square()).abs() <= 1e-9 * squares * count, True)
    return compact(torch.where(count > 0, (total / count).round(), 0)) if bool(pure.all()) else None
