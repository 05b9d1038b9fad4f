"""Whether relevance is accounted for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lrp_lightning.errors import InputError

__all__ = ["ConservationError"]


class ConservationError(Metric):
    """Mean over samples of ``|input + absorbed - output| / |output|``, ``Trace.conservation_error``.

    0 where both are zero, infinite where only the output is. NaN before the first sample.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP
        >>> from lrp_lightning.metrics import ConservationError
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> metric = ConservationError()
        >>> metric.update(SelectiveLRP(model).trace(torch.randn(5, 4), target=1).conservation_error)
        >>> bool(metric.compute() < 1e-4)
        True
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0

    error: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("error", torch.tensor(0.0, dtype=torch.double), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, error: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            error: ``(N,)``, ``Trace.conservation_error``.

        Raises:
            InputError: if it is not one number a sample.
        """
        if error.ndim != 1:
            raise InputError(f"errors must be (N,), one number a sample, got {tuple(error.shape)}")
        self.error += error.to(self.error.dtype).sum()
        self.total += len(error)

    def compute(self) -> Tensor:
        """The mean over samples."""
        return (self.error / self.total).float()

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """A value, or several over time, as torchmetrics draws them.

        Args:
            val: from :meth:`compute`, or a list of such; None for what is computed now.
            ax: matplotlib's axes to draw in; None for new ones.

        Returns:
            ``(figure, axes)``.
        """
        return self._plot(val, ax)
