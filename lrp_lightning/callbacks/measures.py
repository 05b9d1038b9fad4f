"""The measures of an epoch, each a torchmetrics Metric, which torchmetrics synchronises over processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lrp_lightning.callbacks.classifier import Classifier
from lrp_lightning.callbacks.often_critical import MOST_CLASSES, CalibratedAgreement, often_critical
from lrp_lightning.compat import in_double
from lrp_lightning.masking import masked_forward
from lrp_lightning.metrics import (
    AblatedAccuracy,
    Comprehensiveness,
    ConservationError,
    ContestAccuracy,
    CriticalNeuronAccuracy,
    LogitCorrelation,
    RetainedAccuracy,
    RunnerUpAccuracy,
    SelectionError,
    SelectionStability,
    Sufficiency,
    runner_up,
)
from lrp_lightning.metrics.contest import own_logits_of
from lrp_lightning.trace import Trace

__all__ = ["Measures", "predicted", "random_sets"]


_MOST_COUNTS = 2_000_000
"""The greatest number of neurons times classes for which critical neurons are counted by class: 16 MB."""


class Measures:
    """Measures by name; only requested ones are computed.

    Args:
        wanted: names among those of :data:`lrp_lightning.callbacks.settings.SCALARS`.
        circuits_of_every: use one of this many samples for circuit agreement, which takes many forwards.
    """

    def __init__(self, wanted: Collection[str], circuits_of_every: int = 1) -> None:
        self.wanted, self.circuits_of_every = frozenset(wanted), circuits_of_every
        alone = {"sync_on_compute": False}  # counts are gathered by "gathered", before anything can fail
        every: dict[str, Metric] = {
            "contest_accuracy": ContestAccuracy(**alone),
            "random_contest_accuracy": ContestAccuracy(**alone),
            "runner_up_accuracy": RunnerUpAccuracy(**alone),
            "critical_neuron_accuracy": CriticalNeuronAccuracy(**alone),
            "random_accuracy": CriticalNeuronAccuracy(**alone),
            "retained_accuracy": RetainedAccuracy(**alone),
            "ablated_accuracy": AblatedAccuracy(**alone),
            "sufficiency": Sufficiency(**alone),
            "comprehensiveness": Comprehensiveness(**alone),
            "logit_correlation": LogitCorrelation(**alone),
            "smape": SelectionError("smape", **alone),
            "mse": SelectionError("mse", **alone),
            "conservation_error": ConservationError(**alone),
            "circuit_agreement": CalibratedAgreement(**alone),
        }
        self.metrics = {name: metric for name, metric in every.items() if name in wanted}
        self.stability: SelectionStability | None = None
        self._stable: Tensor | None = None
        """The stability of this epoch, over all processes; None without an earlier epoch."""
        self.comparing = False
        self.circuits: dict[str, Tensor] = {}
        """The circuit of each class from the epoch before: ``{layer: (classes, neurons) bool}``."""

    def reset(self, device: torch.device, training: bool) -> None:
        """Start an epoch with empty counts; in a ``training``, the epoch before is kept for comparison."""
        self.comparing = training and not self.wanted.isdisjoint(("stability", "circuit_agreement"))
        for metric in self.metrics.values():
            metric.to(device)
            metric.reset()
        self.circuits = {}
        if self.stability is not None:
            before = self.stability.to(device).reference
            self.stability.reset()
            self.stability.reference = before
            if self.comparing and "circuit_agreement" in self.wanted and not bool(before.isnan().all()):
                self.circuits = often_critical(before, self.stability.neurons)

    def update(
        self,
        classifier: Classifier,
        inputs: tuple[Tensor, ...],
        trace: Trace,
        sets: Tensor | None,
        ordinals: Tensor,
        trace_of: Callable[[Callable[[Tensor], Tensor]], Trace],
    ) -> None:
        """Add a few samples.

        Args:
            classifier: the explained classifier.
            inputs: each ``(N, ...)``.
            trace: a trace with critical neurons.
            sets: ``(N, classes)`` bool, the true classes; None without labels.
            ordinals: ``(N,)``, the samples' numbers in the epoch, which alone determine their random sets.
            trace_of: a function that traces the same samples for classes given by a function of the logits, for the contest.
        """
        kept = ablated = control = None
        wanted = self.wanted if trace.masks else frozenset()  # without hidden layers there are no critical neurons
        if wanted & _KEPT:
            kept = masked_forward(classifier, inputs, trace.masks)
        if wanted & {"ablated_accuracy", "comprehensiveness"}:
            ablated = masked_forward(classifier, inputs, trace.masks, keep=False)
        if "random_accuracy" in wanted:
            control = masked_forward(classifier, inputs, random_sets(trace.masks, ordinals))
        contested: tuple[Tensor | None, ...] = None, None, None
        if not wanted.isdisjoint(_CONTEST) and trace.output.shape[1] > 1:
            contested = _contest(classifier, inputs, trace, (kept, control), ordinals, trace_of)
        by_circuits: Tensor | None = None
        few = (ordinals % self.circuits_of_every == 0).nonzero().flatten().to(trace.output.device)
        if "circuit_agreement" in wanted and len(few):
            by_circuits = self._by_circuits(classifier, tuple(x[few] for x in inputs), trace)
        whole = trace.output
        for name, given in (
            *((name, (found, whole)) for name, found in zip(_CONTEST, contested, strict=True)),
            ("critical_neuron_accuracy", (kept, whole)),
            ("random_accuracy", (control, whole)),
            ("retained_accuracy", _labelled(kept, sets)),
            ("ablated_accuracy", _labelled(ablated, sets)),
            ("sufficiency", (kept, whole)),
            ("comprehensiveness", (ablated, whole)),
            ("logit_correlation", (kept, whole)),
            ("smape", (kept, whole)),
            ("mse", (kept, whole)),
            ("conservation_error", (trace.conservation_error,)),
            ("circuit_agreement", (by_circuits, whole[few], ordinals[few.cpu()])),
        ):
            if name in self.metrics and not any(value is None for value in given):
                self.metrics[name].update(*given)
        if self.comparing and trace.masks:
            self._count(trace, sets)

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Undo the counts inside this context if it raises."""
        stability = self.stability
        metrics = [*self.metrics.values(), *(() if stability is None else (stability,))]
        before = [
            (metric, name, list(state) if isinstance(state, list) else state.clone())
            for metric in metrics
            for name, state in metric.metric_state.items()
        ]
        try:
            yield
        except BaseException:
            for metric, name, state in before:
                setattr(metric, name, state)
            self.stability = stability
            raise

    def _by_circuits(self, classifier: Classifier, inputs: tuple[Tensor, ...], trace: Trace) -> Tensor | None:
        """``(n, classes)``, each class's logit with its circuit of the epoch before; None without circuits.

        ``inputs`` are n of the trace's samples; the trace gives the layers' shapes.
        """
        classes = trace.output.shape[1]
        fitting = {layer: (classes, neurons) for layer, neurons in _sizes(trace).items()}
        if classes > MOST_CLASSES or {layer: tuple(kept.shape) for layer, kept in self.circuits.items()} != fitting:
            return None
        own = trace.output.new_full((len(inputs[0]), classes), torch.nan)
        seen = torch.stack([kept.any(1) for kept in self.circuits.values()]).any(0)
        for c in seen.nonzero().flatten().tolist():
            masks = {layer: kept[c].view(trace.masks[layer].shape[1:]) for layer, kept in self.circuits.items()}
            masks = {layer: mask.expand(len(own), *mask.shape) for layer, mask in masks.items()}
            own[:, c] = masked_forward(classifier, inputs, masks)[:, c]
        return own

    def _count(self, trace: Trace, sets: Tensor | None) -> None:
        neurons = _sizes(trace)
        classes = trace.output.shape[1]
        classes = classes if classes * sum(neurons.values()) <= _MOST_COUNTS else 1
        if self.stability is None or (self.stability.neurons, self.stability.num_classes) != (neurons, classes):
            self.stability = SelectionStability(classes, neurons).to(trace.output.device)
        predicted = trace.output.argmax(1)
        of_class = predicted if sets is None else torch.where(sets.any(1), sets.int().argmax(1), predicted)
        self.stability.update(trace.masks, of_class if classes > 1 else torch.zeros_like(of_class))

    def state_dict(self) -> dict[str, Any] | None:
        """The state that the next epoch is compared with; None before the first."""
        if self.stability is None:
            return None
        return {
            "classes": self.stability.num_classes,
            "neurons": dict(self.stability.neurons),
            "degrees": self.stability.reference.float().cpu(),
        }

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """The inverse of :meth:`state_dict`.

        Raises:
            ValueError: if the degrees are not those of the classes and neurons.
        """
        if state is not None:
            stability, degrees = SelectionStability(state["classes"], state["neurons"]), in_double(state["degrees"])
            if degrees.shape != stability.reference.shape:
                raise ValueError(f"degrees of shape {tuple(degrees.shape)}, not {tuple(stability.reference.shape)}")
            stability.reference, self.stability = degrees, stability

    @contextmanager
    def gathered(self, agree: Callable[[bool], bool]) -> Iterator[None]:
        """A context with the counts of all processes. It contains all communication between them, and nothing that can fail.

        Args:
            agree: a function that returns whether a condition is true on all processes.
        """
        self._stable = None
        if self.comparing and agree(self.stability is not None):
            assert self.stability is not None
            self._stable = self.stability.compute().nanmean()
            self.stability.advance()
        with ExitStack() as stack:
            for metric in self.metrics.values():
                stack.enter_context(metric.sync_context())
            yield

    def compute(self) -> dict[str, Tensor]:
        """The measures, without those that have no samples; within :meth:`gathered`, over all processes."""
        with warnings.catch_warnings():  # NaN already says that a metric has no samples, or no variance
            warnings.filterwarnings(
                "ignore", message="The ``compute`` method of metric|The variance of predictions or target"
            )
            values = {name: metric.compute() for name, metric in self.metrics.items()}
        if self._stable is not None and "stability" in self.wanted:
            values["stability"] = self._stable
        return {name: value for name, value in values.items() if not value.isnan()}


