"""Class circuits: for each class one set of neurons, the same for every image, from which its logit can be computed.

A circuit is found on images of *all* classes: its class's logit, computed with the circuit alone, is to follow the whole
network's where the class is shown and where it is not. How well is measured after one scale and offset for the class, since
a circuit gives a weaker logit than the whole network. Sets are the highest of scores, one per neuron, which start from the
relevance of the class and go down the gradient of that error through the masks (straight-through estimation: Bengio et al.
2013, arXiv 1308.3432; for sets of a network's parts, Ramanujan et al. 2020, arXiv 1911.13299).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lrp_lightning.attribution import SelectiveLRP
from lrp_lightning.checks import check_batches, inputs_of, is_whole
from lrp_lightning.composites import Composite
from lrp_lightning.errors import InputError, SelectionError, TargetError
from lrp_lightning.masking import check_of, check_replacement, masked_forward, means_of, reads_of, soft_forward
from lrp_lightning.metrics.accuracy import check_outputs
from lrp_lightning.metrics.selection_error import check_measure, smape
from lrp_lightning.progress import tqdm
from lrp_lightning.rules import Epsilon, Rule
from lrp_lightning.selection.budget import check_budget, number_of
from lrp_lightning.selection.by_relevance import TopK
from lrp_lightning.words import percent

__all__ = ["Circuits", "class_circuits"]

Masks = dict[str, Tensor]

_START = 0.5
"""Scores of a layer start between zero and this."""
_RATE = 0.02
"""Adam's learning rate at first; it falls to a tenth of it."""
_JUDGED = 5
"""So many times, at even distances, the sets found so far are compared with the best."""
_SHOWN = 24
"""Classes that a notebook shows."""
_HELD = 512
"""So many samples tell what neurons give on average, and calibrate."""


class Circuits(dict[int, Masks]):
    """``{class: {layer: (C,) bool}}``, the neurons of each class's circuit, and what its logit is calibrated by.

    Made by :func:`class_circuits`; or of sets of one's own, which are not calibrated then.

    Args:
        masks: of each class, ``{layer: (C,) bool}``; of edges ``{layer: (upper, lower) bool}``.
        means: what a neuron that is off gives, ``{layer: (...)}`` value by value, or what is read over an edge that is off;
            None for zero.
        calibration: ``{class: (scale, offset)}``, that bring a circuit's logit to the whole network's mean and deviation.
        of: what circuits are made of, ``"neurons"`` or ``"edges"``.

    Example:
        >>> import torch
        >>> from lrp_lightning import Circuits
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> x, everything = torch.randn(5, 4), {"0": torch.ones(8, dtype=torch.bool)}
        >>> circuits = Circuits({c: everything for c in range(3)})
        >>> torch.equal(circuits.logits(model, x), model(x))
        True
    """

    def __init__(
        self,
        masks: Mapping[int, Masks],
        means: Masks | None = None,
        calibration: Mapping[int, tuple[float, float]] | None = None,
        of: Literal["neurons", "edges"] = "neurons",
    ) -> None:
        super().__init__(masks)
        self.means: Masks | None = means
        self.calibration: dict[int, tuple[float, float]] = dict(calibration or {})
        self.of = of

    def logits(
        self,
        model: nn.Module,
        inputs: Tensor | tuple[Tensor, ...],
        calibrated: bool = True,
        additional_forward_args: Any = None,
    ) -> Tensor:
        """Each class's logit with its own circuit alone; takes a forward per class.

        Args:
            model: the classifier.
            inputs: one tensor, or a tuple of them, samples first.
            calibrated: whether to apply each class's scale and offset, if it has them.
            additional_forward_args: passed to the model after ``inputs``.

        Returns:
            ``(N, classes)``; NaN for classes without a circuit.

        Raises:
            TargetError: if there is a circuit of a class that the model does not have.
        """
        own: Tensor | None = None
        replacement: Literal["zero"] | Masks = "zero" if self.means is None else self.means
        for c, masks in self.items():
            logits = masked_forward(model, inputs, masks, True, additional_forward_args, replacement, self.of)
            _check_class(c, logits)
            own = torch.full_like(logits, torch.nan) if own is None else own
            scale, offset = self.calibration.get(c, (1.0, 0.0)) if calibrated else (1.0, 0.0)
            own[:, c] = scale * logits[:, c] + offset
        if own is None:
            raise SelectionError("circuits are empty: there is none for any class")
        return own

    def calibrated(
        self, model: nn.Module, inputs: Tensor | tuple[Tensor, ...], additional_forward_args: Any = None
    ) -> Circuits:
        """The same circuits with scales and offsets that suit these inputs, images of all classes.

        Args:
            model: the classifier.
            inputs: one tensor, or a tuple of them, two samples or more.
            additional_forward_args: given to the model after ``inputs``.
        """
        own = self.logits(model, inputs, False, additional_forward_args)
        whole = masked_forward(model, inputs, {}, additional_forward_args=additional_forward_args)
        found = {c: calibration(own[:, c], whole[:, c]) for c in self}
        return Circuits(
            self, self.means, {c: (float(scale), float(offset)) for c, (scale, offset) in found.items()}, self.of
        )

    def _repr_html_(self) -> str:
        """For a notebook: how large each class's circuit is, and its calibration."""
        from lrp_lightning.html import sections
        from lrp_lightning.html.markup import part

        rows = []
        for c, masks in itertools.islice(self.items(), _SHOWN):
            kept, of = _size(masks)
            scale = [f"{value:.3g}" for value in self.calibration.get(c, ())]
            rows.append([str(c), f"{kept:,} of {of:,}", percent(kept / of) if of else "", *(scale or ["", ""])])
        heads = ["class", self.of, "share", "scale", "offset"]
        said = (
            f"For each class the {self.of} with which alone its logit is computed; the others output "
            f"{'zero' if self.means is None else 'their mean'}. Scale and offset map that logit to the whole network's."
        )
        many = f"Circuits of {len(self)} class{'es' * (len(self) != 1)}"
        return part(many, ("numbers", sections.numbers(heads, rows, len(self), said)))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{c}: {' of '.join(map(str, _size(masks)))}" for c, masks in self.items())
        off = "zero" if self.means is None else "their mean"
        return f"Circuits({self.of} of class {sizes}; the others give {off})"


