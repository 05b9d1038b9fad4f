"""Several tensors, and constants, joined into one; and in-place writes as functions without side effects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lrp_lightning import axes
from lrp_lightning.axes import Axis
from lrp_lightning.engine.affine import away_from_zero
from lrp_lightning.engine.aliases import overwritten, region
from lrp_lightning.engine.calls import Call
from lrp_lightning.engine.facts import Below, Facts
from lrp_lightning.engine.following import joined, mapped, moved, moved_numbers, why_lost
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.neuron_numbers import axis_of, compact, values_of
from lrp_lightning.engine.operators.moves import places_of
from lrp_lightning.engine.operators.scatters import put_added

__all__ = ["FACTORIES", "ROWS", "copied", "filled", "set_item", "zeroed"]


def set_item(input: Tensor, index: Any, value: Any) -> Tensor:
    """``input`` after ``input[index] = value``."""
    y = input.clone()
    y[index] = value
    return y


def copied(input: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """``input`` after ``input.copy_(src)``."""
    return torch.as_tensor(src).to(input).expand(input.shape).clone()


def filled(input: Tensor, value: Any) -> Tensor:
    """``input`` after ``input.fill_(value)``."""
    return copied(input, value)


def zeroed(input: Tensor) -> Tensor:
    """``input`` after ``input.zero_()``."""
    return torch.zeros_like(input)


def brought_together(
    run: Interpreter, call: Call, y: Tensor, samples: Axis | None, neurons: Axis | None, numbers: Call | None = None
) -> tuple[Tensor, Facts]:
    """Facts of a tensor that several tensors were joined into; the relevance of constants among them is counted.

    Args:
        run: the interpreter.
        call: the operator, on values.
        y: its result.
        samples, neurons: their axes according to a plan; None without a plan, then it is run on numbers.
        numbers: the call to make with numbers, if its arguments contain numbers that are values.
    """
    given = call.tensors
    parts = run.signals(given)
    facts = [run.of(t) for t in parts]
    lost = next((f.lost for f in facts if f.samples is None), "")
    known = {id(t): f for t, f in zip(parts, facts, strict=True)}
    numbers = numbers or call
    if samples is None and not lost:
        of_samples: dict[int, Any] = {t: f.samples for t, f in known.items()}
        found = moved_numbers(run, numbers, of_samples)
        samples = axis_of(found, filled=True) if found is not None and found.shape == y.shape else None
        if samples is None:
            lost = why_lost(run, call, "brings samples together in unknown places")
    one: Axis | Tensor | None = neurons
    if neurons is None and run.visitor.follows and all(f.neurons is not None for f in facts):
        of_neurons: dict[int, Any] = {t: f.neurons for t, f in known.items()}
        found = moved_numbers(run, numbers, of_neurons)
        if found is not None and found.shape == y.shape:
            one = axis_of(found)
            one = compact(found) if one is None else one
    constants = any(t.is_floating_point() and id(t) not in known for t in given)
    about = Facts(
        samples,
        one,
        all(f.nonnegative for f in facts) and not constants,
        all(f.near_input for f in facts),
        min(f.gate for f in facts),
        lost,
    )
    if constants or numbers is not call:
        y = _count_constants(run, call, y, about)
    return y, about


def _count_constants(run: Interpreter, call: Call, y: Tensor, facts: Facts) -> Tensor:
    """Count the relevance of constants that were joined to signals: a class token, a fill value."""
    with torch.no_grad():
        without = call.map(lambda t: torch.zeros_like(t) if run.known(t) else t)
        constant = without.func(*without.args, **without.kwargs)
    parameters = (run.names.of_parameter.get(id(t)) for t in call.tensors)
    where = next(filter(None, parameters), None) or run.names.here("constant")
    return run.visitor.constant(run, y, constant, facts.samples, where, facts.lost)


def _cat(run: Interpreter, call: Call, tensors: Sequence[Tensor], dim: int = 0) -> tuple[Tensor, Facts]:
    y, facts = _one_after_the_other(run, call, list(tensors), call(), dim)
    return y, facts._replace(below=_below_all(run, call, list(tensors), dim))


def _below_all(run: Interpreter, call: Call, parts: list[Tensor], dim: int) -> Below | None:
    """Logits below joined tensors, such as the probabilities of a class and of its opposite."""
    below = [run.of(t).below for t in parts if run.known(t)]
    if len(below) < len(parts) or None in below:
        return None

    def joined(first: Tensor) -> Tensor:
        found = [first]
        for one in below[1:]:
            t, run.facts[t] = one.logits()  # type: ignore[union-attr]
            found.append(t)
        return run.dispatch(call.func, found, dim)

    return mapped(run, below[0], joined)  # type: ignore[arg-type]


def _one_after_the_other(run: Interpreter, call: Call, parts: list[Tensor], y: Tensor, dim: int) -> tuple[Tensor, Facts]:
    dim %= y.ndim
    parts = [t for t in parts if t.numel() or t.ndim == y.ndim]  # torch skips empty tensors with one dimension
    sizes = [t.shape[dim] for t in parts]
    about = [run.of(t) if run.known(t) else None for t in parts]
    samples = neurons = None
    if all(f is None or f.samples is not None for f in about):
        samples = axes.cat([f and f.samples for f in about], dim, sizes, filled=True)
    if all(f is None or isinstance(f.neurons, Axis) for f in about):
        neurons = axes.cat([f and f.neurons for f in about], dim, sizes)  # type: ignore[misc]
    return brought_together(run, call, y, samples, neurons)


def _stack(run: Interpreter, call: Call, tensors: Sequence[Tensor], dim: int = 0) -> tuple[Tensor, Facts]:
    y = call()
    dim %= y.ndim
    below = _below_all(run, call, list(tensors), dim)
    about = [run.of(t) if run.known(t) else None for t in tensors]
    samples = neurons = None
    if all(f is None or f.samples is not None for f in about):
        samples = axes.stack([f and f.samples for f in about], dim, filled=True)
    if all(f is None or isinstance(f.neurons, Axis) for f in about):
        neurons = axes.stack([f and f.neurons for f in about], dim)  # type: ignore[misc]
    y, facts = brought_together(run, call, y, samples, neurons)
    return y, facts._replace(below=below)


def _stacked_as(dim_of: Callable[[Tensor], int]) -> Callable:
    def row(run: Interpreter, call: Call, tensors: Sequence[Tensor]) -> tuple[Tensor, Facts]:
        y = call()
        if any(t.ndim != y.ndim for t in tensors):
            return brought_together(run, call, y, None, None)
        return _one_after_the_other(run, call, list(tensors), y, dim_of(y))

    return row


def _together(run: Interpreter, call: Call, *args: Any, **kwargs: Any) -> tuple[Tensor, Facts]:
    """An operator that is run on numbers; numbers among its arguments that are values belong to nobody."""
    return _into(run, call)


def _into(
    run: Interpreter, call: Call, numbers: Call | None = None, samples: Axis | None = None, neurons: Axis | None = None
) -> tuple[Tensor, Facts]:
    """A write into a tensor; ``numbers`` is the call with 0 instead of a number that is a value."""
    y = call()
    return brought_together(run, call, y, _written_over(run, call, y) or samples, neurons, numbers)


def _written_over(run: Interpreter, call: Call, y: Tensor) -> Axis | None:
    """The samples of a signal after writing only constants, which belong to the sample whose place they take."""
    given = call.tensors
    alone = run.known(given[0]) and len({id(t) for t in run.signals(given)}) == 1
    return run.of(given[0]).samples if alone and given[0].shape == y.shape else None


def _broadcast(run: Interpreter, call: Call, *tensors: Any) -> tuple[list[Tensor], None]:
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else tensors
    shape = axes.broadcast_shapes(*(tuple(t.shape) for t in given))
    return [run.dispatch(torch.broadcast_to, t, shape) for t in given], None


def _grid(run: Interpreter, call: Call, *tensors: Any, indexing: str | None = None) -> tuple[Any, None]:
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else tensors
    order = list(range(len(given)))
    order[:2] = order[1::-1] if indexing == "xy" and len(given) > 1 else order[:2]
    shape = [given[i].numel() for i in order]
    return tuple(
        run.dispatch(
            torch.broadcast_to, run.dispatch(torch.reshape, t, [-1 if d == order.index(i) else 1 for d in order]), shape
        )
        for i, t in enumerate(given)
    ), None


def _chosen(run: Interpreter, call: Call, condition: Any, input: Any = None, other: Any = None) -> tuple[Any, Any]:
    """``where(condition, input, other)``; as a method, ``input.where(condition, other)``; ``where(condition)``: indices."""
    if input is None:
        return call(), None
    one, two = (v for v in (condition, input, other) if not (isinstance(v, Tensor) and v.dtype == torch.bool))
    return _beside(run, call, call(), one, two)


def _masked_fill(run: Interpreter, call: Call, input: Tensor, mask: Tensor, value: Any) -> tuple[Tensor, Facts]:
    return _beside(run, call, call(), input, value)


def _beside(run: Interpreter, call: Call, y: Tensor, one: Any, other: Any) -> tuple[Tensor, Facts]:
    """Values of ``one`` in some places and of ``other`` in the rest, both broadcast."""
    parts = run.signals((one, other))
    samples = neurons = None
    known = [run.of(t).samples for t in parts]
    if None not in known:
        samples = axes.join(known, tuple(y.shape))  # type: ignore[arg-type]
    if samples is None:
        return brought_together(run, call, y, None, None)
    if not run.visitor.follows:  # the dimension that holds them is enough
        of = [run.of(t).neurons for t in parts]
        neurons = axes.join(of, tuple(y.shape)) if all(isinstance(n, Axis) for n in of) else None  # type: ignore[arg-type]
    as_numbers = call
    if not all(isinstance(v, Tensor) for v in (one, other)):
        args = tuple(0.0 if isinstance(v, int | float) and not isinstance(v, bool) else v for v in call.args)
        kwargs = {k: 0.0 if isinstance(v, int | float) and not isinstance(v, bool) else v for k, v in call.kwargs.items()}
        as_numbers = Call(call.operator, args, kwargs)
    return brought_together(run, call, y, samples, neurons, as_numbers)


def _filled_at(run: Interpreter, call: Call, input: Tensor, dim: int, index: Any, value: Any) -> tuple[Tensor, Facts]:
    """``index_fill``: a number is a value."""
    return _into(run, call, None if isinstance(value, Tensor) else Call(call.operator, (input, dim, index, 0.0), {}))


def _scattered(
    run: Interpreter, call: Call, input: Tensor, dim: int, index: Tensor, src: Any = None, value: Any = None, **how: Any
) -> tuple[Tensor, Facts]:
    given = value if src is None else src
    if how.get("reduce") == "add" and isinstance(given, Tensor):
        y = run.dispatch(torch.scatter_add, input, dim, index, given)
        return y, run.of(y)
    if how.get("reduce") is not None:
        raise run.unsupported(
            call.func, f"with reduce={how['reduce']!r} and {given!r} it has no rule; use scatter_add, or multiply beforehand"
        )
    return _into(run, call, None if isinstance(given, Tensor) else Call(call.operator, (input, dim, index, 0.0), {}))


def _indices_put(
    run: Interpreter, call: Call, input: Tensor, indices: Any, values: Tensor, accumulate: bool = False
) -> tuple[Tensor, Facts]:
    return put_added(run, call, input, indices, values) if accumulate else _into(run, call)


def _set_item(run: Interpreter, call: Call, input: Tensor, index: Any, value: Any) -> tuple[Tensor, Facts]:
    """``x[index] = value``: along one dimension by the algebra, otherwise on numbers."""
    zero = Call(call.operator, (input, index, 0.0), {}) if isinstance(value, int | float) else None
    return _into(run, call, zero, *_written(run, input, index, value))


def _written(run: Interpreter, x: Tensor, index: Any, value: Any) -> tuple[Axis | None, Axis | None]:
    """The axes of a tensor after a write along one dimension; None for other writes."""
    entries = list(index) if isinstance(index, tuple) else [index]
    if any(entry is None or isinstance(entry, bool) for entry in entries) or (
        isinstance(value, Tensor) and value.numel() == 0
    ):
        return None, None
    if Ellipsis in [e for e in entries if not isinstance(e, Tensor)]:
        at = next(i for i, e in enumerate(entries) if e is Ellipsis)
        entries[at : at + 1] = [slice(None)] * (x.ndim - len(entries) + 1)
    written: list[tuple[int, list[int], bool]] = []
    for dim, entry in enumerate(entries):
        found = places_of(entry, x.shape[dim])
        if found is None or (isinstance(found[0], Tensor) and found[0].dtype == torch.bool):
            return None, None
        places = values_of(found[0]) if isinstance(found[0], Tensor) else list(found[0])
        if places != list(range(x.shape[dim])) or found[1]:
            written.append((dim, [p % x.shape[dim] for p in places], found[1]))
    if len(written) != 1:
        return None, None
    [(dim, places, gone)] = written
    shape = tuple(len(places) if d == dim else size for d, size in enumerate(x.shape))

    def of(t: Any, name: str) -> Axis | None:
        return getattr(run.of(t), name) if run.known(t) else None

    def new(name: str) -> Axis | None:
        axis = of(value, name)
        if axis is None:
            return None
        without = tuple(size for d, size in enumerate(shape) if d != dim) if gone else shape
        wide = axis.expand(without) if len(axis.shape) <= len(without) else None
        return wide.insert(dim) if wide is not None and gone else wide

    result: list[Axis | None] = []
    for name, beside in (("samples", True), ("neurons", False)):
        old, by = of(x, name), new(name)
        regular = all(not run.known(t) or isinstance(getattr(run.of(t), name), Axis) for t in (x, value))
        known = old is not None or by is not None
        result.append(axes.write(old, by, dim, places, x.shape[dim], beside) if regular and known else None)
    return result[0], result[1]


def _copied(run: Interpreter, call: Call, input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
    y, source = call(), run.signals((*args, *kwargs.values()))
    if not source:
        return y.detach(), None
    was = run.of(source[0])
    return y, joined(run, call, y, source)._replace(nonnegative=was.nonnegative, gate=was.gate, near_input=was.near_input)


def _zeroed(run: Interpreter, call: Call, input: Tensor) -> tuple[Tensor, None]:
    return call().detach(), None


def _region(run: Interpreter, call: Call, whole: Tensor, frame: Any, inside: Any) -> tuple[Tensor, Facts]:
    y = call()
    return y, moved(run, call, whole, y, None)


def _constant(run: Interpreter, call: Call, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """A result without values of its input, or one that the model separates from it: it carries no relevance."""
    return call.values(), None


def _padded(
    run: Interpreter, call: Call, input: Tensor, pad: Any, mode: str = "constant", value: float | None = None
) -> tuple[Tensor, Facts]:
    """Fill values belong to nobody; if they carry no relevance, they belong to the surrounding neuron."""
    value = value or 0.0
    y = call()
    facts = run.of(input)
    zero = Call(call.operator, (input, pad, mode), {})
    proportional = run.visitor.silent_at_zero(facts.near_input)
    silent = mode == "constant" and value == 0.0 and proportional
    samples = neurons = None
    if mode == "constant":
        samples = facts.samples and _with_places(facts.samples, pad, filled=True)
        if isinstance(facts.neurons, Axis):
            neurons = _with_places(facts.neurons, pad, filled=silent)
    elif facts.samples is not None:
        samples = facts.samples.resize({d: y.shape[d] for d in range(y.ndim) if y.shape[d] != input.shape[d]})
    y, about = brought_together(run, call, y, samples, neurons, zero if value != 0.0 else None)
    about = about._replace(nonnegative=facts.nonnegative and value >= 0.0)
    if mode == "constant" and value == 0.0 and not silent:
        with torch.no_grad():  # rules that give relevance to inputs of zero also give it to padding, which absorbs it
            beside = torch.nn.functional.pad(torch.ones_like(input), list(pad)) == 0
            part = torch.where(beside, away_from_zero(torch.zeros_like(y)), 0)
        y = run.visitor.constant(run, y, part, about.samples, run.names.here("padding"), about.lost)
    return y, about


def _with_places(axis: Axis, pad: Sequence[int], filled: bool) -> Axis | None:
    """An axis padded at both ends; negative padding removes places."""
    found: Axis | None = axis
    for place, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        if found is None:
            return None
        dim = len(axis.shape) - 1 - place
        cut = range(max(-before, 0), found.shape[dim] - max(-after, 0))
        found = found.take(dim, cut)
        sizes = [max(before, 0), len(cut), max(after, 0)]
        parts = [(part, size) for part, size in zip((None, found, None), sizes, strict=True) if size]
        if len(parts) > 1:
            found = axes.cat([part for part, _ in parts], dim, [size for _, size in parts], filled)
    return found


_LIKE = ("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like")
FACTORIES = (*_LIKE, "new_empty", "new_zeros", "new_ones", "new_full", "new_tensor", "new_empty_strided", "bernoulli")

ROWS: dict[str, Callable] = {
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "stack": _stack,
    "hstack": _stacked_as(lambda y: 0 if y.ndim == 1 else 1),
    "vstack": _stacked_as(lambda y: 0),
    "row_stack": _stacked_as(lambda y: 0),
    "dstack": _stacked_as(lambda y: 2),
    "column_stack": _stacked_as(lambda y: 1),
    **dict.fromkeys(["select_scatter", "slice_scatter", "diagonal_scatter", "masked_scatter", "index_copy"], _together),
    "broadcast_tensors": _broadcast,
    "meshgrid": _grid,
    "where": _chosen,
    "masked_fill": _masked_fill,
    "index_fill": _filled_at,
    "scatter": _scattered,
    "index_put": _indices_put,
    "pad": _padded,
    **dict.fromkeys(("detach", *FACTORIES), _constant),
}

FUNCTIONS: dict[Callable, Callable] = {
    set_item: _set_item,
    copied: _copied,
    filled: _copied,
    zeroed: _zeroed,
    region: _region,
    overwritten: _together,
}
"""Rows of functions that represent in-place writes."""
