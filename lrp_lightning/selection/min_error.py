"""Critical neurons optimised against the output error, by forward and backward differences.

``f_S(x)`` is the forward pass with the neurons outside the set ``S`` switched off. The gradient of its error with respect
to the 0/1 masks is the forward difference for a neuron that is off (the effect of switching it on) and the backward
difference for a neuron that is on. So one pass scores all neurons. A difference is valid only near the set at which it was
computed; therefore a neuron's score is the sum over all passes, in which older passes are discounted (discounted
fictitious play: each layer responds to what the others did so far). The next set moves towards the neurons with the highest
scores, with the size of each layer's set unchanged: most of the missing exchanges are made, those with the largest predicted
gain, because a difference is less reliable if many neurons change together. For a sample whose sets get worse, older
passes are discounted less. If the outputs are linear in the mask of the last layer, as below a linear classifier, each pass
also finds the best set of that layer given the layers below, by swaps that need no further pass. The result is the best set
seen, per sample. If a sample's set occurs again, as in small networks, single swaps of its best set are tried instead,
one per pass, in the order of the predicted gain.

Alternatives that were tried, with their results: ``benchmarks/selection.md``.

The literature mentions MSE, SMAPE and forward/backward differences without formulas. This is one interpretation,
:class:`lrp_lightning.Agreement` is another.
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
"""The share of a score that remains after a pass, and of the rest after a pass with this multiple of the least error."""
_EXCHANGED, _AT_LEAST = 0.6, 2
"""The share of the exchanges between a layer's set and that of the best scores made in one pass, and the least number."""
_FLOOR = 1.0
"""This share of the mean logit is added to SMAPE's scale: its gradient is 0 where signs differ and infinite near zero."""
_ROUND = 0.1
"""Below this share of the mean logit a difference is squared, so that nearly right logits weigh less than others."""
_MARGIN = 0.1
"""The margin by which the predicted class should stay ahead, as a share of the mean logit."""
_PENALTY, _GROWTH, _DECAY = 0.6, 1.5, 0.8
"""The initial penalty for losing the prediction, and its factors after passes that lost it and that kept it."""
_MOST_OUTPUTS = 100
"""The last layer is solved for at most this number of outputs, because each takes one derivative."""
_LINEAR = 1e-3
"""Outputs count as linear if they are predicted up to this share of the mean logit."""
_CANDIDATES = 8
"""The number of neurons of a layer that a swap considers switching on, and also switching off."""
_PATIENCE = 12
"""The search ends after this number of passes without gain for any sample."""

_Masks = dict[str, Tensor]