def _size(masks: Masks) -> tuple[int, int]:
    """How many are in a circuit, and of how many."""
    return sum(int(mask.sum()) for mask in masks.values()), sum(mask.numel() for mask in masks.values())


@torch.inference_mode(False)  # what is made inside of it cannot be differentiated
def class_circuits(
    model: nn.Module,
    loader: Iterable[Any],
    keep: int | float = 0.2,
    classes: Sequence[int] | None = None,
    measure: Literal["mse", "smape"] = "mse",
    replacement: Literal["zero", "mean"] = "mean",
    of: Literal["neurons", "edges"] = "neurons",
    per_layer: bool = False,
    steps: int = 100,
    composite: Composite | Rule | str = Epsilon(),  # noqa: B008  (a frozen value)
    progress: bool = True,
) -> Circuits:
    """Learn for each class one set of neurons from which its logit can be computed, for images of every class.

    Each step takes one batch of the loader, which is repeated as needed, and one forward and backward per class. The first
    batches, up to 512 samples, give the neurons' mean outputs and the scale and offset of each class; on these a circuit is
    never worse than the neurons of highest mean ``|relevance|`` that it starts from. Nothing is random: the same batches
    give the same circuits.

    Args:
        model: the classifier.
        loader: batches ``(inputs, labels)``, or inputs alone; images of all classes, mixed. Labels are not used.
        keep: size of a circuit: an int is a number of neurons, a float in (0, 1] a share.
        classes: which classes; None for all of the model's.
        measure: the error of a class's logit with its circuit, scaled to the mean and deviation of the whole network's:
            ``"mse"`` or ``"smape"``.
        replacement: the output of a neuron that is off: ``"zero"``, or its ``"mean"`` over images, value by value.
        of: what circuits consist of: ``"neurons"``, or ``"edges"``, the connections between the neurons of hidden layers
            and of the inputs, each a slice of a weight, which are far more and so a finer choice.
        per_layer: keep that many neurons of each layer; by default the budget is distributed over all layers, with at least
            one neuron in each, which follows the network far better.
        steps: number of batches to learn from.
        composite: for the relevance that scores start from.
        progress: whether to show a progress bar.

    Returns:
        The circuits, a dictionary, with :meth:`Circuits.logits`.

    Raises:
        SelectionError: if ``keep``, ``measure``, ``replacement``, ``of`` or ``steps`` is not one of these.
        InputError: if the loader gives no batches, or none with two samples or more.
        TargetError: if ``classes`` is empty, or the model does not have one of them.

    Example:
        >>> import torch
        >>> from lrp_lightning import class_circuits
        >>> from lrp_lightning.metrics import circuits_agree
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3)).eval()
        >>> circuits = class_circuits(model, torch.randn(10, 100, 4).unbind(), progress=False)
        >>> circuits
        Circuits(neurons of class 0: 13 of 64, 1: 13 of 64, 2: 13 of 64; the others give their mean)
        >>> x = torch.randn(500, 4)
        >>> circuits_agree(circuits.logits(model, x), model(x)).float().mean() > 0.8
        tensor(True)
    """
    keep = check_budget("class_circuits", keep)
    check_measure("class_circuits", measure)
    check_replacement(replacement)
    if not is_whole(steps) or steps < 1:
        raise SelectionError(f"class_circuits: steps must be a whole number >= 1, got {steps!r}")
    check_of(of)
    check_batches(loader)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    held = _first_batches(loader, device)
    traced = SelectiveLRP(model, composite, TopK(1.0)).trace(held[0][:2], target=lambda logits: logits.argmax(1))
    check_outputs(traced.output)
    classes = range(traced.output.shape[1]) if classes is None else list(classes)
    if not all(map(is_whole, classes)):
        raise TargetError(f"class_circuits: classes must be class numbers, got {classes!r:.80}")
    classes = [int(c) for c in classes]
    if not classes:
        raise TargetError("class_circuits: classes is empty; use None for all classes")
    for c in classes:
        _check_class(c, traced.output)
    if of == "edges":
        read = [reads_of(model, x, traced.masks) for x in held]
        shapes = {layer: shape for layer, (_, shape) in read[0].items()}
        means = [{layer: mean for layer, (mean, _) in reads.items()} for reads in read]
    else:
        shapes = {layer: mask.shape[1:] for layer, mask in traced.masks.items()}
        means = [means_of(model, x, traced.masks) for x in held] if replacement == "mean" else []
    off = _mean_over(means, [len(x) for x in held]) if replacement == "mean" else None
    search = _Search(model, classes, shapes, keep, per_layer, measure, of, off)
    scores = search.starting_scores(held[0], composite)
    whole = torch.cat([masked_forward(model, x, {}) for x in held])
    best = search.judged(scores, held, whole)
    optimizer = torch.optim.Adam([scores.requires_grad_()], lr=_RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)
    batches = itertools.islice(_cycled(loader), steps)
    times = {round(steps * (i + 1) / _JUDGED) for i in range(_JUDGED)}
    for done, x in enumerate(tqdm(batches, total=steps, desc="class circuits", disable=not progress, leave=False), 1):
        scores.grad = search.gradient(scores, x.to(device))
        optimizer.step()
        schedule.step()
        if done in times:
            now = search.judged(scores.detach(), held, whole)
            best = [min(pair, key=lambda judged: judged.error) for pair in zip(best, now, strict=True)]
    return Circuits(
        {c: judged.masks for c, judged in zip(classes, best, strict=True)},
        search.means,
        {c: judged.calibration for c, judged in zip(classes, best, strict=True)},
        of,
    )


