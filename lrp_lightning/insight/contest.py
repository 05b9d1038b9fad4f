"""The contest: classes are given their own critical neurons, one after the other, and their logits are compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from lrp_lightning.attribution import SelectiveLRP
from lrp_lightning.checks import got
from lrp_lightning.errors import SelectionError
from lrp_lightning.masking import masked_forward
from lrp_lightning.metrics.accuracy import check_outputs
from lrp_lightning.metrics.contest import contest_won, own_logits_of, runner_up_wins
from lrp_lightning.selection import random_masks
from lrp_lightning.words import percent

__all__ = ["Contest", "check_selects", "contest"]


@dataclass(frozen=True, eq=False)
class Contest:
    """The result of a contest between classes, each with its own critical neurons.

    Attributes:
        logits: ``(N, classes)``, of the whole network.
        own_logits: ``(N, classes)``, for each class that took part the logit with its own critical neurons alone; NaN for
            all others.
        control: the same with random sets of the same size.
        with_predicted: ``(N, classes)``, all logits with the predicted class's neurons.
        with_runner_up: ``(N, classes)``, all logits with the runner-up's.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, TopK, contest
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3)).eval()
        >>> held = contest(SelectiveLRP(model, selection=TopK(1.0)), torch.randn(100, 4))
        >>> held.accuracy, held.runner_up_accuracy
        (1.0, 0.0)
    """

    logits: Tensor
    own_logits: Tensor
    control: Tensor
    with_predicted: Tensor
    with_runner_up: Tensor

    @staticmethod
    def joined(parts: Iterable[Contest]) -> Contest:
        """Concatenate several contests.

        Args:
            parts: the contests, such as those of batches.
        """
        parts = list(parts)
        return Contest(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Contest)))

    @property
    def accuracy(self) -> float:
        """The share of samples whose predicted class wins."""
        return float(contest_won(self.own_logits, self.logits).float().mean())

    @property
    def control_accuracy(self) -> float:
        """The same with random sets, which win about half of the contests between two classes."""
        return float(contest_won(self.control, self.logits).float().mean())

    @property
    def runner_up_accuracy(self) -> float:
        """The share of samples in which the runner-up's own neurons make the runner-up win."""
        return float(runner_up_wins(self.with_runner_up, self.logits).float().mean())

    @property
    def correlation(self) -> float:
        """Pearson's correlation over samples of the predicted class's logit by its own neurons and by the network."""
        predicted = self.logits.argmax(1, keepdim=True)
        both = torch.cat([self.with_predicted.gather(1, predicted), self.logits.gather(1, predicted)], 1)
        return float(torch.corrcoef(both.T)[0, 1])

    def __repr__(self) -> str:
        return (
            f"Contest({len(self.logits)} samples: won {self.accuracy:.3f}, with random sets {self.control_accuracy:.3f}; "
            f"runner-up wins with its own neurons {self.runner_up_accuracy:.3f}; correlation of logits "
            f"{self.correlation:.2f})"
        )

    def _repr_html_(self) -> str:
        """For a notebook: the figures, as in the report."""
        from lrp_lightning.html.markup import part

        shares = {
            "won with its own neurons": self.accuracy,
            "won with random neurons": self.control_accuracy,
            "runner-up wins with its own neurons": self.runner_up_accuracy,
        }
        figures = [(name, percent(share)) for name, share in shares.items()]
        return part(
            f"Contest of {len(self.logits):,} samples",
            ("figures", [*figures, ("correlation of logits", f"{self.correlation:.2f}")]),
        )


def contest(
    lrp: SelectiveLRP,
    inputs: Tensor | tuple[Tensor, ...],
    rivals: int = 1,
    additional_forward_args: Any = None,
    seed: int = 0,
) -> Contest:
    """Give the predicted class and its rivals their own critical neurons, and compare their logits.

    For each sample and class one pass finds the neurons, and one masked forward computes the logit with them alone.

    Args:
        lrp: with a selection, which finds the neurons.
        inputs: one tensor, or a tuple of them, samples first.
        rivals: number of other classes that take part, those with the highest logits; 1 is the runner-up.
        additional_forward_args: passed to the model after ``inputs``.
        seed: for the random sets.

    Raises:
        SelectionError: if ``lrp`` has no selection, or ``rivals`` is not 1 to the number of other classes.
        InputError: if there are fewer than two classes.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, TopK, contest
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3)).eval()
        >>> x = torch.randn(100, 4)
        >>> forcing = contest(SelectiveLRP(model, "epsilon", TopK(0.2, by="relevance")), x)
        >>> telling = contest(SelectiveLRP(model, "epsilon", TopK(0.2)), x)
        >>> forcing.accuracy < telling.accuracy, forcing.runner_up_accuracy > telling.runner_up_accuracy
        (True, True)
    """
    check_selects("contest", lrp)
    first = lrp.trace(inputs, lambda output: output.argmax(1), additional_forward_args)
    logits = first.output
    check_outputs(logits)
    classes = logits.shape[1]
    if isinstance(rivals, bool) or not isinstance(rivals, int) or not 1 <= rivals < classes:
        raise SelectionError(f"rivals must be 1 to {classes - 1}, the number of other classes, got {rivals!r}")
    taking_part = [logits.argmax(1), *logits.topk(rivals + 1, dim=1).indices.T[1:]]
    generator = torch.Generator().manual_seed(seed)
    alone: list[Tensor] = []
    by_chance: list[Tensor] = []
    for place, of in enumerate(taking_part):
        masks = (lrp.trace(inputs, of, additional_forward_args) if place else first).masks
        for found, kept in ((alone, masks), (by_chance, random_masks(masks, generator))):
            found.append(masked_forward(lrp.model, inputs, kept, additional_forward_args=additional_forward_args))
    own, control = (own_logits_of(list(zip(taking_part, found, strict=True))) for found in (alone, by_chance))
    return Contest(logits, own, control, with_predicted=alone[0], with_runner_up=alone[1])


def check_selects(who: str, lrp: object) -> None:
    """Raise an error unless ``lrp`` selects critical neurons.

    Args:
        who: the function that needs them.
        lrp: what it was given.

    Raises:
        SelectionError: saying what to give.
    """
    example = "SelectiveLRP(model, selection=TopK(0.2))"
    if not isinstance(lrp, SelectiveLRP):
        raise SelectionError(f"{who}: lrp must be a SelectiveLRP with a selection, such as {example}, got {got(lrp)}")
    if lrp.selection is None:
        raise SelectionError(f"{who} needs critical neurons: give the SelectiveLRP a selection, as in {example}")
