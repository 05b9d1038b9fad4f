"""Accuracy against the labels with only the critical neurons, and with all others."""

from __future__ import annotations

import torch
from torch import Tensor

from lrp_lightning.checks import check_tensors
from lrp_lightning.errors import InputError
from lrp_lightning.metrics.mean_over_samples import MeanOverSamples

__all__ = ["AblatedAccuracy", "RetainedAccuracy", "label_predicted"]


def check_outputs(logits: Tensor) -> None:
    """Raise an error unless logits are ``(N, classes)``.

    Raises:
        InputError: unless they are ``(N, classes)`` with at least two classes.
    """
    check_tensors(logits=logits)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise InputError(f"logits must be (N, classes) with at least two classes, got {tuple(logits.shape)}")


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
    check_tensors(masked_logits=masked_logits, labels=labels)
    check_outputs(masked_logits)
    if labels.shape != masked_logits.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(
            f"labels must be integers, one for each of {len(masked_logits)} samples, "
            f"got {labels.dtype} {tuple(labels.shape)}"
        )
    return (masked_logits.argmax(1) == labels) & masked_logits.isfinite().all(1)


class RetainedAccuracy(MeanOverSamples):
    """Share of samples whose label is predicted with only the critical neurons kept. NaN before the first sample.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import RetainedAccuracy
        >>> metric = RetainedAccuracy()
        >>> metric.update(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1, 1]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better: bool | None = True
    plot_upper_bound: float = 1.0
    summed_as: torch.dtype = torch.long

    def update(self, masked_logits: Tensor, labels: Tensor) -> None:
        """Count the samples of one batch; see :func:`label_predicted`."""
        self.add(label_predicted(masked_logits, labels))


class AblatedAccuracy(RetainedAccuracy):
    """Share of samples whose label is predicted with all but the critical neurons: low if the critical ones decide.

    Takes the logits of ``masked_forward(..., keep=False)``. NaN before the first sample.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import AblatedAccuracy
        >>> metric = AblatedAccuracy()
        >>> metric.update(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1, 1]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better: bool = False
