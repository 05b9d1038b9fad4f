"""Products with a sum: ``matmul``, ``einsum`` and others. With a weight they are linear layers in any spelling; two signals
get equal shares, except gates, such as attention's weights, which are constants.

Each is read as an einsum of two operands with labelled dimensions. For a signal and a weight:

    K  in both and not in the result    summed over
    O  in the weight and the result     the layer's neurons
    R  in the signal and the result     rows, to which the layer applies equally
    G  in all three                     groups, each with its own weight
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrp_lightning.axes import Axis, Term
from lrp_lightning.engine.affine import Convolution, Linear
from lrp_lightning.engine.calls import Call
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.following import samples_joined, why_lost
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.neuron_numbers import values_of
from lrp_lightning.engine.operators.affine import unit_layer
from lrp_lightning.engine.operators.products import signals_of, weighed
from lrp_lightning.engine.operators.reductions import followed_by_mean
from lrp_lightning.engine.operators.sums import scaled_sum
from lrp_lightning.engine.unlisted import samples_by_trial

__all__ = ["ROWS", "product"]

Labels = tuple[Hashable, ...]


class Spec(NamedTuple):
    """The labels of the operands' dimensions, and of the result's."""

    operands: tuple[Labels, ...]
    result: Labels


def _contraction(
    run: Interpreter, call: Call, operands: Sequence[Any], spec: Spec | None, name: str
) -> tuple[Tensor, Facts]:
    known = run.signals(operands)
    if spec is not None and len(operands) == 2 and len(known) == 1:
        (x, of_x), (w, of_w) = sorted(zip(operands, spec.operands, strict=True), key=lambda pair: pair[0] is not known[0])
        as_ever = name == "matmul" and operands[0] is x and w.ndim == 2 and x.ndim >= 2  # by any constant
        alike = _alike_for_all(run.of(x).samples, of_x, of_w, w)
        if (
            (run.is_weight(w) or as_ever)
            and alike
            and not (x.is_complex() or w.is_complex())
            and _is_layer(of_x, of_w, spec.result)
        ):
            return _as_layer(run, call, x, w, of_x, of_w, spec.result, name)
    signals = signals_of(run, operands)
    once = spec is not None and all(len(set(of)) == len(of) for of in spec.operands)
    if run.visitor.follows and spec is not None and once and len(operands) == len(known) == 2:
        [signal, *other] = signals
        own, labels = run.of(signal).neurons, spec.operands[next(i for i, t in enumerate(operands) if t is signal)]
        if other or (own is not None and _terms_through(own, labels, spec.result) is None):  # as channel attention mixes
            return _by_elements(run, call, operands, spec)
    y = weighed(run, call, signals)
    axes_of = [_through(run.of(t).samples, spec, i, y) for i, t in enumerate(operands) if run.known(t)]
    samples, lost = samples_joined(run, call, y, known, axes_of, "mixes samples, or brings different ones together")
    neurons: Axis | Tensor | None = None
    if len(signals) == 1:
        was = run.of(signals[0]).neurons
        neurons = _through(was, spec, next(i for i, t in enumerate(operands) if t is signals[0]), y)
        neurons = followed_by_mean(run, call, signals[0], was) if neurons is None else neurons
    nonnegative = len(known) == len(operands) and all(run.of(t).nonnegative for t in known)
    return y, Facts(samples, neurons, nonnegative, gate=min(run.of(t).gate for t in known), lost=lost)


def _by_elements(run: Interpreter, call: Call, operands: Sequence[Tensor], spec: Spec) -> tuple[Tensor, Facts]:
    """A contraction of two signals as an element-wise product and a sum, so that each value has its edges."""
    labels = [*spec.result, *dict.fromkeys(label for of in spec.operands for label in of if label not in spec.result)]
    factors = []
    for t, of in zip(operands, spec.operands, strict=True):
        t = run.dispatch(torch.permute, t, [of.index(label) for label in labels if label in of])
        for place, label in enumerate(labels):
            t = t if label in of else run.dispatch(torch.unsqueeze, t, place)
        factors.append(t)
    product = run.dispatch(torch.mul, *factors)
    summed = list(range(len(spec.result), len(labels)))
    y = run.dispatch(torch.sum, product, summed) if summed else product
    return run.visitor.valued(lambda: y, call), run.of(y)


def _through(axis: Axis | Tensor | None, spec: Spec | None, operand: int, y: Tensor) -> Axis | None:
    """An operand's axis in the result; it must not vary along dimensions that are summed over."""
    terms = None if spec is None else _terms_through(axis, spec.operands[operand], spec.result)
    return None if terms is None else Axis(tuple(y.shape), terms, axis.base)  # type: ignore[union-attr]


