"""The Lightning callback that watches which neurons a classifier's decisions run through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import MeanMetric

from lrp_lightning.attribution import SelectiveLRP
from lrp_lightning.callbacks.pictures import log_pictures
from lrp_lightning.composites import Composite, as_composite
from lrp_lightning.drawing import draw_graph, draw_heatmaps
from lrp_lightning.errors import LRPError
from lrp_lightning.graph import build_graph
from lrp_lightning.masking import masked_forward
from lrp_lightning.metrics import CriticalNeuronAccuracy
from lrp_lightning.paths import k_best_paths
from lrp_lightning.rules import Rule
from lrp_lightning.selection import Selection, TopK, random_masks

__all__ = ["RelevanceMonitor"]

_SHARDED = ("FSDPStrategy", "ModelParallelStrategy")
_MICRO_BATCH = 32
"""Samples in one pass: bounds the callback's memory whatever the validation loader's batch size."""
_GRAPH_SAMPLES = 32


class RelevanceMonitor(Callback):
    """Logs relevance graphs, heatmaps and critical-neuron accuracy on validation batches.

    Works in ``fit``, ``trainer.validate`` and ``trainer.test``. Training with and without it ends in the same bits: it keeps
    its own random generator, leaves ``.grad``, modes, hooks and batch-norm statistics alone, and only reads the batch.

    Logged through ``pl_module.log``, so that checkpoints and early stopping can watch it:

    ============================================ ======================================================================
    ``relevance/critical_neuron_accuracy``        share of samples whose prediction survives with only the critical neurons
    ``relevance/random_accuracy``                 the same with random sets of the same size: the control
    ``relevance/conservation_error``              mean of ``|input + absorbed - output| / |output|``
    ============================================ ======================================================================

    Pictures, to TensorBoard (else to PNG files in the run's folder): ``relevance/heatmaps``, the first validation images
    beside the relevance of their predicted class, and ``relevance/critical_paths``, the graph of one class.

    Args:
        composite: which rule each layer gets; a composite, a rule, or a name.
        selection: which neurons are critical.
        every_n_epochs: how often, in epochs of ``fit``.
        max_samples: how many samples of a validation epoch are looked at (on each process).
        n_heatmaps: how many images are shown with their heatmaps; 0 for none.
        class_names: names of the classes, for the pictures.
        graph_class: the class whose critical paths are drawn; None for the first validation sample's label.

    Raises:
        MisconfigurationException: if an argument is out of range; in ``setup`` if the strategy shards parameters.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lrp_lightning.callbacks import RelevanceMonitor
        >>> monitor = RelevanceMonitor(max_samples=64)
        >>> trainer = Trainer(callbacks=[monitor], logger=False, enable_checkpointing=False, accelerator="cpu")
    """

    def __init__(
        self,
        composite: Composite | Rule | str = "epsilon_plus",
        selection: Selection = TopK(0.1),  # noqa: B008  (a frozen value)
        every_n_epochs: int = 1,
        max_samples: int = 256,
        n_heatmaps: int = 8,
        class_names: Sequence[str] | None = None,
        graph_class: int | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("every_n_epochs", every_n_epochs, 1),
            ("max_samples", max_samples, 1),
            ("n_heatmaps", n_heatmaps, 0),
        ):
            if not isinstance(value, int) or value < least:
                raise MisconfigurationException(f"RelevanceMonitor: {name} must be an int >= {least}, got {value!r}")
        if isinstance(selection, type) or not isinstance(selection, Selection):
            raise MisconfigurationException(
                f"RelevanceMonitor: selection must be a selection such as TopK(0.1), got {selection!r}"
            )
        self.composite = as_composite(composite)
        self.selection = selection
        self.every_n_epochs = every_n_epochs
        self.max_samples = max_samples
        self.n_heatmaps = n_heatmaps
        self.class_names = class_names
        self.graph_class = graph_class

        self.critical_neuron_accuracy = CriticalNeuronAccuracy()
        self.random_accuracy = CriticalNeuronAccuracy()
        self.conservation_error = MeanMetric()
        self._has_worked = False
        self._folder: str | None = None
        self._forget()

    def _forget(self) -> None:
        """Start a validation epoch with nothing seen."""
        self._active = False
        self._seen = 0
        self._generator = torch.Generator().manual_seed(0)
        self._shown: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # image, relevance, label, prediction
        self._of_class: list[Tensor] = []
        self._class = self.graph_class

    # what Lightning calls

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        strategy = trainer.strategy
        if type(strategy).__name__ in _SHARDED or getattr(strategy, "zero_stage_3", False):
            raise MisconfigurationException(
                f"RelevanceMonitor needs whole parameters, and {type(strategy).__name__} shards them. Train without it and "
                "run trainer.validate on one device from the checkpoint, with RelevanceMonitor attached."
            )
        self._folder = trainer.log_dir

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with _as_outside_inference_mode():
            self._forget()
            fitting = trainer.state.fn == "fit"
            self._active = not (fitting and trainer.current_epoch % self.every_n_epochs)
            for metric in self._metrics:
                metric.to(pl_module.device)
                metric.reset()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        room = 1 if trainer.sanity_checking else self.max_samples - self._seen
        if not self._active or room <= 0 or dataloader_idx > 0:
            return
        try:
            images, labels = _images_and_labels(batch)
            with _as_outside_inference_mode():
                for x, y in zip(images[:room].split(_MICRO_BATCH), labels[:room].split(_MICRO_BATCH), strict=True):
                    self._look(pl_module, x.clone(), y.clone())
            self._has_worked = True
        except LRPError as error:
            if not self._has_worked:  # at the start, so that a run does not go on without what was asked of it
                raise
            rank_zero_warn(f"RelevanceMonitor skips this validation: {error}")
            self._active = False

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not self._active:
            return
        with _as_outside_inference_mode():
            values = {
                "relevance/critical_neuron_accuracy": self.critical_neuron_accuracy.compute(),
                "relevance/random_accuracy": self.random_accuracy.compute(),
                "relevance/conservation_error": self.conservation_error.compute(),
            }
            for name, value in values.items():
                if not value.isnan():  # nan: no process saw a sample
                    pl_module.log(name, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
            if trainer.is_global_zero and self._seen:
                step = trainer.fit_loop.epoch_loop._batches_that_stepped  # the step at which Lightning logs scalars
                log_pictures(trainer, self._folder, self._pictures(pl_module, trainer.current_epoch), step)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_validation_epoch_start(trainer, pl_module)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.on_validation_batch_end(*args, **kwargs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_validation_epoch_end(trainer, pl_module)

    # what it does

    @property
    def _metrics(self) -> tuple[CriticalNeuronAccuracy, CriticalNeuronAccuracy, MeanMetric]:
        return self.critical_neuron_accuracy, self.random_accuracy, self.conservation_error

    def _look(self, model: LightningModule, x: Tensor, labels: Tensor) -> None:
        """Explain the predictions for a few samples and take the measures."""
        trace = SelectiveLRP(model, self.composite, self.selection).trace(x, target=lambda logits: logits.argmax(1))
        control = random_masks(trace.masks, self._generator)
        self.critical_neuron_accuracy.update(masked_forward(model, x, trace.masks), trace.output)
        self.random_accuracy.update(masked_forward(model, x, control), trace.output)
        self.conservation_error.update(trace.conservation_error)
        self._seen += len(x)

        assert isinstance(trace.inputs, Tensor)
        for sample in zip(x, trace.inputs, labels, trace.output.argmax(1), strict=True):
            if len(self._shown) == self.n_heatmaps or x.ndim != 4:
                break
            self._shown.append(sample)
        if self._class is None:
            self._class = int(labels[0])
        room = _GRAPH_SAMPLES - sum(map(len, self._of_class))
        self._of_class.append(x[labels == self._class][:room])

    def _pictures(self, model: LightningModule, epoch: int) -> dict[str, Figure]:
        pictures = {}
        if self._shown:
            images, relevance, labels, predictions = map(torch.stack, zip(*self._shown, strict=True))
            titles = [
                self._name(p) if p == y else f"{self._name(p)} (is {self._name(y)})"
                for p, y in zip(predictions.tolist(), labels.tolist(), strict=True)
            ]
            pictures["relevance/heatmaps"] = draw_heatmaps(images, relevance, titles, shares=True)
        samples = torch.cat(self._of_class)
        if len(samples) and self._class is not None:
            try:
                pictures["relevance/critical_paths"] = self._critical_paths(model, samples, self._class, epoch)
            except LRPError as error:  # edges need more of a model than relevance does
                rank_zero_warn(f"RelevanceMonitor draws no graph of critical paths: {error}")
        return pictures

    def _critical_paths(self, model: LightningModule, samples: Tensor, label: int, epoch: int) -> Figure:
        lrp = SelectiveLRP(model, self.composite, self.selection)
        graph = build_graph(lrp.trace(samples, target=label, edges=True))
        title = f"Critical paths of class {self._name(label)}, epoch {epoch}, {len(samples)} samples"
        return draw_graph(graph, paths=k_best_paths(graph, k=5), class_names=self.class_names, title=title, static=True)

    def _name(self, label: int) -> str:
        return str(label) if self.class_names is None else str(self.class_names[label])


@contextmanager
def _as_outside_inference_mode() -> Iterator[None]:
    """``trainer.validate`` runs under inference mode, whose tensors can be neither differentiated nor updated later."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _images_and_labels(batch: Any) -> tuple[Tensor, Tensor]:
    if not (isinstance(batch, list | tuple) and len(batch) >= 2 and all(isinstance(t, Tensor) for t in batch[:2])):
        raise MisconfigurationException(
            f"RelevanceMonitor reads batches of the form (images, labels), got {type(batch).__name__}"
        )
    images, labels = batch[:2]
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise MisconfigurationException(
            "RelevanceMonitor reads integer labels, one a sample; "
            f"got images {tuple(images.shape)} and labels {tuple(labels.shape)} of {labels.dtype}"
        )
    return images, labels
