"""Accuracy against the labels with only the critical neurons, and with all but them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lrp_lightning.errors import InputError

__all__ = ["AblatedAccuracy", "RetainedAccuracy", "label_predicted"]


def label_predicted(masked_logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each sample's label is predicted with neurons switched off.

    Args:
        masked_logits: ``(N, classes)``, from :func:`lrp_lightning.masked_forward`.
        labels: ``(N,)``, integers.

    Returns:
        ``(N,)``, boolean. A sample whose logits are not finite is wrong.

    Raises:
        InputError: unless logits are ``(N, classes)`` with at least two classes, and labels integers ``(N,)``.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import label_predicted
        >>> label_predicted(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1, 1]))
        tensor([ True, False])
    """
    if masked_logits.ndim != 2 or masked_logits.shape[1] < 2:
        raise InputError(f"logits must be (N, classes) with at least two classes, got {tuple(masked_logits.shape)}")
    if labels.shape != masked_logits.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(
            f"labels must be integers, one for each of {len(masked_logits)} samples, "
            f"got {labels.dtype} {tuple(labels.shape)}"
        )
    return (masked_logits.argmax(1) == labels) & masked_logits.isfinite().all(1)


class RetainedAccuracy(Metric):
    """Share of samples whose label is predicted with only the critical neurons kept. NaN before the first sample.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import RetainedAccuracy
        >>> metric = RetainedAccuracy()
        >>> metric.update(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1, 1]))
        >>> metric.compute()
        tensor(0.5000)
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    correct: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, masked_logits: Tensor, labels: Tensor) -> None:
        """Count the samples of one batch; see :func:`label_predicted`."""
        right = label_predicted(masked_logits, labels)
        self.correct += right.sum()
        self.total += right.numel()

    def compute(self) -> Tensor:
        """The share, in [0, 1]."""
        return self.correct / self.total

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """A value, or several over time, as torchmetrics draws them.

        Args:
            val: from :meth:`compute`, or a list of such; None for what is computed now.
            ax: matplotlib's axes to draw in; None for new ones.

        Returns:
            ``(figure, axes)``.
        """
        return self._plot(val, ax)


class AblatedAccuracy(RetainedAccuracy):
    """Share of samples whose label is predicted with all but the critical neurons: low if the critical ones decide.

    Fed with ``masked_forward(..., keep=False)``. NaN before the first sample.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import AblatedAccuracy
        >>> metric = AblatedAccuracy()
        >>> metric.update(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1, 1]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = False
