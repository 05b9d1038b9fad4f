"""How much of the whole network's output is retained as more neurons are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.plot import plot_curve

from lrp_lightning.checks import check_tensors
from lrp_lightning.errors import InputError
from lrp_lightning.errors import SelectionError as SelectionProblem
from lrp_lightning.metrics.critical_neurons import prediction_survives
from lrp_lightning.metrics.mean_over_samples import Drawn
from lrp_lightning.metrics.selection_error import smape

__all__ = ["RetentionCurve", "area", "faithfulness"]


def area(values: Tensor, budgets: Tensor) -> Tensor:
    """The area under a curve, by the trapezoidal rule.

    Args:
        values: ``(B,)``.
        budgets: ``(B,)``, ascending, at which the values were measured.

    Returns:
        A scalar, in the unit of the values.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import area
        >>> area(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.0, 0.5, 1.0]))
        tensor(0.7500)
    """
    return torch.trapezoid(values, budgets)


def faithfulness(kept: Tensor, whole: Tensor, none: Tensor) -> Tensor:
    """``(m(S) - m(none)) / (m(all) - m(none))``: 0 without neurons, 1 with all of them; it can be outside [0, 1].

    As the mechanistic interpretability benchmark MIB defines it (Mueller et al. 2025), with ``m`` the mean over samples of
    the logit of the class that the whole network predicts. NaN if the neurons make no difference.

    Args:
        kept: ``m`` with only the neurons of each budget, ``(B,)``.
        whole: ``m`` of the whole network, a scalar.
        none: ``m`` with all neurons off, a scalar.

    Returns:
        ``(B,)``.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import faithfulness
        >>> faithfulness(torch.tensor([1.0, 3.0, 6.0]), whole=torch.tensor(5.0), none=torch.tensor(1.0))
        tensor([0.0000, 0.5000, 1.2500])
    """
    return (kept - none) / torch.where(whole == none, torch.nan, whole - none)


def _is_share(budget: object) -> bool:
    return isinstance(budget, Real) and 0 < budget < 1  # type: ignore[operator]


class RetentionCurve(Drawn):
    """The predictions and logits retained at each budget, from no neurons to all of them.

    The budgets 0 (all neurons off) and 1 (the whole network) are added.

    Args:
        budgets: shares of neurons, ascending, each in (0, 1).

    Raises:
        lrp_lightning.errors.SelectionError: if budgets are not ascending or out of range.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, TopK, masked_forward
        >>> from lrp_lightning.metrics import RetentionCurve
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3)).eval()
        >>> x, curve = torch.randn(100, 4), RetentionCurve([0.1, 0.5])
        >>> masks = {b: SelectiveLRP(model, selection=TopK(b)).trace(x, lambda f: f.argmax(1)).masks for b in (0.1, 0.5)}
        >>> none = {"0": torch.zeros(64, dtype=torch.bool)}
        >>> kept = {b: masked_forward(model, x, m) for b, m in masks.items()}
        >>> curve.update(kept, model(x), without=masked_forward(model, x, none))
        >>> bool(curve.compute()["area"] > 0.8)
        True
    """

    is_differentiable: bool = False
    higher_is_better: bool = True
    full_state_update: bool = False

    survived: Tensor
    error: Tensor
    logit: Tensor
    total: Tensor

    def __init__(self, budgets: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        shares = isinstance(budgets, Sequence) and len(budgets) > 0 and all(map(_is_share, budgets))
        if not shares or not all(a < b for a, b in pairwise(budgets)):
            raise SelectionProblem(f"RetentionCurve: budgets must be shares in (0, 1), ascending, got {budgets!r:.80}")
        self.budgets: tuple[float, ...] = tuple(budgets)
        zeros = torch.zeros(len(self.budgets) + 2, dtype=torch.double)
        for name in ("survived", "error", "logit"):
            self.add_state(name, zeros.clone(), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, masked_logits: Mapping[float, Tensor], logits: Tensor, without: Tensor) -> None:
        """Add one batch.

        Args:
            masked_logits: ``{budget: (N, classes)}``, with only the critical neurons of that budget.
            logits: ``(N, classes)``, of the whole network.
            without: ``(N, classes)``, with all neurons off.

        Raises:
            InputError: if a budget is missing, or shapes differ.
        """
        if set(masked_logits) != set(self.budgets):
            raise InputError(f"logits must be given for the budgets {self.budgets}, got {tuple(masked_logits)}")
        check_tensors(logits=logits, without=without)
        outputs = [without, *(masked_logits[b] for b in self.budgets), logits]
        predicted = logits.argmax(1, keepdim=True)
        self.survived += torch.stack([prediction_survives(o, logits).sum() for o in outputs]).to(self.survived)
        self.error += torch.stack([smape(o, logits).sum() for o in outputs]).to(self.error)
        self.logit += torch.stack([o.gather(1, predicted).sum() for o in outputs]).to(self.logit)
        self.total += len(logits)

    def compute(self) -> dict[str, Tensor]:
        """The curves, ``(B + 2,)`` each, and their areas.

        Returns:
            ``budgets``; ``retained``, the share of predictions that survive, and its ``area``; ``smape``; ``faithfulness``
            (:func:`faithfulness`), its area ``cpr`` (circuit performance ratio, higher is better) and the area between it
            and 1, ``cmd`` (circuit-model distance, lower is better). NaN before the first sample.
        """
        budgets = torch.tensor([0.0, *self.budgets, 1.0], device=self.survived.device)
        retained, error, logit = ((v / self.total).float() for v in (self.survived, self.error, self.logit))
        faithful = faithfulness(logit, logit[-1], logit[0])
        return {
            "budgets": budgets,
            "retained": retained,
            "area": area(retained, budgets),
            "smape": error,
            "faithfulness": faithful,
            "cpr": area(faithful, budgets),
            "cmd": area((1 - faithful).abs(), budgets),
        }

    def plot(self, curve: dict[str, Tensor] | None = None, ax: Any = None) -> Any:
        """Plot the retained predictions over budgets, as torchmetrics plots curves.

        Args:
            curve: from :meth:`compute`; None to compute it now.
            ax: matplotlib's axes to draw in; None for new ones.

        Returns:
            ``(figure, axes)``.
        """
        curve = curve or self.compute()
        return plot_curve(
            (curve["budgets"].cpu(), curve["retained"].cpu()),  # type: ignore[arg-type]
            score=curve["area"].cpu(),
            ax=ax,
            label_names=("share of neurons kept", "share of predictions retained"),
            name=type(self).__name__,
        )
