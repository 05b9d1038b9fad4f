"""Sums: each signal gets its contribution, as in autograd's backward; constants absorb their share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.engine.by_sample import per_neuron
from lrp_lightning.engine.calls import Call
from lrp_lightning.engine.facts import Facts, Gate, Written
from lrp_lightning.engine.following import joined, mapped
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.layers import Layer
from lrp_lightning.engine.operators.activations import root_of
from lrp_lightning.engine.operators.nodes import apart, neuron_dim_of, node
from lrp_lightning.engine.visitor import Part

__all__ = ["ROWS", "scaled_sum"]


def _sum_of_two(
    sign: float, run: Interpreter, call: Call, input: Any, other: Any, *, alpha: float = 1
) -> tuple[Tensor, Facts]:
    return _summed(run, call, input, other, sign * alpha)


def _summed(run: Interpreter, call: Call, first: Any, second: Any, factor: float) -> tuple[Tensor, Facts]:
    """``first + factor * second``."""
    one, other = apart(run, first), apart(run, second)
    y = torch.add(one, other, alpha=factor) if isinstance(one, Tensor) else one + factor * other
    if run.known(one) and run.known(other):
        facts, dim = _of_both(run, call, y, one, other, factor)
        if y.ndim < 2:  # one value per sample: there are no neurons
            return y, facts
        return node(run, run.names.here("add"), "junction", y, facts, dim, [Part(one), Part(other, factor)])
    if run.known(one):
        return _with_constant(run, call, y, one, second, factor, 1.0)
    return _with_constant(run, call, y, other, first, 1.0, factor)


def _of_both(run: Interpreter, call: Call, y: Tensor, one: Tensor, other: Tensor, factor: float) -> tuple[Facts, int]:
    a, b = run.of(one), run.of(other)
    facts = joined(run, call, y, [one, other])
    known = [f for f, t in ((a, one), (b, other)) if isinstance(f.neurons, Axis) and t.ndim == y.ndim]
    dim = neuron_dim_of(known[0]._replace(near_input=False) if known and not known[0].near_input else Facts(), y)
    roots = root_of(run, one), root_of(run, other)
    same = roots[0].key == roots[1].key and one.shape == other.shape == y.shape
    return facts._replace(
        nonnegative=factor > 0 and a.nonnegative and b.nonnegative,
        gate=min(a.gate, b.gate),
        written=Written(roots[0] if same else None, less=(one, other) if factor == -1 else None),
    ), dim


def _with_constant(
    run: Interpreter, call: Call, y: Tensor, t: Tensor, constant: Any, factor: float, factor_of_t: float
) -> tuple[Tensor, Facts]:
    """``y`` is a signal plus a constant, each with a factor; relevance of the constant is counted as absorbed."""
    value = constant.detach() if isinstance(constant, Tensor) else constant
    was = run.of(t)
    facts = joined(run, call, y, [t])._replace(near_input=was.near_input, gate=was.gate)
    scalar = not isinstance(value, Tensor) or value.numel() == 1 or value.shape == y.shape
    if scalar and y.shape == t.shape:
        less = (t, value) if factor == -1 and isinstance(value, Tensor) else None
        facts = facts._replace(written=Written(root_of(run, t), less=less))
    elif factor == -1 and isinstance(value, Tensor):
        facts = facts._replace(written=Written(less=(t, value)))
    if was.below is not None and scalar:
        turned = mapped(run, was.below, lambda t: run.dispatch(torch.neg, t))
        facts = facts._replace(below=was.below if factor_of_t > 0 else turned)
    if not isinstance(value, Tensor) and value == 0:
        return y, facts
    where = run.names.of_parameter.get(id(constant)) or run.names.here("constant")
    part = value * factor
    y = run.visitor.constant(run, y, part, facts.samples, where, facts.lost)
    if not run.visitor.follows or was.neurons is None or was.gate == Gate.YES or facts.samples is None or y.ndim < 2:
        return y, facts

    def stays(layer: Layer) -> Callable[[Layer, Tensor], None]:
        return partial(_stay, run, part)

    dim = neuron_dim_of(facts, y)
    return node(run, where, "junction", y, facts, dim, [Part(t, factor_of_t)], stays)


def _stay(run: Interpreter, part: Any, layer: Layer, g: Tensor) -> None:
    kept = torch.where(g == 0, 0, g * part)  # part may be infinite
    rows = layer.by_sample()
    run.visitor.edges.stay(layer, rows.sum(per_neuron(kept, layer.dim, rows.dim)))  # type: ignore[attr-defined]


def _reversed_sub(run: Interpreter, call: Call, input: Any, other: Any, *, alpha: float = 1) -> tuple[Tensor, Facts]:
    return _summed(run, call, other, input, -alpha)


def scaled_sum(
    product: Callable, run: Interpreter, call: Call, input: Any, first: Any, second: Any, *, beta: float = 1,
    alpha: float = 1, value: float = 1,
) -> tuple[Tensor, Any]:  # fmt: skip
    """``addcmul``, ``baddbmm`` and similar operators: a sum and a product in one call, split into both."""
    y = run.dispatch(product, first, second)
    y = y if alpha * value == 1 else run.dispatch(torch.mul, y, alpha * value)
    if beta != 0:
        y = run.dispatch(torch.add, y, input if beta == 1 else run.dispatch(torch.mul, input, beta))
    return y, run.of(y) if run.known(y) else None


def _tensors(first: str, second: str, product: Callable) -> Callable:
    def row(run: Interpreter, call: Call, input: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        given = dict(zip((first, second), args, strict=False))
        given.update({name: kwargs.pop(name) for name in (first, second) if name in kwargs})
        return scaled_sum(product, run, call, input, given[first], given[second], **kwargs)

    return row


def _lerp(run: Interpreter, call: Call, input: Any, end: Any, weight: Any) -> tuple[Tensor, Any]:
    y = run.dispatch(torch.add, input, run.dispatch(torch.mul, run.dispatch(torch.sub, end, input), weight))
    return y, run.of(y)


def _negation(run: Interpreter, call: Call, input: Tensor) -> tuple[Tensor, Facts]:
    facts = run.of(input)
    return call(), Facts(
        facts.samples, facts.neurons, False, facts.near_input, facts.gate, facts.lost, written=Written(root_of(run, input))
    )


ROWS: dict[str, Callable] = {
    **dict.fromkeys(("add", "__radd__"), partial(_sum_of_two, 1.0)),
    **dict.fromkeys(("sub", "subtract"), partial(_sum_of_two, -1.0)),
    **dict.fromkeys(("__rsub__", "rsub"), _reversed_sub),
    "addcmul": _tensors("tensor1", "tensor2", torch.mul),
    "addcdiv": _tensors("tensor1", "tensor2", torch.div),
    "baddbmm": _tensors("batch1", "batch2", torch.bmm),
    "addmv": _tensors("mat", "vec", torch.mv),
    "addr": _tensors("vec1", "vec2", torch.outer),
    "lerp": _lerp,
    **dict.fromkeys(("neg", "negative"), _negation),
}
