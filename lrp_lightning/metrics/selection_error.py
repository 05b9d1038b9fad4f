"""How far the logits of the critical neurons alone are from those of the whole network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from lrp_lightning.checks import check_tensors
from lrp_lightning.errors import InputError
from lrp_lightning.errors import SelectionError as SelectionProblem
from lrp_lightning.metrics.mean_over_samples import MeanOverSamples

__all__ = ["MEASURES", "SelectionError", "check_measure", "mse", "smape"]


def smape(masked_logits: Tensor, logits: Tensor) -> Tensor:
    """Symmetric mean absolute percentage error: mean over classes of ``2 |f_S - f| / (|f_S| + |f|)``, where 0/0 is 0.

    Args:
        masked_logits: ``(N, classes)``, ``f_S``.
        logits: ``(N, classes)``, ``f``, of the whole network.

    Returns:
        ``(N,)``, in [0, 2]. 2 where a logit is not finite.

    Raises:
        InputError: unless both are ``(N, classes)``.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import smape
        >>> smape(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]]))
        tensor([0.5000])
    """
    _check(masked_logits, logits)
    size = masked_logits.abs() + logits.abs()
    part = torch.where(size == 0, 0, 2 * (masked_logits - logits).abs() / torch.where(size == 0, 1, size))
    return part.nan_to_num(2.0).mean(1)


def mse(masked_logits: Tensor, logits: Tensor) -> Tensor:
    """Mean squared error: the mean over classes of ``(f_S - f)^2``, in the square of the logits' unit.

    Args:
        masked_logits: ``(N, classes)``, ``f_S``.
        logits: ``(N, classes)``, ``f``, of the whole network.

    Returns:
        ``(N,)``. Infinite where a logit is not finite.

    Raises:
        InputError: unless both are ``(N, classes)``.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import mse
        >>> mse(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]]))
        tensor([2.])
    """
    _check(masked_logits, logits)
    return (masked_logits - logits).square().nan_to_num(torch.inf, torch.inf).mean(1)


MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"smape": smape, "mse": mse}


def check_measure(name: str, measure: str) -> None:
    """Raise an error for an unknown measure.

    Raises:
        SelectionError: naming the known measures.
    """
    if measure not in MEASURES:
        raise SelectionProblem(f"{name}: measure must be one of {sorted(MEASURES)}, got {measure!r}")


class SelectionError(MeanOverSamples):
    """Mean error of the logits with only the critical neurons kept. NaN before the first sample.

    Args:
        measure: ``"smape"`` or ``"mse"``; see :func:`smape` and :func:`mse`.

    Raises:
        lrp_lightning.errors.SelectionError: if ``measure`` is neither.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import SelectionError
        >>> metric = SelectionError("smape")
        >>> metric.update(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better: bool = False

    def __init__(self, measure: Literal["smape", "mse"] = "smape", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_measure("SelectionError", measure)
        self.measure = measure

    def update(self, masked_logits: Tensor, logits: Tensor) -> None:
        """Add the errors of one batch.

        Args:
            masked_logits: ``(N, classes)``, with only the critical neurons.
            logits: ``(N, classes)``, of the whole network.

        Raises:
            InputError: unless both are ``(N, classes)``.
        """
        self.add(MEASURES[self.measure](masked_logits, logits))


def _check(masked_logits: Tensor, logits: Tensor) -> None:
    check_tensors(masked_logits=masked_logits, logits=logits)
    if masked_logits.shape != logits.shape or logits.ndim != 2 or not logits.shape[1]:
        raise InputError(f"logits must both be (N, classes), got {tuple(masked_logits.shape)} and {tuple(logits.shape)}")
