"""Critical neurons optimised against the output error, by forward and backward differences.

``f_S(x)`` is the forward pass with the neurons outside the set ``S`` switched off. The gradient of its error with respect
to the 0/1 masks is, at a neuron that is off, the forward difference (what switching it on would bring), and at one that is
on the backward difference. All neurons may change places in one pass; since each difference holds for the set it was taken
at, a neuron's score is the sum of those of all passes, older ones fading (discounted fictitious play, each layer the best
answer to what the others did so far). The best-scored neurons, as many in each layer as at the start, are what the next set
moves towards: the greater part of the exchanges that are missing are made, those that promise most, since a difference holds
the less the more neurons change with it. For a sample whose sets get worse, older ones fade more slowly. Where the outputs
are linear in which neurons of the last layer are on, as below a linear classifier, its best set for what comes from below is
found in each pass, by swaps that need no pass of their own. What is kept is, per sample, the best set seen. A sample whose
set comes round again, as in small networks, tries instead single swaps of its best set, one per pass, in the order of the
gain that the differences predict.

What was tried beside this, and how it did: ``benchmarks/selection.md``.

MSE, SMAPE and forward/backward differences are named in the literature this follows, without formulas. This is one reading
of them, :class:`lrp_lightning.Agreement` another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lrp_lightning.composites import Composite
from lrp_lightning.engine import propagate
from lrp_lightning.errors import InputError, SelectionError
from lrp_lightning.masking import masked_forward, soft_forward
from lrp_lightning.metrics.selection_error import MEASURES, check_measure
from lrp_lightning.progress import tqdm
from lrp_lightning.selection.budget import check_budget
from lrp_lightning.selection.by_relevance import TopK
from lrp_lightning.selection.fixed import Fixed
from lrp_lightning.selection.protocol import Selection

__all__ = ["MinError", "Smallest"]

_MEMORY, _LONGER, _WORSE = 0.2, 0.25, 1.1
"""How much of a score is left after a pass, and how much of the rest too after one with so many times the least error."""
_EXCHANGED, _AT_LEAST = 0.6, 2
"""Which share of the exchanges between a layer's set and that of the best scores is made at once, and at least how many."""
_FLOOR = 1.0
"""SMAPE's gradient is zero where signs differ and infinite near zero; this share of the mean logit is added to its scale."""
_ROUND = 0.1
"""Below this share of the mean logit a difference counts by its square; else nearly right logits pull as hard as others."""
_MARGIN = 0.1
"""By which share of the mean logit the predicted class is to stay ahead."""
_PRICE, _DEARER, _CHEAPER = 0.6, 1.5, 0.8
"""What falling behind costs at first, and by what that is multiplied after a pass that lost, or kept, the prediction."""
_MOST_OUTPUTS = 100
"""The last layer is solved for where there are no more, since that takes one derivative for each."""
_LINEAR = 1e-3
"""Outputs that are told this well, as a share of the mean logit, are linear."""
_CANDIDATES = 8
"""So many neurons a layer to switch on, and as many to switch off, are thought of in a swap."""
_PATIENCE = 12
"""Passes without gain for any sample after which nothing is expected to help."""

_Masks = dict[str, Tensor]


