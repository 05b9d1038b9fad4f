"""The observation of one validation epoch: passes in micro-batches, for measures and for pictures."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lrp_lightning.attribution import SelectiveLRP
from lrp_lightning.callbacks.batches import Samples
from lrp_lightning.callbacks.budget import Budget
from lrp_lightning.callbacks.classifier import Classifier, label_sets
from lrp_lightning.callbacks.measures import Measures, predicted
from lrp_lightning.callbacks.sampling import Sampling, mistakes, stratified
from lrp_lightning.callbacks.settings import Settings
from lrp_lightning.compat import in_double
from lrp_lightning.errors import InputError, UnsupportedOperatorError
from lrp_lightning.trace import Trace

__all__ = ["Explained", "Observation", "Remembered", "warned_once"]

CPU = torch.device("cpu")
OF_CLASSES = ("critical_paths", "path_heatmaps", "neurons", "reconstructions")
"""The parts of the log that need graphs of classes; all but the first also need the shown samples."""
GRAPH_SAMPLES = 16
"""The number of samples that a class's graph sums over."""
_IN_GRAPHS, _FEWEST_GRAPHS = 2.5, 2
"""If all classes may have a graph: samples in graphs per measured sample, and the least number of graphs."""


@dataclass(frozen=True)
class Explained:
    """A sample to show.

    Attributes:
        image: ``(C, H, W)``, on the CPU.
        relevance: shaped like it, of the explained class, through critical neurons.
        all_neurons: the same through all neurons.
        logit_shares: the shares of the explained logit that the two account for.
        label: the first of its true classes; -1 without labels.
        prediction: the class with the highest logit.
        probability: that of the prediction, by softmax.
        error: one minus the greatest probability of a true class.
        neurons: ``{layer: (C,)}``, the relevance of each neuron if all neurons propagate it.
    """

    image: Tensor
    relevance: Tensor
    all_neurons: Tensor
    logit_shares: tuple[float, float]
    label: int
    prediction: int
    probability: float
    error: float
    neurons: dict[str, Tensor]


@dataclass
class Remembered:
    """The state that is the same in every epoch and is saved in checkpoints.

    Attributes:
        shown: the samples whose heatmaps are shown, on the CPU, one sample per element, sorted by class.
        classes: the classes whose graphs are drawn.
        settled: whether these have been chosen.
    """

    shown: list[Samples] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    settled: bool = False

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, so that ``torch.load(weights_only=True)`` reads it."""
        shown = [{"inputs": list(s.inputs), "labels": s.labels} for s in self.shown]
        return {"shown": shown, "classes": list(self.classes), "settled": self.settled}

    @staticmethod
    def from_state_dict(state: dict[str, Any]) -> Remembered:
        """The inverse of :meth:`state_dict`.

        Raises:
            TypeError: if samples are not tensors.
        """
        shown = [Samples(tuple(s["inputs"]), s["labels"], torch.zeros(1, dtype=torch.long)) for s in state["shown"]]
        for part in (part for s in shown for part in (*s.inputs, *(() if s.labels is None else (s.labels,)))):
            if not isinstance(part, Tensor) or len(part) != 1:
                raise TypeError(f"no sample: {part!r:.200}")
        return Remembered(shown, list(state["classes"]), bool(state["settled"]))


def _finite(samples: Samples) -> Samples:
    """The samples without NaN or infinite values."""
    good = torch.stack([x.flatten(1).isfinite().all(1) for x in samples.inputs]).all(0)
    return samples[good.nonzero().flatten()]


@contextmanager
def warned_once() -> Iterator[None]:
    """Suppress the warning that an operator's plain gradient is used, which the monitor gives itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="relevance passed by plain gradient")
        yield


