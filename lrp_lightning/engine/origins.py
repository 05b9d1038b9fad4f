"""Which neuron each value of a tensor came from: numbers, unique over a pass, in a small tensor that broadcasts over it.

They are of floating type, since not every operator that moves values takes integers; up to 2**24 they are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["NOBODY", "averaged", "compact", "feature_ids", "mixed", "of_ndim", "run_of"]

NOBODY = -1.0
"""The number of values that no neuron made: constants."""


def of_ndim(ids: Tensor | None, ndim: int) -> Tensor | None:
    """Numbers with dimensions put before them, as broadcasting does."""
    return None if ids is None else ids.view((1,) * (ndim - ids.ndim) + tuple(ids.shape))


def feature_ids(ids: Tensor | None, t: Tensor, dim: int) -> Tensor | None:
    """One number for each index of ``dim``, or None if that does not tell the values apart."""
    if ids is None or ids.ndim != t.ndim or ids.numel() not in (ids.shape[dim], 1):
        return None
    return ids.flatten().expand(t.shape[dim])


def run_of(ids: Tensor | None) -> int:
    """How many features, one after the other, are of one neuron, all along: 49 after flattening 7 x 7 pixels, 1 for none."""
    if ids is None or len(ids) < 2 or ids[0] != ids[1]:
        return 1
    other = (ids != ids[0]).nonzero()
    run = int(other[0]) if len(other) else len(ids)
    return run if len(ids) % run == 0 and torch.equal(ids[::run].repeat_interleave(run), ids) else 1


def compact(ids: Tensor) -> Tensor:
    """Dimensions over which the numbers do not change, the samples' first of all, brought to size 1."""
    for dim in range(ids.ndim if ids.numel() else 0):
        first, last = ids.narrow(dim, 0, 1), ids.narrow(dim, -1, 1)
        if ids.stride(dim) == 0 or (torch.equal(first, last) and torch.equal(first.expand_as(ids), ids)):
            ids = first
    return ids


def mixed(ids: Tensor | None, dims: int | tuple[int, ...] | list[int] | None, keepdim: bool = True) -> Tensor | None:
    """Numbers after values along ``dims`` were mixed; None if values of several neurons met."""
    if ids is None or dims is None:
        return None
    least, most = ids.amin(dims, keepdim=keepdim), ids.amax(dims, keepdim=keepdim)
    return most if torch.equal(least, most) else None


def averaged(func: Callable, values: Callable[[Callable[[Tensor], Tensor]], tuple[tuple, dict]], ids: Tensor) -> Any:
    """Numbers after any operator that is linear in a signal; None where values of several neurons met.

    Every weight is taken as 1: if all values that meet have one number, the mean of its square is the square of its mean.

    Args:
        func: the operator.
        values: gives its arguments, with what a function makes of ``ids`` for the signal, and ones for all else.
        ids: the signal's numbers, expanded.
    """
    count, total, squares = (
        func(*args, **kwargs).double() for args, kwargs in map(values, (torch.ones_like, lambda t: t, torch.square))
    )
    mean = total / count
    pure = torch.where(count > 0, (squares * count - total.square()).abs() <= 1e-9 * squares * count, True)
    return compact(torch.where(count > 0, mean.round(), NOBODY).to(ids.dtype)) if bool(pure.all()) else None
