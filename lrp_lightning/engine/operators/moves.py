"""Data movement: autograd's backward is the rule. Each operator has a plan, which is its effect on an axis.

A plan is a function of the operator's arguments, ``(x, y, ...) -> move``, with a list of moves for several results. An
operator without a plan is run on the numbers of samples and of neurons instead of values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.engine.aliases import Frame, region
from lrp_lightning.engine.calls import Call, tensors_in
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.following import Move, mapped, moved
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.neuron_numbers import values_of

__all__ = ["ROWS", "movement", "places_of"]

Plan = Callable[..., "Move | list[Move] | None"]


def movement(run: Interpreter, call: Call, input: Tensor, *rest: Any, **named: Any) -> tuple[Any, Any]:
    """Values are moved and not mixed, and so are their samples and neurons."""
    result = call()
    if not run.known(input):  # it gives its shape to a constant
        return result, None
    if result is input:
        return result, None
    plan = PLANS.get(call.name)
    if isinstance(result, Tensor):
        move = None if plan is None else plan(input, result, *rest, **named)
        facts = moved(run, call, input, result, move)  # type: ignore[arg-type]
        return result, _as_it_was(run, call, input, result, facts)
    made = tensors_in((result,))
    moves = plan(input, made, *rest, **named) if plan is not None else [None] * len(made)
    about = [moved(run, call, input, t, m) for t, m in zip(made, moves, strict=True)]  # type: ignore[arg-type]
    return result, [_as_it_was(run, call, input, t, f, i) for i, (t, f) in enumerate(zip(made, about, strict=True))]


def _as_it_was(run: Interpreter, call: Call, x: Tensor, y: Tensor, facts: Facts, part: int | None = None) -> Facts:
    """Facts about how values were computed, and the logits below them, stay valid; ``y`` is the result or a part of it."""
    was = run.of(x)
    same = y.shape == x.shape
    if same and facts.samples == was.samples:
        facts = facts._replace(written=was.written, made_by=was.made_by if call.name in _SAME_TENSOR else None)
    if was.below is None:
        return facts

    def move(logits: Tensor) -> Tensor:
        moved = call.map(lambda t: logits if t is x else t)
        made = run.dispatch(call.func, *moved.args, **moved.kwargs)
        return made if part is None else made[part]

    return facts._replace(below=mapped(run, was.below, move))


_SAME_TENSOR = ("clone", "contiguous", "alias", "to", "type_as", "type", "view_as", "float", "double", "half", "bfloat16",
                "cpu", "cuda", "requires_grad_", "as_tensor", "asarray")  # fmt: skip


# plans


def _same_order(x: Tensor, y: Tensor, *_: Any, **__: Any) -> Move:
    """Every value keeps its position."""
    shape = tuple(y.shape)
    return lambda axis: axis.reshape(shape)


def _view(x: Tensor, y: Tensor, *shape: Any, **named: Any) -> Move | None:
    given = named.get("dtype", shape[0] if shape else None)
    return None if isinstance(given, torch.dtype) and given != x.dtype else _same_order(x, y)


def _expanded(x: Tensor, y: Tensor, *_: Any, **__: Any) -> Move:
    shape = tuple(y.shape)
    return lambda axis: axis.expand(shape)


def _order(order: Sequence[int]) -> Move:
    return lambda axis: axis.permute(order)


def _swapped(x: Tensor, y: Tensor, dim0: int = 0, dim1: int = 1, axis0: int | None = None, axis1: int | None = None) -> Move:
    one, other = (dim0 if axis0 is None else axis0), (dim1 if axis1 is None else axis1)
    order = list(range(x.ndim))
    if x.ndim:
        order[one], order[other] = order[other], order[one]
    return _order(order)


def _last_swapped(x: Tensor, y: Tensor, *_: Any) -> Move:
    return _swapped(x, y, -2, -1)


def _reversed(x: Tensor, y: Tensor, *_: Any) -> Move:
    return _order(range(x.ndim)[::-1])


def _t(x: Tensor, y: Tensor) -> Move:
    return _reversed(x, y)


def _permuted(x: Tensor, y: Tensor, *dims: Any, **named: Any) -> Move:
    given = named.get("dims", dims)
    given = given[0] if len(given) == 1 and isinstance(given[0], Sequence) else given
    return _order([d % x.ndim for d in given])


def _dims_moved(x: Tensor, y: Tensor, source: Any, destination: Any) -> Move:
    from_, to = ([d % x.ndim for d in (v if isinstance(v, Sequence) else (v,))] for v in (source, destination))
    order = [d for d in range(x.ndim) if d not in from_]
    for place, moving in sorted(zip(to, from_, strict=True)):
        order.insert(place, moving)
    return _order(order)


def _along(dim: int, places: Sequence[int]) -> Move:
    return lambda axis: axis.take(dim, places)


def _each(*moves: Move) -> Move:
    def move(axis: Axis) -> Axis | None:
        for one in moves:
            moved = one(axis)
            if moved is None:
                return None
            axis = moved
        return axis

    return move


def _flipped(x: Tensor, y: Tensor, *dims: Any, **named: Any) -> Move:
    given = named.get("dims", named.get("dim", dims))
    given = (given,) if isinstance(given, int) else given[0] if len(given) == 1 and isinstance(given[0], Sequence) else given
    return _each(*(_along(d % x.ndim, range(x.shape[d])[::-1]) for d in given))


def _rolled(x: Tensor, y: Tensor, shifts: Any, dims: Any = None, dim: Any = None) -> Move | None:
    dims = dim if dims is None else dims
    shifts = shifts if isinstance(shifts, Sequence) else (shifts,)
    if dims is None or (isinstance(dims, Sequence) and not dims):
        flat = x.numel()
        rolled = _along(0, [(i - shifts[0]) % flat for i in range(flat)])
        return _each(lambda axis: axis.reshape((flat,)), rolled, _same_order(x, y)) if flat < 10_000 else None
    dims = dims if isinstance(dims, Sequence) else (dims,)
    sizes = [(shift, d % x.ndim, x.shape[d]) for shift, d in zip(shifts, dims, strict=True)]
    return _each(*(_along(d, [(i - shift) % n for i in range(n)]) for shift, d, n in sizes))


def _turned(x: Tensor, y: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Move:
    one, other = (d % x.ndim for d in dims)
    swapped = _swapped(x, y, one, other)
    quarter = {1: [_flipped(x, y, other), swapped], 2: [_flipped(x, y, one, other)], 3: [swapped, _flipped(y, y, other)]}
    return _each(*quarter.get(k % 4, []))


def _narrowed(x: Tensor, y: Tensor, dim: int, start: Any, length: int) -> Move:
    start = int(start) % max(x.shape[dim], 1) if int(start) < 0 else int(start)
    return _along(dim % x.ndim, range(start, start + length))


def _selected(x: Tensor, y: Tensor, dim: int, index: int) -> Move:
    return lambda axis: axis.select(dim % x.ndim, index % x.shape[dim])


def _parts(x: Tensor, made: list[Tensor], *given: Any, **named: Any) -> list[Move]:
    """``split``, ``chunk`` and similar operators: successive parts along a dimension."""
    at = named.get("dim", given[1] if len(given) > 1 else 0) % x.ndim
    return _one_after_the_other(made, at)


def _one_after_the_other(made: list[Tensor], dim: int) -> list[Move]:
    moves, start = [], 0
    for t in made:
        moves.append(_along(dim, range(start, start + t.shape[dim])))
        start += t.shape[dim]
    return moves


def _unbound(x: Tensor, made: list[Tensor], dim: int = 0) -> list[Move]:
    return [lambda axis, i=i: axis.select(dim % x.ndim, i) for i in range(x.shape[dim])]  # type: ignore[misc]


def _rows(run: Interpreter, call: Call, input: Tensor) -> tuple[Any, None]:
    """``for row in x``."""
    return iter(run.dispatch(torch.unbind, input, 0)), None


def _as_strided(
    run: Interpreter, call: Call, input: Tensor, size: Any, stride: Any, storage_offset: int | None = None
) -> tuple[Any, Facts]:
    """Places in memory; they belong to ``input`` within its size."""
    frame = Frame.of(input)
    inside = Frame(torch.Size(size), tuple(stride), frame.offset if storage_offset is None else storage_offset)
    y = run.dispatch(region, input, frame, inside)
    return y, run.of(y)


def _at_least(run: Interpreter, call: Call, *tensors: Any) -> tuple[Any, Any]:
    """``atleast_1d`` and so on, for one tensor or several."""
    given = tensors[0] if isinstance(tensors[0], list | tuple) else tensors
    if len(given) > 1:
        return tuple(run.dispatch(call.func, t) for t in given), None
    return movement(run, call, given[0])


def _windows(x: Tensor, y: Tensor, dimension: int, size: int, step: int) -> Move:
    return lambda axis: axis.windows(dimension % x.ndim, size, step)


def _diagonal(x: Tensor, y: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Move:
    one, other = dim1 % x.ndim, dim2 % x.ndim
    return lambda axis: axis.diagonal(offset, one, other)


def _repeated(x: Tensor, y: Tensor, *times: Any, **named: Any) -> Move:
    given = named.get("repeats", named.get("dims", times))
    given = (given,) if isinstance(given, int) else given
    given = tuple(given[0] if len(given) == 1 and isinstance(given[0], Sequence) else given)
    given = (1,) * (x.ndim - len(given)) + given
    return lambda axis: axis.repeat(given)


def _interleaved(x: Tensor, y: Tensor, repeats: Any, dim: int | None = None, output_size: Any = None) -> Move:
    size = x.numel() if dim is None else x.shape[dim]
    times = values_of(repeats) if isinstance(repeats, Tensor) else repeats
    times = [times] * size if isinstance(times, int) else times * (size // max(len(times), 1)) if len(times) == 1 else times
    places = [place for place, many in enumerate(times) for _ in range(many)]
    if dim is None:
        return _each(lambda axis: axis.reshape((size,)), _along(0, places))
    return _along(dim % x.ndim, places)


def _indexed_along(x: Tensor, y: Tensor, dim: int, index: Tensor) -> Move:
    def move(axis: Axis) -> Axis:  # the index is read only if needed
        at = dim % x.ndim
        return axis.take(at, range(len(index.view(-1))) if axis.terms[at] is None else values_of(index.view(-1)))

    return move


def _gathered(x: Tensor, y: Tensor, dim: int, index: Tensor, sparse_grad: bool = False) -> Move | None:
    def move(axis: Axis) -> Axis | None:
        at = dim % x.ndim
        if axis.terms[at] is not None or any(axis.terms[d] and y.shape[d] != x.shape[d] for d in range(x.ndim)):
            return None
        return Axis(tuple(y.shape), axis.terms, axis.base)

    return move


def _taken_along(x: Tensor, y: Tensor, indices: Tensor, dim: int | None = None) -> Move | None:
    return None if dim is None else _gathered(x, y, dim, indices)


def _by_index(x: Tensor, y: Tensor, index: Any) -> Move | None:
    """``x[index]`` with numbers, slices, None and Ellipsis; a list, array or tensor of one dimension along one of them."""
    entries = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(entry, bool) for entry in entries):
        return None
    left = x.ndim - sum(entry is not None and entry is not Ellipsis for entry in entries)
    moves: list[Move] = []
    read = made = lists = 0  # the numbers of dimensions of x that were read and of the result that were made
    for entry in entries:
        if entry is Ellipsis:
            read, made = read + left, made + left
        elif entry is None:
            moves.append(lambda axis, at=made: axis.insert(at))  # type: ignore[misc]
            made += 1
        else:
            found = places_of(entry, x.shape[read])
            if found is None:
                return None
            places, gone = found
            if gone:
                moves.append(lambda axis, at=made, place=places[0]: axis.select(at, place))  # type: ignore[misc]
            else:
                moves.append(_lazily(made, places))
                made, lists = made + 1, lists + isinstance(places, Tensor)
            read += 1
    return _each(*moves) if lists < 2 else None


def _lazily(dim: int, places: Any) -> Move:
    """Places along a dimension; an index tensor is read only if needed."""

    def move(axis: Axis) -> Axis:
        if not isinstance(places, Tensor):
            return axis.take(dim, places)
        if axis.terms[dim] is None and places.dtype != torch.bool:
            return axis.take(dim, range(len(places)))
        listed = values_of(places)
        if places.dtype in (torch.bool, torch.uint8):
            listed = [i for i, wanted in enumerate(listed) if wanted]
        return axis.take(dim, [i % axis.shape[dim] for i in listed])

    return move


def places_of(entry: Any, size: int) -> tuple[Any, bool] | None:
    """The places that an entry of an index selects along a dimension, and whether that is removed; None otherwise."""
    if isinstance(entry, slice):
        bounds = [int(v) if isinstance(v, Tensor) else v for v in (entry.start, entry.stop, entry.step)]
        return range(size)[slice(*bounds)], False
    if isinstance(entry, Tensor):
        return ((int(entry) % size,), True) if entry.ndim == 0 else (entry, False) if entry.ndim == 1 else None
    if isinstance(entry, list | range) or hasattr(entry, "__array__"):
        t = torch.as_tensor(entry)
        return (t, False) if t.ndim == 1 else ((int(t) % size,), True) if t.ndim == 0 else None
    try:
        return (int(entry.__index__()) % size,), True
    except AttributeError:
        return None


def _but_the_last(many: int) -> Plan:
    """Operators that act only on the last dimensions do not change axes along others."""

    def plan(x: Tensor, y: Tensor, *_: Any, **__: Any) -> Move:
        kept = x.ndim - many

        def move(axis: Axis) -> Axis | None:
            if any(axis.terms[kept:]):
                return None
            return Axis(tuple(y.shape), (*axis.terms[:kept], *(None,) * (y.ndim - kept)), axis.base)

        return move

    return plan


def _channels_shuffled(x: Tensor, y: Tensor, groups: int) -> Move:
    wide = (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    order = (0, 2, 1, *range(3, x.ndim + 1))
    return _each(lambda axis: axis.reshape(wide), _order(order), _same_order(x, y))


PLANS: dict[str, Plan] = {
    **dict.fromkeys(
        [
            "reshape",
            "flatten",
            "unflatten",
            "ravel",
            "view_as",
            "reshape_as",
            "squeeze",
            "unsqueeze",
            "atleast_1d",
            "atleast_2d",
            "atleast_3d",
            "contiguous",
            "clone",
            "alias",
            "to",
            "type_as",
            "type",
            "float",
            "double",
            "half",
            "bfloat16",
            "cpu",
            "cuda",
            "requires_grad_",
            "as_tensor",
            "asarray",
            "positive",
            "resolve_conj",
            "resolve_neg",
        ],
        _same_order,
    ),
    "view": _view,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expanded),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _swapped),
    "t": _t,
    **dict.fromkeys(("T.__get__", "H.__get__", "T", "H"), _reversed),
    **dict.fromkeys(("mT.__get__", "mH.__get__", "mT", "mH", "adjoint"), _last_swapped),
    "permute": _permuted,
    **dict.fromkeys(("movedim", "moveaxis"), _dims_moved),
    "flip": _flipped,
    "fliplr": lambda x, y: _flipped(x, y, 1),
    "flipud": lambda x, y: _flipped(x, y, 0),
    "roll": _rolled,
    "rot90": _turned,
    "narrow": _narrowed,
    "select": _selected,
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), _parts),
    "hsplit": lambda x, made, *_, **__: _one_after_the_other(made, 1 if x.ndim > 1 else 0),
    "vsplit": lambda x, made, *_, **__: _one_after_the_other(made, 0),
    "dsplit": lambda x, made, *_, **__: _one_after_the_other(made, 2),
    "unbind": _unbound,
    "unfold": _windows,
    "diagonal": _diagonal,
    **dict.fromkeys(("repeat", "tile"), _repeated),
    "repeat_interleave": _interleaved,
    "index_select": _indexed_along,
    "gather": _gathered,
    "take_along_dim": _taken_along,
    "__getitem__": _by_index,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), _channels_shuffled),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle", "im2col", "F.unfold"), _but_the_last(3)),
    **dict.fromkeys(("tril", "triu"), _but_the_last(2)),
}

_WITHOUT_PLAN = "take masked_select diag_embed"

ROWS: dict[str, Callable] = dict.fromkeys(
    (*(n for n in PLANS if n not in ("T", "H", "mT", "mH")), *_WITHOUT_PLAN.split()), movement
)
ROWS["__iter__"] = _rows
ROWS["as_strided"] = _as_strided
ROWS.update(dict.fromkeys(("atleast_1d", "atleast_2d", "atleast_3d"), _at_least))
