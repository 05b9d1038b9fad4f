"""How much of the predicted class's probability critical neurons account for, with the names of measures of rationales.

A rationale is a part of the input that justifies a prediction (DeYoung et al. 2020, "ERASER", section 4). Here the critical
neurons take the place of the words that are kept.
"""

from __future__ import annotations

from torch import Tensor

from lrp_lightning.metrics.accuracy import check_outputs
from lrp_lightning.metrics.contest import check_alike
from lrp_lightning.metrics.mean_over_samples import MeanOverSamples

__all__ = ["Comprehensiveness", "Sufficiency", "probability_lost"]


def probability_lost(masked_logits: Tensor, logits: Tensor) -> Tensor:
    """The probability that the predicted class loses when neurons are switched off.

    Args:
        masked_logits: ``(N, classes)``, from :func:`lrp_lightning.masked_forward`.
        logits: ``(N, classes)``, of the whole network.

    Returns:
        ``(N,)``, in [-1, 1]: its softmax probability in the whole network minus that in the masked network. All of it is
        lost if a masked logit is not finite.

    Raises:
        InputError: unless both are ``(N, classes)`` with at least two classes.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import probability_lost
        >>> probability_lost(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 100.0]]))
        tensor([0.5000])
    """
    check_outputs(logits)
    check_alike(logits, masked_logits=masked_logits)
    predicted = logits.argmax(1, keepdim=True)
    left = masked_logits.softmax(1).gather(1, predicted).where(masked_logits.isfinite().all(1, keepdim=True), 0.0)
    return (logits.softmax(1).gather(1, predicted) - left)[:, 0]


class Sufficiency(MeanOverSamples):
    """Mean probability that the predicted class loses with only the critical neurons; 0 if they suffice.

    DeYoung et al. 2020, equation 2. NaN before the first sample.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import Sufficiency
        >>> metric = Sufficiency()
        >>> metric.update(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 100.0]]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better: bool | None = False
    plot_lower_bound: float = -1.0
    plot_upper_bound: float = 1.0

    def update(self, masked_logits: Tensor, logits: Tensor) -> None:
        """Add the samples of one batch; see :func:`probability_lost`."""
        self.add(probability_lost(masked_logits, logits))


class Comprehensiveness(Sufficiency):
    """Mean probability that the predicted class loses without the critical neurons; high if the prediction depends on them.

    DeYoung et al. 2020, equation 1. Takes the logits of ``masked_forward(..., keep=False)``. NaN before the first sample.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import Comprehensiveness
        >>> metric = Comprehensiveness()
        >>> metric.update(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 100.0]]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better: bool = True
