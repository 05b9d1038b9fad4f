"""Sums, and products of two signals: a gate is a constant, other bilinear products hand down half to each factor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lrp_lightning.engine.affine import Linear
from lrp_lightning.engine.mode import Facts, RelevanceMode, tensors_in
from lrp_lightning.engine.origins import mixed, of_ndim
from lrp_lightning.engine.rows.arguments import Row, is_in_place, named, out_of_place
from lrp_lightning.engine.rows.movement import followed_by_mean

__all__ = ["ROWS"]


# Sums


def _sum_of_two(sign: float, mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    def parse(input: Any, other: Any, *, alpha: float = 1) -> tuple:
        return input, other, alpha

    in_place = is_in_place(func)
    whole, second, alpha = parse(*args, **kwargs)
    factor = sign * alpha
    first, second = mode.apart(whole), mode.apart(second)
    y = torch.add(first, second, alpha=factor) if isinstance(first, Tensor) else first + factor * second
    if mode.known(first) and mode.known(second):
        nonnegative = factor > 0 and mode.of(first).nonnegative and mode.of(second).nonnegative
        mode.junction(y, [(first, 1.0), (second, factor)], nonnegative)
    elif mode.known(first):
        mode.constant_added(y, first, second, factor)
    else:
        mode.constant_added(y, second, first, 1.0, factor)
    return mode.now(whole, y) if in_place else y


def _reversed_sub(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    x, other, *_ = (*args, *(v for k, v in kwargs.items() if k == "other"))
    return _sum_of_two(-1.0, mode, torch.sub, (other, x), {k: v for k, v in kwargs.items() if k == "alpha"})


def _scaled_sum(product: Callable, mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """``addcmul``, ``baddbmm`` and the like: a sum and a product in one call, taken apart."""

    def parse(input: Any, first: Any, second: Any, *, beta: float = 1, alpha: float = 1, value: float = 1) -> tuple:
        return input, first, second, beta, alpha * value

    base, first, second, beta, alpha = parse(*args, **kwargs)
    y = mode.dispatch(product, first, second)
    y = y if alpha == 1 else mode.dispatch(torch.mul, y, alpha)
    if beta == 0:
        return y
    return mode.dispatch(torch.add, y, base if beta == 1 else mode.dispatch(torch.mul, base, beta))


def _lerp(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    start, end, weight = (lambda input, end, weight: (input, end, weight))(*args, **kwargs)
    return mode.dispatch(torch.add, start, mode.dispatch(torch.mul, mode.dispatch(torch.sub, end, start), weight))


def _negation(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    facts = mode.of(args[0])
    y = torch.neg(args[0])
    mode.learn(y, Facts(False, facts.near_input, facts.gate, facts.dim, facts.ids))
    return mode.now(args[0], y) if is_in_place(func) else y


# Products


def _two(input: Any, other: Any, **_: Any) -> tuple[Any, Any]:
    return input, other


def _product(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """Element-wise product: by a constant or a gate linear without a bias, so autograd's backward is the rule."""
    whole, other = _two(*args, **kwargs)
    in_place, plain = is_in_place(func), out_of_place(func)
    x, other = mode.apart(whole), mode.apart(other)
    named = {k: v for k, v in kwargs.items() if k not in ("input", "other")}
    y = mode.weighed(plain, (x, other), named)
    known = mode.sources((x, other))
    signals = [t for t in known if not mode.of(t).gate] or known
    facts, factor = mode.of(signals[0]), other if signals[0] is x else x
    positive = factor >= 0 if isinstance(factor, int | float) else mode.known(factor) and mode.of(factor).nonnegative
    all_gates = all(mode.of(t).gate for t in known)
    ids = of_ndim(facts.ids, y.ndim)
    mode.learn(y, Facts(facts.nonnegative and positive, facts.near_input, all_gates, facts.dim, ids))
    if len(signals) > 1 and not all_gates:
        y = mode.shared(y, signals, "mul")
    return mode.now(whole, y) if in_place else y


