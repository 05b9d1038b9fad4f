"""Activations: each result depends on one value, whose relevance passes unchanged."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from lrp_lightning.engine.calls import Call
from lrp_lightning.engine.facts import Below, Facts, Gate, Written
from lrp_lightning.engine.following import joined, samples_after
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.notes import Ref
from lrp_lightning.engine.operators.affine import only_input

__all__ = ["FUNCTIONS", "RECTIFIERS", "ROWS", "activation", "logits_of", "root_of", "softmax_of"]


def root_of(run: Interpreter, t: Tensor) -> Ref:
    """The tensor of which ``t`` is an element-wise function; ``t`` itself if there is no other."""
    root = run.of(t).written.root
    return root if root is not None and root() is not None else Ref.to(t)


def _relu(run: Interpreter, call: Call, input: Tensor, inplace: bool = False) -> tuple[Tensor, Facts]:
    facts = run.of(input)
    y = run.visitor.rectifier(run, call, input)
    return y, Facts(
        facts.samples, facts.neurons, True, False, _gate(facts, False), facts.lost, written=Written(root_of(run, input))
    )


def activation(
    run: Interpreter,
    call: Call,
    input: Tensor,
    *rest: Any,
    nonnegative: bool = False,
    keeps_sign: bool = True,
    gate: bool = False,
    turns: bool = False,
    mixes: bool = False,
    **named: Any,
) -> tuple[Tensor, Facts]:
    """An element-wise function, or one whose coupling of values (a norm, a softmax's sum) is treated as constant.

    Args:
        run: the interpreter.
        call: the operator.
        input: its first argument; ``rest`` and ``named`` are the others.
        nonnegative: whether its values are never negative.
        keeps_sign: whether values that are not negative stay so, and zero stays zero. Otherwise relevance of inputs of zero
            is counted as absorbed.
        gate: whether its values are a gate in a product.
        turns: whether it is monotone but may change signs, so that its input is explained instead of its output.
        mixes: whether values are coupled.
    """
    only_input(run, call, input, *rest, *named.values())
    facts = run.of(input)
    coupled = _coupled(input, call.name, *rest, **named) if mixes else []
    samples, lost = samples_after(run, call, facts, lambda axis: axis.alike_along(coupled))
    gate = gate or (call.name == "exp" and facts.below is not None and facts.below.map == "log_softmax")  # a softmax
    magnitude = input.is_complex() and call.name in ("abs", "absolute")  # its gradient is the rule
    y = call() if magnitude else run.visitor.activation(run, call, input, keeps_sign)
    about = joined(run, call, y, [input]) if y.shape != input.shape else facts  # a slope per channel may broadcast
    return y, Facts(
        samples if about is facts else about.samples,
        about.neurons,
        nonnegative or (keeps_sign and facts.nonnegative),
        False,
        _gate(facts, gate),
        lost,
        written=Written(None if mixes else root_of(run, input), exp_of=input if call.name == "exp" else None),
        below=_below(run, call, input) if turns else facts.below if call.name in _MONOTONE else None,
    )


_MONOTONE = ("clamp", "clip", "clamp_min", "clamp_max", "sqrt", "tanh", "log1p", "expm1", "nan_to_num")


def _below(run: Interpreter, call: Call, x: Tensor) -> Below:
    """The logits that a monotone map reads: ``x``, or the logits below ``x``."""
    facts = run.of(x)
    return facts.below or Below(call.name, lambda: (x, facts))


def logits_of(output: Tensor) -> Tensor:
    """The logits below a softmax, a sigmoid or another monotone map at the end of a forward that is explained.

    In other forwards, and without such a map, the output itself.
    """
    return handle_torch_function(logits_of, (output,), output) if has_torch_function((output,)) else output


def _logits(run: Interpreter, call: Call, input: Tensor) -> tuple[Tensor, Facts]:
    below = run.of(input).below
    return (input, run.of(input)) if below is None else below.logits()


def _gate(facts: Facts, gate: bool) -> Gate:
    return Gate.YES if gate or facts.gate == Gate.YES else Gate.NO


def _coupled(x: Tensor, name: str, *rest: Any, **named: Any) -> list[int]:
    """Dimensions along which values are coupled."""
    if name == "local_response_norm":
        return [1]
    if name == "rms_norm":
        shape = rest[0] if rest else named["normalized_shape"]
        return list(range(x.ndim - (1 if isinstance(shape, int) else len(shape)), x.ndim))
    at = named.get(
        "dim", rest[1] if name == "normalize" and len(rest) > 1 else rest[0] if rest and name != "normalize" else None
    )
    if at is None:
        at = 1 if name == "normalize" else 0 if x.ndim in (0, 1, 3) else 1  # as torch chooses that of a softmax
    return [d % max(x.ndim, 1) for d in (at if isinstance(at, list | tuple) else (at,))]


def _softmax(run: Interpreter, call: Call, input: Tensor, *rest: Any, **named: Any) -> tuple[Any, Any]:
    """A softmax: its output is a gate, or is explained; then relevance passes unchanged, with its sum as a constant."""
    if run.visitor.attention == "values":
        return activation(
            run, call, input, *rest, nonnegative=True, keeps_sign=False, gate=True, turns=True, mixes=True, **named
        )
    facts = run.of(input)
    coupled = _coupled(input, call.name, *rest, **named)
    samples, lost = samples_after(run, call, facts, lambda axis: axis.alike_along(coupled))
    about = Facts(samples, None, True, lost=lost, below=_below(run, call, input))  # its absorbed part is no neuron's
    return run.visitor.accounted(run, call, "softmax", Call.__call__, lambda _: about)


def softmax_of(run: Interpreter, scores: Tensor, dims: tuple[int, ...], y: Tensor) -> tuple[Tensor, Facts]:
    """``y``, a softmax of ``scores`` over ``dims`` that was written out, with the facts of torch's own softmax."""
    less = run.of(scores).written.less
    if less is not None and all(less[1].ndim == scores.ndim and less[1].shape[d] == 1 for d in dims):
        scores = less[0]  # what is constant along these dimensions has no effect
    by_torch = run.dispatch(torch.softmax, scores, dims[0])
    return run.visitor.valued(lambda: by_torch, lambda: y), run.of(by_torch)


def _dropout(run: Interpreter, call: Call, input: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, Facts]:
    return input, run.of(input)  # a model is explained in eval mode


def _rows(names: str, **about: Any) -> dict[str, Callable]:
    return dict.fromkeys(names.split(), partial(activation, **about))


ROWS: dict[str, Callable] = {
    "relu": _relu,
    **_rows("relu6 abs absolute square", nonnegative=True),
    **_rows(
        """leaky_relu elu celu selu rrelu prelu hardtanh tanh gelu silu mish hardswish softsign tanhshrink softshrink
        hardshrink sin tan asin arcsin asinh arcsinh atan arctan atanh arctanh erf erfinv sign sqrt nan_to_num sinh expm1
        log1p deg2rad rad2deg frac"""
    ),
    **_rows("normalize local_response_norm rms_norm", mixes=True),
    **_rows("threshold clamp clip clamp_min clamp_max cos cosh acos arccos acosh arccosh sinc erfc", keeps_sign=False),
    **_rows("logsigmoid log_sigmoid log log2 log10", keeps_sign=False, turns=True),
    **_rows("log_softmax", keeps_sign=False, turns=True, mixes=True),
    **_rows("softplus", nonnegative=True, keeps_sign=False, turns=True),
    # an exponential is a factor: the decay of a state space, or an attention weight before normalisation
    **_rows("exp exp2 sigmoid expit hardsigmoid", nonnegative=True, keeps_sign=False, gate=True, turns=True),
    **_rows("softmin", nonnegative=True, keeps_sign=False, gate=True, mixes=True),
    **_rows("rsqrt reciprocal pow __rpow__ float_power", keeps_sign=False, gate=True),
    **dict.fromkeys(("softmax", "_softmax"), _softmax),
    **dict.fromkeys(
        ["dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"],
        _dropout,
    ),
}

FUNCTIONS: dict[Callable, Callable] = {logits_of: _logits}

RECTIFIERS = ("relu", "relu6", "clamp", "clip", "clamp_min", "hardtanh", "threshold")
"""Activations that may block all values below zero."""
