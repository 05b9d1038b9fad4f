"""Sums and means over dimensions, choices among values, statistics, and other linear operators without parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lrp_lightning import axes
from lrp_lightning.axes import Axis
from lrp_lightning.compat import unrecorded
from lrp_lightning.engine.calls import Call, tensors_in
from lrp_lightning.engine.facts import Facts, Gate, Written
from lrp_lightning.engine.following import joined, mapped, samples_after, why_lost
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.neuron_numbers import averaged, axis_of, known, mixed, numbers_of
from lrp_lightning.engine.notes import Ref
from lrp_lightning.engine.operators.nodes import neuron_dim_of, relayed
from lrp_lightning.engine.unlisted import samples_by_trial

__all__ = ["ROWS", "accounted", "but_chosen", "followed_by_mean", "linear", "reduced", "resized", "samples_by_mean"]


def dims_of(x: Tensor, dim: Any) -> list[int]:
    """The dimensions of a reduction; all of them if none are given."""
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return list(range(x.ndim))
    return [d % max(x.ndim, 1) for d in (dim if isinstance(dim, list | tuple) else (dim,))]


def reduced(run: Interpreter, call: Call, x: Tensor, dims: list[int], keepdim: bool) -> Facts:
    """Facts of a result in which some dimensions were reduced."""
    facts = run.of(x)
    samples, lost = samples_after(run, call, facts, lambda axis: axis.drop(dims, keepdim))
    neurons = facts.neurons
    if isinstance(neurons, Axis):
        neurons = neurons.drop(dims, keepdim)
    elif neurons is not None:
        neurons = mixed(neurons, dims, keepdim)
    return Facts(samples, neurons, facts.nonnegative, gate=facts.gate, lost=lost)


def _reduction(
    run: Interpreter, call: Call, input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> tuple[Tensor, Facts]:
    """Sum or mean over dimensions; edges are known unless values of different neurons are combined."""
    x, dims = input, dims_of(input, dim)
    at = neuron_dim_of(run.of(x), x)
    if run.visitor.follows and at not in dims and reduced(run, call, x, dims, keepdim).neurons is None:
        x = relayed(run, x, at)
    y = call() if x is input else call.map(lambda t: x if t is input else t)()
    about = reduced(run, call, x, dims, keepdim)
    if call.name == "sum":
        about = about._replace(written=Written(sum_of=(Ref.to(input), tuple(dims), run.of(input).written.exp_of)))
    return y, about


def accounted(run: Interpreter, call: Call, facts_of: Callable[[Any], Facts]) -> tuple[Any, Any]:
    """A choice among values, with its plain gradient; relevance that it absorbs is counted."""

    def known(result: Any) -> Any:
        if isinstance(result, Tensor):
            return facts_of(result)
        return [facts_of(t) if t.is_floating_point() else None for t in tensors_in((result,))]

    return run.visitor.accounted(run, call, "constant", Call.__call__, known)


def _choice(
    run: Interpreter, call: Call, input: Tensor, dim: Any = None, keepdim: bool = False, **more: Any
) -> tuple[Any, Any]:
    """The maximum, minimum or median along dimensions, or a smooth maximum; for two tensors, value by value."""
    if isinstance(dim, Tensor) or "other" in more:
        return _choice_of_two(run, call, input, dim if isinstance(dim, Tensor) else more["other"])
    facts = reduced(run, call, input, dims_of(input, dim), keepdim)._replace(gate=Gate.NO)
    if call.name == "logsumexp":  # what it absorbs, its entropy, belongs to no neuron
        facts = facts._replace(neurons=None)
    return accounted(run, call, lambda _: facts)


def but_chosen(run: Interpreter, neurons: Axis | Tensor | None, y: Tensor, constant: Tensor) -> Axis | Tensor | None:
    """The neurons of a choice between a signal's values and a constant; nobody where the constant was chosen."""
    if neurons is None or not run.visitor.follows:
        return neurons
    numbers = numbers_of(neurons) if isinstance(neurons, Axis) else neurons
    return torch.where((y == constant).cpu(), 0, numbers)


def _choice_of_two(run: Interpreter, call: Call, input: Any, other: Any) -> tuple[Tensor, Facts]:
    parts = run.signals((input, other))
    constant = other if parts[0] is input else input
    nonnegative = all(run.of(t).nonnegative for t in parts)

    def facts_of(y: Tensor) -> Facts:
        about = joined(run, call, y, parts)
        neurons = but_chosen(run, about.neurons, y, constant) if len(parts) == 1 else None
        return about._replace(nonnegative=nonnegative, neurons=neurons)

    return accounted(run, call, facts_of)


