"""Affine maps with parameters: unit layers, and the batch norm that folds into them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lrp_lightning.engine.affine import AffineMap, ChannelScale, Convolution, Linear
from lrp_lightning.engine.calls import Call
from lrp_lightning.engine.facts import Facts, Gate, MadeBy
from lrp_lightning.engine.following import samples_after
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.layers import Layer
from lrp_lightning.engine.operators.nodes import relayed
from lrp_lightning.engine.visitor import Unit

__all__ = ["ROWS", "only_input", "unit_layer"]


def unit_layer(
    run: Interpreter, call: Call, op: AffineMap, a: Tensor, w: Tensor, b: Tensor | None, y: Tensor, name: str,
    into: Layer | None = None, scale: Tensor | None = None,
) -> tuple[Tensor, Facts]:  # fmt: skip
    """Make ``y = w a + b`` the output of a unit layer.

    If a normalisation was folded ``into`` a layer, it multiplies each neuron's weights by ``scale``.
    """
    if a.is_complex():
        raise run.unsupported(
            call.func, "it reads complex numbers, of which layers have no rule; write it as a product, such as torch.einsum"
        )
    dim = op.neurons(a.ndim)
    a = relayed(run, a, dim)
    facts = run.of(a)
    samples, lost = samples_after(run, call, facts, lambda axis: axis.resize(op.mixed(a, w, y)))
    layer = run.visitor.layers.add(name, op.kind, y, op.neurons(y.ndim), samples, lost, facts.near_input)
    if into is not None:
        run.visitor.layers.fold(into, layer)
    out = run.visitor.layer(run, Unit(op, a, w, b, y, facts, layer, scale))
    return out, Facts(
        samples,
        layer.axis(y.shape),
        near_input=facts.near_input and op.kind == "normalisation",
        gate=Gate.THROUGH_LAYER if facts.gate else Gate.NO,
        lost=lost,
        made_by=MadeBy(op, a, w, None if b is None else b.detach(), layer, scale),
    )


def only_input(run: Interpreter, call: Call, a: Any, *parameters: Any) -> None:
    """Raise an error if an operator's parameters depend on the input, because that is a product of two signals."""
    if not run.known(a) or any(run.known(p) for p in parameters):
        raise run.unsupported(call.func, "its weight depends on the input, so it is a product of two signals without a rule")


def _linear(run: Interpreter, call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Facts]:
    only_input(run, call, input, weight, bias)
    if input.ndim == 1:  # one sample's features
        wide = run.dispatch(F.linear, run.dispatch(torch.unsqueeze, input, 0), weight, bias)
        y = run.dispatch(torch.squeeze, wide, 0)
        return y, run.of(y)
    with run.visitor.values():
        y = F.linear(input, weight, bias)
    return unit_layer(run, call, Linear(), input, weight, bias, y, run.names.of_weight(weight, "linear"))


def _convolution(
    spatial: int, transposed: bool, run: Interpreter, call: Call, input: Tensor, weight: Tensor, bias: Any, stride: Any,
    padding: Any, dilation: Any, groups: int, output_padding: Any,
) -> tuple[Tensor, Facts]:  # fmt: skip
    only_input(run, call, input, weight, bias)
    if input.ndim != spatial + 2:
        why = f"its input has {input.ndim} dimensions; samples must come first, then channels"
        raise run.unsupported(call.func, f"{why}, so give a single sample as x[None]")
    stride, dilation = _each(stride, spatial), _each(dilation, spatial)
    more_right: tuple[int, ...] = ()
    if padding == "valid":
        padding = 0
    elif padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        padding = [t // 2 for t in total]
        if any(t % 2 for t in total):  # one more on the right, which a convolution cannot express
            more_right = tuple(t % 2 for t in total)
    op = _geometry(stride, _each(padding, spatial), dilation, groups, transposed, _each(output_padding, spatial), more_right)
    with run.visitor.values():
        y = op.forward(input, weight, bias)
    return unit_layer(run, call, op, input, weight, bias, y, run.names.of_weight(weight, "convolution"))


_geometry = lru_cache(maxsize=256)(Convolution)
"""Networks have few of these, with many layers each."""


def _plain(n: int) -> Callable:
    def convolution(
        run: Interpreter, call: Call, input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> tuple[Tensor, Facts]:  # fmt: skip
        return _convolution(n, False, run, call, input, weight, bias, stride, padding, dilation, groups, 0)

    return convolution


def _transposed(n: int) -> Callable:
    def convolution(
        run: Interpreter, call: Call, input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> tuple[Tensor, Facts]:  # fmt: skip
        return _convolution(n, True, run, call, input, weight, bias, stride, padding, dilation, groups, output_padding)

    return convolution


def _each(value: Any, spatial: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * spatial if len(values) == 1 else values


def _batch_norm(
    run: Interpreter, call: Call, input: Tensor, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> tuple[Tensor, Facts]:  # fmt: skip
    only_input(run, call, input, weight, bias)
    with torch.no_grad():
        mean, var = running_mean, running_var
        if mean is None or var is None:  # without running statistics, those of the batch are constants
            var, mean = torch.var_mean(input.detach(), [d for d in range(input.ndim) if d != 1], correction=0)
        scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
        shift = -mean * scale if bias is None else bias - mean * scale
    with run.visitor.values():
        y = F.batch_norm(run.visitor.whole(input), mean, var, weight, bias, False, 0.0, eps)
    made_by = run.of(input).made_by
    folds = made_by is not None and made_by.layer.folded_into is None  # a second normalisation does not fold
    normalised = made_by is None or made_by.op.kind == "normalisation"
    if made_by is None or not folds or normalised or made_by.op.neurons(input.ndim) != 1:
        return unit_layer(run, call, ChannelScale(), input, scale, shift, y, run.names.of_weight(weight, "batch_norm"))
    op, layer = made_by.op, made_by.layer
    with torch.no_grad():
        b = shift if made_by.b is None else made_by.b * scale + shift
        scale = scale if made_by.scale is None else made_by.scale * scale
    return unit_layer(run, call, op, made_by.a, made_by.w, b, y, layer.base_name, into=layer, scale=scale)


def _torch_batch_norm(
    run: Interpreter, call: Call, input: Tensor, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool,
    momentum: float, eps: float, cudnn_enabled: bool,
) -> tuple[Tensor, Facts]:  # fmt: skip
    return _batch_norm(run, call, input, running_mean, running_var, weight, bias, training, momentum, eps)


ROWS: dict[str, Callable] = {
    "linear": _linear,
    "F.batch_norm": _batch_norm,
    "torch.batch_norm": _torch_batch_norm,
    **{f"conv{n}d": _plain(n) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _transposed(n) for n in (1, 2, 3)},
}
