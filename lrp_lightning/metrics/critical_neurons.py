"""Whether the critical neurons alone give the prediction of the whole network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lrp_lightning.checks import check_tensors
from lrp_lightning.errors import InputError
from lrp_lightning.metrics.mean_over_samples import MeanOverSamples
from lrp_lightning.selection import random_masks

__all__ = ["CriticalNeuronAccuracy", "RandomControl", "prediction_survives"]


def prediction_survives(masked_logits: Tensor, logits: Tensor) -> Tensor:
    """Whether each sample's predicted class is the same with neurons switched off.

    Args:
        masked_logits: ``(N, classes)``, from :func:`lrp_lightning.masked_forward`.
        logits: ``(N, classes)``, of the whole network.

    Returns:
        ``(N,)``, boolean. A sample whose logits are not finite does not survive.

    Raises:
        InputError: unless both are ``(N, classes)`` with at least two classes.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import prediction_survives
        >>> prediction_survives(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[1.0, 5.0], [0.0, 9.0]]))
        tensor([ True, False])
    """
    check_tensors(masked_logits=masked_logits, logits=logits)
    if masked_logits.shape != logits.shape or logits.ndim != 2 or logits.shape[1] < 2:
        raise InputError(
            "logits must both be (N, classes) with at least two classes, got "
            f"{tuple(masked_logits.shape)} and {tuple(logits.shape)}"
        )
    finite = masked_logits.isfinite().all(1) & logits.isfinite().all(1)
    return (masked_logits.argmax(1) == logits.argmax(1)) & finite


class CriticalNeuronAccuracy(MeanOverSamples):
    """Share of samples whose predicted class survives when only the critical neurons are kept.

    Compare it with its control, :class:`RandomControl`. NaN before the first sample.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, TopK, masked_forward
        >>> from lrp_lightning.metrics import CriticalNeuronAccuracy, RandomControl
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3)).eval()
        >>> x = torch.randn(100, 4)
        >>> logits = model(x)
        >>> masks = SelectiveLRP(model, selection=TopK(0.1)).trace(x, target=logits.argmax(1)).masks
        >>> critical, control = CriticalNeuronAccuracy(), RandomControl()
        >>> critical.update(masked_forward(model, x, masks), logits)
        >>> control.update(masked_forward(model, x, control.random_sets(masks)), logits)
        >>> bool(critical.compute() > control.compute())
        True
    """

    higher_is_better: bool | None = True
    plot_upper_bound: float = 1.0
    summed_as: torch.dtype = torch.long

    def update(self, masked_logits: Tensor, logits: Tensor) -> None:
        """Count the samples of one batch; see :func:`prediction_survives`."""
        self.add(prediction_survives(masked_logits, logits))


class RandomControl(CriticalNeuronAccuracy):
    """The control of :class:`CriticalNeuronAccuracy`: the same measure with random sets of the same size.

    Takes logits computed with :meth:`random_sets`. If both are in one ``MetricCollection``, set ``compute_groups=False``.

    Args:
        seed: for its own random generator; the global one does not change.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import RandomControl
        >>> RandomControl(seed=1).random_sets({"conv": torch.tensor([[True, False, False, True]])})["conv"].sum()
        tensor(2)
    """

    higher_is_better: bool | None = None

    def __init__(self, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed: int = seed
        self._drawn = 0

    def random_sets(self, masks: dict[str, Tensor]) -> dict[str, Tensor]:
        """Random sets of the same size, per sample and layer. Each call draws new sets; a reset repeats the sequence.

        Args:
            masks: ``{layer: (N, C) bool}``, as in ``Trace.masks``.

        Returns:
            ``{layer: (N, C) bool}``.
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self._drawn)
        self._drawn += 1
        return random_masks(masks, generator)

    def reset(self) -> None:
        """Reset the metric and the sequence of random sets."""
        super().reset()
        self._drawn = 0
