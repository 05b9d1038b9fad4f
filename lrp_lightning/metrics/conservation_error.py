"""Whether relevance is accounted for."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchmetrics import MeanMetric

from lrp_lightning.errors import InputError

__all__ = ["ConservationError"]


class ConservationError(MeanMetric):
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

    higher_is_better = False  # type: ignore[assignment]
    plot_lower_bound = 0.0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(nan_strategy="disable", **kwargs)

    def update(self, error: Tensor) -> None:  # type: ignore[override]
        """Add the samples of one batch, ``(N,)``.

        Raises:
            InputError: if it is not one number a sample.
        """
        if error.ndim != 1:
            raise InputError(f"errors must be (N,), one number a sample, got {tuple(error.shape)}")
        if len(error):
            super().update(error)
