"""One program for any number of samples, from recordings of several numbers of samples."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from lrp_lightning.errors import UnsupportedOperatorError

__all__ = ["SIZES", "for_any_batch"]

SIZES = (2, 3, 5)
"""The numbers of samples that are recorded: two determine how a size depends on the number, the third checks it."""


def for_any_batch(recorded: Sequence[fx.GraphModule]) -> fx.GraphModule:
    """The program whose sizes depend on the number of samples of its first input.

    The recordings, with :data:`SIZES` samples each, may only differ in integers of the form ``a + b n`` for ``n`` samples.
    Everything else must be equal, operator by operator; floating-point numbers up to rounding.

    Raises:
        UnsupportedOperatorError: if they differ in another way; the message names the operator.
    """
    program, *others = recorded
    graph = program.graph
    first, *_ = (node for node in graph.nodes if node.op == "placeholder")
    steps = list(zip(*(module.graph.nodes for module in recorded), strict=False))
    if any(len(module.graph.nodes) != len(graph.nodes) for module in others):
        raise UnsupportedOperatorError(_refusal("the model calls different numbers of operators"))
    place = [{node: n for n, node in enumerate(module.graph.nodes)} for module in recorded]
    with graph.inserting_after(first):
        samples = graph.call_function(torch.ops.aten.sym_size.int, (first, 0))
    sizes: dict[tuple[int, int], fx.Node] = {}

    def size(times: int, more: int) -> fx.Node:
        if (times, more) not in sizes:
            with graph.inserting_after(samples):
                at = samples if times == 1 else graph.call_function(operator.mul, (samples, times))
            if more:
                with graph.inserting_after(at):
                    at = graph.call_function(operator.add, (at, more))
            sizes[times, more] = at
        return sizes[times, more]

    for nodes in steps:
        node = nodes[0]
        found = [pytree.tree_flatten((n.args, n.kwargs)) for n in nodes]
        same = all(n.op == node.op and (n.target == node.target or n.op == "placeholder") for n in nodes)
        if not same or any(spec != found[0][1] for _, spec in found):
            raise UnsupportedOperatorError(_refusal(f"{node.name} is {' or '.join({str(n.target) for n in nodes})}"))
        if node.op == "get_attr":
            values = [getattr(module, n.target) for module, n in zip(recorded, nodes, strict=True)]
            if not all(_same(a, b) for a, b in pairwise(values)):
                raise UnsupportedOperatorError(_refusal(f"a constant, {node.target}, depends on it"))
            continue
        new = []
        for leaves in zip(*(flat for flat, _ in found), strict=True):
            if isinstance(leaves[0], fx.Node):
                if len({at[leaf] for at, leaf in zip(place, leaves, strict=True)}) > 1:
                    raise UnsupportedOperatorError(_refusal(f"{node.target} reads different tensors"))
                new.append(leaves[0])
            elif all(_equal(leaf, leaves[0]) for leaf in leaves):
                new.append(leaves[0])
            elif (line := _line(leaves)) is not None:
                new.append(size(*line))
            else:
                raise UnsupportedOperatorError(_refusal(f"{node.target} is called with {leaves[0]!r} or {leaves[1]!r}"))
        node.args, node.kwargs = pytree.tree_unflatten(new, found[0][1])
    graph.lint()
    program.recompile()
    return program


def _equal(a: Any, b: Any) -> bool:
    if type(a) is float and type(b) is float:  # such as 1 / size for a size that differs
        return math.isclose(a, b, rel_tol=1e-12)
    return type(a) is type(b) and a == b


def _line(values: Sequence[Any]) -> tuple[int, int] | None:
    """``(b, a)`` for integers ``a + b n``; None if values are not integers or not of this form."""
    if not all(type(value) is int for value in values):
        return None
    (n, m, *_), (one, other, *_) = SIZES, values
    times, rest = divmod(other - one, m - n)
    more = one - times * n
    fits = not rest and all(value == more + times * n for n, value in zip(SIZES, values, strict=True))
    return (times, more) if fits else None


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b))


def _refusal(what: str) -> str:
    return (
        f"a pass of this model cannot be captured for any number of samples, because it depends on that number: {what}. "
        "Capture it for the number of samples that you need, with dynamic_batch=False"
    )
