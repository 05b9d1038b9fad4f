"""Whether critical neurons stay the same under small changes of the input: they are found again, and tested by a contest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lrp_lightning.attribution import SelectiveLRP
from lrp_lightning.compat import in_double
from lrp_lightning.errors import InputError
from lrp_lightning.insight.contest import check_selects
from lrp_lightning.masking import masked_forward
from lrp_lightning.metrics.contest import contest_won, own_logits_of, runner_up
from lrp_lightning.metrics.selection_stability import jaccard

__all__ = ["Robustness", "brightened", "noisy", "robustness", "shifted"]

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Robustness:
    """The effect of a change of the inputs on critical neurons.

    Attributes:
        jaccard: mean, over samples and layers, of the Jaccard index of the neurons found before and after; 1 if they are the
            same.
        contest: share of samples whose predicted class beats the runner-up on the changed input, each logit from the neurons
            that were found before.
        prediction: share of samples whose predicted class the whole network keeps.

    Example:
        >>> from lrp_lightning import Robustness
        >>> Robustness(jaccard=0.81, contest=0.9, prediction=0.97)
        Robustness(jaccard=0.81, contest=0.9, prediction=0.97)
    """

    jaccard: float
    contest: float
    prediction: float


def noisy(x: Tensor) -> Tensor:
    """Gaussian noise of a tenth of the batch's deviation, the same at each call."""
    generator = torch.Generator().manual_seed(0)
    return x + 0.1 * x.std() * torch.randn(x.shape, generator=generator).to(x)


def shifted(x: Tensor) -> Tensor:
    """One step along the last dimension, cyclically."""
    return x.roll(1, -1)


def brightened(x: Tensor) -> Tensor:
    """Brighter by a tenth of the batch's deviation."""
    return x + 0.1 * x.std()


def robustness(
    lrp: SelectiveLRP, inputs: Tensor, changes: Mapping[str, Change] | None = None, additional_forward_args: Any = None
) -> dict[str, Robustness]:
    """Change the inputs a little, find the critical neurons again, and repeat the contest with the original ones.

    Each change takes a pass and three forwards; finding the neurons of predicted class and runner-up takes two passes.

    Args:
        lrp: with a selection, which finds the neurons.
        inputs: ``(N, ...)``.
        changes: functions from inputs to inputs of the same shape, by name; None for a little noise, a shift by one step,
            and more brightness.
        additional_forward_args: passed to the model after ``inputs``.

    Returns:
        For each change its :class:`Robustness`.

    Raises:
        SelectionError: if ``lrp`` has no selection.
        InputError: if a change gives another shape, or there are fewer than two classes.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, TopK, robustness
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3)).eval()
        >>> lrp = SelectiveLRP(model, "epsilon", TopK(0.2))
        >>> found = robustness(lrp, torch.randn(100, 4), {"nothing": lambda x: x, "all": lambda x: -x})
        >>> found["nothing"].jaccard, found["all"].jaccard < 0.5
        (1.0, True)
    """
    check_selects("robustness", lrp)
    if changes is None:
        changes = {"noise": noisy, "shift": shifted, "brightness": brightened}
    first = lrp.trace(inputs, lambda logits: logits.argmax(1), additional_forward_args)
    rival = runner_up(first.output)
    predicted = first.output.argmax(1)
    sets = [(predicted, first.masks), (rival, lrp.trace(inputs, rival, additional_forward_args).masks)]
    found = {}
    for name, change in changes.items():
        changed = change(inputs)
        if not isinstance(changed, Tensor) or changed.shape != inputs.shape:
            given = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
            raise InputError(f"the change {name!r} must give inputs of the shape {tuple(inputs.shape)}, got {given}")
        again = lrp.trace(changed, predicted, additional_forward_args)
        same = [
            jaccard(in_double(first.masks[layer].flatten(1)), in_double(mask.flatten(1)))
            for layer, mask in again.masks.items()
        ]
        own = own_logits_of(
            [(of, masked_forward(lrp.model, changed, masks, True, additional_forward_args)) for of, masks in sets]
        )
        found[name] = Robustness(
            float(torch.stack(same).mean()),
            float(contest_won(own, first.output).float().mean()),
            float((again.output.argmax(1) == predicted).float().mean()),
        )
    return found
