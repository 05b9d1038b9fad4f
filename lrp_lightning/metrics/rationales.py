"""How much of the predicted class's probability critical neurons account for, named as measures of rationales are.

A rationale is a part of the input that is to justify a prediction (DeYoung et al. 2020, "ERASER", section 4); here it is the
critical neurons, which stand in the masked forward for the words that are kept.
"""

from __future__ import annotations

from torch import Tensor

from lrp_lightning.metrics.accuracy import check_outputs
from lrp_lightning.metrics.contest import check_alike
from lrp_lightning.metrics.mean_over_samples import MeanOverSamples

__all__ = ["Comprehensiveness", "Sufficiency", "probability_lost"]


def probability_lost(masked_logits: Tensor, logits: Tensor) -> Tensor:
    """What the predicted class loses of its probability when neurons are switched off.

    Args:
        masked_logits: ``(N, classes)``, from :func:`lrp_lightning.masked_forward`.
        logits: ``(N, classes)``, of the whole network.

    Returns:
        ``(N,)``, in [-1, 1]: its softmax probability in the whole network less that in the masked one. The whole of it is
        lost where a masked logit is not finite.

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
    """Mean probability that the predicted class loses with all but the critical neurons; high if they are all it rests on.

    DeYoung et al. 2020, equation 1. Fed with ``masked_forward(..., keep=False)``. NaN before the first sample.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import Comprehensiveness
        >>> metric = Comprehensiveness()
        >>> metric.update(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 100.0]]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better: bool = True