class Observation:
    """The observation of one validation epoch.

    Args:
        settings: the monitor's arguments.
        classifier: the explained classifier.
        measures: measures that were reset.
        budget: a budget whose epoch was started.
        sampling: the choice of samples.
        remembered: the samples and classes to show, chosen in an earlier epoch or by :meth:`finish`.
        on_unsupported: as in :class:`lrp_lightning.SelectiveLRP`.
    """

    def __init__(
        self,
        settings: Settings,
        classifier: Classifier,
        measures: Measures,
        budget: Budget,
        sampling: Sampling,
        remembered: Remembered,
        on_unsupported: Literal["raise", "gradient"] = "raise",
    ) -> None:
        self.settings, self.classifier, self.measures = settings, classifier, measures
        self.budget, self.sampling, self.remembered = budget, sampling, remembered
        self.lrp = SelectiveLRP(classifier, settings.composite, settings.selection, on_unsupported)
        self.whole = SelectiveLRP(classifier, settings.composite, on_unsupported=on_unsupported)
        self.notes: list[str] = []
        self.samples = 0
        self.classes: int | None = None
        self.stopped_early = False
        self.finished = False
        self.shares: dict[str, Tensor] = {}
        self._worst: list[tuple[float, Samples]] = []
        self.of_class: dict[int, list[Samples]] = {}
        self._pending: dict[tuple, list[Samples]] = {}
        self._candidates: list[tuple[int, Samples]] = []
        graphs = bool(set(OF_CLASSES) & set(settings.log))
        if not remembered.settled:
            remembered.classes = settings.listed_classes if graphs else []
        free = settings.free_classes
        if settings.graph_classes == "all":
            free = min(free, max(_FEWEST_GRAPHS, int(_IN_GRAPHS * sampling.most / GRAPH_SAMPLES)))
        self._free_classes = free - len(remembered.classes) if graphs else 0

    # samples come in

    def see(self, groups: Sequence[Samples], loader: int = 0) -> None:
        """Collect the chosen samples of a batch, and process them once there are enough for a micro-batch."""
        size = sum(map(len, groups))
        at, ordinals = self.sampling.choose(size, loader)
        ordinal_of = torch.full((size,), -1).index_copy_(0, at, ordinals)
        for group in groups:
            chosen = (ordinal_of[group.places] >= 0).nonzero().flatten()
            if len(chosen) and not self.stopped_early:
                part = replace(group[chosen].cloned(), places=ordinal_of[group.places[chosen]])
                self._pending.setdefault(part.shape, []).append(part)
        for shape, parts in list(self._pending.items()):
            while sum(map(len, parts)) >= (size := self.budget.micro_batch) and not self.stopped_early:
                whole = Samples.joined(parts)
                self._work(whole[:size])  # this may halve the micro-batch
                parts = [rest] if len(rest := whole[size:]) else []
            self._pending[shape] = parts

    def glance(self, groups: Sequence[Samples], most: int = 1) -> float:
        """Process one sample or a few, to see whether it works and how many seconds each takes."""
        before, began = self.samples, time.perf_counter()
        self._work(groups[0][:most].cloned())
        return (time.perf_counter() - began) / max(1, self.samples - before)

    def _work(self, samples: Samples) -> None:
        def look(part: Samples) -> None:
            with self._all_or_nothing(), self.measures.all_or_nothing():
                try:
                    self._look(part)
                except InputError:
                    finite = _finite(part)
                    if len(finite) == len(part):
                        raise
                    self._note("RelevanceMonitor leaves out samples that hold NaN or infinite values")
                    if len(finite):
                        self._look(finite)

        done = self.budget.in_micro_batches(samples, look)
        self.stopped_early |= done < len(samples)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Undo the notes inside this context if it raises; samples that did not fit into memory are processed in halves."""
        before = {
            "samples": self.samples, "shares": dict(self.shares), "_worst": self._worst, "_candidates": self._candidates,
            "of_class": {label: list(parts) for label, parts in self.of_class.items()}, "_free_classes": self._free_classes,
        }  # fmt: skip
        classes = list(self.remembered.classes)
        try:
            yield
        except BaseException:
            vars(self).update(before)
            self.remembered.classes = classes
            raise

    def _note(self, message: str) -> None:
        if message not in self.notes:
            self.notes.append(message)

    def finish(self) -> None:
        """Process the remaining samples, and choose what is shown from now on."""
        for parts in self._pending.values():
            if parts and not self.stopped_early:
                self._work(Samples.joined(parts))
        self._pending = {}
        if not self.remembered.settled and self.samples:
            order = sorted(range(len(self._candidates)), key=lambda i: self._candidates[i][0])
            self.remembered.shown = [self._candidates[i][1] for i in order]
            self.remembered.settled = True
        self.remembered.classes.sort()
        self.finished = True

    # one pass

    def _look(self, samples: Samples) -> None:
        """Explain a few samples and update the measures."""
        try:
            trace = self._trace(samples.inputs, self._explained_class(samples.labels))
        except UnsupportedOperatorError as error:
            why = str(error).replace('on_unsupported="gradient"', 'on_error="warn"')  # its name here
            if self.settings.on_error == "raise" or self.lrp.on_unsupported == "gradient":
                raise UnsupportedOperatorError(why) from error
            self._note(
                f"RelevanceMonitor: {why}. It continues with that operator's plain gradient: measures stay valid, but "
                "critical "
                "neurons are chosen less well, and relevance is not conserved"
            )
            self.lrp.on_unsupported = self.whole.on_unsupported = "gradient"
            trace = self._trace(samples.inputs, self._explained_class(samples.labels))
        names, classes = self.settings.class_names, trace.output.shape[1]
        self.classes = classes
        if names is not None and len(names) < classes:
            raise MisconfigurationException(
                f"RelevanceMonitor: class_names must have a name for each of {classes} classes, got {len(names)}: "
                f"{names!r:.200}"
            )
        if not trace.masks:
            self._note(
                f"RelevanceMonitor found no hidden layer to mask in {type(self.classifier.model).__name__}: there are "
                "no critical neurons, so only relevance is logged, not the measures of critical neurons"
            )
        sets = label_sets(samples.labels, trace.output)

        def trace_of(chosen: Callable[[Tensor], Tensor]) -> Trace:
            known = chosen is predicted and self.settings.target_fn is None
            return trace if known else self._trace(samples.inputs, chosen)

        self.measures.update(self.classifier, samples.inputs, trace, sets, samples.places, trace_of)
        self.samples += len(samples)
        if "shares" in self.settings.log:
            for layer, relevance in trace.relevance.items():
                relevance = relevance.float()
                whole = relevance.abs().sum(1, keepdim=True)
                share = torch.where(whole > 0, relevance / whole, 0).sum(0)
                self.shares[layer] = self.shares[layer] + share if layer in self.shares else share
        best = predicted(trace.output)
        of_class = best if sets is None else torch.where(sets.any(1), sets.int().argmax(1), best)
        self._note_shown(samples, of_class.cpu())
        self._note_of_class(samples, of_class.cpu())
        if sets is not None and "mistakes" in self.settings.log and self.settings.n_heatmaps:
            margins = mistakes(trace.output, sets)
            worst = margins.topk(min(self.settings.n_heatmaps, len(margins))).indices
            least = self._worst[-1][0] if len(self._worst) == self.settings.n_heatmaps else 0.0
            new = [(margins[i].item(), samples[i[None]].cloned(CPU)) for i in worst[margins[worst] > least]]
            self._worst = sorted([*self._worst, *new], key=lambda pair: -pair[0])[: self.settings.n_heatmaps]

    def _explained_class(self, labels: Tensor | None) -> Callable[[Tensor], Tensor]:
        if self.settings.target_fn is None:
            return predicted
        target_fn = self.settings.target_fn

        def chosen(logits: Tensor) -> Tensor:
            target = torch.as_tensor(target_fn(logits, labels), device=logits.device)
            if target.shape != logits.shape[:1] or target.is_floating_point() or target.dtype == torch.bool:
                raise MisconfigurationException(
                    "RelevanceMonitor: target_fn must return one class number per sample, "
                    f"({len(logits)},) of integers; got {tuple(target.shape)} of {target.dtype}"
                )
            return target.long()

        return chosen

    def _trace(self, inputs: tuple[Tensor, ...], target: Any, edges: bool = False, lrp: SelectiveLRP | None = None) -> Trace:
        with warned_once():
            return (lrp or self.lrp).trace(inputs, target, edges=edges)

    def _note_shown(self, samples: Samples, classes: Tensor) -> None:
        if self.remembered.settled:
            return
        before = [of for of, _ in self._candidates]
        kept = stratified(torch.cat([torch.tensor(before, dtype=torch.long), classes]), self.settings.n_heatmaps).tolist()
        new = {i: samples[i - len(before) : i - len(before) + 1].cloned(CPU) for i in kept if i >= len(before)}
        self._candidates = [
            self._candidates[i] if i < len(before) else (int(classes[i - len(before)]), new[i]) for i in kept
        ]

    def _note_of_class(self, samples: Samples, classes: Tensor) -> None:
        for label in classes.tolist() if self._free_classes > 0 else ():
            if self._free_classes > 0 and label not in self.remembered.classes:
                self.remembered.classes.append(label)
                self._free_classes -= 1
        for label in self.remembered.classes:
            parts = self.of_class.setdefault(label, [])
            at = (classes == label).nonzero().flatten()[: GRAPH_SAMPLES - sum(map(len, parts))]
            if len(at) and (not parts or parts[0].shape == samples.shape):  # of one shape, for a single pass
                parts.append(samples[at].cloned())

    # samples to show

    def explained(self, samples: Samples) -> list[Explained]:
        """Samples of one shape with the relevance of their explained class."""
        pictured = next((i for i, x in enumerate(samples.inputs) if x.ndim == 4), None)
        if pictured is None:
            return []
        target = self._explained_class(samples.labels)
        trace, whole = self._trace(samples.inputs, target), self._trace(samples.inputs, target, lrp=self.whole)
        inputs, through_all = (of.inputs if isinstance(of.inputs, tuple) else (of.inputs,) for of in (trace, whole))
        shares = [
            in_double(sum(x.flatten(1).sum(1) for x in of)) / in_double(whole.explained)  # type: ignore[arg-type]
            for of in (inputs, through_all)
        ]
        logits = trace.output
        sets = label_sets(samples.labels, logits)
        probabilities = in_double(logits).softmax(1)
        right = probabilities if sets is None else probabilities.masked_fill(~sets, 0)
        labels = torch.full_like(logits[:, 0], -1).long() if sets is None else sets.int().argmax(1)
        by_layer = {layer: relevance.float().cpu() for layer, relevance in whole.relevance.items()}
        return [
            Explained(*row)
            for row in zip(
                samples.inputs[pictured].cpu(),
                inputs[pictured].cpu(),
                through_all[pictured].cpu(),
                list(zip(*(part.tolist() for part in shares), strict=True)),
                labels.tolist(),
                logits.argmax(1).tolist(),
                probabilities.amax(1).tolist(),
                (1 - right.amax(1)).tolist(),
                [{layer: relevance[n] for layer, relevance in by_layer.items()} for n in range(len(logits))],
                strict=True,
            )
        ]

    def of_remembered(self) -> list[Explained]:
        """The samples that are shown in every epoch, explained with the current model."""
        return self._explained_of(self.remembered.shown)

    @cached_property
    def mistaken(self) -> list[Explained]:
        """This epoch's worst mistakes, worst first; explained on demand, because most epochs are not drawn."""
        return self._explained_of([sample for _, sample in self._worst])

    def _explained_of(self, shown: Sequence[Samples]) -> list[Explained]:
        """Explain single samples of any shapes, in their order."""
        device = next(self.classifier.parameters()).device
        found: dict[int, Explained] = {}
        by_shape: dict[tuple, list[int]] = {}
        for i, sample in enumerate(shown):
            by_shape.setdefault(sample.shape, []).append(i)
        for at in by_shape.values():
            samples = Samples.joined([shown[i].cloned(device) for i in at])
            done: list[Explained] = []
            self.budget.in_micro_batches(samples, lambda part, done=done: done.extend(self.explained(part)))  # type: ignore[misc]
            found.update(zip(at, done, strict=False))
        return [found[i] for i in sorted(found)]

    def class_trace(self, label: int) -> Trace | None:
        """The trace of a class's samples with all edges; None if no sample of it was seen."""
        parts = self.of_class.get(label)
        if not parts:
            return None
        return self._trace(Samples.joined(parts).inputs, label, edges=True)
