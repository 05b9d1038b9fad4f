"""Heatmaps of single neurons: the relevance that runs through each of them, of many by one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrp_lightning.attribution import LayerSelectiveLRP, SelectiveLRP
from lrp_lightning.composites import Composite, EpsilonPlus
from lrp_lightning.errors import InputError, LayerError
from lrp_lightning.layers import LayerNames, unwrapped
from lrp_lightning.rules import Rule

__all__ = ["neuron_heatmaps"]


def neuron_heatmaps(
    model: nn.Module,
    inputs: Tensor,
    layer: nn.Module | str,
    neurons: Sequence[int] | Tensor,
    target: Any = None,
    composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
    at: nn.Module | str | None = None,
    additional_forward_args: Any = None,
) -> Any:
    """The relevance that runs through each of the chosen neurons of a layer, by one batched pass.

    In that layer only the neuron carries relevance on, as in concept relevance propagation (Achtibat et al. 2023); all other
    layers are whole. Over all neurons of the layer the heatmaps add up to that of the whole output.

    Args:
        model: the classifier.
        inputs: ``(N, ...)``.
        layer: a hidden unit layer, by name or module.
        neurons: ``K`` numbers, or ``(N, K)``, for each sample its own, such as ``trace.relevance[layer].topk(K).indices``.
        target: the output to explain, as in ``SelectiveLRP.trace``.
        composite: as in :class:`lrp_lightning.SelectiveLRP`.
        at: a layer below, whose relevance is wanted in place of the input's.
        additional_forward_args: given to the model after ``inputs``; tensors of ``N`` samples are repeated for every neuron.

    Returns:
        ``(K, *inputs.shape)``, or ``(K, N, ...)`` shaped like the output of ``at``. The pass takes the memory of one over
        ``K * N`` samples.

    Raises:
        LayerError: if there is no such layer or neuron.
        InputError, TargetError, ModelError, UnsupportedOperatorError: as :class:`lrp_lightning.SelectiveLRP`.

    Example:
        >>> import torch
        >>> from lrp_lightning import neuron_heatmaps
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
        >>> neuron_heatmaps(model, torch.rand(2, 1, 5, 5), "0", neurons=[0, 3], target=1).shape
        torch.Size([2, 2, 1, 5, 5])
    """
    model = unwrapped(model)
    if not isinstance(inputs, Tensor) or inputs.ndim < 2:
        raise InputError(f"inputs must be a tensor, samples first, got {inputs!r:.80}")
    samples = len(inputs)
    chosen = torch.as_tensor(neurons).cpu()
    if chosen.is_floating_point() or chosen.dtype == torch.bool or chosen.numel() == 0:
        raise LayerError(f"neurons must be numbers of neurons, at least one, got {neurons!r}")
    if chosen.ndim not in (1, 2) or (chosen.ndim == 2 and len(chosen) != samples):
        raise LayerError(f"neurons must be (K,) or ({samples}, K), one row a sample, got {tuple(chosen.shape)}")
    chosen = chosen.T if chosen.ndim == 2 else chosen[:, None].expand(-1, samples)  # (K, N)
    k = len(chosen)

    def for_each(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and len(value) == samples:
            return value.repeat(k, *[1] * (value.ndim - 1))
        return value * k if isinstance(value, list) and len(value) == samples else value

    extra = additional_forward_args
    extra = tuple(map(for_each, extra)) if isinstance(extra, tuple) else for_each(extra)
    only = _OneEach(layer if isinstance(layer, str) else _name(model, layer), chosen.reshape(-1))
    if at is None:
        heat = SelectiveLRP(model, composite, only).attribute(for_each(inputs), for_each(target), extra)
    else:
        heat = LayerSelectiveLRP(model, at, composite, only).attribute(for_each(inputs), for_each(target), extra)
    return heat.unflatten(0, (k, samples))


def _name(model: nn.Module, layer: nn.Module) -> str:
    names = LayerNames(model).of_module
    if id(layer) not in names:
        raise LayerError(f"{type(layer).__name__} is no module of the model")
    return names[id(layer)]


@dataclass(frozen=True, eq=False)
class _OneEach:
    """Of one layer one neuron for each sample of the batch; other layers are left whole."""

    layer: str
    neurons: Tensor

    @property
    def patterns(self) -> Iterator[str]:
        """The layers that must be there."""
        yield self.layer

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor | None:
        if layer != self.layer:
            return None
        wrong = self.neurons[(self.neurons < 0) | (self.neurons >= relevance.shape[1])]
        if len(wrong):
            raise LayerError(
                f"layer {layer!r} has {relevance.shape[1]} neurons, 0 to {relevance.shape[1] - 1}, and no {int(wrong[0])}"
            )
        kept = torch.zeros_like(relevance, dtype=torch.bool)
        return kept.scatter_(1, self.neurons.to(relevance.device)[:, None], True)
