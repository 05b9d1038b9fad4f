"""The base of most metrics here: the mean over samples of one value per sample, exact over batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["Drawn", "MeanOverSamples"]


class Drawn(Metric):
    """A metric that torchmetrics can plot, with sums in double precision if the device supports it."""

    def _apply(self, fn: Callable, exclude_state: Sequence[str] = ()) -> Any:
        try:
            return super()._apply(fn, exclude_state)
        except TypeError:  # Apple's MPS has no double precision
            for states in (vars(self), self._defaults):
                states.update({n: t.float() for n, t in states.items() if isinstance(t, Tensor) and t.dtype == torch.double})
            return super()._apply(fn, exclude_state)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot a value, or several over time, as torchmetrics does.

        Args:
            val: from :meth:`compute`, or a list of these; None to compute it now.
            ax: matplotlib's axes to draw in; None for new ones.

        Returns:
            ``(figure, axes)``.
        """
        return self._plot(val, ax)


class MeanOverSamples(Drawn):
    """The mean of one value per sample, which ``update`` passes to :meth:`add`. NaN before the first sample."""

    is_differentiable: bool = False
    full_state_update: bool = False
    plot_lower_bound: float = 0.0
    summed_as: torch.dtype = torch.double
    """Dtype of the sum; integer if values are boolean."""

    summed: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("summed", torch.tensor(0, dtype=self.summed_as), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def add(self, values: Tensor) -> None:
        """Add the values of one batch, ``(N,)``."""
        self.summed += values.to(self.summed.dtype).sum()
        self.total += values.numel()

    def compute(self) -> Tensor:
        """The mean over samples."""
        return (self.summed / self.total).float()
