"""Sums by sample and by neuron, for tensors in which samples may have several rows of a dimension."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lrp_lightning.axes import NOBODY, Axis
from lrp_lightning.compat import unrecorded
from lrp_lightning.errors import UnsupportedOperatorError

__all__ = ["BySample", "by_sample", "per_neuron"]


@dataclass(frozen=True, eq=False)
class BySample:
    """Assigns each row of dimension ``dim`` to one of ``n`` samples."""

    n: int
    dim: int
    each: int
    """The number of successive rows of each sample, if they are successive."""
    owner: Tensor | None = None
    """``(rows,)``, otherwise the sample of each row; ``n`` for rows that belong to no sample."""

    def sum(self, rows: Tensor) -> Tensor:
        """``(rows, ...)`` summed by sample: ``(N, ...)``. Rows of no sample are left out."""
        if self.owner is not None:
            summed = rows.new_zeros(self.n + 1, *rows.shape[1:])
            return summed.index_add_(0, self.owner.to(rows.device), rows)[: self.n]
        return rows if self.each == 1 else rows.unflatten(0, (self.n, self.each)).sum(1)

    def stray(self, rows: Tensor) -> Tensor | None:
        """The magnitude of what ``sum`` leaves out; None if every row belongs to a sample."""
        if self.owner is None or not _is_among(self.n, self.owner):
            return None
        return rows[(self.owner == self.n).to(rows.device)].abs().sum()

    def spread(self, values: Tensor) -> Tensor:
        """``(N, ...)``, one value per sample, repeated for each of its rows."""
        if self.owner is not None:
            values = torch.cat([values, torch.zeros_like(values[:1])])
            return values.index_select(0, self.owner.to(values.device))
        return values if self.each == 1 else values.repeat_interleave(self.each, 0)

    def over(self, values: Tensor, t: Tensor, neurons: int | None = None) -> Tensor:
        """``(N,)``, or ``(N, C)`` for each of its ``neurons``, shaped to broadcast over ``t``."""
        rows = self.spread(values)
        shape = [1] * t.ndim
        shape[self.dim] = len(rows)
        if neurons is None:
            return rows.view(shape)
        shape[neurons] = rows.shape[1]
        return (rows if self.dim < neurons else rows.T).reshape(shape)

    def first(self, t: Tensor) -> Tensor:
        """``t`` with samples first, ``(N, ...)``; several rows per sample get a dimension of their own."""
        t = t.movedim(self.dim, 0)
        if not self.even:
            raise UnsupportedOperatorError(
                "samples have different numbers of rows here, so relevance cannot be assigned to single values"
            )
        if self.owner is None:
            return t if self.each == 1 else t.unflatten(0, (self.n, self.each))
        order = self.owner.argsort(stable=True)
        return t.index_select(0, order.to(t.device)).unflatten(0, (self.n, -1))

    def as_first(self, values: Tensor, t: Tensor) -> Tensor:
        """The inverse of :meth:`first`, shaped like ``t``."""
        values = values.reshape(t.movedim(self.dim, 0).shape)
        if self.owner is not None:
            order = self.owner.argsort(stable=True)
            values = values.index_select(0, order.argsort().to(values.device))
        return values.movedim(0, self.dim)

    @property
    @unrecorded()
    def even(self) -> bool:
        """Whether each sample has the same number of rows, and every row belongs to a sample."""
        if self.owner is None:
            return True
        counts = torch.bincount(self.owner, minlength=self.n)
        return len(counts) == self.n and bool((counts == counts[0]).all())


@unrecorded()
def _is_among(n: int, owner: Tensor) -> bool:
    return bool((owner == n).any())


def by_sample(axis: Axis, n: int, neurons: int | None) -> BySample | None:
    """The rows of a tensor's samples; None if samples vary along several dimensions, or along that of the neurons."""
    dims = axis.dims
    if len(dims) > 1 or dims == [neurons] or not axis.shape:
        return None
    dim = dims[0] if dims else 1 if neurons == 0 else 0
    if dim >= len(axis.shape):
        return None
    rows, term = axis.shape[dim], axis.terms[dim]
    if term is None and n == 1:
        return BySample(1, dim, rows)
    if term is not None and term.outer == 1 and term.labels == range(n):
        return BySample(n, dim, term.inner)
    with unrecorded():
        owner = torch.tensor([n if label == NOBODY else label for label in axis.listed(dim)], dtype=torch.long)
    return BySample(n, dim, 0, owner)


def per_neuron(t: Tensor, neurons: int, samples: int) -> Tensor:
    """``t`` summed over all but two dimensions: ``(rows, C)``, in new memory."""
    others = [d for d in range(t.ndim) if d not in (samples, neurons)]
    t = t.sum(others) if others else t.clone()
    return t if samples < neurons else t.T
