"""Products that sum: ``matmul``, ``einsum`` and all between. By a weight they are linear layers, whichever way they are
written; of two signals each gets an equal share, but a gate, such as attention's weights, which is a constant.

Each is read as an einsum of two operands, whose dimensions have labels. Of one signal and a weight:

    K  in both and not in the result    what is summed over
    O  in the weight and the result     the layer's neurons
    R  in the signal and the result     rows, that the layer treats alike
    G  in all three                     groups, each with a weight of its own
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrp_lightning import axes
from lrp_lightning.axes import Axis
from lrp_lightning.engine.affine import Convolution, Linear
from lrp_lightning.engine.calls import Call
from lrp_lightning.engine.facts import Facts, Gate
from lrp_lightning.engine.following import why_lost
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.operators.affine import unit_layer
from lrp_lightning.engine.operators.products import signals_of, weighed
from lrp_lightning.engine.operators.reductions import followed_by_mean
from lrp_lightning.engine.unlisted import samples_by_trial

__all__ = ["ROWS"]

Labels = tuple[Hashable, ...]


class Spec(NamedTuple):
    """The labels of two operands' dimensions, and of the result's."""

    one: Labels
    other: Labels
    result: Labels


def _contraction(run: Interpreter, call: Call, one: Any, other: Any, spec: Spec | None, name: str) -> tuple[Tensor, Facts]:
    operands = [one, other]
    known = run.signals(operands)
    if spec is not None and len(known) == 1:
        first = operands[0] is known[0]
        x, w = (one, other) if first else (other, one)
        labels = (spec.one, spec.other) if first else (spec.other, spec.one)
        as_ever = name == "matmul" and first and w.ndim == 2 and x.ndim >= 2  # by any constant
        if (run.is_weight(w) or as_ever) and _is_layer(*labels, spec.result):
            return _as_layer(run, call, x, w, labels[0], labels[1], spec.result, name)
    signals = signals_of(run, operands)
    y = weighed(run, call, signals)
    facts = _facts(run, call, y, known, operands, spec)
    if facts.neurons is None and len(signals) == 1:
        about = run.of(signals[0])
        neurons = _through(about.neurons, operands, spec, y, signals[0])
        facts = facts._replace(
            neurons=neurons if neurons is not None else followed_by_mean(run, call, signals[0], about.neurons)
        )
    return y, facts


def _facts(run: Interpreter, call: Call, y: Tensor, known: list[Tensor], operands: list[Any], spec: Spec | None) -> Facts:
    found: list[Axis | None] = []
    lost = next((run.of(t).lost for t in known if run.of(t).samples is None), "")
    for t in known:
        found.append(_through(run.of(t).samples, operands, spec, y, t))
    samples = None if None in found else axes.join(found, tuple(y.shape))  # type: ignore[arg-type]
    if samples is None and not lost:
        if run.samples == 1:
            samples = Axis.constant(tuple(y.shape))
        else:
            lost = why_lost(run, call, "mixes samples, or brings different ones together")
    constants = len(known) < sum(isinstance(t, Tensor) for t in operands)
    nonnegative = all(run.of(t).nonnegative for t in known) and not constants
    return Facts(samples, None, nonnegative, gate=min((run.of(t).gate for t in known), default=Gate.NO), lost=lost)


def _through(axis: Axis | Tensor | None, operands: list[Any], spec: Spec | None, y: Tensor, t: Tensor) -> Axis | None:
    """An operand's axis in the result: what is summed over must not change it."""
    if not isinstance(axis, Axis) or spec is None:
        return None
    labels = next(labels for labels, operand in zip((spec.one, spec.other), operands, strict=True) if operand is t)
    terms = dict(zip(labels, axis.terms, strict=True))
    if len(terms) < len(labels) or any(term is not None and label not in spec.result for label, term in terms.items()):
        return None
    return Axis(tuple(y.shape), tuple(terms.get(label) for label in spec.result), axis.base)


def _is_layer(x: Labels, w: Labels, result: Labels) -> bool:
    once = all(len(set(labels)) == len(labels) for labels in (x, w, result))
    summed = set(x) & set(w) - set(result)
    alone = (set(x) - set(w) - set(result)) | (set(w) - set(x) - set(result))
    return once and bool(summed) and not alone


