"""Affine maps with parameters: unit layers, and the batch norm that folds into them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lrp_lightning.engine.affine import ChannelScale, Convolution, Linear
from lrp_lightning.engine.mode import RelevanceMode
from lrp_lightning.engine.rows.arguments import Row, only_input

__all__ = ["ROWS"]


def _linear(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    def parse(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple:
        return input, weight, bias

    a, w, b = parse(*args, **kwargs)
    only_input(mode, func, a, w, b)
    with torch.no_grad():
        y = F.linear(a, w, b)
    return mode.unit_layer(Linear(), a, w, b, y, mode.names.of_weight(w, "linear"))


def _addmm(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    """``b + a w``: a linear layer written another way."""

    def parse(input: Any, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> tuple:
        return input, mat1, mat2, beta, alpha

    b, a, w, beta, alpha = parse(*args, **kwargs)
    only_input(mode, func, a, w, b)
    with torch.no_grad():
        y = torch.addmm(b, a, w, beta=beta, alpha=alpha)
        b, w_t = torch.as_tensor(b * beta).expand(w.shape[1]) if b.ndim < 2 else None, w.T * alpha
    if b is None:
        raise mode.unsupported(func, "adds a matrix, not one bias a neuron; write it as a sum and a product")
    return mode.unit_layer(Linear(), a, w_t, b, y, mode.names.of_weight(w, "linear"))


def _convolution(
    spatial: int, transposed: bool, mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]
) -> Tensor:
    def parse(input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
              groups: int = 1) -> tuple:  # fmt: skip
        return input, weight, bias, stride, padding, dilation, groups, 0

    def parse_transposed(input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
                         output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> tuple:  # fmt: skip
        return input, weight, bias, stride, padding, dilation, groups, output_padding

    parsed = (parse_transposed if transposed else parse)(*args, **kwargs)
    a, w, b, stride, padding, dilation, groups, output_padding = parsed
    only_input(mode, func, a, w, b)
    if a.ndim != spatial + 2:
        raise mode.unsupported(func, f"its input has {a.ndim} dimensions; samples must come first, then channels")
    stride, dilation = _each(stride, spatial), _each(dilation, spatial)
    more_right: tuple[int, ...] = ()
    if padding == "valid":
        padding = 0
    elif padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, w.shape[2:], strict=True)]
        padding = [t // 2 for t in total]
        if any(t % 2 for t in total):  # one more on the right, which a convolution cannot say for itself
            more_right = tuple(t % 2 for t in total)
    op = Convolution(
        stride, _each(padding, spatial), dilation, groups, transposed, _each(output_padding, spatial), more_right
    )
    with torch.no_grad():
        y = op.forward(a, w, b)
    return mode.unit_layer(op, a, w, b, y, mode.names.of_weight(w, "convolution"))


def _each(value: Any, spatial: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * spatial if len(values) == 1 else values


def _batch_norm(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    def parse(input: Tensor, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
              training: bool = False, momentum: float = 0.1, eps: float = 1e-5) -> tuple:  # fmt: skip
        return input, running_mean, running_var, weight, bias, eps

    a, mean, var, gamma, beta, eps = parse(*args, **kwargs)
    only_input(mode, func, a, gamma, beta)
    with torch.no_grad():
        if mean is None or var is None:  # no running statistics: those of the batch are constants
            var, mean = torch.var_mean(a, [d for d in range(a.ndim) if d != 1], correction=0)
        y = F.batch_norm(a, mean, var, gamma, beta, False, 0.0, eps)
        scale = (var + eps).rsqrt() if gamma is None else gamma * (var + eps).rsqrt()
        shift = -mean * scale if beta is None else beta - mean * scale
    made_by = mode.of(a).made_by
    folds = made_by is not None and made_by.layer.folded_into is None  # a second normalisation of the same output does not
    if made_by is None or not folds or made_by.op.kind == "normalisation" or (made_by.op.kind == "linear" and a.ndim != 2):
        return mode.unit_layer(ChannelScale(), a, scale, shift, y, mode.names.of_weight(gamma, "batch_norm"))
    op, layer = made_by.op, made_by.layer
    with torch.no_grad():
        b = shift if made_by.b is None else made_by.b * scale + shift
        w = op.scaled(made_by.w, scale)
    return mode.unit_layer(op, made_by.a, w, b, y, layer.base_name, into=layer)


def _torch_batch_norm(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    def parse(input: Tensor, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool, momentum: float,
              eps: float, cudnn_enabled: bool) -> tuple:  # fmt: skip
        return input, running_mean, running_var, weight, bias, training, momentum, eps

    return _batch_norm(mode, F.batch_norm, parse(*args, **kwargs), {})


ROWS: dict[str, Row] = {
    "linear": _linear,
    "addmm": _addmm,
    "F.batch_norm": _batch_norm,
    "torch.batch_norm": _torch_batch_norm,
    **{f"conv{n}d": partial(_convolution, n, False) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": partial(_convolution, n, True) for n in (1, 2, 3)},
}