def _sorted(run: Interpreter, call: Call, input: Tensor, *rest: Any, **named: Any) -> tuple[Any, Any]:
    """``topk``, ``sort``, ``kthvalue``, cumulative choices: values are moved along one dimension."""
    first = 1 if call.name in ("topk", "kthvalue") else 0
    dim = named.get("dim", rest[first] if len(rest) > first else -1)
    dim = dim if type(dim) is int else -1
    keepdim = bool(named.get("keepdim", rest[2] if call.name == "kthvalue" and len(rest) > 2 else False))
    if call.name == "kthvalue":
        reduced_facts = reduced(run, call, input, dims_of(input, dim), keepdim)._replace(gate=Gate.NO)
        return accounted(run, call, lambda _: reduced_facts)
    result, known = accounted(run, call, lambda y: resized(run, call, input, y, [dim % max(input.ndim, 1)]))
    below = run.of(input).below
    if below is not None:  # the logit at the original place of each value
        below = mapped(run, below, lambda logits: run.dispatch(torch.gather, logits, dim, result[1]))
        known = [known[0]._replace(below=below), *known[1:]]
    return result, known


def resized(run: Interpreter, call: Call, x: Tensor, y: Tensor, dims: list[int]) -> Facts:
    """Facts of a result in which values were mixed or moved along some dimensions."""
    facts = run.of(x)
    sizes = {d: y.shape[d] for d in dims} if y.ndim else {}
    samples, lost = samples_after(run, call, facts, lambda axis: axis.resize(sizes))
    neurons = facts.neurons.resize(sizes) if isinstance(facts.neurons, Axis) else None
    return Facts(samples, neurons, facts.nonnegative, gate=facts.gate, lost=lost)


def followed_by_mean(run: Interpreter, call: Call, signal: Tensor, neurons: Axis | Tensor | None) -> Tensor | None:
    """The numbers of the neurons after an operator that is linear in ``signal``; None if several were combined."""
    if neurons is None or not run.visitor.follows:
        return None
    numbers = numbers_of(neurons) if isinstance(neurons, Axis) else neurons
    whole = torch.broadcast_to(numbers, signal.shape)

    return _on_numbers(call, signal, whole)


@unrecorded()
def samples_by_mean(call: Call, signal: Tensor, y: Tensor, axis: Axis) -> Axis | None:
    """The samples of ``y`` after an operator that is linear in ``signal``; None if several were combined."""
    found = _on_numbers(call, signal, torch.broadcast_to(numbers_of(axis), signal.shape))
    if found is None or found.ndim != y.ndim or not found.any():  # it is not linear, although it was declared so
        return None
    return axis_of(torch.broadcast_to(found, y.shape), filled=True)


def _on_numbers(call: Call, signal: Tensor, numbers: Tensor) -> Tensor | None:
    """Numbers after an operator that is linear in ``signal``, with weights of 1; None if combined or if it cannot run."""

    def values(of_signal: Callable[[Tensor], Tensor]) -> tuple[tuple, dict[str, Any]]:
        def value(t: Tensor) -> Tensor:
            if t is signal:
                return of_signal(numbers)
            if not t.is_floating_point():
                return known(t)
            with unrecorded():
                return torch.ones(t.shape, dtype=numbers.dtype)

        made = call.map(value)
        return made.args, made.kwargs

    try:
        with torch.no_grad():
            return averaged(call.func, values)
    except Exception:  # an error only if an edge needs it
        return None


