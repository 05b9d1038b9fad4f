"""Values that are summed or chosen at indexed places, as in message passing of graph networks.

Adding to a tensor at some places is treated as two operators: a tensor of zeros with the added values, and a sum.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lrp_lightning import axes
from lrp_lightning.axes import Axis
from lrp_lightning.engine.calls import Call, Operator
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.following import samples_after, samples_joined
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.operators.reductions import accounted, but_chosen, followed_by_mean, samples_by_mean

__all__ = ["FUNCTIONS", "ROWS"]


def scattered(source: Tensor, shape: tuple[int, ...], dim: int, index: Tensor) -> Tensor:
    """Zeros of a shape after ``scatter_add_(dim, index, source)``."""
    return source.new_zeros(shape).scatter_add(dim, index, source)


def indexed(source: Tensor, shape: tuple[int, ...], dim: int, index: Tensor) -> Tensor:
    """Zeros of a shape after ``index_add_(dim, index, source)``."""
    return source.new_zeros(shape).index_add(dim, index, source)


def placed(source: Tensor, shape: tuple[int, ...], indices: Any) -> Tensor:
    """Zeros of a shape after ``index_put_(indices, source, accumulate=True)``."""
    return source.new_zeros(shape).index_put(indices, source, accumulate=True)


def _along(source: Tensor, shape: tuple[int, ...], dim: int) -> Callable[[Axis], Axis | None]:
    """Rows are moved along one dimension; other dimensions do not change."""
    changed = {dim % max(len(shape), 1), *(d for d, size in enumerate(source.shape) if size != shape[d])}

    def move(axis: Axis) -> Axis | None:
        return axis.resize({d: shape[d] for d in changed}) if len(axis.shape) == len(shape) else None

    return move


def _made_of(run: Interpreter, call: Call, sums: Call, y: Tensor, source: Tensor, dim: int | None) -> Facts:
    """Facts of values that were summed or chosen at places along ``dim``; None if places are given in another way.

    ``sums`` is the call that sums the values that ``call`` combines.
    """
    was, plan = run.of(source), None if dim is None else _along(source, tuple(y.shape), dim)

    def move(axis: Axis) -> Axis | None:
        planned = None if plan is None else plan(axis)
        return planned if planned is not None else samples_by_mean(sums, source, y, axis)

    samples, lost = samples_after(run, call, was, move)
    if samples is not None and samples.has_nobody and dim is not None:
        samples = _of_rows_alike(run, samples, dim % max(y.ndim, 1))
    neurons: Axis | Tensor | None = plan(was.neurons) if plan is not None and isinstance(was.neurons, Axis) else None
    if neurons is None:
        neurons = followed_by_mean(run, sums, source, was.neurons)
    return Facts(samples, neurons, was.nonnegative, gate=was.gate, lost=lost)


def _of_rows_alike(run: Interpreter, samples: Axis, dim: int) -> Axis:
    """Samples, in which places without values take the sample from a tensor with the same number of rows, such as nodes.

    Values at other places must agree with it, and so must tensors that are combined with these places later.
    """
    shape = samples.shape
    for t in run.facts:
        found = run.of(t).samples
        if found is None or not t.ndim or t.shape[0] != shape[dim] or found.dims != [0] or found.has_nobody:
            continue
        rows = Axis.along(shape, dim, found.listed(0))
        if axes.join([samples, rows], shape) == rows:
            return rows
    return samples


def _added_up(run: Interpreter, call: Call, source: Tensor, shape: Any, *where: Any) -> tuple[Tensor, Facts]:
    y = call()
    return y, _made_of(run, call, call, y, source, where[0] if len(where) == 2 else None)


def _added(
    run: Interpreter, function: Callable, input: Tensor, source: Any, alpha: float, *where: Any
) -> tuple[Tensor, Any]:
    """``input`` plus the added values."""
    part = run.dispatch(function, source, tuple(input.shape), *where)
    part = part if alpha == 1 else run.dispatch(torch.mul, part, alpha)
    if not run.known(input) and not input.any():
        return part, run.of(part)
    y = run.dispatch(torch.add, input, part)
    return y, run.of(y)


def _scatter_add(run: Interpreter, call: Call, input: Tensor, dim: int, index: Tensor, src: Tensor) -> tuple[Tensor, Any]:
    return _added(run, scattered, input, src, 1, dim, index)


def _index_add(
    run: Interpreter, call: Call, input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1
) -> tuple[Tensor, Any]:
    return _added(run, indexed, input, source, alpha, dim, index)


def put_added(run: Interpreter, call: Call, input: Tensor, indices: Any, values: Tensor) -> tuple[Tensor, Any]:
    """``index_put`` with ``accumulate``."""
    return _added(run, placed, input, values, 1, indices)


def _reduced(
    add: Callable, source: str, run: Interpreter, call: Call, input: Tensor, dim: int, index: Tensor, *args: Any,
    include_self: bool = True, **kwargs: Any,
) -> tuple[Tensor, Any]:  # fmt: skip
    """``scatter_reduce`` and ``index_reduce``: a sum is split; a mean is linear; in a choice the chosen value gets all."""
    given = dict(zip((source, "reduce"), args, strict=False)) | kwargs
    src, how = given[source], given["reduce"]
    if how == "prod":
        raise run.unsupported(
            call.func,
            'with reduce="prod" it multiplies values at places that an index names, which has no rule; multiply them along '
            "a dimension of their own",
        )
    if how == "sum" and include_self:
        return _added(run, add, input, src, 1, dim, index)

    def facts_of(y: Tensor) -> Facts:
        known = run.signals((input, src))
        sums = Call(Operator(call.name, add, None), (src, tuple(y.shape), dim, index), {})
        about = [run.of(t) if t is input else _made_of(run, call, sums, y, t, dim) for t in known]
        samples, lost = samples_joined(run, call, y, known, [f.samples for f in about], "mixes samples")
        neurons = about[0].neurons if len(known) == 1 else None
        constant = input if known[0] is src else src
        if how == "mean" and include_self and run.visitor.follows and constant.any():  # it contributes to every value
            neurons = None
        elif include_self and known[0] is src:
            neurons = but_chosen(run, neurons, y, input)
        return Facts(samples, neurons, all(f.nonnegative for f in about), lost=lost)

    return accounted(run, call, facts_of)


def _by_segments(run: Interpreter, call: Call, input: Tensor, reduce: str, **how: Any) -> tuple[Tensor, Any]:
    """``segment_reduce``: successive segments of values along a dimension."""
    if reduce == "prod":
        raise run.unsupported(call.func, 'with reduce="prod" it has no rule; multiply values along a dimension of their own')
    dim = how.get("dim", 0) % input.ndim

    without = {name: value for name, value in call.kwargs.items() if name != "reduce"}

    def facts_of(y: Tensor) -> Facts:
        return _made_of(run, call, Call(call.operator, (input, "sum"), without), y, input, dim)

    return accounted(run, call, facts_of)


ROWS: dict[str, Callable] = {
    "scatter_add": _scatter_add,
    "index_add": _index_add,
    "scatter_reduce": partial(_reduced, scattered, "src"),
    "index_reduce": partial(_reduced, indexed, "source"),
    "segment_reduce": _by_segments,
}

FUNCTIONS: dict[Callable, Callable] = {scattered: _added_up, indexed: _added_up, placed: _added_up}
