"""What most metrics here are: the mean over samples of one value each, exact over batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["Drawn", "MeanOverSamples"]


class Drawn(Metric):
    """A metric that torchmetrics can draw, and whose sums in double precision a device without it can hold."""

    def _apply(self, fn: Callable, exclude_state: Sequence[str] = ()) -> Any:
        try:
            return super()._apply(fn, exclude_state)
        except TypeError:  # Apple's MPS has no double
            for states in (vars(self), self._defaults):
                states.update({n: t.float() for n, t in states.items() if isinstance(t, Tensor) and t.dtype == torch.double})
            return super()._apply(fn, exclude_state)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """A value, or several over time, as torchmetrics draws them.

        Args:
            val: from :meth:`compute`, or a list of such; None for what is computed now.
            ax: matplotlib's axes to draw in; None for new ones.

        Returns:
            ``(figure, axes)``.
        """
        return self._plot(val, ax)


class MeanOverSamples(Drawn):
    """The mean of one value per sample, which an ``update`` hands to :meth:`add`. NaN before the first sample."""

    is_differentiable: bool = False
    full_state_update: bool = False
    plot_lower_bound: float = 0.0
    summed_as: torch.dtype = torch.double
    """Dtype of the sum, whole numbers where values say yes or no."""

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