def _sizes(trace: Trace) -> dict[str, int]:
    """The number of neurons, or single values, of each layer with a selection."""
    return {layer: mask.flatten(1).shape[1] for layer, mask in trace.masks.items()}


_KEPT = {"critical_neuron_accuracy", "retained_accuracy", "sufficiency", "logit_correlation", "smape", "mse"}
"""The measures that need a forward with the critical neurons alone."""
_CONTEST = ("contest_accuracy", "random_contest_accuracy", "runner_up_accuracy")


def predicted(logits: Tensor) -> Tensor:
    """The predicted class of each sample."""
    return logits.argmax(1)


def _contest(
    classifier: Classifier,
    inputs: tuple[Tensor, ...],
    trace: Trace,
    known: tuple[Tensor | None, Tensor | None],
    ordinals: Tensor,
    trace_of: Callable[[Callable[[Tensor], Tensor]], Trace],
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of predicted class and runner-up, each from its own neurons; the same for random sets; the runner-up's neurons.

    Each is ``(N, classes)``. ``known`` are the logits with the trace's neurons, and with random ones.
    """
    entries, controls = [], []
    for chosen in (predicted, runner_up):
        of, masks = chosen(trace.output), trace_of(chosen).masks
        alone, by_chance = known if masks is trace.masks else (None, None)
        alone = masked_forward(classifier, inputs, masks) if alone is None else alone
        by_chance = masked_forward(classifier, inputs, random_sets(masks, ordinals)) if by_chance is None else by_chance
        entries.append((of, alone))
        controls.append((of, by_chance))
    return own_logits_of(entries), own_logits_of(controls), entries[-1][1]


def _labelled(logits: Tensor | None, sets: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The logits of samples with a true class, and a label: the predicted class if it is true, otherwise another class.

    None without such samples.
    """
    if logits is None or sets is None or not bool((there := sets.any(1)).any()):
        return None, None
    logits, sets = logits[there], sets[there]
    predicted = logits.argmax(1)
    hit = sets.gather(1, predicted[:, None]).flatten()
    return logits, torch.where(hit, predicted, (predicted + 1) % logits.shape[1])


def random_sets(masks: dict[str, Tensor], ordinals: Tensor) -> dict[str, Tensor]:
    """Random sets of the same sizes; a sample's sets do not depend on the process or on the other samples of its batch.

    Neurons are ordered by a hash of sample, layer and neuron (the finaliser of MurmurHash3), because the numbers of a random
    generator would depend on micro-batches and processes.

    Args:
        masks: ``{layer: (N, C) bool}``.
        ordinals: ``(N,)``, the samples' numbers, not negative.
    """

    def shuffled(layer: int, mask: Tensor) -> Tensor:
        flat = mask.flatten(1)  # single values, if the selection chooses these
        neurons = torch.arange(flat.shape[1], device=mask.device)
        keys = _mixed(_mixed(ordinals.to(mask.device) + 1)[:, None] ^ _mixed(neurons + 0x9E3779B9 * (layer + 1)))
        return flat.gather(1, keys.argsort(1)).view_as(mask)

    return {layer: shuffled(number, mask) for number, (layer, mask) in enumerate(masks.items())}


def _mixed(x: Tensor) -> Tensor:
    x = x & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFF
    return x ^ (x >> 16)