def _as_layer(
    run: Interpreter, call: Call, x: Tensor, w: Tensor, of_x: Labels, of_w: Labels, result: Labels, name: str
) -> tuple[Tensor, Facts]:
    """A linear layer written another way: with its features last, its neurons last, and put back as it was."""
    layer = run.names.of_weight(w, name)
    with torch.no_grad():
        for label in [*of_w]:  # a weight that is the same all along a dimension does not have it
            at = of_w.index(label)
            if label in of_x and label in result and (w.stride(at) == 0 or w.shape[at] == 1):
                w, of_w = w.select(at, 0), (*of_w[:at], *of_w[at + 1 :])
    summed = [label for label in of_x if label in of_w and label not in result]
    groups = [label for label in of_x if label in of_w and label in result]
    above = [label for label in of_w if label not in of_x]
    rows = [label for label in result if label in of_x and label not in groups]
    size = dict(zip(of_x, x.shape, strict=True)) | {label: n for label, n in zip(of_w, w.shape, strict=True) if n != 1}
    with run.visitor.values():
        y = call()
    size |= dict(zip(result, y.shape, strict=True))

    def many(labels: Sequence[Hashable]) -> int:
        return math.prod(size[label] for label in labels)

    a = _arranged(run, x, of_x, [*rows, *groups, *summed])
    with torch.no_grad():
        w = w.permute([of_w.index(label) for label in [*groups, *above, *summed]])
        values = y.permute([result.index(label) for label in [*rows, *groups, *above]])
    shape = [size[label] for label in rows]
    if not groups:
        a = run.dispatch(torch.reshape, a, [*shape, many(summed)] if shape else [1, many(summed)])
        w, values = w.reshape(many(above), many(summed)), values.reshape(*(shape or [1]), many(above))
        out, facts = unit_layer(run, call, Linear(), a, w, None, values, layer)
    else:
        a = run.dispatch(torch.reshape, a, [many(rows), many(groups) * many(summed), 1])
        w = w.reshape(many(groups) * many(above), many(summed), 1)
        values = values.reshape(many(rows), many(groups) * many(above), 1)
        op = Convolution((1,), (0,), (1,), many(groups), kind="linear")
        out, facts = unit_layer(run, call, op, a, w, None, values, layer)
    run.facts[out] = facts
    out = run.dispatch(torch.reshape, out, [size[label] for label in [*rows, *groups, *above]])
    out = _arranged(run, out, [*rows, *groups, *above], list(result))
    return out, run.of(out)


def _arranged(run: Interpreter, t: Tensor, labels: Sequence[Hashable], wanted: Sequence[Hashable]) -> Tensor:
    order = [list(labels).index(label) for label in wanted]
    return t if order == sorted(order) else run.dispatch(torch.permute, t, order)


# readings


def _matmul(run: Interpreter, call: Call, input: Any, other: Any) -> tuple[Tensor, Facts]:
    a, b = (other, input) if call.name == "__rmatmul__" else (input, other)
    batch = max(a.ndim, b.ndim) - 2

    def labels(ndim: int, last: Labels) -> Labels:
        return (*range(batch - (ndim - 2), batch), *last) if ndim > 1 else last[-1:]

    one = labels(a.ndim, ("i", "k")) if a.ndim > 1 else ("k",)
    two = labels(b.ndim, ("k", "j")) if b.ndim > 1 else ("k",)
    result = (*range(batch), *(("i",) if a.ndim > 1 else ()), *(("j",) if b.ndim > 1 else ()))
    return _contraction(run, call, a, b, Spec(one, two, result), "matmul")


def _two(name: str) -> Callable:
    def row(run: Interpreter, call: Call, input: Any, other: Any = None, **named: Any) -> tuple[Tensor, Facts]:
        other = other if other is not None else named[next(k for k in ("mat2", "vec", "tensor", "vec2") if k in named)]
        n, m = input.ndim, other.ndim
        spec: Spec | None = {
            "mm": Spec(("i", "k"), ("k", "j"), ("i", "j")),
            "bmm": Spec(("b", "i", "k"), ("b", "k", "j"), ("b", "i", "j")),
            "mv": Spec(("i", "k"), ("k",), ("i",)),
            "dot": Spec(("k",), ("k",), ()),
            "outer": Spec(("i",), ("j",), ("i", "j")),
            "inner": Spec((*range(n - 1), "k"), (*range(100, 99 + m), "k"), (*range(n - 1), *range(100, 99 + m))),
        }[name]
        if name == "inner" and 0 in (n, m):
            spec = None
        return _contraction(run, call, input, other, spec, "matmul" if name == "mm" else name)

    return row


def _tensordot(run: Interpreter, call: Call, a: Any, b: Any, dims: Any = 2, out: Any = None) -> tuple[Tensor, Facts]:
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        dims = (range(a.ndim - dims, a.ndim), range(dims))
    one: list[Hashable] = [("a", d) for d in range(a.ndim)]
    two: list[Hashable] = [("b", d) for d in range(b.ndim)]
    for i, j in zip(dims[0], dims[1], strict=True):
        one[i % a.ndim] = two[j % b.ndim] = ("k", i % a.ndim)
    result = tuple(label for label in (*one, *two) if label[0] != "k")  # type: ignore[index]
    return _contraction(run, call, a, b, Spec(tuple(one), tuple(two), result), "tensordot")