def _quotient(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """What divides is a scale, so a constant."""
    x, other = _two(*args, **kwargs)
    if "rdiv" in getattr(func, "__name__", "") or "rtruediv" in getattr(func, "__name__", ""):
        x, other = other, x
    if mode.known(x):
        divisor = other.detach() if isinstance(other, Tensor) else other
        y = _product(mode, torch.div, (x, divisor), {k: v for k, v in kwargs.items() if k == "rounding_mode"})
        return mode.now(x, y) if is_in_place(func) else y
    with torch.no_grad():  # a constant divided by a signal: a scale
        value = torch.div(x, other)
    y = torch.mul(other, value / other.detach())
    return mode.learn(y, Facts(gate=True))


def _matmul(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    a, b, *_ = (*args, *kwargs.values())
    if func in (torch.Tensor.__rmatmul__,):
        a, b = b, a
    if mode.known(a) and not mode.known(b) and b.ndim == 2 and a.ndim >= 2:  # x @ w: a linear layer written another way
        with torch.no_grad():
            y = torch.matmul(a, b)
        return mode.unit_layer(Linear(), a, b.T, None, y, mode.names.of_weight(b, "matmul"))
    return _contraction(mode, torch.matmul, (a, b), {})


def _contraction(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """Any other product that sums: ``bmm``, ``einsum``."""
    y = mode.weighed(func, args, kwargs)
    known = mode.sources((args, kwargs.values()))
    signals = [t for t in known if not mode.of(t).gate] or known
    ids = None
    if mode.recording.follows and len(signals) == 1 and mode.of(signals[0]).ids is not None:
        ids = _contracted_ids(mode, func, args, kwargs, signals[0])
    return mode.learn(y, Facts(_all_nonnegative(mode, (args, kwargs.values())), ids=of_ndim(ids, y.ndim)))


def _contracted_ids(
    mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any], signal: Tensor
) -> Tensor | None:
    """The numbers of the neurons after a signal was summed with weights: attention's values keep theirs."""
    ids = mode.of(signal).ids
    if func in (torch.matmul, torch.bmm, torch.Tensor.bmm) and len(args) == 2 and min(args[0].ndim, args[1].ndim) > 1:
        return mixed(ids, -1 if signal is args[0] else -2)
    return followed_by_mean(mode, func, args, kwargs, signal)


def _all_nonnegative(mode: RelevanceMode, values: Any) -> bool:
    return all(mode.known(t) and mode.of(t).nonnegative for t in tensors_in(values))


def _glu(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    x, dim = (*args, *kwargs.values(), -1)[:2]
    signal, gate = mode.dispatch(torch.chunk, x, 2, dim)
    return mode.dispatch(torch.mul, signal, mode.dispatch(torch.sigmoid, gate))


ROWS: dict[str, Row] = {
    **named(partial(_sum_of_two, 1.0), "add add_ __add__ __radd__ __iadd__"),
    **named(partial(_sum_of_two, -1.0), "sub sub_ subtract subtract_ __sub__ __isub__"),
    **named(_reversed_sub, "__rsub__ rsub"),
    **named(partial(_scaled_sum, torch.mul), "addcmul"),
    **named(partial(_scaled_sum, torch.div), "addcdiv"),
    **named(partial(_scaled_sum, torch.bmm), "baddbmm"),
    "lerp": _lerp,
    **named(_negation, "neg neg_ negative __neg__"),
    **named(_product, "mul mul_ multiply multiply_ __mul__ __rmul__ __imul__"),
    **named(_quotient, "div div_ divide divide_ true_divide true_divide_ __div__ __truediv__ __itruediv__"),
    **named(_quotient, "__rdiv__ __rtruediv__"),
    **named(_matmul, "matmul __matmul__ __rmatmul__ mm"),
    **named(_contraction, "bmm einsum mv dot inner outer tensordot"),
    "glu": _glu,
}