def linear(run: Interpreter, call: Call, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Linear in its inputs, so autograd's backward is the rule; neurons are followed unless they are combined."""
    result = call()
    signals = run.signals(call.tensors)
    facts = run.of(signals[0])
    made = tensors_in((result,))
    found = []
    for y in made:
        if not (y.is_floating_point() or y.is_complex()):
            found.append(Facts())
            continue
        samples, lost = _samples_after(run, call, signals, y, made)
        neurons = followed_by_mean(run, call, signals[0], facts.neurons) if len(signals) == 1 and len(made) == 1 else None
        found.append(Facts(samples, neurons, lost=lost))
    return result, found[0] if isinstance(result, Tensor) else found


def _samples_after(
    run: Interpreter, call: Call, signals: list[Tensor], y: Tensor, made: list[Tensor]
) -> tuple[Axis | None, str]:
    """Samples after a linear operator, found by running it on numbers with weights of 1."""
    for t in signals:
        if run.of(t).samples is None:
            return None, run.of(t).lost
    if run.samples == 1:
        return Axis.constant(tuple(y.shape)), ""
    [signal, *others] = signals
    axis = run.of(signal).samples
    assert axis is not None
    if not others and call.name in ("F.fold", "col2im") and not any(axis.terms[1:]) and signal.ndim == 3:
        return Axis(tuple(y.shape), (axis.terms[0], *(None,) * (y.ndim - 1)), axis.base), ""
    if not others:
        found = samples_by_mean(call, signal, y, axis)
        if found is not None:
            return found, ""
    tried = samples_by_trial(run, call, y, made)
    return tried, "" if tried is not None else why_lost(run, call, "mixes samples")


def _along_one(run: Interpreter, call: Call, input: Tensor, dim: Any = None, *rest: Any, **named: Any) -> tuple[Any, Any]:
    """``cumsum`` and similar operators: values are mixed along one dimension, whose size stays about the same."""
    y = call()
    return y, resized(run, call, input, y, [(-1 if dim is None else dim) % max(input.ndim, 1)])


def _diff(run: Interpreter, call: Call, input: Tensor, n: int = 1, dim: int = -1, **more: Any) -> tuple[Any, Any]:
    y, facts = _along_one(run, call, input, dim)
    return y, facts._replace(nonnegative=False)


def _statistic(run: Interpreter, call: Call, input: Tensor, *rest: Any, **named: Any) -> tuple[Any, Any]:
    """A scale of the signal (a norm, a deviation), which is a gate.

    If it is used as a signal itself: norm and deviation are homogeneous of degree 1, so their gradient is the rule; a
    variance is of degree 2, so the rule is half of its gradient.
    """
    at = {"norm": 1, "linalg_norm": 1, "vector_norm": 1, "linalg_vector_norm": 1}.get(call.name, 0)
    dim = named.get("dim", rest[at] if len(rest) > at else None)
    dim = None if isinstance(dim, bool) else dim
    after = rest[at + 1] if len(rest) > at + 1 and at == 1 else False
    keepdim = bool(named.get("keepdim", after))
    result = call()
    about = reduced(run, call, input, dims_of(input, dim), keepdim)._replace(nonnegative=True, gate=Gate.YES)
    if call.name == "var":
        return run.visitor.shared(result, (result, result)), about
    if call.name in ("var_mean", "std_mean"):
        first, mean = result
        first = run.visitor.shared(first, (first, first)) if call.name == "var_mean" else first
        was = run.of(input)
        return (first, mean), [about, about._replace(nonnegative=was.nonnegative, gate=was.gate)]
    return result, about


def _cosine(run: Interpreter, call: Call, x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> tuple[Tensor, Facts]:
    """The product of two signals, with their norms as constants."""
    with torch.no_grad():
        shape = axes.broadcast_shapes(tuple(x1.shape), tuple(x2.shape))
        scales = [t.detach().norm(dim=dim, keepdim=True).clamp(min=eps) for t in (x1.expand(shape), x2.expand(shape))]
    one, other = (run.dispatch(torch.div, t, s) for t, s in zip((x1, x2), scales, strict=True))
    summed = run.dispatch(torch.sum, run.dispatch(torch.mul, one, other), dim)
    y = run.visitor.valued(lambda: summed, call)
    return y, run.of(summed)


ROWS: dict[str, Callable] = {
    **dict.fromkeys(("mean", "sum", "nansum", "nanmean"), _reduction),
    **dict.fromkeys(("max", "min", "amax", "amin", "median"), _choice),
    **dict.fromkeys(("maximum", "minimum", "fmax", "fmin"), _choice_of_two),
    **dict.fromkeys(("topk", "sort", "kthvalue", "cummax", "cummin"), _sorted),
    "cumsum": _along_one,
    "diff": _diff,
    **dict.fromkeys(("F.fold", "col2im", "trace"), linear),
    **dict.fromkeys(
        ("norm", "std", "var", "linalg_norm", "vector_norm", "linalg_vector_norm", "var_mean", "std_mean"), _statistic
    ),
    "cosine_similarity": _cosine,
    "logsumexp": _choice,
}