def _einsum(run: Interpreter, call: Call, equation: Any, *operands: Any) -> tuple[Tensor, Facts]:
    flat = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], Sequence) else list(operands)
    if not isinstance(equation, str):
        return _several(run, call, [t for t in (equation, *flat) if isinstance(t, Tensor)], None)
    labels, result = _read(equation, [t.ndim for t in flat])
    if len(flat) == 2:
        return _contraction(run, call, flat[0], flat[1], Spec(labels[0], labels[1], result), "einsum")
    return _several(run, call, flat, (labels, result))


def _read(equation: str, ndims: list[int]) -> tuple[list[Labels], Labels]:
    """The labels of the operands of an einsum, and of its result; dimensions under an ellipsis have numbers."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    wide = max((n - len(t.replace("...", "")) for t, n in zip(terms, ndims, strict=True) if "..." in t), default=0)

    def labels(term: str, ndim: int | None = None) -> Labels:
        before, dots, after = term.partition("...")
        many = wide if ndim is None else ndim - len(before) - len(after)
        return (*before, *(range(wide - many, wide) if dots else ()), *after)

    of = [labels(term, ndim) for term, ndim in zip(terms, ndims, strict=True)]
    if arrow:
        return of, labels(right)
    letters = [label for one in of for label in one if isinstance(label, str)]
    return of, (*range(wide), *sorted({c for c in letters if letters.count(c) == 1}))


def _several(
    run: Interpreter, call: Call, operands: list[Tensor], read: tuple[list[Labels], Labels] | None
) -> tuple[Tensor, Facts]:
    """Of one operand, or of more than two."""
    known, signals = run.signals(operands), signals_of(run, operands)
    y = weighed(run, call, signals)
    found: list[Axis | None] = []
    neurons: Axis | Tensor | None = None
    for t in known if read is not None else []:
        place = next(i for i, operand in enumerate(operands) if operand is t)
        spec = Spec(read[0][place], (), read[1])  # type: ignore[index]
        found.append(_through(run.of(t).samples, [t, None], spec, y, t))
        if len(signals) == 1 and t is signals[0]:
            neurons = _through(run.of(t).neurons, [t, None], spec, y, t)
    samples = axes.join(found, tuple(y.shape)) if found and None not in found else None  # type: ignore[arg-type]
    if run.samples == 1:
        samples = Axis.constant(tuple(y.shape))
    lost = (
        ""
        if samples is not None
        else next((run.of(t).lost for t in known if run.of(t).lost), why_lost(run, call, "mixes samples"))
    )
    if neurons is None and len(signals) == 1:
        neurons = followed_by_mean(run, call, signals[0], run.of(signals[0]).neurons)
    nonnegative = len(known) == len(operands) and all(run.of(t).nonnegative for t in known)
    return y, Facts(samples, neurons, nonnegative, gate=min(run.of(t).gate for t in known), lost=lost)


def _addmm(
    run: Interpreter, call: Call, input: Any, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1, **_: Any
) -> tuple[Tensor, Any]:
    """``b + a w``: a linear layer written another way, if the bias is one a neuron; else a sum and a product."""
    constant = not run.known(input) and not run.known(mat2) and run.known(mat1)
    if constant and isinstance(input, Tensor) and input.ndim < 2 and beta == alpha == 1:
        with run.visitor.values():
            y = call()
        with torch.no_grad():
            b = input.expand(mat2.shape[1])
        return unit_layer(run, call, Linear(), mat1, mat2.T, b, y, run.names.of_weight(mat2, "linear"))
    y = run.dispatch(torch.mm, mat1, mat2)
    y = y if alpha == 1 else run.dispatch(torch.mul, y, alpha)
    if beta != 0:
        y = run.dispatch(torch.add, y, input if beta == 1 else run.dispatch(torch.mul, input, beta))
    return y, run.of(y)


ROWS: dict[str, Callable] = {
    **dict.fromkeys(("matmul", "__rmatmul__"), _matmul),
    **{name: _two(name) for name in ("mm", "bmm", "mv", "dot", "outer", "inner")},
    "ger": _two("outer"),
    "tensordot": _tensordot,
    "einsum": _einsum,
    "addmm": _addmm,
}


def product(run: Interpreter, call: Call) -> tuple[Tensor, Facts]:
    """A product of several signals that has no reading: where samples are in it is found out by trying."""
    signals = signals_of(run, call.tensors)
    y = weighed(run, call, signals)
    samples = samples_by_trial(run, call, y, [y])
    lost = "" if samples is not None else why_lost(run, call, "may mix samples")
    return y, Facts(samples, gate=min(run.of(t).gate for t in run.signals(call.tensors)), lost=lost)
