"""Whether relevance is accounted for."""

from __future__ import annotations

from torch import Tensor

from lrp_lightning.errors import InputError
from lrp_lightning.metrics.mean_over_samples import MeanOverSamples

__all__ = ["ConservationError"]


class ConservationError(MeanOverSamples):
    """Mean over samples of ``|input + absorbed - output| / |output|``, ``Trace.conservation_error``.

    0 if numerator and output are zero, infinite if only the output is. NaN before the first sample.

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

    higher_is_better: bool = False

    def update(self, error: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            error: ``(N,)``, ``Trace.conservation_error``.

        Raises:
            InputError: if it is not one number per sample.
        """
        if not isinstance(error, Tensor) or error.ndim != 1:
            given = tuple(error.shape) if isinstance(error, Tensor) else type(error).__name__
            raise InputError(
                f"errors must be a tensor (N,), one number per sample, such as trace.conservation_error, got {given}"
            )
        self.add(error)
