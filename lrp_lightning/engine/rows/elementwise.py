"""Activations: what becomes of each value depends on it alone, and its relevance passes unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lrp_lightning.engine.mode import Activation, RelevanceMode
from lrp_lightning.engine.rows.arguments import Row, named, only_input, out_of_place, signal_and_in_place, without_in_place

__all__ = ["RECTIFIERS", "ROWS", "activation"]


def _relu(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    x, in_place = signal_and_in_place(func, args, kwargs)
    if mode.recording.proportional:
        y = mode.rectified(x, in_place)  # autograd's backward is the rule: y / x is its derivative
    else:
        with torch.no_grad():
            y = torch.relu(x)
        y = Activation.apply(x, y, False, None)
    mode.learn(y, replace(mode.of(x), nonnegative=True, near_input=False, made_by=None))
    return mode.now(x, y) if in_place else y


def activation(
    mode: RelevanceMode,
    func: Callable,
    args: tuple,
    kwargs: dict[str, Any],
    nonnegative: bool = False,
    keeps_sign: bool = True,
    gate: bool = False,
) -> Tensor:
    """An element-wise function, or one whose coupling of values (a norm, a softmax's sum) is taken as constant.

    Args:
        mode: the mode.
        func: the operator, and its arguments ``args`` and ``kwargs``.
        nonnegative: whether its values are never negative.
        keeps_sign: whether values that are not negative stay so, and zero stays zero. Of what does not, relevance of inputs
            of zero is counted as absorbed.
        gate: whether a product with its values is a gate.
    """
    x, in_place = signal_and_in_place(func, args, kwargs)
    rest, named = without_in_place(func, args, kwargs)
    only_input(mode, func, x, *rest, *named.values())
    with torch.no_grad():
        y = out_of_place(func)(x, *rest, **named)
        y = y.clone() if y is x else y
    facts = mode.of(x)
    absorb = None if keeps_sign else partial(mode.recording.absorb, mode.names.here("activation"))
    y = Activation.apply(x, y, mode.recording.proportional, absorb)
    kept = nonnegative or (keeps_sign and facts.nonnegative)
    mode.learn(y, replace(facts, nonnegative=kept, near_input=False, gate=gate or facts.gate, made_by=None))
    return mode.now(x, y) if in_place else y


def _softmax(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """Its output weighs (a gate), or is what is explained: then relevance passes unchanged, its sum being a constant."""
    if mode.recording.composite.attention == "values":
        return activation(mode, func, args, kwargs, nonnegative=True, keeps_sign=False, gate=True)
    x = args[0] if args else kwargs["input"]
    y = mode.with_account(func, args, kwargs, "softmax")
    return mode.learn(y, replace(mode.of(x), nonnegative=True, near_input=False, gate=False, made_by=None))


def _dropout(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["input"]  # a model is explained as in eval


class _Rectified(torch.autograd.Function):
    """A rectifier whose backward is one again; ``open``, where it is given, says where the forward let values through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, open: Tensor | None) -> Tensor:
        ctx.save_for_backward(open)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        (open,) = ctx.saved_tensors
        g = torch.relu(grad[0])
        return (g if open is None else torch.where(open, g, 0)), None, None


def _rectifier(guided: bool, mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """What travels back is rectified as the signal was (Zeiler & Fergus 2014); guided, only where the signal passed too."""
    x, in_place = signal_and_in_place(func, args, kwargs)
    rest, named = without_in_place(func, args, kwargs)
    with torch.no_grad():
        y = out_of_place(func)(x, *rest, **named)
    if _cuts_at_zero(func, *rest, **named):
        y = _Rectified.apply(x, y, (y == x) & (y > 0) if guided else None)
    else:
        y = out_of_place(func)(x, *rest, **named)
    mode.learn(y, replace(mode.of(x), near_input=False, made_by=None))
    return mode.now(x, y) if in_place else y


def _cuts_at_zero(func: Callable, *rest: Any, **named: Any) -> bool:
    """Whether all below zero becomes zero: of a clamp, its lower bound tells."""
    if "relu" in func.__name__:
        return True
    lower = rest[0] if rest else next((named[n] for n in ("min", "min_val", "threshold") if n in named), None)
    value = rest[1] if "threshold" in func.__name__ and len(rest) > 1 else named.get("value", 0)
    return isinstance(lower, int | float) and lower == 0 and value == 0


_KEEPS_SIGN = activation
_NONNEGATIVE = partial(activation, nonnegative=True)
_MOVES_ZERO = partial(activation, keeps_sign=False)
_POSITIVE = partial(activation, nonnegative=True, keeps_sign=False)
_GATE = partial(activation, nonnegative=True, keeps_sign=False, gate=True)
_STATISTIC = partial(activation, keeps_sign=False, gate=True)


ROWS: dict[str, Row] = {
    **named(_relu, "relu relu_"),
    **named(_NONNEGATIVE, "relu6 relu6_ abs abs_ absolute __abs__ square square_"),
    **named(
        _KEEPS_SIGN,
        """leaky_relu leaky_relu_ elu elu_ celu celu_ selu selu_ rrelu rrelu_ prelu hardtanh hardtanh_ tanh tanh_ gelu silu
        silu_ mish mish_ hardswish hardswish_ softsign tanhshrink softshrink hardshrink sin sin_ asinh atan arctan erf sign
        sqrt sqrt_ normalize local_response_norm rms_norm nan_to_num""",
    ),
    **named(
        _MOVES_ZERO,
        """threshold threshold_ clamp clamp_ clip clip_ clamp_min clamp_min_ clamp_max clamp_max_ logsigmoid log_sigmoid log
        log_ log1p log2 log10 cos log_softmax expm1""",
    ),
    **named(_POSITIVE, "softplus exp exp_"),
    **named(_GATE, "sigmoid sigmoid_ hardsigmoid hardsigmoid_ softmin"),
    **named(_STATISTIC, "rsqrt rsqrt_ reciprocal reciprocal_ pow __pow__ pow_ __rpow__ float_power"),
    **named(_softmax, "softmax _softmax"),
    **named(_dropout, "dropout dropout_ dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout"),
}

_RECTIFIERS = "relu relu_ relu6 relu6_ clamp clamp_ clip clip_ clamp_min clamp_min_ hardtanh hardtanh_ threshold threshold_"

RECTIFIERS: dict[str, dict[str, Row]] = {
    method: {
        **named(partial(_rectifier, method == "guided"), _RECTIFIERS),
        **{name: row for name, row in ROWS.items() if row is _dropout},
    }
    for method in ("deconvnet", "guided")
}
"""Rows of reconstruction, by its method; activations that are no rectifiers have their own gradient there."""
