"""Layer, group and instance norm: the mean is linear, the standard deviation a constant (Ali et al. 2022, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lrp_lightning.engine.mode import RelevanceMode
from lrp_lightning.engine.rows.arguments import Row, only_input

__all__ = ["ROWS"]


def _layer_norm(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    def parse(input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5,
              cudnn_enable: bool = True) -> tuple:  # fmt: skip
        return input, normalized_shape, weight, bias, eps

    x, shape, w, b, eps = parse(*args, **kwargs)
    only_input(mode, func, x, w, b)
    with torch.no_grad():
        y = F.layer_norm(x, shape, w, b, eps)
    return _normalised(mode, x, x, list(range(-len(shape), 0)), w, b, eps, y)


def _group_norm(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    def parse(input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5,
              cudnn_enabled: bool = True) -> tuple:  # fmt: skip
        return input, num_groups, weight, bias, eps

    x, groups, w, b, eps = parse(*args, **kwargs)
    only_input(mode, func, x, w, b)
    with torch.no_grad():
        y = F.group_norm(x, groups, w, b, eps)
    return _normalised(mode, x, x.reshape(len(x), groups, -1), [-1], _per_channel(w, x), _per_channel(b, x), eps, y)


def _instance_norm(mode: RelevanceMode, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    def parse(input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
              use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5) -> tuple:  # fmt: skip
        return input, running_mean, running_var, weight, bias, use_input_stats, eps

    x, mean, var, w, b, of_input, eps = parse(*args, **kwargs)
    only_input(mode, func, x, w, b)
    if not of_input:
        return mode.dispatch(F.batch_norm, x, mean, var, w, b, False, 0.0, eps)
    with torch.no_grad():
        y = F.instance_norm(x, None, None, w, b, True, 0.0, eps)
    return _normalised(mode, x, x, list(range(2, x.ndim)), _per_channel(w, x), _per_channel(b, x), eps, y)


def _per_channel(v: Tensor | None, x: Tensor) -> Tensor | None:
    return None if v is None else v.view(-1, *[1] * (x.ndim - 2))


def _normalised(
    mode: RelevanceMode,
    x: Tensor,
    grouped: Tensor,
    dims: list[int],
    w: Tensor | None,
    b: Tensor | None,
    eps: float,
    y: Tensor,
) -> Tensor:
    with torch.no_grad():
        scale = (grouped.var(dims, correction=0, keepdim=True) + eps).rsqrt()
    linear = ((grouped - grouped.mean(dims, keepdim=True)) * scale).reshape(x.shape)
    if w is not None:
        linear = linear * w.detach()
    facts = mode.of(x)
    y = mode.valued(linear, y)
    if b is not None:
        names = mode.names
        owner = names.of_parameter.get(id(b._base if b._base is not None else b))
        mode.count(y, b.detach(), owner or names.here("bias"))
    return mode.learn(y, replace(facts, nonnegative=False, gate=False, ids=None, made_by=None))


ROWS: dict[str, Row] = {"layer_norm": _layer_norm, "group_norm": _group_norm, "F.instance_norm": _instance_norm}