class _Judged(NamedTuple):
    """A set, how far its logit is from the whole network's, and by what it comes nearest to it."""

    masks: Masks
    error: float
    calibration: tuple[float, float]


@dataclass
class _Search:
    """What a search for circuits goes by."""

    model: nn.Module
    classes: Sequence[int]
    shapes: dict[str, torch.Size]
    """Of each layer's masks."""
    keep: int | float
    per_layer: bool
    measure: str
    of: Literal["neurons", "edges"]
    means: Masks | None

    def by_layer(self, flat: Tensor) -> list[Tensor]:
        """What there is one of for each neuron, or edge, of all layers, layer by layer."""
        return list(flat.split([shape.numel() for shape in self.shapes.values()]))

    def masks(self, scores: Tensor) -> Masks:
        """Those of the highest scores, which are one for each neuron, or edge, of all layers."""
        of_layers = self.by_layer(scores.detach())
        if self.per_layer:
            kept = [_highest(row, number_of(self.keep, len(row))) for row in of_layers]
        else:
            best = torch.cat([_highest(row, 1) for row in of_layers])  # a layer without a neuron would let nothing through
            many = max(number_of(self.keep, len(scores)), len(of_layers))
            kept = self.by_layer(_highest(scores.detach().masked_fill(best, torch.inf), many))
        return {layer: mask.view(shape) for (layer, shape), mask in zip(self.shapes.items(), kept, strict=True)}

    def starting_scores(self, x: Tensor, composite: Composite | Rule | str) -> Tensor:
        """The relevance of each neuron, or edge, for each class, as a share of the largest of its layer; a row a class.

        Of neurons its size in each sample, on average. Of edges what they carry in all samples together, by gradient, which
        is their relevance by the epsilon rule.
        """
        lrp, rows = SelectiveLRP(self.model, composite), []
        for c in self.classes:
            if self.of == "edges":
                everything = {layer: x.new_ones(shape) for layer, shape in self.shapes.items()}
                found = self._gradient(x, everything, c)
            else:
                relevance = lrp.trace(x, target=c).relevance
                found = torch.cat([relevance[layer].abs().mean(0) for layer in self.shapes])
            of_layers = self.by_layer(found.abs())
            rows.append(torch.cat([_START * row / row.max().clamp(min=torch.finfo(row.dtype).tiny) for row in of_layers]))
        return torch.stack(rows)

    def gradient(self, scores: Tensor, x: Tensor) -> Tensor:
        """How each class's error on a batch changes with its masks, a row a class."""
        whole = masked_forward(self.model, x, {})
        return torch.stack(
            [self._gradient(x, self.masks(row), c, whole[:, c]) for c, row in zip(self.classes, scores, strict=True)]
        )

    def _gradient(self, x: Tensor, masks: Masks, c: int, whole: Tensor | None = None) -> Tensor:
        """How a class's logit, or its error where there is what it is measured against, changes with the masks."""
        with torch.enable_grad():
            soft = {layer: mask.to(x.dtype).requires_grad_() for layer, mask in masks.items()}
            own = soft_forward(self.model, x, soft, None, self.means, self.of)[:, c]
            value = own.sum() if whole is None else _error(own, whole, self.measure)
            found = torch.autograd.grad(value, list(soft.values()), allow_unused=True, materialize_grads=True)
        return torch.cat([gradient.flatten() for gradient in found]).nan_to_num(0.0, 0.0, 0.0)

    def judged(self, scores: Tensor, batches: Sequence[Tensor], whole: Tensor) -> list[_Judged]:
        """Each class's set, judged on these batches, of which ``whole`` are the whole network's logits."""
        found = []
        for c, row in zip(self.classes, scores, strict=True):
            masks = self.masks(row)
            circuit = Circuits({c: masks}, self.means, of=self.of)
            own = torch.cat([circuit.logits(self.model, x)[:, c] for x in batches])
            scale, offset = calibration(own, whole[:, c])
            error = _error(own, whole[:, c], self.measure)
            found.append(_Judged(masks, float(error), (float(scale), float(offset))))
        return found