def _terms_through(axis: Axis | Tensor | None, labels: Labels, result: Labels) -> tuple[Term | None, ...] | None:
    """The terms of an operand's axis along the result's dimensions; None if it varies along one that is summed over."""
    if not isinstance(axis, Axis):
        return None
    terms = dict(zip(labels, axis.terms, strict=True))
    if len(terms) < len(labels) or any(term is not None and label not in result for label, term in terms.items()):
        return None
    return tuple(terms.get(label) for label in result)


def _alike_for_all(samples: Axis | None, of_x: Labels, of_w: Labels, w: Tensor) -> bool:
    """Whether a weight is the same for all samples, because it has no dimension along which samples vary."""
    has = {label for label, size, stride in zip(of_w, w.shape, w.stride(), strict=True) if size != 1 and stride != 0}
    return samples is None or samples.alike_along([d for d, label in enumerate(of_x) if label in has]) is not None


def _is_layer(x: Labels, w: Labels, result: Labels) -> bool:
    once = all(len(set(labels)) == len(labels) for labels in (x, w, result))
    summed = set(x) & set(w) - set(result)
    alone = (set(x) - set(w) - set(result)) | (set(w) - set(x) - set(result))
    return once and bool(summed) and not alone


def _as_layer(
    run: Interpreter, call: Call, x: Tensor, w: Tensor, of_x: Labels, of_w: Labels, result: Labels, name: str
) -> tuple[Tensor, Facts]:
    """A linear layer in another spelling: features and neurons are moved to the last dimension and back."""
    layer = run.names.of_weight(w, name)
    with torch.no_grad():
        for label in [*of_w]:  # a weight that is constant along a dimension does not have it
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


def product(run: Interpreter, call: Call, *args: Any, **kwargs: Any) -> tuple[Tensor, Facts]:
    """A product of several signals that is not an einsum of two operands; its samples are found by trying."""
    signals = signals_of(run, call.tensors)
    y = weighed(run, call, signals)
    samples = samples_by_trial(run, call, y, [y])
    lost = "" if samples is not None else why_lost(run, call, "may mix samples")
    return y, Facts(samples, gate=min(run.of(t).gate for t in run.signals(call.tensors)), lost=lost)


# readings


def _matmul(run: Interpreter, call: Call, input: Any, other: Any) -> tuple[Tensor, Facts]:
    a, b = (other, input) if call.name == "__rmatmul__" else (input, other)
    batch = max(a.ndim, b.ndim) - 2

    def labels(ndim: int, last: Labels) -> Labels:
        return (*range(batch - (ndim - 2), batch), *last) if ndim > 1 else last[-1:]

    one = labels(a.ndim, ("i", "k")) if a.ndim > 1 else ("k",)
    two = labels(b.ndim, ("k", "j")) if b.ndim > 1 else ("k",)
    result = (*range(batch), *(("i",) if a.ndim > 1 else ()), *(("j",) if b.ndim > 1 else ()))
    return _contraction(run, call, (a, b), Spec((one, two), result), "matmul")


def _two(name: str) -> Callable:
    def row(run: Interpreter, call: Call, input: Any, other: Any = None, **named: Any) -> tuple[Tensor, Facts]:
        other = other if other is not None else named[next(k for k in ("mat2", "vec", "tensor", "vec2") if k in named)]
        n, m = input.ndim, other.ndim
        spec: Spec | None = {
            "mm": Spec((("i", "k"), ("k", "j")), ("i", "j")),
            "bmm": Spec((("b", "i", "k"), ("b", "k", "j")), ("b", "i", "j")),
            "mv": Spec((("i", "k"), ("k",)), ("i",)),
            "dot": Spec((("k",), ("k",)), ()),
            "outer": Spec((("i",), ("j",)), ("i", "j")),
            "inner": Spec(((*range(n - 1), "k"), (*range(100, 99 + m), "k")), (*range(n - 1), *range(100, 99 + m))),
        }[name]
        if name == "inner" and 0 in (n, m):
            spec = None
        return _contraction(run, call, (input, other), spec, "matmul" if name == "mm" else name)

    return row


def _tensordot(run: Interpreter, call: Call, a: Any, b: Any, dims: Any = 2, out: Any = None) -> tuple[Tensor, Facts]:
    if isinstance(dims, Tensor):
        dims = values_of(dims)
    if isinstance(dims, int):
        dims = (range(a.ndim - dims, a.ndim), range(dims))
    one: list[Hashable] = [("a", d) for d in range(a.ndim)]
    two: list[Hashable] = [("b", d) for d in range(b.ndim)]
    for i, j in zip(dims[0], dims[1], strict=True):
        one[i % a.ndim] = two[j % b.ndim] = ("k", i % a.ndim)
    result = tuple(label for label in (*one, *two) if label[0] != "k")  # type: ignore[index]
    return _contraction(run, call, (a, b), Spec((tuple(one), tuple(two)), result), "tensordot")


