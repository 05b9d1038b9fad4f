"""Whether critical neurons distinguish classes: each class's logit is computed with that class's own neurons alone.

It proves little that a class's neurons keep its prediction: neurons that support a class make any image look like it. In
the contest the runner-up also gets its own neurons, and the predicted class must win against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import PearsonCorrCoef

from lrp_lightning.checks import check_tensors
from lrp_lightning.errors import InputError
from lrp_lightning.metrics.accuracy import check_outputs, label_predicted
from lrp_lightning.metrics.mean_over_samples import MeanOverSamples

__all__ = [
    "CircuitAgreement", "ContestAccuracy", "LogitCorrelation", "RunnerUpAccuracy", "check_alike", "circuits_agree",
    "contest_won", "runner_up", "runner_up_wins",
]  # fmt: skip


def runner_up(logits: Tensor) -> Tensor:
    """The class with the second highest logit of each sample.

    Args:
        logits: ``(N, classes)``, of the whole network.

    Returns:
        ``(N,)``, integers.

    Raises:
        InputError: unless there are at least two classes.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import runner_up
        >>> runner_up(torch.tensor([[1.0, 5.0, 3.0], [2.0, 0.0, 1.0]]))
        tensor([2, 2])
    """
    check_outputs(logits)
    first, second = logits.topk(2, dim=1).indices.unbind(1)
    return torch.where(second == logits.argmax(1), first, second)  # for a tie, topk and argmax may order classes differently


def own_logits_of(entries: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The first argument of :func:`contest_won`, ``(N, classes)``: each class's logit with its own neurons, otherwise NaN.

    Args:
        entries: pairs of classes, ``(N,)``, and the logits with these classes' critical neurons, ``(N, classes)``.
    """
    own = torch.full_like(entries[0][1], torch.nan)
    for classes, masked_logits in entries:
        own.scatter_(1, classes[:, None], masked_logits.gather(1, classes[:, None]))
    return own


def contest_won(own_logits: Tensor, logits: Tensor) -> Tensor:
    """Whether the predicted class wins where each class's logit is computed with that class's own critical neurons.

    Args:
        own_logits: ``(N, classes)``, column ``c`` the logit of class ``c`` with only the neurons that are critical for it,
            as :func:`lrp_lightning.contest` returns it; NaN for classes that do not take part.
        logits: ``(N, classes)``, of the whole network, which predicts.

    Returns:
        ``(N,)``, boolean. A tie is lost, and so is a contest in which the predicted class's logit is not finite.

    Raises:
        InputError: unless both are ``(N, classes)`` with at least two classes, and a class other than the predicted one
            takes part for every sample.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import contest_won
        >>> logits = torch.tensor([[0.0, 5.0, 3.0], [0.0, 5.0, 3.0]])
        >>> contest_won(torch.tensor([[torch.nan, 4.0, 3.0], [torch.nan, 4.0, 6.0]]), logits)
        tensor([ True, False])
    """
    check_outputs(logits)
    check_alike(logits, own_logits=own_logits)
    predicted = logits.argmax(1, keepdim=True)
    rivals = own_logits.scatter(1, predicted, torch.nan)
    if own_logits.device.type == "cpu" and bool(rivals.isnan().all(1).any()):
        raise InputError("own_logits must have the logit of another class than the predicted one, for every sample")
    mine = own_logits.gather(1, predicted).flatten()
    return mine.isfinite() & (mine > rivals.nan_to_num(-torch.inf, torch.inf).amax(1))


def runner_up_wins(masked_logits: Tensor, logits: Tensor) -> Tensor:
    """Whether the network predicts the runner-up when only the neurons critical for the runner-up are kept.

    Args:
        masked_logits: ``(N, classes)``, with only the runner-up's critical neurons.
        logits: ``(N, classes)``, of the whole network.

    Returns:
        ``(N,)``, boolean. False where logits are not finite.

    Raises:
        InputError: unless both are ``(N, classes)`` with at least two classes.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import runner_up_wins
        >>> logits = torch.tensor([[0.0, 5.0, 3.0], [5.0, 0.0, 3.0]])
        >>> runner_up_wins(torch.tensor([[1.0, 2.0, 4.0], [9.0, 0.0, 1.0]]), logits)
        tensor([ True, False])
    """
    check_outputs(logits)
    check_alike(logits, masked_logits=masked_logits)
    return label_predicted(masked_logits, runner_up(logits))


def check_alike(logits: Tensor, **given: Tensor) -> None:
    """Raise an error for logits, given by name, that are not shaped like those of the whole network.

    Raises:
        InputError: naming both shapes.
    """
    check_tensors(**given)
    [(name, tensor)] = given.items()
    if tensor.shape != logits.shape:
        raise InputError(f"{name} and logits must both be (N, classes), got {tuple(tensor.shape)} and {tuple(logits.shape)}")


