"""Class circuits: for each class one set of neurons, the same for every image, from which its logit can be computed.

A circuit is learnt on images of *all* classes: its class's logit, computed with the circuit alone, should follow the whole
network's, whether or not the image shows the class. The error is measured after one scale and offset per class, because a
circuit gives a weaker logit than the whole network. Each neuron has a score, and the circuit consists of the neurons with
the highest scores. Scores start from the relevance of the class and follow the gradient of that error through the masks
(straight-through estimation: Bengio et al. 2013, arXiv 1308.3432; for sets of a network's parts, Ramanujan et al. 2020,
arXiv 1911.13299).
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
"""Initial scores of a layer are between zero and this."""
_RATE = 0.02
"""Adam's initial learning rate; it falls to a tenth of this."""
_JUDGED = 5
"""How often, at even intervals, the current sets are compared with the best."""
_SHOWN = 24
"""Classes that a notebook shows."""
_HELD = 512
"""The number of samples for the neurons' mean outputs and for calibration."""


class Circuits(dict[int, Masks]):
    """``{class: {layer: (C,) bool}}``, the neurons of each class's circuit, and the calibration of its logit.

    Returned by :func:`class_circuits`, or made from your own sets, then without calibration.

    Args:
        masks: for each class, ``{layer: (C,) bool}``; for edges ``{layer: (upper, lower) bool}``.
        means: the output of a neuron that is off, ``{layer: (...)}`` value by value, or the value read through an edge that
            is off; None for zero.
        calibration: ``{class: (scale, offset)}``, which map a circuit's logit to the whole network's mean and deviation.
        of: what circuits consist of, ``"neurons"`` or ``"edges"``.

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
            TargetError: if there is a circuit for a class that the model does not have.
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
        """The same circuits, calibrated on these inputs, which should be images of all classes.

        Args:
            model: the classifier.
            inputs: one tensor, or a tuple of them, two samples or more.
            additional_forward_args: passed to the model after ``inputs``.
        """
        own = self.logits(model, inputs, False, additional_forward_args)
        whole = masked_forward(model, inputs, {}, additional_forward_args=additional_forward_args)
        found = {c: calibration(own[:, c], whole[:, c]) for c in self}
        return Circuits(
            self, self.means, {c: (float(scale), float(offset)) for c, (scale, offset) in found.items()}, self.of
        )

    def _repr_html_(self) -> str:
        """For a notebook: the size of each class's circuit, and its calibration."""
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
    """The size of a circuit, and that of the whole network."""
    return sum(int(mask.sum()) for mask in masks.values()), sum(mask.numel() for mask in masks.values())


@torch.inference_mode(False)  # tensors made inside of it cannot be differentiated
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
            and of the inputs, each a slice of a weight. There are far more edges, so the choice is finer.
        per_layer: keep ``keep`` neurons of each layer; by default the budget is distributed over all layers, with at least
            one neuron in each, which follows the network far better.
        steps: number of batches to learn from.
        composite: for the relevance that scores start from.
        progress: whether to show a progress bar.

    Returns:
        The circuits, a dictionary, with :meth:`Circuits.logits`.

    Raises:
        SelectionError: if ``keep``, ``measure``, ``replacement``, ``of`` or ``steps`` has another value.
        InputError: if the loader yields no batches, or no batch of at least two samples.
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
    """A set, the error of its logit, and the calibration with which it was measured."""

    masks: Masks
    error: float
    calibration: tuple[float, float]


