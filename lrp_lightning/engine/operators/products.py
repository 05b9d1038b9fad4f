"""Element-wise products: gates are constants; several signals get equal shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lrp_lightning.engine.calls import Call
from lrp_lightning.engine.facts import Below, Facts, Gate, Written
from lrp_lightning.engine.following import joined, mapped
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.operators.activations import root_of, softmax_of
from lrp_lightning.engine.operators.nodes import apart, neuron_dim_of, node

__all__ = ["ROWS", "signals_of", "weighed"]


def signals_of(run: Interpreter, given: Sequence[Any]) -> list[Tensor]:
    """The factors of a product that get relevance: all but gates, or all if there are only gates."""
    known = run.signals(given)
    least = min((run.of(t).gate for t in known), default=Gate.NO)
    return [t for t in known if run.of(t).gate == least]


def weighed(run: Interpreter, call: Call, signals: list[Tensor]) -> Tensor:
    """A product: gates are constants beside a signal, and several signals get equal shares."""
    ids = {id(t) for t in signals}
    gates = {id(t) for t in run.signals(call.tensors)} - ids
    if gates:
        call = call.map(lambda t: run.visitor.detached(t) if id(t) in gates else t)
    times = sum(id(t) in ids for t in call.tensors)
    return run.visitor.shared(call(), [signals[0]] * times)


def _product(run: Interpreter, call: Call, input: Any, other: Any, **more: Any) -> tuple[Tensor, Facts]:
    """A product with a constant or a gate is linear without a bias, so autograd's backward is the rule."""
    one = _one_function(run, call, input, other)
    if one is not None:
        return one
    x, factor = apart(run, input), apart(run, other)
    apart_call = call if x is input and factor is other else Call(call.operator, (x, factor), call.kwargs)
    signals = signals_of(run, (x, factor))
    y = weighed(run, apart_call, signals)
    return _of_product(run, call, y, x, factor, signals)


def _of_product(run: Interpreter, call: Call, y: Tensor, x: Any, factor: Any, signals: list[Tensor]) -> tuple[Tensor, Facts]:
    known = run.signals((x, factor))
    first = signals[0]
    was = run.of(first)
    beside = factor if first is x else x
    positive = beside >= 0 if isinstance(beside, int | float) else run.known(beside) and run.of(beside).nonnegative
    about = joined(run, call, y, known)
    of_first = joined(run, call, y, [first])
    facts = Facts(
        about.samples,
        of_first.neurons,
        was.nonnegative and positive,
        was.near_input,
        min(run.of(t).gate for t in known),
        about.lost,
        written=_written(run, y, x, factor, known),
        below=_scaled(run, was.below, beside) if len(known) == 1 else None,
    )
    all_gates = facts.gate == Gate.YES
    if len(signals) < 2 or all_gates or not run.visitor.follows or facts.samples is None or y.ndim < 2:
        return y, facts
    if any(run.of(t).neurons is None for t in signals):
        return y, facts._replace(neurons=None)  # not those of one of them alone
    whole = run.visitor.shared_parts(y, signals)  # what arrives there is still whole
    dim = neuron_dim_of(facts, y)
    return node(run, run.names.here("mul"), "junction", y, facts, dim, whole)


def _scaled(run: Interpreter, below: Below | None, factor: Any) -> Below | None:
    """Logits below values that are multiplied by a number."""
    if below is None or not isinstance(factor, int | float) or factor == 0:
        return None
    return below if factor > 0 else mapped(run, below, lambda t: run.dispatch(torch.neg, t))


def _written(run: Interpreter, y: Tensor, x: Any, factor: Any, known: list[Tensor]) -> Written:
    beside = [t for t in (x, factor) if not any(t is k for k in known)]
    scalar = all(not isinstance(t, Tensor) or t.numel() == 1 or t.shape == y.shape for t in beside)
    root = root_of(run, known[0])
    return Written(root) if len(known) == 1 and scalar and known[0].shape == y.shape else Written()


