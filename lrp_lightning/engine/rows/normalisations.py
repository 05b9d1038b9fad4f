"""Layer, group and instance norm: the mean is linear, the standard deviation a constant (Ali et al. 2022, section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lrp_lightning.engine.mode import RelevanceMode
from lrp_lightning.engine.origins import feature_ids
from lrp_lightning.engine.rows.arguments import Row, only_input
from lrp_lightning.layers import per_neuron

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
    facts = mode.of(x)
    dim = facts.dim if facts.dim is not None else 1 if grouped is not x else x.ndim - 1
    x = mode.apart(mode.relay(x, dim))
    grouped = x.reshape(grouped.shape)
    with torch.no_grad():
        scale = (grouped.var(dims, correction=0, keepdim=True) + eps).rsqrt()
    linear = ((grouped - grouped.mean(dims, keepdim=True)) * scale).reshape(x.shape)
    if w is not None:
        linear = linear * w.detach()
    y = mode.valued(linear, y)
    if b is not None:
        mode.count(y, b.detach(), _owner(mode, b) or mode.names.here("bias"))
    mode.learn(y, replace(facts, nonnegative=False, gate=False, ids=None, made_by=None))
    if mode.of(x).ids is not None and mode.of(y).samples is not None and not facts.gate:
        _as_node(mode, x, y, dim, w, b, (grouped.detach() * scale).reshape(x.shape), grouped.shape, dims)
    return y


def _owner(mode: RelevanceMode, parameter: Tensor | None) -> str | None:
    """The layer of a parameter, or of what it is a view of."""
    base = None if parameter is None or parameter._base is None else parameter._base
    return mode.names.of_parameter.get(id(parameter if base is None else base))


def _as_node(
    mode: RelevanceMode, x: Tensor, y: Tensor, dim: int, w: Tensor | None, b: Tensor | None, scaled: Tensor,
    shape: torch.Size, dims: list[int],
) -> None:  # fmt: skip
    """Where edges are wanted, make a normalisation a node: by its mean, every neuron gets relevance from every other."""
    recording, value, ids = mode.recording, y.detach(), mode.of(x).ids
    name = _owner(mode, w) or mode.names.here("norm")
    layer = recording.layer(name, "normalisation", y, dim, samples=mode.of(y).samples)
    features = feature_ids(ids, x, dim)
    w, b = (None if t is None else t.detach() for t in (w, b))

    def arrive(g: Tensor) -> None:
        recording.arrive(layer, value, g)
        if recording.want_edges:
            if b is not None:
                recording.stay(layer, per_neuron(g * b, dim, layer.samples))
            edges = _edges(scaled, g if w is None else g * w, shape, dims, dim, layer.samples, recording.samples)
            recording.connect(features, layer, edges if recording.per_sample else edges.sum(0))

    y.register_hook(arrive)
    if recording.along is not None:
        at = layer.samples
        x.register_hook(lambda g: g * recording.onward(layer, ids, g, at))
    mode.facts[y] = replace(mode.of(y), dim=dim, ids=layer.ids(y.ndim))


def _edges(u: Tensor, v: Tensor, shape: torch.Size, dims: list[int], dim: int, samples: int, n: int) -> Tensor:
    """What neuron ``c`` of ``y = (u - mean(u)) w`` hands to neuron ``i`` when its gradient is ``v / w``: ``(n, i, c)``.

    ``u_i v_i`` to itself, and ``-u_i v_c / size`` to each ``i`` whose value is in its mean, ``size`` being how many are.
    """
    channels = u.shape[dim]
    own = per_neuron(u * v, dim, samples).unflatten(0, (n, -1)).sum(1).diag_embed()
    size = math.prod(shape[d] for d in dims)
    if shape != u.shape:  # groups of channels: (N, groups, channels and space)
        by_group = (t.reshape(n, -1, shape[1], channels // shape[1], *u.shape[2:]).flatten(4).sum(4) if t.ndim > 2
                    else t.reshape(n, -1, shape[1], channels // shape[1]) for t in (u, v))  # fmt: skip
        below, above = by_group
        within = torch.einsum("nrgi,nrgc->ngic", below, above)
        mean = torch.stack([torch.block_diag(*sample) for sample in within])
    elif dim in [d % u.ndim for d in dims]:
        others = [d for d in dims if d % u.ndim != dim]
        below, above = (
            (t.sum(others, keepdim=True) if others else t).movedim((samples, dim), (0, -1)).reshape(n, -1, channels)
            for t in (u, v)
        )
        mean = below.transpose(1, 2) @ above
    else:  # over space alone: each channel has its own mean
        below, above = (t.sum(dims, keepdim=True) for t in (u, v))
        mean = per_neuron(below * above, dim, samples).unflatten(0, (n, -1)).sum(1).diag_embed()
    return own - mean / size


ROWS: dict[str, Row] = {"layer_norm": _layer_norm, "group_norm": _group_norm, "F.instance_norm": _instance_norm}
