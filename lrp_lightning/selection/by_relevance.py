"""Selections that use only the relevance that arrives at a layer."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from lrp_lightning.checks import is_number
from lrp_lightning.errors import SelectionError
from lrp_lightning.selection.budget import check_budget, number_of

__all__ = ["Coverage", "Threshold", "TopK"]


@dataclass(frozen=True, repr=False, kw_only=True)
class _Chosen:
    """The common part of selections by relevance.

    Args:
        unit: what is selected: ``"channel"``, or ``"element"``, single values of the layer's output.
        rescale: scale the kept relevance, per sample and layer, so that its sum is that of the whole layer; not if the kept
            relevance sums to zero.
    """

    unit: Literal["channel", "element"] = "channel"
    rescale: bool = False

    def __post_init__(self) -> None:
        if self.unit not in ("channel", "element"):
            raise SelectionError(f"{type(self).__name__}: unit must be 'channel' or 'element', got {self.unit!r}")
        if not isinstance(self.rescale, bool):
            raise SelectionError(f"{type(self).__name__}: rescale must be True or False, got {self.rescale!r}")

    def __repr__(self) -> str:
        own = [f for f in fields(self) if not f.kw_only]
        changed = [f for f in fields(self) if f.kw_only and getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in own + changed)})"


@dataclass(frozen=True, repr=False)
class TopK(_Chosen):
    """The neurons with the most relevance in each layer, per sample.

    Args:
        keep: an int is the number of neurons per layer, a float in (0, 1] a share of them; ``TopK(1)`` is one neuron,
            ``TopK(1.0)`` all of them, ``TopK(10)`` ten neurons and ``TopK(0.1)`` ten per cent. At least one neuron is kept,
            and at most all.
        by: ``"magnitude"`` ranks by absolute relevance, ``"relevance"`` by signed relevance. Neurons that oppose a class
            belong to the decision too: the supporting neurons alone make any image look like the class, so they win fewer
            contests (:func:`lrp_lightning.contest`) and force their class.
        unit: what is selected: ``"channel"``, or ``"element"``, single values of the layer's output.
        rescale: scale the kept relevance, per sample and layer, so that its sum is that of the whole layer.

    Raises:
        SelectionError: if an argument is not one of these.

    Example:
        >>> import torch
        >>> from lrp_lightning import TopK
        >>> TopK(0.5).select(torch.tensor([[3.0, 1.0, -5.0, 2.0]]), layer="conv", output=torch.ones(1))
        tensor([[ True, False,  True, False]])
        >>> TopK(0.5, by="relevance").select(torch.tensor([[3.0, 1.0, -5.0, 2.0]]), layer="conv", output=torch.ones(1))
        tensor([[ True, False, False,  True]])
    """

    keep: int | float
    by: Literal["magnitude", "relevance"] = "magnitude"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "keep", check_budget("TopK", self.keep))
        if self.by not in ("magnitude", "relevance"):
            raise SelectionError(f"TopK: by must be 'magnitude' or 'relevance', got {self.by!r}")

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        """See :meth:`Selection.select`."""
        flat = relevance.flatten(1)
        score = flat.abs() if self.by == "magnitude" else flat
        kept = torch.zeros_like(flat, dtype=torch.bool)
        kept.scatter_(1, score.topk(number_of(self.keep, flat.shape[1]), dim=1).indices, True)
        return kept.view(relevance.shape)


@dataclass(frozen=True, repr=False)
class Coverage(_Chosen):
    """The fewest neurons that carry a share of the layer's positive relevance, per sample.

    With ``rescale=True`` this is pruned LRP, PLRP-lambda (Yanez Sarmiento et al. 2024, arXiv 2404.14271). Where no relevance
    is positive, no neuron is kept.

    Args:
        share: of the sum of the layer's positive relevance, in (0, 1].
        unit, rescale: as in :class:`TopK`.

    Raises:
        SelectionError: if an argument is not one of these.

    Example:
        >>> import torch
        >>> from lrp_lightning import Coverage
        >>> Coverage(0.8).select(torch.tensor([[5.0, 1.0, -5.0, 4.0]]), layer="conv", output=torch.ones(1))
        tensor([[ True, False, False,  True]])
    """

    share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.share) and 0 < self.share <= 1):
            raise SelectionError(f"Coverage: share must be in (0, 1], got {self.share!r}")

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        """See :meth:`Selection.select`."""
        positive, order = relevance.flatten(1).clamp(min=0).sort(dim=1, descending=True, stable=True)
        carried = positive.cumsum(1)
        before = carried.roll(1, 1).index_fill(1, carried.new_zeros(1, dtype=torch.long), 0)
        kept = before < self.share * carried[:, -1:]
        return torch.zeros_like(kept).scatter_(1, order, kept).view(relevance.shape)


@dataclass(frozen=True, repr=False)
class Threshold(_Chosen):
    """The neurons that carry more than a share of the output, per sample; possibly no neuron.

    If the output is negative, neurons with negative relevance are selected.

    Args:
        share: of the output that is explained, in [0, 1).
        unit, rescale: as in :class:`TopK`.

    Raises:
        SelectionError: if an argument is not one of these.

    Example:
        >>> import torch
        >>> from lrp_lightning import Threshold
        >>> Threshold(0.25).select(torch.tensor([[5.0, 1.0, -5.0, 4.0]]), layer="conv", output=torch.tensor([5.0]))
        tensor([[ True, False, False,  True]])
    """

    share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.share) and 0 <= self.share < 1):
            raise SelectionError(f"Threshold: share must be in [0, 1), got {self.share!r}")

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        """See :meth:`Selection.select`."""
        output = output.view(-1, *[1] * (relevance.ndim - 1))
        return relevance * output.sign() > self.share * output.abs()
