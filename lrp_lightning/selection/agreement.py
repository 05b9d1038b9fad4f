"""Critical neurons as those whose activation and relevance agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lrp_lightning.composites import Composite, EpsilonPlus, as_composite
from lrp_lightning.engine import propagate
from lrp_lightning.errors import SelectionError
from lrp_lightning.masking import activations
from lrp_lightning.metrics.selection_error import check_measure
from lrp_lightning.rules import Epsilon, Gamma, Rule
from lrp_lightning.selection.budget import check_budget, number_of
from lrp_lightning.selection.by_relevance import TopK
from lrp_lightning.selection.fixed import Fixed
from lrp_lightning.selection.protocol import Selection

__all__ = ["Agreement"]


@dataclass(frozen=True)
class Agreement:
    """The sets of neurons, and the rule, with the least MSE or SMAPE between activation and relevance.

    In each layer and sample, ``a`` is a neuron's activation (rectified, summed over space) and ``r`` its relevance, both as
    shares of the layer's sum of magnitudes. Outside the set relevance is zero, so a set's error is the sum of ``e(a, r)``
    inside and ``e(a, 0)`` outside; ``e`` is the squared difference, or ``2 |a - r| / (|a| + |r|)``. The best set of a given
    size contains the neurons with the largest ``e(a, 0) - e(a, r)``. If several rules are given, each layer and sample uses
    the one with the least error.

    The literature mentions MSE and SMAPE without formulas; this is one interpretation, :class:`lrp_lightning.MinError` is
    another. According to ``benchmarks/selection.md``, this one is weaker.

    Args:
        measure: ``"smape"`` or ``"mse"``.
        keep: the budget, as in :class:`TopK`.
        rules: rules or composites to choose from; each takes a pass.

    Raises:
        SelectionError: if an argument is not one of these.
        RuleError: if ``rules`` holds something else.

    Example:
        >>> import torch
        >>> from lrp_lightning import Agreement, SelectiveLRP
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> SelectiveLRP(model, selection=Agreement("mse", 0.25)).trace(torch.randn(5, 4), target=1).masks["0"].sum(1)
        tensor([2, 2, 2, 2, 2])
    """

    measure: Literal["smape", "mse"] = "smape"
    keep: int | float = 0.1
    rules: tuple[Rule | Composite, ...] = (Epsilon(), EpsilonPlus(), Gamma())

    def __post_init__(self) -> None:
        check_measure("Agreement", self.measure)
        object.__setattr__(self, "keep", check_budget("Agreement", self.keep))
        object.__setattr__(self, "rules", tuple(self.rules))
        for rule in self.rules:
            as_composite(rule)
        if not self.rules:
            raise SelectionError("Agreement: at least one rule is needed")

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor:
        """Without a search, the choice of ``TopK``; see :meth:`Selection.select`."""
        return TopK(self.keep).select(relevance, layer=layer, output=output)

    def search(
        self,
        model: nn.Module,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any,
        additional_forward_args: Any,
        composite: Composite,
        on_unsupported: Literal["raise", "gradient"] = "raise",
    ) -> tuple[Selection, Tensor]:
        """See :meth:`lrp_lightning.selection.Search.search`; the history is the error under each rule, ``(rules, N)``."""
        traces = [
            propagate(model, inputs, target, additional_forward_args, rule, TopK(1.0), on_unsupported=on_unsupported)[0]
            for rule in map(as_composite, self.rules)
        ]
        layers = list(traces[0].masks)
        a = activations(model, inputs, layers, additional_forward_args)
        with torch.inference_mode(False), torch.no_grad():
            masks, errors = {}, []
            for layer in layers:
                forward = _shares(a[layer])
                back = torch.stack([_shares(trace.relevance[layer]) for trace in traces])  # (rules, N, C)
                without = self._error(forward, torch.zeros_like(forward))
                gain = without - self._error(forward, back)
                best = gain.topk(number_of(self.keep, forward.shape[1]), dim=2)
                error = without.sum(1) - best.values.sum(2)  # (rules, N)
                rule = error.argmin(0)
                chosen = best.indices[rule, torch.arange(len(rule), device=rule.device)]
                masks[layer] = torch.zeros_like(forward, dtype=torch.bool).scatter_(1, chosen, True)
                errors.append(error)
            return Fixed(masks), torch.stack(errors).sum(0)

    def _error(self, a: Tensor, r: Tensor) -> Tensor:
        if self.measure == "mse":
            return (a - r).square()
        size = a.abs() + r.abs()
        return torch.where(size == 0, 0, 2 * (a - r).abs() / torch.where(size == 0, 1, size))


def _shares(values: Tensor) -> Tensor:
    whole = values.abs().sum(1, keepdim=True)
    return values / torch.where(whole == 0, 1, whole)
