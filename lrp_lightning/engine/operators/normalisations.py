"""Layer, group and instance norm: the mean is linear, the standard deviation a constant (Ali et al. 2022, section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lrp_lightning.compat import base_of
from lrp_lightning.engine.by_sample import BySample, per_neuron
from lrp_lightning.engine.calls import Call
from lrp_lightning.engine.edges import features_of
from lrp_lightning.engine.facts import Facts, Gate
from lrp_lightning.engine.following import samples_after
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.layers import Layer
from lrp_lightning.engine.operators.affine import only_input
from lrp_lightning.engine.operators.nodes import apart, neuron_dim_of, node, relayed
from lrp_lightning.engine.visitor import Part

__all__ = ["ROWS"]


def _layer_norm(
    run: Interpreter, call: Call, input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None,
    eps: float = 1e-5, cudnn_enable: bool = True,
) -> tuple[Tensor, Facts]:  # fmt: skip
    only_input(run, call, input, weight, bias)
    many = 1 if isinstance(normalized_shape, int) else len(normalized_shape)
    return _normalised(run, call, input, None, list(range(input.ndim - many, input.ndim)), weight, bias, eps)


def _group_norm(
    run: Interpreter, call: Call, input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> tuple[Tensor, Facts]:  # fmt: skip
    only_input(run, call, input, weight, bias)
    shape = (len(input), num_groups, math.prod(input.shape[1:]) // num_groups)
    return _normalised(
        run, call, input, shape, [2], _per_channel(weight, input), _per_channel(bias, input), eps, weight, bias
    )


def _instance_norm(
    run: Interpreter, call: Call, input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Any = None,
    bias: Any = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> tuple[Tensor, Facts]:  # fmt: skip
    only_input(run, call, input, weight, bias)
    if not use_input_stats:
        y = run.dispatch(F.batch_norm, input, running_mean, running_var, weight, bias, False, 0.0, eps)
        return y, run.of(y)
    plain = Call(call.operator, (input, None, None, weight, bias, True, 0.0, eps), {})
    dims = list(range(2, input.ndim))
    return _normalised(
        run, plain, input, None, dims, _per_channel(weight, input), _per_channel(bias, input), eps, weight, bias
    )


def _per_channel(v: Tensor | None, x: Tensor) -> Tensor | None:
    return None if v is None else v.view(-1, *[1] * (x.ndim - 2))


def _normalised(
    run: Interpreter, call: Call, x: Tensor, shape: tuple[int, ...] | None, dims: list[int], w: Tensor | None,
    b: Tensor | None, eps: float, owner_of_w: Any = None, owner_of_b: Any = None,
) -> tuple[Tensor, Facts]:  # fmt: skip
    """``y``, which is ``x`` normalised over ``dims``, in groups of this ``shape`` if channels are grouped."""
    facts = run.of(x)
    dim = neuron_dim_of(facts, x)
    if facts.neurons is None or facts.near_input:
        dim = 1 if shape is not None else x.ndim - 1 if x.ndim - 1 in dims else 1
    mixed = dims if shape is None else range(1, x.ndim)
    samples, lost = samples_after(run, call, facts, lambda axis: axis.alike_along(mixed))
    x = apart(run, relayed(run, x, dim))
    with torch.no_grad():
        scaled = x.detach() if shape is None else x.detach().reshape(shape)
        scale = (scaled.var(dims, correction=0, keepdim=True) + eps).rsqrt()

    def linear() -> Tensor:
        grouped = x if shape is None else x.reshape(shape)
        y = ((grouped - grouped.mean(dims, keepdim=True)) * scale).reshape(x.shape)
        return y if w is None else y * w.detach()

    y = run.visitor.valued(linear, call)
    about = Facts(samples, None, gate=Gate.THROUGH_LAYER if facts.gate else Gate.NO, lost=lost)
    if b is not None:
        where = _owner(run, b if owner_of_b is None else owner_of_b) or run.names.here("bias")
        y = run.visitor.constant(run, y, b.detach(), samples, where, lost)
    neurons = run.of(x).neurons
    if not run.visitor.follows or neurons is None or samples is None or facts.gate:
        return y, about._replace(neurons=neurons if not isinstance(neurons, Tensor) and not run.visitor.follows else None)
    name = _owner(run, w if owner_of_w is None else owner_of_w) or run.names.here("norm")
    features = features_of(neurons, x.shape, dim)
    scaled_x = (scaled * scale).reshape(x.shape)

    def stays(layer: Layer) -> Callable[[Layer, Tensor], None]:
        def hand(layer: Layer, g: Tensor) -> None:
            rows, edges = layer.by_sample(), run.visitor.edges  # type: ignore[attr-defined]
            if b is not None:
                edges.stay(layer, rows.sum(per_neuron(g * b.detach(), dim, rows.dim)))
            v = g if w is None else g * w.detach()
            handed = _edges(scaled_x, v, shape, dims, dim, rows)
            edges.connect(features, layer, handed if edges.per_sample else handed.sum(0))

        return hand

    # through the mean, every neuron gets relevance from every other
    return node(run, name, "normalisation", y, about, dim, [Part(x, by_value=False)], stays)


def _owner(run: Interpreter, parameter: Tensor | None) -> str | None:
    """The layer of a parameter, or of the parameter of which it is a view."""
    base = None if parameter is None else base_of(parameter)
    return run.names.of_parameter.get(id(parameter if base is None else base))


def _edges(u: Tensor, v: Tensor, shape: tuple[int, ...] | None, dims: list[int], dim: int, rows: BySample) -> Tensor:
    """The relevance from neuron ``c`` of ``y = (u - mean(u)) w`` to neuron ``i`` for gradient ``v / w``: ``(N, i, c)``.

    ``u_i v_i`` to itself, and ``-u_i v_c / size`` to each ``i`` in its mean, where ``size`` is their number.
    """
    channels, samples = u.shape[dim], rows.dim
    own = rows.sum(per_neuron(u * v, dim, samples)).diag_embed()
    if shape is not None:  # groups of channels: (N, groups, channels and space)
        size, groups = shape[2], shape[1]
        below, above = (
            t.reshape(len(t), groups, channels // groups, *u.shape[2:]).flatten(3).sum(3) if t.ndim > 2
            else t.reshape(len(t), groups, channels // groups) for t in (u, v)
        )  # fmt: skip
        within = torch.einsum("ngi,ngc->ngic", below, above)
        mean = rows.sum(torch.stack([torch.block_diag(*sample) for sample in within]))
        return own - mean / size
    size = math.prod(u.shape[d] for d in dims)
    if dim in dims:
        others = [d for d in dims if d != dim]
        below, above = (
            (t.sum(others, keepdim=True) if others else t)
            .movedim((samples, dim), (0, -1))
            .reshape(t.shape[samples], -1, channels)
            for t in (u, v)
        )
        return own - rows.sum(below.transpose(1, 2) @ above) / size
    # over space only: each channel has its own mean
    below, above = (t.sum(dims, keepdim=True) for t in (u, v))
    return own - rows.sum(per_neuron(below * above, dim, samples)).diag_embed() / size


ROWS: dict[str, Callable] = {"layer_norm": _layer_norm, "group_norm": _group_norm, "F.instance_norm": _instance_norm}
