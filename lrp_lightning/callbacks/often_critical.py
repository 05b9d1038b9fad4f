"""Class circuits from the neurons that are most often critical for a class, and whether they recognise the class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lrp_lightning.insight.circuits import calibration
from lrp_lightning.metrics import circuits_agree

__all__ = ["MOST_CLASSES", "CalibratedAgreement", "often_critical"]

MOST_CLASSES = 20
"""The most classes, each of which takes a forward per sample."""


def often_critical(degrees: Tensor, neurons: Mapping[str, int]) -> dict[str, Tensor]:
    """For each class, the neurons of each layer that are critical most often; their number is the mean number per sample.

    Args:
        degrees: ``(classes, all neurons)``, the share of a class's samples for which a neuron is critical; NaN for classes
            without samples.
        neurons: ``{layer: C}``, the number of neurons of each layer.

    Returns:
        ``{layer: (classes, C) bool}``; empty for classes without samples.
    """
    found = {}
    for layer, of in zip(neurons, degrees.split(list(neurons.values()), 1), strict=True):
        many = max(round(float(of.sum(1).nanmean())), 1)
        best = of.nan_to_num(-1.0).argsort(dim=1, descending=True, stable=True)[:, :many]
        found[layer] = torch.zeros_like(of, dtype=torch.bool).scatter_(1, best, True) & ~of.isnan()
    return found


class CalibratedAgreement(Metric):
    """Share of samples whose class is recognised from circuits, one logit from each, calibrated on every second sample.

    Samples at even positions, ordered by their numbers, give each class's scale and offset; the measure is taken on the
    others. NaN for fewer than four samples.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    own: list[Tensor]
    whole: list[Tensor]
    numbers: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("own", "whole", "numbers"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Remove all samples. Empty tensors remain, so that a process without samples takes part in the synchronisation."""
        super().reset()
        for name, shape in (("own", (0, MOST_CLASSES)), ("whole", (0, MOST_CLASSES)), ("numbers", (0,))):
            getattr(self, name).append(torch.zeros(shape, device=self.device, dtype=torch.long if len(shape) == 1 else None))

    def update(self, own: Tensor, whole: Tensor, numbers: Tensor) -> None:
        """Add samples.

        Args:
            own: ``(N, classes)``, each class's logit from its own circuit, NaN for those without one.
            whole: ``(N, classes)``, of the whole network.
            numbers: ``(N,)``, the samples' numbers.
        """
        wider = (0, MOST_CLASSES - own.shape[1])
        self.own.append(nn.functional.pad(own.float(), wider, value=torch.nan))
        self.whole.append(nn.functional.pad(whole.float(), wider, value=torch.nan))
        self.numbers.append(numbers.to(own.device))

    def compute(self) -> Tensor:
        """The share, a scalar."""
        order = dim_zero_cat(self.numbers).argsort()
        own, whole = dim_zero_cat(self.own)[order], dim_zero_cat(self.whole)[order]
        if len(own) < 4:
            return own.new_tensor(torch.nan)
        there = ~whole.isnan().all(0)
        own, whole = own[:, there], whole[:, there]
        scale, offset = calibration(own[::2], whole[::2])
        return circuits_agree(scale * own[1::2] + offset, whole[1::2]).float().mean()
