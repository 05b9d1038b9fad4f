"""Selections: which neurons of a layer, per sample, may carry relevance on.

A selection decides *inside* the backward pass, as the relevance arrives at a layer, so what it keeps below depends on
what it kept above. One's own is a frozen dataclass with the method of :class:`Selection`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from lrp_lightning.errors import SelectionError

__all__ = ["Selection", "TopK", "random_masks"]


@runtime_checkable
class Selection(Protocol):
    """What the engine asks of a selection."""

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        """Choose the neurons that may carry relevance on.

        Args:
            relevance: ``(N, C)``, the relevance that arrived at each neuron, summed over space.
            layer: the layer's name.
            output: ``(N,)``, the output that is explained.

        Returns:
            ``(N, C)``, boolean, True for the critical neurons. No host-device sync, no loop over samples.
        """
        ...


@dataclass(frozen=True)
class TopK:
    """The neurons with the highest relevance in each layer, per sample.

    Args:
        keep: an int is a number of neurons, a float in (0, 1] a share; ``TopK(1)`` is one neuron, ``TopK(1.0)`` all of
            them. At least one is kept, and no more than there are.
        by: ``"relevance"`` ranks by signed relevance, ``"magnitude"`` by its absolute value.

    Raises:
        SelectionError: if ``keep`` or ``by`` is none of these.

    Example:
        >>> import torch
        >>> from lrp_lightning import TopK
        >>> TopK(0.5).select(torch.tensor([[3.0, 1.0, -5.0, 2.0]]), layer="conv", output=torch.ones(1))
        tensor([[ True, False, False,  True]])
    """

    keep: int | float
    by: Literal["relevance", "magnitude"] = "relevance"

    def __post_init__(self) -> None:
        count = isinstance(self.keep, int) and not isinstance(self.keep, bool) and self.keep >= 1
        share = isinstance(self.keep, float) and 0 < self.keep <= 1
        if not (count or share):
            raise SelectionError(
                f"TopK: keep must be a number of neurons (int >= 1) or a share (float in (0, 1]), got {self.keep!r}"
            )
        if self.by not in ("relevance", "magnitude"):
            raise SelectionError(f"TopK: by must be 'relevance' or 'magnitude', got {self.by!r}")

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        """See :meth:`Selection.select`."""
        neurons = relevance.shape[1]
        k = min(self.keep, neurons) if isinstance(self.keep, int) else max(1, round(self.keep * neurons))
        score = relevance.abs() if self.by == "magnitude" else relevance
        kept = torch.zeros_like(relevance, dtype=torch.bool)
        return kept.scatter_(1, score.topk(k, dim=1).indices, True)


def random_masks(masks: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Random sets of the same size, per sample and layer: the control that gives a critical set's accuracy its meaning.

    Args:
        masks: ``{layer: (N, C) bool}``.
        generator: a CPU generator, so that a control is the same on every device and leaves the global RNG alone.

    Returns:
        ``{layer: (N, C) bool}``, on the devices of ``masks``.
    """

    def shuffled(mask: Tensor) -> Tensor:
        order = torch.rand(mask.shape, generator=generator).argsort(dim=1).to(mask.device)
        return mask.gather(1, order)

    return {layer: shuffled(mask) for layer, mask in masks.items()}
