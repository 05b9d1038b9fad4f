"""Attention: by default relevance goes through the values, the weights being constants (Ali et al. 2022, section 4.1).

With ``Composite(..., attention="attnlrp")`` it goes through queries and keys too (Achtibat et al. 2024): each product hands
down half to each factor (eq. 7), the softmax its first-order Taylor share, whose bias is counted as absorbed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lrp_lightning.engine.mode import Facts, RelevanceMode
from lrp_lightning.engine.origins import mixed
from lrp_lightning.engine.rows.arguments import Row
from lrp_lightning.errors import UnsupportedOperatorError
from lrp_lightning.layers import LayerNames

__all__ = ["ROWS", "Projecting", "multi_head"]


def _scaled_dot_product(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    def parse(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0,
              is_causal: bool = False, **more: Any) -> tuple:  # fmt: skip
        detached = attn_mask.detach() if isinstance(attn_mask, Tensor) else attn_mask
        return query, key, value, {"attn_mask": detached, "is_causal": is_causal, **more}

    q, k, v, more = parse(*args, **kwargs)
    follow = mode.recording.follows and mode.known(v)
    ids = mixed(mode.of(v).ids, -2) if follow else None  # each of a neuron's values is a sum of its own
    facts = Facts(nonnegative=mode.known(v) and mode.of(v).nonnegative, ids=ids)
    if mode.recording.composite.attention == "values":
        return (
            mode.learn(func(q.detach(), k.detach(), v, **more), facts) if mode.known(v) else func(q, k, v, **more).detach()
        )

    def attend(
        q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:  # each product halves what goes down: the weights', and q's with k
        return func(_share(q, 0.25), _share(k, 0.25), _share(v, 0.5), **more)

    return mode.learn(mode.with_account(attend, (q, k, v), {}, "softmax"), replace(facts, ids=None))


def _share(t: Tensor, share: float) -> Tensor:
    """``t``, whose gradient comes back times ``share``."""
    if not t.requires_grad:
        return t
    t = t.view_as(t)
    t.register_hook(lambda g: g * share)
    return t


class Projecting(Protocol):
    """What :func:`multi_head` asks of a mode; the forward with neurons switched off is another such mode."""

    names: LayerNames

    def dispatch(self, func: Callable, *args: Any, **kwargs: Any) -> Any: ...

    def projection(self, a: Tensor, w: Tensor, b: Tensor | None, y: Tensor, name: str) -> Tensor:
        """The output ``y = w a + b`` of a unit layer of this name."""
        ...

    def values(self) -> AbstractContextManager:
        """In which values, whose gradient does not matter, are computed."""
        ...

    def unsupported(self, func: Callable, why: str) -> UnsupportedOperatorError: ...


def multi_head(mode: Projecting, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """``F.multi_head_attention_forward``, taken apart as torch itself computes it, so that its values are the same bits."""

    def parse(query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int, in_proj_weight: Any,
              in_proj_bias: Any, bias_k: Any, bias_v: Any, add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor,
              out_proj_bias: Any, training: bool = True, key_padding_mask: Any = None, need_weights: bool = True,
              attn_mask: Any = None, use_separate_proj_weight: bool = False, q_proj_weight: Any = None,
              k_proj_weight: Any = None, v_proj_weight: Any = None, static_k: Any = None, static_v: Any = None,
              average_attn_weights: bool = True, is_causal: bool = False) -> dict[str, Any]:  # fmt: skip
        return locals()

    p = parse(*args, **kwargs)
    if any(p[name] is not None for name in ("bias_k", "bias_v", "static_k", "static_v")) or p["add_zero_attn"]:
        raise mode.unsupported(func, "bias_k, bias_v, add_zero_attn and static keys have no rule")
    run, heads, base = mode.dispatch, p["num_heads"], mode.names.executing()
    signals = [p["query"], p["key"], p["value"]]  # (L, N, E)
    batched = signals[0].ndim == 3
    if not batched:
        signals = [run(torch.unsqueeze, t, 1) for t in signals]
    length, batch, width = signals[0].shape
    each = width // heads

    w, b = p["in_proj_weight"], p["in_proj_bias"]
    biases = [None] * 3 if b is None else list(b.chunk(3))
    with mode.values():
        if p["use_separate_proj_weight"]:
            weights = [p["q_proj_weight"], p["k_proj_weight"], p["v_proj_weight"]]
            values = F._in_projection(*signals, *weights, *biases)  # type: ignore[attr-defined]
        else:
            weights = list(w.chunk(3))
            values = F._in_projection_packed(*_distinct(signals, p), w, b)  # type: ignore[attr-defined]
    q, k, v = (
        mode.projection(t, part, bias, y, f"{base}.{name}_proj".removeprefix("."))
        for name, t, part, bias, y in zip("qkv", signals, weights, biases, values, strict=True)
    )

    def by_head(t: Tensor) -> Tensor:  # (L, N, E) to (N, heads, L, E / heads)
        t = run(torch.transpose, run(Tensor.view, t, t.shape[0], batch * heads, each), 0, 1)
        return run(Tensor.view, t, batch, heads, -1, each)

    mask = _merged_mask(p["attn_mask"], p["key_padding_mask"], batch, heads, q)
    q, k, v = map(by_head, (q, k, v))
    if p["need_weights"]:
        q, k, v = (run(torch.flatten, t, 0, 1) for t in (q, k, v))
        mask = None if mask is None else mask.expand(batch, heads, -1, -1).flatten(0, 1)
        joined, attention = _explicitly(run, q, k, v, mask)
        joined = run(torch.transpose, joined, 0, 1)
    else:
        joined = run(F.scaled_dot_product_attention, q, k, v, mask, 0.0, p["is_causal"] and mask is None)
        joined = run(Tensor.permute, joined, 2, 0, 1, 3)
    joined = run(Tensor.view, run(Tensor.contiguous, joined), length, batch, width)
    out = run(F.linear, joined, p["out_proj_weight"], p["out_proj_bias"])
    out = out if batched else run(torch.squeeze, out, 1)
    if not p["need_weights"]:
        return out, None
    attention = attention.detach().view(batch, heads, length, -1)
    attention = attention.mean(1) if p["average_attn_weights"] else attention
    return out, attention if batched else attention.squeeze(0)


def _distinct(signals: list[Tensor], p: dict[str, Any]) -> list[Tensor]:
    """The same tensors for what was the same tensor, as torch looks at identity to choose how it multiplies."""
    q, k, v = p["query"], p["key"], p["value"]
    return [
        signals[0],
        signals[0] if k is q else signals[1],
        (signals[0] if k is q else signals[1]) if v is k else signals[2],
    ]


def _explicitly(run: Callable, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention as torch computes it when its weights are asked for, ``(N heads, L, E / heads)``, and the weights."""
    q = run(torch.mul, q, math.sqrt(1.0 / q.shape[-1]))
    scores = run(torch.bmm, q, run(torch.transpose, k, -2, -1))
    scores = scores if mask is None else run(torch.add, scores, mask)
    attention = run(F.softmax, scores, -1)
    return run(torch.bmm, attention, v), attention


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


ROWS: dict[str, Row] = {"scaled_dot_product_attention": _scaled_dot_product, "multi_head_attention_forward": multi_head}
