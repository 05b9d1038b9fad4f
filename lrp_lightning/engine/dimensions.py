"""Where a dimension of an operator's input is found in its result: samples and neurons, without looking at values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

__all__ = ["moved"]


def moved(
    func: Callable, args: tuple, kwargs: dict[str, Any], t: Tensor, dim: int, y: Tensor, samples: int | None = None
) -> int | None:
    """Where dimension ``dim`` of ``t``, an argument of ``func``, is in its result ``y``; None if it was merged or is gone.

    What holds ``samples`` has a size that is a multiple of it; of neurons, None.

    A dimension that was split is found at its outer part, one into which inner dimensions were merged at the merged one:
    samples with windows or patches stay where samples were.
    """
    name = getattr(func, "__name__", "")
    find = _BY_NAME.get(name)
    if find is not None:
        if find is _reshape:
            return _reshape(t, dim, y, samples)
        rest = args[1:] if args and args[0] is t else args
        return find(t, dim, y, *rest, **{k: v for k, v in kwargs.items() if v is not t})
    if y.ndim == t.ndim:
        return dim
    if y.ndim > t.ndim and y.shape[dim + y.ndim - t.ndim :] == t.shape[dim:]:  # broadcast
        return dim + y.ndim - t.ndim
    return None


def _swap(t: Tensor, dim: int, y: Tensor, /, dim0: Any = 0, dim1: Any = 1, **named: int) -> int:
    first = named.get("axis0", dim0) % max(t.ndim, 1)
    second = named.get("axis1", dim1) % max(t.ndim, 1)
    return {first: second, second: first}.get(dim, dim)


def _reversed(t: Tensor, dim: int, y: Tensor, /) -> int:
    return t.ndim - 1 - dim


def _swap_last(t: Tensor, dim: int, y: Tensor, /) -> int:
    return _swap(t, dim, y, -1, -2)


def _permute(t: Tensor, dim: int, y: Tensor, /, *dims: Any, **named: Any) -> int:
    dims = tuple(named.get("dims", dims))
    order = dims[0] if len(dims) == 1 and isinstance(dims[0], Sequence) else dims
    return [d % t.ndim for d in order].index(dim)


def _move(t: Tensor, dim: int, y: Tensor, /, source: Any, destination: Any) -> int:
    from_, to = ([d % t.ndim for d in (v if isinstance(v, Sequence) else (v,))] for v in (source, destination))
    order = [d for d in range(t.ndim) if d not in from_]
    for place, moving in sorted(zip(to, from_, strict=True)):
        order.insert(place, moving)
    return order.index(dim)


def _reshape(t: Tensor, dim: int, y: Tensor, samples: int | None) -> int | None:
    """Found where as many values lie before it, and its size is a multiple or a divisor.

    What has a size of 1 is passed over, unless it can hold the one sample.
    """
    before = math.prod(t.shape[:dim])
    for place in range(y.ndim):
        may_be = y.shape[place] % samples == 0 if samples else y.shape[place] != 1 or t.shape[dim] == 1
        if math.prod(y.shape[:place]) == before and may_be:
            fits = y.shape[place] % t.shape[dim] == 0 or t.shape[dim] % y.shape[place] == 0
            return place if fits else None
    return None


def _unsqueeze(t: Tensor, dim: int, y: Tensor, /, at: Any = None, **named: int) -> int:
    at = named["dim"] if at is None else at
    return dim + (at % y.ndim <= dim)


def _squeeze(t: Tensor, dim: int, y: Tensor, /, at: Any = None, **named: Any) -> int | None:
    at = named.get("dim", at)
    gone = range(t.ndim) if at is None else [d % t.ndim for d in (at if isinstance(at, Sequence) else (at,))]
    gone = [d for d in gone if t.shape[d] == 1]
    return None if dim in gone else dim - sum(d < dim for d in gone)


def _without(t: Tensor, dim: int, y: Tensor, /, at: Any = None, *_: Any, **named: Any) -> int | None:
    """``select`` and ``unbind``: one dimension goes."""
    at = (named.get("dim", 0) if at is None else at) % t.ndim
    return None if at == dim else dim - (at < dim)


def _reduce(t: Tensor, dim: int, y: Tensor, /, at: Any = None, *_: Any, **named: Any) -> int | None:
    at = named.get("dim", named.get("axis", at))
    if y.ndim == t.ndim:
        return dim
    gone = range(t.ndim) if at is None else [d % t.ndim for d in (at if isinstance(at, Sequence) else (at,))]
    return None if dim in gone else dim - sum(d < dim for d in gone)


def _stack(t: Tensor, dim: int, y: Tensor, /, *rest: Any, **named: Any) -> int:
    at = named.get("dim", next((v for v in rest if isinstance(v, int)), 0)) % y.ndim
    return dim + (at <= dim)


def _index(t: Tensor, dim: int, y: Tensor, /, index: Any) -> int | None:
    """``t[index]`` with numbers, slices, None and Ellipsis; one tensor or list takes the place of its dimension."""
    entries = list(index) if isinstance(index, tuple) else [index]
    used = sum(_dimensions_of(entry) for entry in entries)
    if not any(entry is Ellipsis for entry in entries):
        entries.append(Ellipsis)
    here = there = 0
    for entry in entries:
        if entry is Ellipsis:
            if dim < here + t.ndim - used:
                return there + dim - here
            here, there = here + t.ndim - used, there + t.ndim - used
        elif entry is None:
            there += 1
        elif isinstance(entry, int) and not isinstance(entry, bool):
            if here == dim:
                return None
            here += 1
        else:
            taken = _dimensions_of(entry)
            if here <= dim < here + taken:
                return there if taken == 1 else None
            here, there = here + taken, there + (entry.ndim if isinstance(entry, Tensor) and taken == 1 else 1)
    return None


def _dimensions_of(entry: Any) -> int:
    if entry is None or entry is Ellipsis:
        return 0
    is_mask = isinstance(entry, Tensor) and str(entry.dtype) == "torch.bool"
    return entry.ndim if is_mask else 1


def _einsum(t: Tensor, dim: int, y: Tensor, /, equation: Any, *operands: Any) -> int | None:
    if not isinstance(equation, str) or "." in equation:
        return dim if y.ndim == t.ndim else None
    flat = operands[0] if len(operands) == 1 and isinstance(operands[0], Sequence) else operands
    left, arrow, right = equation.replace(" ", "").partition("->")
    if not arrow:
        letters = left.replace(",", "")
        right = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    label = next(term[dim] for term, operand in zip(left.split(","), flat, strict=True) if operand is t)
    return right.index(label) if label in right else None


def _fold(t: Tensor, dim: int, y: Tensor, /, *_: Any, **__: Any) -> int | None:
    """``F.unfold`` and ``F.fold`` keep the first dimension; ``Tensor.unfold`` keeps all and puts one behind them."""
    return dim if dim == 0 or y.ndim == t.ndim + 1 else None


_BY_NAME: dict[str, Callable[..., int | None]] = {
    **dict.fromkeys(("transpose", "swapaxes", "swapdims", "t"), _swap),
    **dict.fromkeys(("mT", "adjoint"), _swap_last),
    "permute": _permute,
    **dict.fromkeys(("movedim", "moveaxis"), _move),
    **dict.fromkeys(("reshape", "view", "view_as", "reshape_as", "flatten", "unflatten", "ravel", "_unsafe_view"), _reshape),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    **dict.fromkeys(("select", "unbind"), _without),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "median", "norm", "std", "var"), _reduce),
    "stack": _stack,
    **dict.fromkeys(("fold", "unfold", "im2col", "col2im"), _fold),
    "__getitem__": _index,
    "einsum": _einsum,
}
