"""Attention: by default relevance goes to the values, and weights are constants (Ali et al. 2022, section 4.1).

With ``Composite(..., attention="attnlrp")`` it also goes to queries and keys (Achtibat et al. 2024): each product gives half
to each factor (eq. 7), and the softmax uses its first-order Taylor expansion, whose bias is counted as absorbed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.compat import in_projection, in_projection_packed
from lrp_lightning.engine.affine import Linear
from lrp_lightning.engine.calls import Call
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.following import samples_joined
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.neuron_numbers import mixed
from lrp_lightning.engine.operators.affine import unit_layer

__all__ = ["ROWS"]


def _scaled_dot_product(
    run: Interpreter, call: Call, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, **more: Any,
) -> tuple[Tensor, Any]:  # fmt: skip
    attn_mask = attn_mask.detach() if isinstance(attn_mask, Tensor) else attn_mask
    given = {"attn_mask": attn_mask, "is_causal": is_causal, **more}
    detached = run.visitor.detached

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return call.func(q, k, v, **given)

    if run.visitor.attention == "values":
        q, k = (detached(t) if run.known(t) and run.known(value) else t for t in (query, key))
        y = attend(q, k, value)
        if not run.known(value):
            return y.detach(), None
        return y, _attended(run, call, y, query, key, value)

    def halved(made: Call) -> Tensor:  # two products halve relevance: of weights and values, and of q and k
        q, k, v, *_ = made.args
        return attend(run.visitor.shared(q, [q] * 4), run.visitor.shared(k, [k] * 4), run.visitor.shared(v, [v] * 2))

    plain = Call(call.operator, (query, key, value), {})
    return run.visitor.accounted(
        run, plain, "softmax", halved, lambda y: _attended(run, call, y, query, key, value)._replace(neurons=None)
    )


def _attended(run: Interpreter, call: Call, y: Tensor, query: Any, key: Any, value: Any) -> Facts:
    """The tokens of keys and values are summed over; all other dimensions are those of the values, channels last."""
    shape = tuple(y.shape)

    def through(axis: Axis | None, summed: tuple[int, ...]) -> Axis | None:
        if axis is None or axis.alike_along(summed) is None:
            return None
        new = shape[len(shape) - len(axis.shape) :]  # keys and values may have fewer heads
        sized = axis.resize({d: n for d, (size, n) in enumerate(zip(axis.shape, new, strict=True)) if size != n})
        return None if sized is None else sized.expand(shape)

    roles = [(t, dims) for t, dims in ((query, (-1,)), (key, (-2, -1)), (value, (-2,))) if run.known(t)]
    known, found = [t for t, _ in roles], [through(run.of(t).samples, dims) for t, dims in roles]
    samples, lost = samples_joined(run, call, y, known, found, "mixes samples, or brings different ones together")
    neurons: Axis | Tensor | None = None
    if run.known(value):
        was, heads = run.of(value).neurons, value.ndim - 3
        if was is not None and heads >= 0 and value.shape[heads] != y.shape[heads] and value.shape[heads] > 1:
            many = y.shape[heads] // value.shape[heads]  # grouped queries: each head of values is read by several
            was = was.repeat_interleave(many, heads) if isinstance(was, Axis) or was.shape[heads] > 1 else was
        if isinstance(was, Axis):
            dropped = was.drop([value.ndim - 2], keep=True)
            if dropped is not None and (dropped.shape[:-2] == y.shape[:-2]):
                neurons = dropped.expand((*shape[:-1], y.shape[-1]))
        elif was is not None:  # each value of a neuron is a separate sum
            neurons = mixed(was, [value.ndim - 2])
    return Facts(samples, neurons, run.known(value) and run.of(value).nonnegative, lost=lost)


def multi_head(
    run: Interpreter, call: Call, input: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: Any, in_proj_bias: Any, bias_k: Any, bias_v: Any, add_zero_attn: bool, dropout_p: float,
    out_proj_weight: Tensor, out_proj_bias: Any, training: bool = True, key_padding_mask: Any = None,
    need_weights: bool = True, attn_mask: Any = None, use_separate_proj_weight: bool = False, q_proj_weight: Any = None,
    k_proj_weight: Any = None, v_proj_weight: Any = None, static_k: Any = None, static_v: Any = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """``F.multi_head_attention_forward`` as a sequence of operators, as torch computes it, so that values are identical."""
    if any(t is not None for t in (bias_k, bias_v, static_k, static_v)) or add_zero_attn:
        raise run.unsupported(call.func, "bias_k, bias_v, add_zero_attn and static keys have no rule")
    do, heads, base = run.dispatch, num_heads, run.names.executing()
    given = [input, key, value]
    signals = list(given)  # (L, N, E)
    batched = signals[0].ndim == 3
    if not batched:
        signals = [do(torch.unsqueeze, t, 1) for t in signals]
    length, batch, width = signals[0].shape
    each = width // heads

    biases = [None] * 3 if in_proj_bias is None else list(in_proj_bias.chunk(3))
    with run.visitor.values():
        if use_separate_proj_weight:
            weights = [q_proj_weight, k_proj_weight, v_proj_weight]
            values = in_projection(*signals, *weights, *biases)
        else:
            weights = list(in_proj_weight.chunk(3))
            values = in_projection_packed(*_distinct(signals, *given), in_proj_weight, in_proj_bias)

    def projected(name: str, t: Tensor, w: Tensor, b: Any, y: Tensor) -> Tensor:
        if not run.known(t):  # the projection of a constant is a constant
            return y.detach()
        out, run.facts[out] = unit_layer(run, call, Linear(), t, w, b, y, f"{base}.{name}_proj".removeprefix("."))
        return out

    q, k, v = (projected(*about) for about in zip("qkv", signals, weights, biases, values, strict=True))

    def by_head(t: Tensor) -> Tensor:  # (L, N, E) to (N, heads, L, E / heads)
        t = do(torch.transpose, do(Tensor.view, t, t.shape[0], batch * heads, each), 0, 1)
        return do(Tensor.view, t, batch, heads, -1, each)

    mask = _merged_mask(attn_mask, key_padding_mask, batch, heads, q)
    q, k, v = map(by_head, (q, k, v))
    attention = None
    if need_weights:
        q, k, v = (do(torch.flatten, t, 0, 1) for t in (q, k, v))
        mask = None if mask is None else mask.expand(batch, heads, -1, -1).flatten(0, 1)
        joined, attention = _explicitly(do, q, k, v, mask)
        joined = do(torch.transpose, joined, 0, 1)
    else:
        joined = do(F.scaled_dot_product_attention, q, k, v, mask, 0.0, is_causal and mask is None)
        joined = do(Tensor.permute, joined, 2, 0, 1, 3)
    joined = do(Tensor.view, do(Tensor.contiguous, joined), length, batch, width)
    out = do(F.linear, joined, out_proj_weight, out_proj_bias)
    out = out if batched else do(torch.squeeze, out, 1)
    if attention is None:
        return (out, None), [run.of(out)]
    attention = attention.detach().view(batch, heads, length, -1)
    attention = attention.mean(1) if average_attn_weights else attention
    return (out, attention if batched else attention.squeeze(0)), [run.of(out), None]


def _distinct(signals: list[Tensor], q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    """Equal tensors as one object, because torch chooses its multiplication by identity."""
    one = signals[0] if k is q else signals[1]
    return [signals[0], one, one if v is k else signals[2]]


def _explicitly(do: Callable, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention as torch computes it if weights are requested, ``(N heads, L, E / heads)``, and the weights."""
    q = do(torch.mul, q, math.sqrt(1.0 / q.shape[-1]))
    scores = do(torch.bmm, q, do(torch.transpose, k, -2, -1))
    scores = scores if mask is None else do(torch.add, scores, mask)
    attention = do(F.softmax, scores, -1)
    return do(torch.bmm, attention, v), attention


def _merged_mask(attn_mask: Any, padding: Any, batch: int, heads: int, like: Tensor) -> Tensor | None:
    """One additive mask, ``(N, heads or 1, L, S)``."""

    def additive(mask: Tensor) -> Tensor:
        if mask.dtype != torch.bool:
            return mask.detach().to(like.dtype)
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))

    merged = None
    if attn_mask is not None:
        merged = additive(attn_mask)
        merged = merged[None, None] if merged.ndim == 2 else merged.view(batch, heads, *merged.shape[1:])
    if padding is not None:
        pad = additive(padding if padding.ndim == 2 else padding[None])[:, None, None]
        merged = pad if merged is None else merged + pad
    return merged


ROWS: dict[str, Callable] = {"scaled_dot_product_attention": _scaled_dot_product, "multi_head_attention_forward": multi_head}