def calibration(own: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and offset that bring circuits' logits, ``(N, ...)``, to the mean and deviation of the whole network's.

    Not those of least squares: these would shrink the logits of a circuit the more, the worse it is, and its class would
    never have the highest.
    """
    scale = whole.std(0, correction=0) / own.std(0, correction=0).clamp(min=torch.finfo(own.dtype).tiny ** 0.5)
    return scale, whole.mean(0) - scale * own.mean(0)


def _error(own: Tensor, whole: Tensor, measure: str) -> Tensor:
    """How far a circuit's logits are from the whole network's after calibration; both ``(N,)``.

    The squared error is in units of twice the logit's variance, which makes it 1 less the correlation.
    """
    if measure == "mse":
        one, other = own - own.mean(), whole - whole.mean()
        return 1 - (one * other).sum() / (one.norm() * other.norm()).clamp(min=torch.finfo(own.dtype).tiny)
    scale, offset = calibration(own, whole)
    return smape((scale * own + offset)[:, None], whole[:, None]).mean()


def _highest(values: Tensor, many: int) -> Tensor:
    """``(C,) bool``, the ``many`` highest; of equals the first."""
    kept = torch.zeros_like(values, dtype=torch.bool)
    return kept.scatter_(0, values.argsort(descending=True, stable=True)[:many], True)


def _mean_over(means: Sequence[Masks], samples: Sequence[int]) -> Masks:
    """The mean over the samples of all batches."""
    return {layer: sum(m[layer] * n for m, n in zip(means, samples, strict=True)) / sum(samples) for layer in means[0]}  # type: ignore[misc]


def _first_batches(loader: Iterable[Any], device: torch.device) -> list[Tensor]:
    held: list[Tensor] = []
    for x in _inputs(loader):
        held.append(x.to(device))
        if sum(map(len, held)) >= _HELD:
            break
    if not held:
        raise InputError("class_circuits: the loader gives no batch with at least two samples")
    return held


def _cycled(loader: Iterable[Any]) -> Iterator[Tensor]:
    while True:
        again = iter(_inputs(loader))
        x = next(again, None)
        if x is None:
            raise InputError(
                "class_circuits: the loader gives its batches only once; give a DataLoader or a list of batches"
            )
        yield x
        yield from again


def _inputs(loader: Iterable[Any]) -> Iterator[Tensor]:
    """The inputs of batches with two samples or more, of which alone it can be told what follows what."""
    for batch in loader:
        x = inputs_of(batch)
        if len(x) > 1:
            yield x


def _check_class(c: int, logits: Tensor) -> None:
    if not 0 <= c < logits.shape[1]:
        raise TargetError(f"there is no class {c}; the model has classes 0 to {logits.shape[1] - 1}")