def circuits_agree(own_logits: Tensor, logits: Tensor) -> Tensor:
    """Whether the class whose circuit gives the highest logit is the one that the whole network predicts.

    Args:
        own_logits: ``(N, classes)``, column ``c`` the logit of class ``c`` with its circuit alone, as
            :meth:`lrp_lightning.Circuits.logits` returns it; NaN for classes without a circuit, which are also ignored in
            ``logits``.
        logits: ``(N, classes)``, of the whole network.

    Returns:
        ``(N,)``, boolean. False where the highest logit is not finite.

    Raises:
        InputError: unless both are ``(N, classes)`` with at least two classes.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import circuits_agree
        >>> logits = torch.tensor([[0.0, 5.0, 3.0], [4.0, 0.0, 3.0]])
        >>> circuits_agree(torch.tensor([[0.0, 2.0, 1.0], [0.0, 2.0, 1.0]]), logits)
        tensor([ True, False])
    """
    check_outputs(logits)
    check_alike(logits, own_logits=own_logits)
    highest, predicted = own_logits.nan_to_num(-torch.inf, torch.inf).max(1)
    return highest.isfinite() & (predicted == logits.masked_fill(own_logits.isnan(), -torch.inf).argmax(1))


class ContestAccuracy(MeanOverSamples):
    """Share of samples whose predicted class wins the contest: each class's logit from that class's own critical neurons.

    Sets without information win half of the contests of two classes, whatever their size; so do sets that force their
    class, which :class:`RunnerUpAccuracy` reveals. NaN before the first sample.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, TopK, contest
        >>> from lrp_lightning.metrics import ContestAccuracy
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3)).eval()
        >>> held = contest(SelectiveLRP(model, "epsilon", TopK(0.5)), torch.randn(100, 4))
        >>> metric = ContestAccuracy()
        >>> metric.update(held.own_logits, held.logits)
        >>> bool(metric.compute() > 0.8)
        True
    """

    higher_is_better: bool = True
    plot_upper_bound: float = 1.0
    summed_as: torch.dtype = torch.long

    def update(self, own_logits: Tensor, logits: Tensor) -> None:
        """Count the samples of one batch; see :func:`contest_won`."""
        self.add(contest_won(own_logits, logits))


class RunnerUpAccuracy(MeanOverSamples):
    """Share of samples in which the runner-up's own critical neurons make it win: low unless sets force their class.

    NaN before the first sample.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import RunnerUpAccuracy
        >>> metric = RunnerUpAccuracy()
        >>> metric.update(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[3.0, 2.0], [1.0, 0.0]]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better: bool = False
    plot_upper_bound: float = 1.0
    summed_as: torch.dtype = torch.long

    def update(self, masked_logits: Tensor, logits: Tensor) -> None:
        """Count the samples of one batch; see :func:`runner_up_wins`."""
        self.add(runner_up_wins(masked_logits, logits))


class CircuitAgreement(MeanOverSamples):
    """Share of samples whose class is recognised from circuits, the logit of each class computed with its own circuit.

    Compare it with the share of the most frequent class, or with random circuits. NaN before the first sample.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import CircuitAgreement
        >>> metric = CircuitAgreement()
        >>> metric.update(torch.tensor([[0.0, 2.0, 1.0], [0.0, 2.0, 1.0]]), torch.tensor([[0.0, 5.0, 3.0], [4.0, 0.0, 3.0]]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better: bool = True
    plot_upper_bound: float = 1.0
    summed_as: torch.dtype = torch.long

    def update(self, own_logits: Tensor, logits: Tensor) -> None:
        """Count the samples of one batch; see :func:`circuits_agree`."""
        self.add(circuits_agree(own_logits, logits))


class LogitCorrelation(PearsonCorrCoef):
    """Pearson's correlation, over samples, of the predicted class's logit with its own neurons and in the whole network.

    NaN before the second sample.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import LogitCorrelation
        >>> metric = LogitCorrelation()
        >>> logits = torch.tensor([[1.0, 5.0], [3.0, 0.0], [9.0, 2.0]])
        >>> metric.update(0.5 * logits, logits)
        >>> metric.compute()
        tensor(1.)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(num_outputs=1, **kwargs)

    def update(self, masked_logits: Tensor, logits: Tensor) -> None:
        """Add the samples of one batch.

        Args:
            masked_logits: ``(N, classes)``, with only the critical neurons.
            logits: ``(N, classes)``, of the whole network.

        Raises:
            InputError: unless both are ``(N, classes)`` with at least two classes.
        """
        check_outputs(logits)
        check_alike(logits, masked_logits=masked_logits)
        predicted = logits.argmax(1, keepdim=True)
        super().update(masked_logits.gather(1, predicted)[:, 0].float(), logits.gather(1, predicted)[:, 0].float())