@dataclass(frozen=True)
class MinError:
    """A set of neurons of a given size in each layer, optimised per sample against the error of the output.

    The result is never worse than the set from which it starts, for any sample, and it keeps every prediction that the
    start keeps. The search takes at most ``max_passes`` passes, each a forward and a backward through the masked network,
    and four forwards to verify. ``Trace.history`` holds the error of each pass. The error is that of all outputs; the
    target only determines the start.

    Args:
        measure: ``"smape"`` or ``"mse"``; see :mod:`lrp_lightning.metrics`.
        keep: the budget, as in :class:`TopK`; or a selection of channels, whose sets are the start and whose sizes are kept:
            ``PerLayer`` for budgets by layer.
        max_passes: the most passes to make.
        verbose: show progress.

    Raises:
        SelectionError: if an argument has another value; in the pass, if the start selects single values.
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
        """The selection that the search starts from."""
        return self.keep if isinstance(self.keep, Selection) else TopK(self.keep)

    def smallest(self, error: float = 0.1) -> Smallest:
        """The opposite search: the smallest sets whose error stays below a bound, regardless of ``keep``.

        Args:
            error: the bound, in the measure's unit.
        """
        return Smallest(self, error)

    def within(self, layers: Callable[[str], bool]) -> MinError:
        """The same search restricted to some layers; all neurons of the others are kept.

        Args:
            layers: a function of a layer's name that says whether to search in it.
        """
        return replace(self, keep=_Within(self.start, layers))

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor | None:
        """The choice of the start; see :meth:`Selection.select`."""
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
    """A selection in some layers only."""

    selection: Selection
    layers: Callable[[str], bool]

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor | None:
        return self.selection.select(relevance, layer=layer, output=output) if self.layers(layer) else None


@dataclass(frozen=True)
class Smallest:
    """The smallest sets whose error stays below a bound: bisection over the share of neurons kept, per sample.

    Made by :meth:`MinError.smallest`. Seven bisections, each a search of its own, find the share to within 1 %; a smaller
    set that also meets the bound may be missed, since the error need not fall with every additional neuron. A sample for
    which no smaller set meets the bound keeps all neurons.

    Args:
        by: the search for sets of a given size.
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
        """The same search restricted to some layers; as :meth:`MinError.within`.

        Args:
            layers: a function of a layer's name that says whether to search in it.
        """
        return Smallest(self.by.within(layers), self.error)

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor | None:
        """Without a search all neurons are kept; see :meth:`Selection.select`."""
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
        magnitude = {layer: whole.relevance[layer].abs() for layer in whole.masks}  # neurons against the class count too
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
    """The masked network and the output that it is compared with."""

    def __init__(self, model: nn.Module, inputs: Any, extra: Any, whole: Tensor, measure: str) -> None:
        if whole.ndim != 2:
            raise InputError(f"the error of a selection is that of logits (N, classes), got {tuple(whole.shape)}")
        self.model, self.inputs, self.extra, self.whole, self.measure = model, inputs, extra, whole, measure
        with torch.inference_mode(False):  # tensors made inside of it cannot be differentiated
            self.predicted = whole.argmax(1, keepdim=True)
            self.scale = whole.abs().mean(1, keepdim=True).clamp(min=torch.finfo(whole.dtype).tiny)

    def errors(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The error, and whether the prediction is kept, ``(N,)`` each."""
        return MEASURES[self.measure](output, self.whole), output.argmax(1) == self.predicted[:, 0]

    def hard(self, masks: _Masks) -> tuple[Tensor, Tensor]:
        return self.errors(masked_forward(self.model, self.inputs, masks, additional_forward_args=self.extra))

    def linear_end(self, masks: _Masks) -> str | None:
        """The last layer, if the outputs are linear in its mask, which two forwards test."""
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

    def gradient(self, masks: _Masks, penalty: Tensor, last: str | None) -> tuple[Tensor, _Masks, _Masks]:
        """The output, the derivative of a smooth error by each neuron, ``{layer: (N, C)}``, and the masks that it refers to.

        ``penalty``, ``(N,)``, weighs how far the predicted class is behind. If the outputs are linear in the mask of the
        ``last`` layer, a better set for it is found first.
        """
        with torch.inference_mode(False), torch.enable_grad():
            soft = {layer: mask.to(self.whole.dtype).requires_grad_() for layer, mask in masks.items()}
            output = soft_forward(self.model, self.inputs, soft, self.extra)
            if last is not None:
                parts = self._parts(output, soft[last], create_graph=True)
                solved = self._solved(output.detach(), parts.detach(), masks[last], penalty)
                output = output + (parts * (solved.to(parts) - soft[last])[:, None]).sum(2)
                masks = {**masks, last: solved}
            off = output - self.whole
            if self.measure == "mse":
                loss = (off / self.scale).square().mean(1)
            else:
                rounded = off.square() / (off.abs() + _ROUND * self.scale)
                loss = (2 * rounded / (self.whole.abs() + output.detach().abs() + _FLOOR * self.scale)).mean(1)
            loss = loss + penalty * self._behind(output)
            gradients = torch.autograd.grad(loss.sum(), list(soft.values()), allow_unused=True)
        gradient = {
            layer: torch.zeros_like(soft[layer]) if g is None else g.nan_to_num(0.0)
            for layer, g in zip(soft, gradients, strict=True)
        }
        if last is not None:
            gradient[last] = torch.zeros_like(gradient[last])
        return output.detach(), gradient, masks

    def _behind(self, output: Tensor) -> Tensor:
        """How far the predicted class is behind the others, plus a margin: ``(N, ...)`` of outputs ``(N, classes, ...)``."""
        if output.shape[1] == 1:
            return output[:, 0] * 0
        predicted = self.predicted.reshape(-1, *[1] * (output.ndim - 1)).expand(-1, 1, *output.shape[2:])
        scale = self.scale.reshape(-1, *[1] * (output.ndim - 2))
        others = output.scatter(1, predicted, -torch.inf).amax(1)
        return (others - output.gather(1, predicted)[:, 0] + _MARGIN * scale).relu() / scale

    def _cost(self, output: Tensor, penalty: Tensor) -> Tensor:
        """The error plus the penalty for losing the prediction: ``(N, K)`` for outputs ``(N, classes, K)``."""
        whole = self.whole[:, :, None]
        if self.measure == "mse":
            error = ((output - whole) / self.scale[:, :, None]).square().mean(1)
        else:
            error = 2 * (
                (output - whole).abs() / (output.abs() + whole.abs()).clamp(min=torch.finfo(output.dtype).tiny)
            ).mean(1)
        return error + penalty[:, None] * self._behind(output)

    def _solved(self, output: Tensor, parts: Tensor, mask: Tensor, penalty: Tensor) -> Tensor:
        """A set of the same size with lower cost, found by repeatedly making the best swap of each sample."""
        rows, many = torch.arange(len(mask), device=mask.device), min(_CANDIDATES, mask.shape[1])
        cost = self._cost(output[:, :, None], penalty)[:, 0]
        for _ in range(2 * mask.shape[1]):
            added = self._cost(output[:, :, None] + parts, penalty).masked_fill(mask, torch.inf)
            on = added.topk(many, 1, largest=False).indices
            with_it = output[:, :, None] + parts.gather(2, on[:, None].expand(-1, parts.shape[1], -1))
            without = self._cost((with_it[:, :, :, None] - parts[:, :, None]).flatten(2), penalty).view(len(mask), many, -1)
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
    """The best sets found, and the least error after each pass, ``(passes, N)``, from the start's to the result's."""
    for layer, mask in start.items():
        if mask.ndim != 2:
            raise SelectionError(f"MinError: layer {layer!r} selects single values; MinError can search only channels")
    with torch.inference_mode(False), torch.no_grad():
        sizes = {layer: mask.sum(1) for layer, mask in start.items()}
        least, kept = forward.hard(start)
        first, first_kept = least, kept
        best, masks, history = dict(start), dict(start), [least]
        scores = {layer: torch.zeros_like(mask, dtype=least.dtype) for layer, mask in start.items()}
        penalty, memory = torch.full_like(least, _PENALTY), torch.full_like(least, _MEMORY)
        swaps = torch.zeros_like(least, dtype=torch.long)
        seen: list[Tensor] = []
        at_best: _Masks = {}
        idle = 0
        last = forward.linear_end(start)
        passes = max_passes if start else 0  # a network without hidden layers has nothing to search
        for i in tqdm(range(passes), desc="MinError", disable=not verbose, leave=False):
            output, gradient, masks = forward.gradient(masks, penalty, last)
            error, survives = forward.errors(output)
            better = (error < least) & (survives | ~kept)
            best = {layer: torch.where(better[:, None], masks[layer], best[layer]) for layer in best}
            at_best = {k: torch.where(better[:, None], g, at_best[k]) if i else g for k, g in gradient.items()}
            least, kept = torch.where(better, error, least), torch.where(better, survives, kept)
            history.append(least)
            idle = 0 if bool(better.any()) else idle + (i > 0)
            if idle == _PATIENCE:
                break
            penalty = penalty * torch.where(survives, _DECAY, _GROWTH)
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
        final, final_kept = forward.hard(best)  # bit for bit as masked_forward returns it
        worse = (final > first) | (first_kept & ~final_kept)
        best = {layer: torch.where(worse[:, None], start[layer], best[layer]) for layer in best}
        history[-1] = torch.where(worse, first, final)
        return best, torch.stack(history)


def _best(scores: Tensor, sizes: Tensor) -> Tensor:
    """The neurons with the highest scores of each sample; ``sizes`` is their number, ``(N,)``."""
    return scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1) < sizes[:, None]


def _nearer(mask: Tensor, scores: Tensor, sizes: Tensor) -> Tensor:
    """``mask`` after the exchanges with the largest predicted gain towards the neurons with the highest scores."""
    goal = _best(scores, sizes)
    joining, leaving = goal & ~mask, mask & ~goal
    many = (_EXCHANGED * joining.sum(1)).ceil().clamp(min=_AT_LEAST)
    joins = _best(scores.masked_fill(~joining, -torch.inf), many) & joining
    leaves = _best((-scores).masked_fill(~leaving, -torch.inf), many) & leaving
    return mask ^ joins ^ leaves


def _swapped(masks: _Masks, gradient: _Masks, which: Tensor) -> _Masks:
    """``masks`` after the swap of two neurons of a layer with the largest predicted gain, or the ``which``-th largest."""
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
    chosen = torch.where(promise.gather(1, chosen).isfinite(), chosen, promise.shape[1])  # no such swap exists
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