def _one_function(run: Interpreter, call: Call, *factors: Any) -> tuple[Tensor, Facts] | None:
    """A product or quotient all of whose factors are element-wise functions of one tensor: one activation of that tensor."""
    known = run.signals(factors)
    if len(known) < 2:
        return None
    roots = [root_of(run, t) for t in known]
    root = roots[0]()
    if root is None or any(r.key != roots[0].key for r in roots) or not run.known(root):
        return None
    shape = root.shape
    if any(t.shape != shape for t in known) or all(run.of(t).gate == Gate.YES for t in known):
        return None
    run.visitor.read(run, call.operator, [root])
    y = run.visitor.one_activation(run, call, root)
    was = run.of(root)
    return y, Facts(was.samples, was.neurons, lost=was.lost, written=Written(roots[0]))


def _quotient(run: Interpreter, call: Call, input: Any, other: Any, **more: Any) -> tuple[Tensor, Facts]:
    """What divides is a scale, so a constant."""
    return _divided(run, call, input, other)


def _reversed_quotient(run: Interpreter, call: Call, input: Any, other: Any, **more: Any) -> tuple[Tensor, Facts]:
    return _divided(run, call, other, input)


def _divided(run: Interpreter, call: Call, x: Any, divisor: Any) -> tuple[Tensor, Facts]:
    if not run.known(x):  # a constant divided by a signal: a scale
        was = run.of(divisor)
        if not run.visitor.differentiates:
            return call(), joined(run, call, call.values(), [divisor])._replace(gate=Gate.YES)
        value = call.values()
        y = run.visitor.valued(lambda: torch.mul(divisor, value / divisor.detach()), call)
        about = joined(run, call, y, [divisor])
        root = root_of(run, divisor) if y.shape == divisor.shape else None
        return y, about._replace(gate=Gate.YES, nonnegative=False, written=Written(root), near_input=was.near_input)
    if run.known(divisor):
        softmax = _softmax_written_out(run, call, x, divisor)
        one = softmax or _one_function(run, call, x, divisor)
        if one is not None:
            return one
    whole = apart(run, x)
    y = call.map(lambda t: run.visitor.detached(t) if t is divisor and run.known(t) else whole if t is x else t)()
    known = list(run.signals((whole, divisor)))
    facts, was = joined(run, call, y, known), run.of(whole)
    positive = divisor >= 0 if isinstance(divisor, int | float) else run.known(divisor) and run.of(divisor).nonnegative
    # an exponential over a signal is normalised by any sum: weights, like those of a softmax
    weights = was.written.exp_of is not None and run.known(divisor) and run.visitor.attention == "values"
    return y, Facts(
        facts.samples,
        joined(run, call, y, [whole]).neurons,
        was.nonnegative and positive,
        was.near_input,
        Gate.YES if weights else was.gate,
        facts.lost,
        written=_written(run, y, whole, divisor, known),
        below=_scaled(run, was.below, divisor),
    )


def _softmax_written_out(run: Interpreter, call: Call, x: Tensor, divisor: Tensor) -> tuple[Tensor, Facts] | None:
    """An exponential over its own sum."""
    exp_of, sum_of = run.of(x).written.exp_of, run.of(divisor).written.sum_of
    if exp_of is None or sum_of is None or len(sum_of[1]) != 1 or divisor.ndim != x.ndim:
        return None
    if sum_of[0]() is not x and sum_of[2] is not exp_of:
        return None
    y = call.values()
    return softmax_of(run, exp_of, sum_of[1], y) if run.known(exp_of) else None


def _glu(run: Interpreter, call: Call, input: Tensor, dim: int = -1) -> tuple[Tensor, Facts]:
    signal, gate = run.dispatch(torch.chunk, input, 2, dim)
    y = run.dispatch(torch.mul, signal, run.dispatch(torch.sigmoid, gate))
    return y, run.of(y)


ROWS: dict[str, Callable] = {
    **dict.fromkeys(("mul", "multiply", "__rmul__"), _product),
    **dict.fromkeys(("div", "divide", "true_divide", "truediv"), _quotient),
    **dict.fromkeys(("__rdiv__", "__rtruediv__"), _reversed_quotient),
    "glu": _glu,
}
