"""Embeddings: rows of a table that are looked up for tokens. The relevance of a row is that of its token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lrp_lightning.engine.calls import Call
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.interpreter import Interpreter

__all__ = ["ROWS"]


def _embedding(
    run: Interpreter, call: Call, input: Tensor, weight: Tensor, *rest: Any, **named: Any
) -> tuple[Tensor, Facts]:
    if run.known(weight):
        raise run.unsupported(call.func, "its table depends on the input; look rows up with torch.index_select instead")
    tokens = run.tokens.get(input)
    if tokens is None:
        raise run.unsupported(
            call.func,
            "it looks up numbers that were computed from the input's tokens by operators without a rule; pass them to the "
            "model as an input, or explain the embedding's output with LayerSelectiveLRP",
        )
    return run.look_up(call, tokens)


def _embedding_bag(
    run: Interpreter, call: Call, input: Tensor, weight: Tensor, offsets: Any = None, max_norm: Any = None,
    norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
    per_sample_weights: Any = None, include_last_offset: bool = False, padding_idx: int | None = None,
) -> tuple[Tensor, Facts]:  # fmt: skip
    """Sums, means or maxima of the rows of each sample's tokens, ``(N, L)``."""
    if offsets is not None or input.ndim != 2:
        raise run.unsupported(call.func, "bags of different sizes, by offsets, have no rule; pad them to (N, L) tokens")
    rows = run.dispatch(F.embedding, input, weight, padding_idx, max_norm, norm_type)
    there = torch.ones_like(input) if padding_idx is None else input != padding_idx
    if mode == "max":
        if padding_idx is not None:
            rows = run.dispatch(torch.masked_fill, rows, ~there.unsqueeze(-1), -torch.inf)
        y = run.dispatch(torch.amax, rows, 1)
    else:
        weights = there.to(weight.dtype) if per_sample_weights is None else per_sample_weights * there
        y = run.dispatch(torch.sum, run.dispatch(torch.mul, rows, weights.unsqueeze(-1)), 1)
        if mode == "mean":
            y = run.dispatch(torch.div, y, there.sum(1, keepdim=True).clamp(min=1))
    return run.visitor.valued(lambda: y, call), run.of(y)


def _torchs(run: Interpreter, call: Call, input: Tensor, indices: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, Facts]:
    """``torch.embedding``, whose table comes first."""
    y = run.dispatch(F.embedding, indices, input)
    return y, run.of(y)


ROWS: dict[str, Callable] = {
    "F.embedding": _embedding,
    "F.embedding_bag": _embedding_bag,
    "torch.embedding": _torchs,
}