def _einsum(run: Interpreter, call: Call, equation: Any, *operands: Any) -> tuple[Tensor, Facts]:
    flat = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], Sequence) else list(operands)
    if not isinstance(equation, str):  # operands, each followed by the numbers of its dimensions
        return _contraction(run, call, [t for t in (equation, *flat) if isinstance(t, Tensor)], None, "einsum")
    return _contraction(run, call, flat, _read(equation, [t.ndim for t in flat]), "einsum")


def _read(equation: str, ndims: list[int]) -> Spec:
    """The labels of the operands of an einsum, and of its result; dimensions under an ellipsis have numbers."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    wide = max((n - len(t.replace("...", "")) for t, n in zip(terms, ndims, strict=True) if "..." in t), default=0)

    def labels(term: str, ndim: int | None = None) -> Labels:
        before, dots, after = term.partition("...")
        many = wide if ndim is None else ndim - len(before) - len(after)
        return (*before, *(range(wide - many, wide) if dots else ()), *after)

    of = tuple(labels(term, ndim) for term, ndim in zip(terms, ndims, strict=True))
    if arrow:
        return Spec(of, labels(right))
    letters = [label for one in of for label in one if isinstance(label, str)]
    return Spec(of, (*range(wide), *sorted({c for c in letters if letters.count(c) == 1})))


def _addmm(
    run: Interpreter, call: Call, input: Any, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1, **_: Any
) -> tuple[Tensor, Any]:
    """``b + a w``: a linear layer in another spelling if the bias has one value per neuron; otherwise sum and product."""
    constant = not run.known(input) and not run.known(mat2) and run.known(mat1)
    if constant and isinstance(input, Tensor) and input.ndim < 2 and beta == alpha == 1:
        with run.visitor.values():
            y = call()
        with torch.no_grad():
            b = input.expand(mat2.shape[1])
        return unit_layer(run, call, Linear(), mat1, mat2.T, b, y, run.names.of_weight(mat2, "linear"))
    return scaled_sum(torch.mm, run, call, input, mat1, mat2, beta=beta, alpha=alpha)


def _grouped(
    run: Interpreter, call: Call, input: Tensor, mat2: Tensor, offs: Tensor | None = None, bias: Any = None,
    out_dtype: Any = None,
) -> tuple[Tensor, Facts]:  # fmt: skip
    """Rows of a mixture of experts, grouped by expert, each with the expert's weight: a layer for each expert."""
    if input.ndim != 2 or mat2.ndim != 3 or offs is None or bias is not None or run.known(mat2) or not run.known(input):
        raise run.unsupported(
            call.func,
            "it has a rule only for rows (S, K), weights (experts, K, M) and offs; multiply each group with torch.mm",
        )
    name = run.names.of_weight(mat2, "experts")
    values = call.values()
    made, start = [], 0
    for expert, end in enumerate(values_of(offs)):  # an expert without rows is also a layer
        rows = run.dispatch(torch.narrow, input, 0, start, end - start)
        with torch.no_grad():
            w, y = mat2[expert].T, values[start:end]
        out, run.facts[out] = unit_layer(run, call, Linear(), rows, w, None, y, f"{name}.{expert}")
        made.append(out)
        start = end
    if start < len(input):  # rows of no expert
        made.append(values[start:] * 0)
    y = run.dispatch(torch.cat, made, 0)
    return y, run.of(y)


def _bilinear(
    run: Interpreter, call: Call, input1: Tensor, input2: Tensor, weight: Tensor, bias: Any = None
) -> tuple[Tensor, Facts]:
    """``y_k = x W_k z + b_k``: a product of three factors, plus a constant."""
    made = run.dispatch(torch.einsum, "...i,kij,...j->...k", input1, weight, input2)
    made = made if bias is None else run.dispatch(torch.add, made, bias)
    return run.visitor.valued(lambda: made, call), run.of(made)


ROWS: dict[str, Callable] = {
    **dict.fromkeys(("matmul", "__rmatmul__"), _matmul),
    **{name: _two(name) for name in ("mm", "bmm", "mv", "dot", "outer", "inner")},
    "ger": _two("outer"),
    "tensordot": _tensordot,
    "einsum": _einsum,
    "addmm": _addmm,
    "bilinear": _bilinear,
    **dict.fromkeys(("_grouped_mm", "grouped_mm"), _grouped),
}
