"""Relevance normalised per sample, so that strong samples and layers do not dominate weak ones."""

from __future__ import annotations

import torch
from torch import Tensor

from lrp_lightning.compat import in_double

__all__ = ["as_shares"]


def as_shares(relevance: Tensor) -> Tensor:
    """Each sample's relevance, ``(N, ...)``, divided by its sum of magnitudes, in double precision; 0 if that sum is 0."""
    relevance = in_double(relevance)
    whole = relevance.flatten(1).abs().sum(1).view(-1, *[1] * (relevance.ndim - 1))
    return torch.where(whole > 0, relevance / torch.where(whole > 0, whole, 1), 0)
