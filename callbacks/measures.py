"""The numbers that a monitor takes of an epoch, each a torchmetrics Metric, synced over processes by torchmetrics."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from lrp_lightning.callbacks.classifier import Classifier
from lrp_lightning.masking import masked_forward
from lrp_lightning.metrics import CriticalNeuronAccuracy
from lrp_lightning.trace import Trace

__all__ = ["Measures", "random_sets"]


class Measures:
    """Measures by name; those that are not wanted cost nothing.

    Args:
        wanted: names among those of :data:`lrp_lightning.callbacks.settings.SCALARS`.
    """

    def __init__(self, wanted: Collection[str]) -> None:
        every: dict[str, Metric] = {
            "critical_neuron_accuracy": CriticalNeuronAccuracy(),
            "random_accuracy": CriticalNeuronAccuracy(),
            "conservation_error": MeanMetric(),
        }
        self.metrics = nn.ModuleDict({name: metric for name, metric in every.items() if name in wanted})

    def reset(self, device: torch.device) -> None:
        """Start an epoch with nothing counted."""
        for metric in self.metrics.values():
            assert isinstance(metric, Metric)
            metric.to(device)
            metric.reset()

    def update(
        self, classifier: Classifier, inputs: tuple[Tensor, ...], trace: Trace, sets: Tensor | None, ordinals: Tensor
    ) -> None:
        """Count a few samples.

        Args:
            classifier: what is explained.
            inputs: each ``(N, ...)``.
            trace: with critical neurons.
            sets: ``(N, classes)`` bool, the classes that are right; None if there are no labels.
            ordinals: ``(N,)``, which of the epoch's samples these are; a sample's random sets depend on it alone.
        """
        outputs: dict[str, Tensor] = {}
        if "critical_neuron_accuracy" in self.metrics:
            outputs["critical_neuron_accuracy"] = masked_forward(classifier, inputs, trace.masks)
        if "random_accuracy" in self.metrics:
            outputs["random_accuracy"] = masked_forward(classifier, inputs, random_sets(trace.masks, ordinals))
        # all passes are done: from here on nothing runs out of memory half way
        for name, output in outputs.items():
            self.metrics[name].update(output, trace.output)  # type: ignore[operator]
        if "conservation_error" in self.metrics:
            self.metrics["conservation_error"].update(trace.conservation_error)  # type: ignore[operator]

    def compute(self) -> dict[str, Tensor]:
        """The numbers, over all processes; without those that saw no sample."""
        values = {name: metric.compute() for name, metric in self.metrics.items()}  # type: ignore[operator]
        return {name: value for name, value in values.items() if not value.isnan()}


def random_sets(masks: dict[str, Tensor], ordinals: Tensor) -> dict[str, Tensor]:
    """Random sets of the same sizes, the same ones for a sample wherever it is looked at and beside which others.

    Their order is a hash of sample, layer and neuron (the finaliser of MurmurHash3), not the next numbers of a generator:
    those would depend on micro-batches and processes.

    Args:
        masks: ``{layer: (N, C) bool}``.
        ordinals: ``(N,)``, the samples' numbers, not negative.
    """

    def shuffled(layer: int, mask: Tensor) -> Tensor:
        neurons = torch.arange(mask.shape[1], device=mask.device)
        keys = _mixed(_mixed(ordinals.to(mask.device) + 1)[:, None] ^ _mixed(neurons + 0x9E3779B9 * (layer + 1)))
        return mask.gather(1, keys.argsort(1))

    return {layer: shuffled(number, mask) for number, (layer, mask) in enumerate(masks.items())}


def _mixed(x: Tensor) -> Tensor:
    x = x & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFF
    return x ^ (x >> 16)
