"""The control for measures of critical neurons: random neurons."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["random_masks"]


def random_masks(masks: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Random sets of the same size, per sample and layer, as a control for the accuracy of critical neurons.

    Args:
        masks: ``{layer: (N, C) bool}``, as in ``Trace.masks``.
        generator: a CPU generator, so that the sets are the same on every device and the global RNG does not change.

    Returns:
        ``{layer: (N, C) bool}``, shaped like ``masks`` and on their devices.
    """

    def shuffled(mask: Tensor) -> Tensor:
        flat = mask.flatten(1)
        order = torch.rand(flat.shape, generator=generator).argsort(dim=1).to(mask.device)
        return flat.gather(1, order).view(mask.shape)

    return {layer: shuffled(mask) for layer, mask in masks.items()}