@dataclass(frozen=True)
class MinError:
    """A set of neurons of a given size in each layer, optimised per sample against the error of the output.

    For no sample is the result worse than the set that it starts from, and no prediction that the start keeps is lost. It
    takes at most ``max_passes`` passes, each a forward and a backward through the masked network, and four forwards to
    verify. The error of each pass is in ``Trace.history``. The error is that of all outputs; the target only determines the
    start.

    Args:
        measure: ``"smape"`` or ``"mse"``; see :mod:`lrp_lightning.metrics`.
        keep: the budget, as in :class:`TopK`; or a selection of channels, whose sets are the start and whose sizes are kept:
            ``PerLayer`` for budgets by layer.
        max_passes: the most passes to make.
        verbose: show progress.

    Raises:
        SelectionError: if an argument is not one of these; in the pass, if the start selects single values.
        InputError: in the pass, if the output is not ``(N, classes)``.

    Example:
        >>> import torch
        >>> from lrp_lightning import MinError, SelectiveLRP
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
        >>> trace = SelectiveLRP(model, selection=MinError("smape", keep=0.2)).trace(torch.randn(5, 4), target=1)
        >>> trace.masks["0"].sum(1)
        tensor([6, 6, 6, 6, 6])
        >>> bool((trace.history[-1] <= trace.history[0]).all())
        True
    """

    measure: Literal["smape", "mse"] = "smape"
    keep: int | float | Selection = 0.1
    max_passes: int = 25
    verbose: bool = False

    def __post_init__(self) -> None:
        check_measure("MinError", self.measure)
        if not isinstance(self.keep, Selection) or isinstance(self.keep, type):
            check_budget("MinError", self.keep)  # type: ignore[arg-type]
        if not isinstance(self.max_passes, int) or isinstance(self.max_passes, bool) or self.max_passes < 1:
            raise SelectionError(f"MinError: max_passes must be an int >= 1, got {self.max_passes!r}")

    @property
    def start(self) -> Selection:
        """The selection that is improved upon."""
        return self.keep if isinstance(self.keep, Selection) else TopK(self.keep)

    def smallest(self, error: float = 0.1) -> Smallest:
        """The other direction: the smallest sets whose error stays below a bound, whatever ``keep`` is.

        Args:
            error: the bound, in the measure's unit.
        """
        return Smallest(self, error)

    def within(self, layers: Callable[[str], bool]) -> MinError:
        """The same search in some layers alone, all others being whole.

        Args:
            layers: whether it is to search in the layer of a name.
        """
        return replace(self, keep=_Within(self.start, layers))

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor | None:
        """The start's choice; see :meth:`Selection.select`."""
        return self.start.select(relevance, layer=layer, output=output)

    def search(
        self,
        model: nn.Module,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any,
        additional_forward_args: Any,
        composite: Composite,
        on_unsupported: Literal["raise", "gradient"] = "raise",
    ) -> tuple[Selection, Tensor]:
        """See :meth:`lrp_lightning.selection.Search.search`."""
        start, _ = propagate(
            model, inputs, target, additional_forward_args, composite, self.start, on_unsupported=on_unsupported,
            accounts=False,
        )  # fmt: skip
        forward = _Forward(model, inputs, additional_forward_args, start.output, self.measure)
        masks, history = _optimise(forward, start.masks, self.max_passes, self.verbose)
        return Fixed(masks), history


@dataclass(frozen=True)
class _Within:
    """A selection in some layers alone."""

    selection: Selection
    layers: Callable[[str], bool]

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor | None:
        return self.selection.select(relevance, layer=layer, output=output) if self.layers(layer) else None


@dataclass(frozen=True)
class Smallest:
    """The smallest sets whose error stays below a bound: bisection over the share kept, alike in all layers, per sample.

    Made by :meth:`MinError.smallest`. Seven bisections, each a search of its own, find the share to within 1 %; a smaller
    set that also meets the bound may be missed, since the error need not fall with every additional neuron. A sample for
    which no smaller set meets the bound keeps all neurons.

    Args:
        by: how the sets of each size are found.
        error: the bound, in the measure's unit.

    Raises:
        SelectionError: if ``error`` is not a number >= 0.

    Example:
        >>> import torch
        >>> from lrp_lightning import MinError, SelectiveLRP
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
        >>> trace = SelectiveLRP(model, selection=MinError().smallest(error=0.1)).trace(torch.randn(5, 4), target=1)
        >>> bool((trace.history[-1] <= 0.1).all()), bool((trace.masks["0"].sum(1) < 32).all())
        (True, True)
    """

    by: MinError
    error: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.error, int | float) or isinstance(self.error, bool) or not self.error >= 0:
            raise SelectionError(f"smallest: error must be a number >= 0, got {self.error!r}")

    def within(self, layers: Callable[[str], bool]) -> Smallest:
        """The same search in some layers alone, all others being whole; as :meth:`MinError.within`.

        Args:
            layers: whether it is to search in the layer of a name.
        """
        return Smallest(self.by.within(layers), self.error)

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor | None:
        """By relevance alone all are kept; see :meth:`Selection.select`."""
        kept = self.by.start.select(relevance, layer=layer, output=output)
        return None if kept is None else torch.ones_like(relevance, dtype=torch.bool)

    def search(
        self,
        model: nn.Module,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any,
        additional_forward_args: Any,
        composite: Composite,
        on_unsupported: Literal["raise", "gradient"] = "raise",
    ) -> tuple[Selection, Tensor]:
        """See :meth:`lrp_lightning.selection.Search.search`."""
        whole, _ = propagate(model, inputs, target, additional_forward_args, composite, self, on_unsupported=on_unsupported)
        forward = _Forward(model, inputs, additional_forward_args, whole.output, self.by.measure)
        magnitude = {layer: whole.relevance[layer].abs() for layer in whole.masks}  # what counts against the class counts
        found, errors = whole.masks, [torch.zeros_like(forward.whole[:, 0])]
        fails, does = torch.zeros_like(errors[0]), torch.ones_like(errors[0])
        for _ in range(7):
            share = (fails + does) / 2
            sizes = {layer: (share * mask.shape[1]).round().clamp(min=1).long() for layer, mask in found.items()}
            start = {layer: _best(magnitude[layer], size) for layer, size in sizes.items()}
            masks, history = _optimise(forward, start, self.by.max_passes, self.by.verbose)
            good = history[-1] <= self.error
            found = {layer: torch.where(good[:, None], masks[layer], found[layer]) for layer in found}
            errors.append(torch.where(good, history[-1], errors[-1]))
            fails, does = torch.where(good, fails, share), torch.where(good, share, does)
        return Fixed(found), torch.stack(errors)


