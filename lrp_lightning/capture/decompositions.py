"""Backward operators in terms of forward operators, for runtimes and formats without backward operators, such as ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions

__all__ = ["FORWARD_ONLY"]

aten = torch.ops.aten

# Constants are made by arange, because torch.tensor leaves an in-place operator, which run_decompositions refuses


def _copysign(magnitude: Tensor, sign: Tensor) -> Tensor:
    return torch.where(sign < 0, -magnitude.abs(), magnitude.abs())  # -0 counts as 0: the numerator is 0 there


def _convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> Any:
    if list(wanted) != [True, False, False]:
        return NotImplemented
    if transposed:
        down = aten.convolution.default(grad, weight, None, stride, padding, dilation, False, [0] * len(stride), groups)
        return down, None, None
    return _spread(grad, weight, x.shape[2:], stride, padding, dilation, groups), None, None


def _spread(
    grad: Tensor,
    weight: Tensor,
    sizes: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """The backward of a convolution, for an input of these sizes: a transposed convolution."""
    missing = [  # negative if the last step of the kernel reaches beyond the input
        size - ((pooled - 1) * step - 2 * pad + apart * (kernel - 1) + 1)
        for size, pooled, kernel, step, pad, apart in zip(
            sizes, grad.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
        )
    ]
    more = [max(size, 0) for size in missing]
    down = aten.convolution.default(grad, weight, None, stride, padding, dilation, True, more, groups)
    for d, size in enumerate(missing, 2):
        if size < 0:
            down = down.narrow(d, 0, sizes[d - 2])
    return down


def _max_pool_backward(
    grad: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    places = x.new_zeros(x.shape).flatten(-2)
    return places.scatter_add(-1, indices.flatten(-2), grad.flatten(-2)).view(x.shape)


def _average_pool_backward(
    grad: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    channels = x.shape[-3]
    stride = list(stride) or list(kernel)
    padding = [*padding, *padding] if len(padding) == 1 else padding
    ones = grad.new_ones(channels, 1, *kernel)
    if divisor_override is not None:
        grad = grad / divisor_override
    else:
        tall, wide = (
            _values(x.shape[d - 2], grad.shape[d - 2], kernel[d], stride[d], padding[d], count_include_pad).to(grad)
            for d in range(2)
        )
        grad = grad / (tall[:, None] * wide)
    return _spread(grad, ones, x.shape[-2:], stride, padding, [1, 1], channels)


def _values(size: int, pooled: int, kernel: int, stride: int, padding: int, padded: bool) -> Tensor:
    """``(pooled,)``: the number of values in each window of average pooling along one dimension, with or without padding."""
    start = torch.arange(pooled) * stride - padding
    end = (start + kernel).clamp(max=size + padding)
    return end - start if padded else end.clamp(max=size) - start.clamp(min=0)


def _adaptive_average_backward(grad: Tensor, x: Tensor) -> Tensor:
    rows, columns = (_averages(x.shape[d], grad.shape[d]).to(grad) for d in (-2, -1))
    return rows.T @ grad @ columns


def _averages(size: int, pooled: int) -> Tensor:
    """``(pooled, size)``: adaptive average pooling along one dimension, as a matrix."""
    window, at = torch.arange(pooled)[:, None], torch.arange(size)
    start, end = window * size // pooled, ((window + 1) * size + pooled - 1) // pooled
    return ((at >= start) & (at < end)) / (end - start)


def _attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    dropout: float,
    causal: bool,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> Any:
    if dropout:
        return NotImplemented
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query @ key.mT * scale  # recomputed, because runtimes without a backward do not return logsumexp
    if causal:
        queries, keys = (torch.arange(scores.shape[d], device=scores.device) for d in (-2, -1))
        scores = scores.masked_fill(keys > queries[:, None], float("-inf"))
    if attn_mask is not None:
        scores = scores + attn_mask
    weights = scores.softmax(-1)
    by_scores = weights * (grad @ value.mT - (grad * out).sum(-1, keepdim=True)) * scale
    down = by_scores @ key, by_scores.mT @ query, weights.mT @ grad
    return tuple(
        t.transpose(1, 2).contiguous().transpose(1, 2) for t in down
    )  # in the operator's memory layout, because views follow


FORWARD_ONLY: dict[Any, Callable] = {
    **get_decompositions(
        [
            aten.threshold_backward, aten.gelu_backward, aten.silu_backward, aten.hardswish_backward,
            aten.hardsigmoid_backward, aten.hardtanh_backward, aten.sigmoid_backward, aten.tanh_backward,
            aten.elu_backward, aten.leaky_relu_backward, aten.softplus_backward, aten.mish_backward,
            aten._softmax_backward_data, aten._log_softmax_backward_data, aten.native_layer_norm_backward,
            aten.native_group_norm_backward, aten.native_batch_norm_backward, aten.embedding_dense_backward,
            aten.slice_backward, aten.select_backward, aten.new_zeros, aten.new_full, aten.unfold_backward,
            aten.native_dropout_backward, aten.im2col, aten.col2im,
        ]
    ),
    aten.convolution_backward.default: _convolution_backward,
    aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    aten.avg_pool2d_backward.default: _average_pool_backward,
    aten._adaptive_avg_pool2d_backward.default: _adaptive_average_backward,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default: _attention_backward,
    aten.copysign.Tensor: _copysign,
}  # fmt: skip
"""Each backward operator of a pass in terms of forward operators, for ``ExportedProgram.run_decompositions``.

The backward of a convolution is a transposed convolution and vice versa; that of max pooling adds each value at the place of
its maximum; that of attention recomputes its weights. The rest are torch's own decompositions.
"""