@dataclass
class _Search:
    """The settings of a search for circuits."""

    model: nn.Module
    classes: Sequence[int]
    shapes: dict[str, torch.Size]
    """The shape of each layer's mask."""
    keep: int | float
    per_layer: bool
    measure: str
    of: Literal["neurons", "edges"]
    means: Masks | None

    def by_layer(self, flat: Tensor) -> list[Tensor]:
        """Split values, one per neuron or edge of all layers, by layer."""
        return list(flat.split([shape.numel() for shape in self.shapes.values()]))

    def masks(self, scores: Tensor) -> Masks:
        """The neurons, or edges, with the highest scores, as masks; scores are those of all layers in one tensor."""
        of_layers = self.by_layer(scores.detach())
        if self.per_layer:
            kept = [_highest(row, number_of(self.keep, len(row))) for row in of_layers]
        else:
            best = torch.cat([_highest(row, 1) for row in of_layers])  # a layer without neurons would block everything
            many = max(number_of(self.keep, len(scores)), len(of_layers))
            kept = self.by_layer(_highest(scores.detach().masked_fill(best, torch.inf), many))
        return {layer: mask.view(shape) for (layer, shape), mask in zip(self.shapes.items(), kept, strict=True)}

    def starting_scores(self, x: Tensor, composite: Composite | Rule | str) -> Tensor:
        """The relevance of each neuron, or edge, for each class, relative to the layer's largest; one row per class.

        For neurons, the mean ``|relevance|`` over samples. For edges, the sum over samples, computed by gradient, which
        equals the epsilon rule.
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
        """The gradient of each class's error on a batch with respect to its masks, one row per class."""
        whole = masked_forward(self.model, x, {})
        return torch.stack(
            [self._gradient(x, self.masks(row), c, whole[:, c]) for c, row in zip(self.classes, scores, strict=True)]
        )

    def _gradient(self, x: Tensor, masks: Masks, c: int, whole: Tensor | None = None) -> Tensor:
        """The gradient of a class's logit, or of its error if a reference is given, with respect to the masks."""
        with torch.enable_grad():
            soft = {layer: mask.to(x.dtype).requires_grad_() for layer, mask in masks.items()}
            own = soft_forward(self.model, x, soft, None, self.means, self.of)[:, c]
            value = own.sum() if whole is None else _error(own, whole, self.measure)
            found = torch.autograd.grad(value, list(soft.values()), allow_unused=True, materialize_grads=True)
        return torch.cat([gradient.flatten() for gradient in found]).nan_to_num(0.0, 0.0, 0.0)

    def judged(self, scores: Tensor, batches: Sequence[Tensor], whole: Tensor) -> list[_Judged]:
        """Each class's set, evaluated on these batches; ``whole`` are the whole network's logits."""
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
    """Scale and offset that map circuits' logits, ``(N, ...)``, to the mean and deviation of the whole network's.

    Least squares is not used: it would shrink the logits of a poor circuit, so that its class would never have the
    highest logit.
    """
    scale = whole.std(0, correction=0) / own.std(0, correction=0).clamp(min=torch.finfo(own.dtype).tiny ** 0.5)
    return scale, whole.mean(0) - scale * own.mean(0)


def _error(own: Tensor, whole: Tensor, measure: str) -> Tensor:
    """The error of a circuit's logits after calibration, compared with the whole network's; both ``(N,)``.

    The squared error is divided by twice the logit's variance, so that it equals 1 minus the correlation.
    """
    if measure == "mse":
        one, other = own - own.mean(), whole - whole.mean()
        return 1 - (one * other).sum() / (one.norm() * other.norm()).clamp(min=torch.finfo(own.dtype).tiny)
    scale, offset = calibration(own, whole)
    return smape((scale * own + offset)[:, None], whole[:, None]).mean()


def _highest(values: Tensor, many: int) -> Tensor:
    """``(C,) bool``, the ``many`` highest; of equal ones the first."""
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
    """The inputs of batches with at least two samples, because a deviation needs two."""
    for batch in loader:
        x = inputs_of(batch)
        if len(x) > 1:
            yield x


def _check_class(c: int, logits: Tensor) -> None:
    if not 0 <= c < logits.shape[1]:
        raise TargetError(f"there is no class {c}; the model has classes 0 to {logits.shape[1] - 1}")