class _Forward:
    """The masked network, with what its output is measured against."""

    def __init__(self, model: nn.Module, inputs: Any, extra: Any, whole: Tensor, measure: str) -> None:
        if whole.ndim != 2:
            raise InputError(f"the error of a selection is that of logits (N, classes), got {tuple(whole.shape)}")
        self.model, self.inputs, self.extra, self.whole, self.measure = model, inputs, extra, whole, measure
        with torch.inference_mode(False):  # what is made inside of it cannot be differentiated
            self.predicted = whole.argmax(1, keepdim=True)
            self.scale = whole.abs().mean(1, keepdim=True).clamp(min=torch.finfo(whole.dtype).tiny)

    def errors(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Error and whether the prediction is kept, ``(N,)`` each."""
        return MEASURES[self.measure](output, self.whole), output.argmax(1) == self.predicted[:, 0]

    def hard(self, masks: _Masks) -> tuple[Tensor, Tensor]:
        return self.errors(masked_forward(self.model, self.inputs, masks, additional_forward_args=self.extra))

    def linear_end(self, masks: _Masks) -> str | None:
        """The last layer, if the outputs are linear in which of its neurons are on; two forwards tell."""
        layer = next(reversed(masks), None)
        if layer is None or self.whole.shape[1] > _MOST_OUTPUTS:
            return None
        other = {**masks, layer: masks[layer].roll(1, 1)}
        with torch.inference_mode(False), torch.enable_grad():
            soft = {name: mask.to(self.whole.dtype).requires_grad_(name == layer) for name, mask in masks.items()}
            output = soft_forward(self.model, self.inputs, soft, self.extra)
            parts = self._parts(output, soft[layer], create_graph=False)
            expected = output.detach() + (parts * (other[layer].to(parts) - soft[layer].detach())[:, None]).sum(2)
            given = soft_forward(self.model, self.inputs, {k: m.to(self.whole.dtype) for k, m in other.items()}, self.extra)
        return layer if bool(((given - expected).abs() <= _LINEAR * self.scale).all()) else None

    def _parts(self, output: Tensor, soft: Tensor, create_graph: bool) -> Tensor:
        """How each output changes with each neuron of a layer, ``(N, classes, C)``."""
        rows = [
            torch.autograd.grad(of.sum(), soft, retain_graph=True, create_graph=create_graph, materialize_grads=True)[0]
            for of in output.unbind(1)
        ]
        return torch.stack(rows, 1)

    def gradient(self, masks: _Masks, price: Tensor, last: str | None) -> tuple[Tensor, _Masks, _Masks]:
        """The output, how a smooth form of the error changes with each neuron, ``{layer: (N, C)}``, and of which masks.

        ``price``, ``(N,)``, is what it costs that the predicted class falls behind. Of the ``last`` layer, which the outputs
        are linear in, a better set is found first.
        """
        with torch.inference_mode(False), torch.enable_grad():
            soft = {layer: mask.to(self.whole.dtype).requires_grad_() for layer, mask in masks.items()}
            output = soft_forward(self.model, self.inputs, soft, self.extra)
            if last is not None:
                parts = self._parts(output, soft[last], create_graph=True)
                solved = self._solved(output.detach(), parts.detach(), masks[last], price)
                output = output + (parts * (solved.to(parts) - soft[last])[:, None]).sum(2)
                masks = {**masks, last: solved}
            off = output - self.whole
            if self.measure == "mse":
                loss = (off / self.scale).square().mean(1)
            else:
                rounded = off.square() / (off.abs() + _ROUND * self.scale)
                loss = (2 * rounded / (self.whole.abs() + output.detach().abs() + _FLOOR * self.scale)).mean(1)
            loss = loss + price * self._behind(output)
            gradients = torch.autograd.grad(loss.sum(), list(soft.values()), allow_unused=True)
        gradient = {
            layer: torch.zeros_like(soft[layer]) if g is None else g.nan_to_num(0.0)
            for layer, g in zip(soft, gradients, strict=True)
        }
        if last is not None:
            gradient[last] = torch.zeros_like(gradient[last])
        return output.detach(), gradient, masks

    def _behind(self, output: Tensor) -> Tensor:
        """How far the predicted class is behind the others, with a margin, ``(N, ...)`` of outputs ``(N, classes, ...)``."""
        if output.shape[1] == 1:
            return output[:, 0] * 0
        predicted = self.predicted.reshape(-1, *[1] * (output.ndim - 1)).expand(-1, 1, *output.shape[2:])
        scale = self.scale.reshape(-1, *[1] * (output.ndim - 2))
        others = output.scatter(1, predicted, -torch.inf).amax(1)
        return (others - output.gather(1, predicted)[:, 0] + _MARGIN * scale).relu() / scale

    def _cost(self, output: Tensor, price: Tensor) -> Tensor:
        """The error and what falling behind costs, ``(N, K)`` of outputs ``(N, classes, K)``."""
        whole = self.whole[:, :, None]
        if self.measure == "mse":
            error = ((output - whole) / self.scale[:, :, None]).square().mean(1)
        else:
            error = 2 * (
                (output - whole).abs() / (output.abs() + whole.abs()).clamp(min=torch.finfo(output.dtype).tiny)
            ).mean(1)
        return error + price[:, None] * self._behind(output)

    def _solved(self, output: Tensor, parts: Tensor, mask: Tensor, price: Tensor) -> Tensor:
        """A set of the same size whose outputs cost less, by the best swaps, one per sample at a time."""
        rows, many = torch.arange(len(mask), device=mask.device), min(_CANDIDATES, mask.shape[1])
        cost = self._cost(output[:, :, None], price)[:, 0]
        for _ in range(2 * mask.shape[1]):
            added = self._cost(output[:, :, None] + parts, price).masked_fill(mask, torch.inf)
            on = added.topk(many, 1, largest=False).indices
            with_it = output[:, :, None] + parts.gather(2, on[:, None].expand(-1, parts.shape[1], -1))
            without = self._cost((with_it[:, :, :, None] - parts[:, :, None]).flatten(2), price).view(len(mask), many, -1)
            barred = ~mask[:, None] | mask.gather(1, on)[:, :, None]
            least, at = without.masked_fill(barred, torch.inf).flatten(1).min(1)
            better = least < cost * (1 - 1e-6)
            if not bool(better.any()):
                break
            on, off = on[rows, at // mask.shape[1]], at % mask.shape[1]
            output = output + better[:, None] * (parts[rows, :, on] - parts[rows, :, off])
            cost = torch.where(better, least, cost)
            mask = mask.clone()
            mask[rows, on] |= better
            mask[rows, off] &= ~better
        return mask


def _optimise(forward: _Forward, start: _Masks, max_passes: int, verbose: bool) -> tuple[_Masks, Tensor]:
    """The best sets seen, and the least error after each pass, ``(passes, N)``: the start's first, the result's last."""
    for layer, mask in start.items():
        if mask.ndim != 2:
            raise SelectionError(f"MinError: layer {layer!r} selects single values; MinError can search only channels")
    with torch.inference_mode(False), torch.no_grad():
        sizes = {layer: mask.sum(1) for layer, mask in start.items()}
        least, kept = forward.hard(start)
        first, first_kept = least, kept
        best, masks, history = dict(start), dict(start), [least]
        scores = {layer: torch.zeros_like(mask, dtype=least.dtype) for layer, mask in start.items()}
        price, memory = torch.full_like(least, _PRICE), torch.full_like(least, _MEMORY)
        swaps = torch.zeros_like(least, dtype=torch.long)
        seen: list[Tensor] = []
        at_best: _Masks = {}
        idle = 0
        last = forward.linear_end(start)
        passes = max_passes if start else 0  # of a network without hidden layers there is nothing to search
        for i in tqdm(range(passes), desc="MinError", disable=not verbose, leave=False):
            output, gradient, masks = forward.gradient(masks, price, last)
            error, survives = forward.errors(output)
            better = (error < least) & (survives | ~kept)
            best = {layer: torch.where(better[:, None], masks[layer], best[layer]) for layer in best}
            at_best = {k: torch.where(better[:, None], g, at_best[k]) if i else g for k, g in gradient.items()}
            least, kept = torch.where(better, error, least), torch.where(better, survives, kept)
            history.append(least)
            idle = 0 if bool(better.any()) else idle + (i > 0)
            if idle == _PATIENCE:
                break
            price = price * torch.where(survives, _CHEAPER, _DEARER)
            seen.append(torch.cat(list(masks.values()), 1))
            memory = torch.where(error > _WORSE * least, memory + _LONGER * (1 - memory), memory)
            scores = {layer: memory[:, None] * scores[layer] - g / _spread_of(g) for layer, g in gradient.items()}
            masks = {
                layer: mask if layer == last else _nearer(mask, scores[layer], sizes[layer]) for layer, mask in masks.items()
            }
            now = torch.cat(list(masks.values()), 1)
            again = torch.stack([(now == before).all(1) for before in seen]).any(0)
            swaps = torch.where(better, 0, swaps)
            if bool(again.any()):
                swapped = _swapped(best, at_best, swaps)
                masks = {layer: torch.where(again[:, None], swapped[layer], masks[layer]) for layer in masks}
            swaps = swaps + again
        final, final_kept = forward.hard(best)  # as masked_forward gives it, to the last bit
        worse = (final > first) | (first_kept & ~final_kept)
        best = {layer: torch.where(worse[:, None], start[layer], best[layer]) for layer in best}
        history[-1] = torch.where(worse, first, final)
        return best, torch.stack(history)


def _best(scores: Tensor, sizes: Tensor) -> Tensor:
    """The ``sizes``, ``(N,)``, neurons of each sample with the highest scores."""
    return scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1) < sizes[:, None]


def _nearer(mask: Tensor, scores: Tensor, sizes: Tensor) -> Tensor:
    """``mask``, nearer to the neurons with the highest scores by the exchanges that promise most."""
    goal = _best(scores, sizes)
    joining, leaving = goal & ~mask, mask & ~goal
    many = (_EXCHANGED * joining.sum(1)).ceil().clamp(min=_AT_LEAST)
    joins = _best(scores.masked_fill(~joining, -torch.inf), many) & joining
    leaves = _best((-scores).masked_fill(~leaving, -torch.inf), many) & leaving
    return mask ^ joins ^ leaves


def _swapped(masks: _Masks, gradient: _Masks, which: Tensor) -> _Masks:
    """``masks`` with one neuron switched on for another of its layer: the swap that promises most, or the ``which``-th."""
    gains, places = [], []
    for layer, on in masks.items():
        many = min(_CANDIDATES, on.shape[1])
        add, drop = (
            (side * gradient[layer]).masked_fill(out, -torch.inf).topk(many, 1) for side, out in ((-1, on), (1, ~on))
        )
        gains.append((drop.values[:, :, None] + add.values[:, None, :]).flatten(1))
        places.append((drop.indices, add.indices, many))
    promise = torch.cat(gains, 1)
    chosen = promise.argsort(dim=1, descending=True).gather(1, which.clamp(0, promise.shape[1] - 1)[:, None])
    chosen = torch.where(promise.gather(1, chosen).isfinite(), chosen, promise.shape[1])  # there is no such swap
    swapped, before = {}, 0
    for (layer, on), (drop_at, add_at, many) in zip(masks.items(), places, strict=True):
        local = chosen - before
        here, local = (local >= 0) & (local < many**2), local.clamp(0, many**2 - 1)
        off, new = drop_at.gather(1, local // many), add_at.gather(1, local % many)
        swapped[layer] = on.scatter(1, off, on.gather(1, off) & ~here)
        swapped[layer] = swapped[layer].scatter(1, new, swapped[layer].gather(1, new) | here)
        before += many**2
    return swapped


def _spread_of(values: Tensor) -> Tensor:
    """The standard deviation over neurons, ``(N, 1)``."""
    return values.std(1, keepdim=True, correction=0).clamp(min=torch.finfo(values.dtype).tiny ** 0.5)
