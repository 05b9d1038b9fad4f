"""The Lightning callback that logs which neurons a classifier's decisions depend on."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lrp_lightning.callbacks.batches import BatchFn, read_batch
from lrp_lightning.callbacks.budget import Budget
from lrp_lightning.callbacks.classifier import Classifier, ModelOf
from lrp_lightning.callbacks.insights import INSIGHTS
from lrp_lightning.callbacks.kept import Kept
from lrp_lightning.callbacks.loggers import Destination, Findings, destinations, end, has_tab, write
from lrp_lightning.callbacks.measures import Measures
from lrp_lightning.callbacks.observation import Observation, Remembered
from lrp_lightning.callbacks.pictures import DRAWN, Look, add_insights, draw, look_at
from lrp_lightning.callbacks.sampling import LoaderShare, Sampling
from lrp_lightning.callbacks.settings import DEFAULT, LOGGED, SCALARS, GraphClasses, OnError, Settings, TargetFn
from lrp_lightning.callbacks.text import read
from lrp_lightning.callbacks.time_share import LEAST, TimeShare, is_last_look, is_looked_at
from lrp_lightning.compat import loaders_of
from lrp_lightning.composites import Composite, as_composite
from lrp_lightning.errors import LRPError, NotFiniteError
from lrp_lightning.insight.headline import headline, kept_by
from lrp_lightning.report import Curves, Report
from lrp_lightning.rules import Rule
from lrp_lightning.selection import Selection, TopK

try:  # the package under its other name, whose Trainer accepts only its own Callback
    from pytorch_lightning import Callback as _OtherCallback
except ImportError:
    _OtherCallback = Callback  # type: ignore[misc,assignment]
_Callbacks: Any = (Callback,) if _OtherCallback is Callback else (Callback, _OtherCallback)

__all__ = ["RelevanceMonitor"]

_HISTOGRAMS = 16
"""The most layers with a histogram, evenly from the first to the last."""
_KEPT = 4
"""Samples for strategies and cards, as a multiple of ``max_samples``."""
_LENT = ("log", "log_dict")
"""The module's methods, which Lightning sets on every callback; they would keep the module and its trainer in memory."""
_HURRIED = 30.0
"""Seconds for strategies and cards if training ends by an exception or a signal."""


class RelevanceMonitor(*_Callbacks):  # type: ignore[misc]
    """Logs relevance graphs, heatmaps and critical-neuron accuracy on validation batches.

    Works in ``fit``, ``trainer.validate`` and ``trainer.test``, on one device or several. Training gives bit-identical
    results with and without it: it draws no random numbers, leaves ``.grad``, modes, hooks and batch-norm statistics
    unchanged, and only reads the batch.

    Logged under ``relevance/``, all but the last by default; a second monitor of a trainer logs under ``relevance_2/``.
    ``CLASS`` is a class's number and name, as in ``3_dress``; without ``class_names`` it is ``class_3``:

    ============================== ====================================================================================
    ``contest_accuracy``            share of samples whose predicted class beats the runner-up, the logit of each computed
                                    with that class's own critical neurons alone; it takes a second pass
    ``random_contest_accuracy``     the same with random sets of the same size: the control, about a half
    ``runner_up_accuracy``          share of samples in which the runner-up's own critical neurons make the runner-up win:
                                    high if sets force their class, whatever the image shows
    ``critical_neuron_accuracy``    share of samples whose prediction stays the same with only the critical neurons
    ``random_accuracy``             the same with random sets of the same size: the control
    ``retained_accuracy``           accuracy against the labels with only the critical neurons
    ``ablated_accuracy``            accuracy against the labels with all but the critical neurons
    ``sufficiency``                 probability that the predicted class loses with only the critical neurons
    ``comprehensiveness``           probability that it loses with all but the critical neurons
    ``logit_correlation``           correlation of the predicted class's logit with only the critical neurons and with all
    ``circuit_agreement``           share of samples whose class is recognised from one set of neurons per class, those most
                                    often critical for it in the epoch before, each class's logit from its own set,
                                    calibrated on every second sample; only in ``fit``, with at most 20 classes. It takes a
                                    forward per class, so it uses every fourth sample if ``max_samples`` is above 64
    ``smape``                       distance of the logits with only the critical neurons from those with all, in [0, 2]
    ``mse``                         mean squared difference of the same, in the square of the logits' unit
    ``stability``                   Jaccard index of the classes' critical neurons with those of the epoch before; only in
                                    ``fit``; over all classes together if classes times neurons exceed 2,000,000
    ``conservation_error``          mean of ``|input + absorbed - output| / |output|``
    ``samples``                     number of samples that were measured, over all processes
    ``seconds``                     time that the callback itself took in the epoch, on the slowest process
    ``heatmaps``                    relevance of the predicted class, for the same images in every epoch, first one of each
                                    class
    ``mistakes``                    the same for this epoch's worst mistakes, where a wrong class is furthest ahead
    ``critical_paths``              the graphs of two classes, with the paths that carry most, as ``critical_paths/CLASS``
    ``path_heatmaps``               the same images, with the relevance that passes along each of those paths, as
                                    ``path_heatmaps/CLASS``
    ``neurons``                     heatmaps of the graphs' most relevant neurons, only for the *Relevance* tab of
                                    TensorBoard
    ``shares``                      histogram of the neurons' mean share of their layer's ``|relevance|``, for at most 16
                                    layers from the first to the last; as ``shares/02_LAYER``, numbered in the network's
                                    order
    ``report``                      all of this in one HTML file, for the last epoch, for files and loggers that take HTML
    ``strategies``                  groups of a class's images that are decided alike, and where the relevance of each
                                    is densest; of four classes at most, those with shortcuts first, as
                                    ``strategies/CLASS``; the tab and the report have all
    ``shortcuts``                   number of strategies that are likely shortcuts: a small region of their images, copied
                                    into images of other classes, turns these into the class; a warning names class, share
                                    and region
    ``cards``                       for the graphs' most relevant neurons the patches that activate them, those in which
                                    they are relevant, and the classes for which they are relevant
    ``settings``                    the arguments, as text
    ``reconstructions``             not by default: what activates the neurons of each best path, by deconvolution
    ============================== ====================================================================================

    Scalars go through ``pl_module.log`` to every logger, so that checkpoints and early stopping can monitor them. Pictures
    go to every logger that takes them (TensorBoard, W&B, MLflow, Comet, DVCLive, and those with W&B's ``log_image``),
    histograms to TensorBoard, W&B and Comet, the report at the end to W&B, MLflow and Comet, texts and the record of the
    *Relevance* tab to TensorBoard. If no logger takes pictures, they are written as PNG files to the run's folder, which may
    be remote, and numbers as JSON; to a temporary folder if that one cannot be written. A ``fast_dev_run`` writes nothing.

    **Time that it takes in a fit.** In an epoch the monitor may take ``max_share`` of the time since it last ran; of an
    epoch shorter than a minute up to three times that. Measures come first, then pictures, then strategies and cards,
    each only if the time left over in this epoch and saved in earlier ones is enough. Whatever the time, the first epoch
    has pictures and the last has everything.

    - Measures are taken in every epoch, on the same number of samples: ``max_samples``, or a quarter of that, or a quarter
      of the result, and so on, so that they fit half of the allowed time, estimated from the sanity check. The number is at
      least 16, and equals ``max_samples`` if that is below 64. Without a sanity check, the first epoch measures the least
      number. A checkpoint keeps the number.
    - Pictures are the heatmaps, the graphs, the record of the tab and the report. The last ones are of the network that
      training ends with, however it ends; after an early end, by ``EarlyStopping`` or an exception, they are drawn then. For
      the network that a ``ModelCheckpoint`` has just saved as its best, half of the time that pictures take is enough.
    - Strategies, shortcuts and cards use up to four times ``max_samples`` samples, of up to 20 classes. They use fewer, but
      at least 256, if they would take more than ``max_share`` of the whole fit.

    So the number of measured samples may differ between runs; ``samples``, ``settings`` and the tab's notes give it. With
    ``max_share=None`` nothing depends on time, nor in ``trainer.validate`` and ``trainer.test``. ``max_samples``,
    ``every_n_epochs`` and ``max_seconds`` apply as well.

    Args:
        composite: which rule each layer gets; a composite, a rule, a name, or text such as
            ``"Composite(Epsilon(), convolution=Gamma(0.1))"``, for YAML.
        selection: which neurons are critical; a selection, or text such as ``"Threshold(0.01)"``.
        every_n_epochs: the monitor runs in the first validation of every ``every_n_epochs`` epochs of ``fit``.
        max_samples: the most samples that are measured in a validation epoch, over all processes and loaders; spread evenly
            over them, and the same in every epoch if the loader does not shuffle.
        n_heatmaps: number of images that are shown with their heatmaps, and of mistakes; 0 for none. The images are saved in
            checkpoints, so that a resumed run shows them again.
        class_names: names of the classes, for the pictures.
        model: what to explain if the module's ``forward`` is not the classifier: the name of an attribute or method
            (``"net"``, ``"teacher.head"``, ``"classify"``), or a function of the LightningModule that returns a module or a
            function of the inputs. :class:`lrp_lightning.callbacks.classifier.Classifier` lists the supported outputs:
            logits ``(N, classes)``, a single logit, sequences, maps, objects with ``logits``.
        batch_fn: maps a batch to ``(inputs, labels)``, for batches that
            :func:`lrp_lightning.callbacks.batches.read_batch` cannot read.
        target_fn: maps logits, ``(N, classes)``, and labels to the class to explain for each sample, ``(N,)``; None for the
            predicted class.
        graph_classes: which classes get a graph: ``"all"``, at most 20, and fewer if few samples are measured; the number of
            classes, which are the first that occur; or a list of classes, by number or name.
        n_paths: number of best paths of each graph that are drawn and have heatmaps.
        log: the names above that are logged; others are not computed.
        max_seconds: after this many seconds in an epoch no more samples are measured and no more pictures drawn; the
            measures so far are logged. None for no limit.
        max_share: in ``fit``, the share of training time that the monitor may take in addition, up to three times that for
            epochs shorter than a minute, as above; None for no limit.
        on_error: ``"raise"``, the default: a model or batch that the monitor cannot handle raises at the first validation,
            which is the sanity check before training. ``"warn"``: it warns once and logs what it can; an operator without a
            rule then propagates relevance by its plain gradient. After the first success an error is a warning either way,
            except for labels that are not classes of the output. A model that has diverged always gives a warning, and
            training continues.

    Raises:
        MisconfigurationException: if an argument is out of range; in ``setup`` if the strategy shards parameters in another
            way than ``fully_shard`` (``FSDPStrategy``, DeepSpeed stage 3, tensor parallelism); at the first batch if inputs
            and labels cannot be identified, labels are not classes, or there are fewer ``class_names`` than classes.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lrp_lightning.callbacks import RelevanceMonitor
        >>> monitor = RelevanceMonitor(max_samples=64)
        >>> trainer = Trainer(callbacks=[monitor], logger=False, enable_checkpointing=False, accelerator="cpu")
    """

    def __init__(
        self,
        composite: Composite | Rule | str = "epsilon_plus",
        selection: TopK | Selection | str = TopK(0.1),  # noqa: B008  (a frozen value)
        every_n_epochs: int = 1,
        max_samples: int = 256,
        n_heatmaps: int = 8,
        class_names: Sequence[str] | None = None,
        model: ModelOf | None = None,
        batch_fn: BatchFn | None = None,
        target_fn: TargetFn | None = None,
        graph_classes: GraphClasses = "all",
        n_paths: int = 5,
        log: Sequence[str] = DEFAULT,
        max_seconds: float | None = None,
        max_share: float | None = 0.03,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__()
        composite = read(composite) if isinstance(composite, str) and "(" in composite else composite
        selection = read(selection) if isinstance(selection, str) else selection
        self.settings: Settings = Settings(
            as_composite(composite), selection, every_n_epochs, max_samples, n_heatmaps, class_names, model, batch_fn,
            target_fn, graph_classes, n_paths, log, max_seconds, max_share, on_error,
        )  # fmt: skip
        self._measures = Measures(log, circuits_of_every=1 if max_samples <= 64 else 4)
        self._budget = Budget(max_seconds)
        self._time_share = TimeShare(max_share, max_samples)
        self._remembered: dict[str, Remembered] = {}
        self._on_unsupported: Literal["raise", "gradient"] = "raise"
        self._has_worked = False
        self._history: list[dict[str, float]] = []
        self._warned: set[str] = set()
        self._warned_of: set[int] = set()
        self._folder: str | None = None
        self._last_step = -1
        self._name = "relevance"
        self._forget()

    def _forget(self) -> None:
        """Release everything that belongs to a run: model, samples and open files."""
        self._time_share.stop()
        self._active = False
        self._observation: Observation | None = None
        self._fault: Exception | None = None
        self._kept: Kept | None = None
        self._look: Look | None = None
        """The parts of this epoch to draw."""
        self._passes = 0.0
        """Seconds of this epoch's passes."""
        self._loaded_epoch: int | None = None
        """The epoch of the checkpoint from which the run started."""
        self._complete = False
        """Whether this look has everything that was requested."""
        self._undrawn: _Undrawn | None = None
        """The last look of a fit, if it was not complete."""
        self._best: dict[int, tuple[str, float]] = {}
        """For each ModelCheckpoint that monitors a measure, its best file so far and the measure."""
        self._described = ""
        self._destinations: list[Destination] | None = None

    # hooks of Lightning

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        _check(trainer.strategy)
        self._forget()
        monitors = [callback for callback in trainer.callbacks if isinstance(callback, RelevanceMonitor)]  # type: ignore[attr-defined]
        number = monitors.index(self) + 1 if self in monitors else 1
        self._name = "relevance" if number == 1 else f"relevance_{number}"
        self._folder = trainer.log_dir
        if stage == "fit":
            self._time_share = TimeShare(self.settings.max_share, self.settings.max_samples)
            # another fit trains another network, or continues from a checkpoint, which restores these
            self._measures.stability, self._remembered, self._history, self._warned_of = None, {}, [], set()
            self._has_worked, self._on_unsupported, self._warned = False, "raise", set()
            self._last_step = -1

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._loaded_epoch = checkpoint.get("epoch")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for where in end(self._destinations or []):
            rank_zero_info(f"RelevanceMonitor: {where}")
        self._forget()
        for name in _LENT:
            self.__dict__.pop(name, None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._time_share.start()
        if not trainer.enable_validation or not sum(trainer.num_val_batches):
            self._warn(
                "RelevanceMonitor needs validation batches, and this fit has none, so it does nothing: pass fit a "
                "non-empty validation loader, define validation_step in the module, and set limit_val_batches above 0"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # a checkpoint may be saved after validation or at an epoch's end; the weights are still the same
        undrawn = self._undrawn
        if self._has_new_best(trainer) and undrawn is not None and undrawn.is_of(trainer) and self._time_share.allows_best():
            before = self._budget.seconds
            self._draw_late(trainer, undrawn, None, ", the best so far", self._time_share.seconds_of_pictures or math.inf)
            self._time_share.spend(self._budget.seconds - before)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw_the_end(trainer, in_a_hurry=False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._draw_the_end(trainer, in_a_hurry=True)  # the user waits, or the machine will be stopped
        self.teardown(trainer, pl_module, trainer.state.stage or "")  # Lightning does not call it then

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._active, self._observation, self._fault = False, None, None
        self._look, self._complete, self._kept = None, False, None
        if (
            trainer.state.fn == "fit"
            and not trainer.sanity_checking
            and not is_looked_at(trainer, trainer.current_epoch, self.settings.every_n_epochs)
        ):
            return
        self._active = True
        self._budget.start_epoch()
        in_fit = trainer.state.fn == "fit"
        to_settle = in_fit and not trainer.sanity_checking and self._time_share.samples is None
        # steps that may fail are separate from steps that wait for all processes, so that none waits for a failed one
        with self._guarded(trainer):
            self._measures.reset(pl_module.device, training=in_fit)
            sampling = _sampling(trainer, self.settings.max_samples)
            settled = self._time_share.choose_samples(self.settings.every_n_epochs, sampling.total) if to_settle else None
        self._agree(trainer)
        if not self._active:
            return
        if to_settle:
            self._time_share.samples = trainer.strategy.broadcast(settled)  # all processes use one clock
        whole = _whole(trainer.strategy, pl_module)
        with self._guarded(trainer):
            sampling.most = self._time_share.most if in_fit else sampling.most
            remembered = self._remembered.setdefault("test" if trainer.testing else "validation", Remembered())
            self._observation = Observation(
                self.settings,
                Classifier(whole, self.settings.model),
                self._measures,
                self._budget,
                sampling,
                Remembered() if trainer.sanity_checking else remembered,
                self._on_unsupported,
            )
            if trainer.is_global_zero and not trainer.sanity_checking and {"shortcuts", *INSIGHTS} & set(self.settings.log):
                self._kept = Kept(_KEPT * self.settings.max_samples)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        observation = self._observation
        if observation is None or self._fault is not None or observation.finished:
            return
        with self._guarded(trainer):
            if trainer.sanity_checking:
                if observation.samples == 0 and (groups := read_batch(batch, self.settings.batch_fn)):
                    observation.glance(groups)  # the first run is slow
                    if self._time_share.most < self.settings.max_samples:
                        self._time_share.seconds_per_sample = observation.glance(groups, LEAST) / trainer.world_size
                return
            measured = not observation.stopped_early and not observation.sampling.done
            groups = read_batch(batch, self.settings.batch_fn) if measured or self._kept is not None else []
            if measured:
                observation.see(groups, dataloader_idx)
            if self._kept is not None:
                self._kept.see(groups)
            if _evaluation_loop(trainer).batch_progress.is_last_batch:
                # here the weights are those of the epoch: callbacks that average weights swap them at its end
                self._finish(trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        observation = self._observation
        if observation is not None and not trainer.sanity_checking and not observation.finished and self._fault is None:
            with self._guarded(trainer):
                self._finish(trainer)
        looked = self._active
        self._agree(trainer)
        self._end(trainer, pl_module)
        if looked:
            self._account(trainer)

    def _end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        observation = self._observation
        if observation is None:
            return
        self._has_worked |= observation.samples > 0
        self._on_unsupported = observation.lrp.on_unsupported
        if not trainer.sanity_checking:
            self._log(trainer, pl_module, observation)
        for note in observation.notes:
            self._warn(note)
        self._observation = None

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_validation_epoch_start(trainer, pl_module)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.on_validation_batch_end(*args, **kwargs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_validation_epoch_end(trainer, pl_module)

    # state

    @property
    def state_key(self) -> str:
        """A key that differs between monitors with different arguments."""
        arguments = inspect.signature(RelevanceMonitor).parameters
        return str(self._generate_state_key(**self.settings.key({name: of.default for name, of in arguments.items()})))

    def state_dict(self) -> dict[str, Any]:
        """The samples shown in every epoch, the measures so far and their time, and whether the monitor has worked."""
        remembered = {stage: of_stage.state_dict() for stage, of_stage in self._remembered.items()}
        return {
            "remembered": remembered,
            "measures": self._measures.state_dict(),
            "history": self._history,
            "time_share": self._time_share.state_dict(),
            "has_worked": self._has_worked,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`. Missing entries, as in checkpoints of 0.1, start with their initial values.

        So do entries that cannot be read, with a warning, so that training can always resume.
        """

        def read_remembered(stages: dict[str, Any]) -> None:
            self._remembered = {stage: Remembered.from_state_dict(of_stage) for stage, of_stage in stages.items()}

        def read_history(rows: list[dict[str, float]]) -> None:
            self._history = [{name: float(row[name]) for name in ("epoch", *row)} for row in rows]

        def read_has_worked(has_worked: bool) -> None:
            self._has_worked = bool(has_worked)

        parts: dict[str, Callable[[Any], None]] = {
            "remembered": read_remembered, "measures": self._measures.load_state_dict, "history": read_history,
            "time_share": self._time_share.load_state_dict, "has_worked": read_has_worked,
        }  # fmt: skip
        for part, read_part in parts.items():
            try:
                if part in state_dict:
                    read_part(state_dict[part])
            except Exception as error:  # it may contain anything
                self._warn(f"RelevanceMonitor cannot restore {part!r} from the checkpoint and starts it afresh: {error!r}")

    def __getstate__(self) -> dict[str, Any]:
        """The state without objects of a run, so that a monitor can be pickled at any time."""
        return {name: value for name, value in vars(self).items() if name not in _LENT} | {
            "_observation": None, "_undrawn": None, "_fault": None, "_destinations": None,
            "_kept": None, "_look": None,
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"RelevanceMonitor({', '.join(f'{name}={text}' for name, text in self.settings.described().items())})"

    # the work of a look

    def _finish(self, trainer: Trainer) -> None:
        observation = self._observation
        assert observation is not None
        observation.finish()
        now = self._budget.now
        if self._time_share.seconds_per_sample is None and observation.samples:
            self._time_share.seconds_per_sample = now / observation.samples / trainer.world_size
        if trainer.is_global_zero and observation.samples and self._draws(trainer, now):
            self._look = look_at(observation, self._epoch_of(trainer), has_tab(self._open(trainer)))
            self._passes, self._complete = self._budget.now - now, self._kept is None
            if self._kept is not None and self._looks_for_insights(trainer, self._budget.now, len(self._kept)):
                if trainer.state.fn == "fit":
                    self._kept.most = self._time_share.samples_for_insights(len(self._kept))
                    _tell(trainer.current_epoch, "", self._time_share.seconds_of_insights(len(self._kept)))
                self._add_insights(self._look, observation)

    def _epoch_of(self, trainer: Trainer) -> int:
        """The epoch that the current weights come from, counted from 0."""
        if trainer.state.fn == "fit":
            return trainer.current_epoch
        return max(trainer.current_epoch - 1, 0) if self._loaded_epoch is None else self._loaded_epoch

    def _draws(self, trainer: Trainer, now: float) -> bool:
        """Whether this look draws pictures; it has taken ``now`` seconds so far."""
        if trainer.state.fn != "fit" or not set(DRAWN) & set(self.settings.log):
            return True
        return self._time_share.allows_pictures(now) or is_last_look(trainer, self.settings.every_n_epochs)

    def _looks_for_insights(self, trainer: Trainer, now: float, samples: int) -> bool:
        """Whether this look searches for strategies and makes cards; it has taken ``now`` seconds so far."""
        if trainer.state.fn != "fit" or self._time_share.allows_insights(now, samples):
            return True
        return is_last_look(trainer, self.settings.every_n_epochs)

    def _add_insights(self, look: Look, observation: Observation) -> None:
        before, kept = self._budget.now, self._kept
        assert kept is not None
        add_insights(look, observation, kept)
        self._complete = True
        if len(kept):
            self._time_share.insight_seconds_per_sample = (self._budget.now - before) / len(kept)
        for strategy in look.strategies.shortcuts:
            if strategy.label not in self._warned_of:  # once per class, because numbers differ between epochs
                self._warned_of.add(strategy.label)
                self._warn(
                    f"RelevanceMonitor: likely shortcut: {strategy.sentence(self.settings.class_names)}. See "
                    f"{self._name}/strategies, then fix the data and train again"
                )

    def _account(self, trainer: Trainer) -> None:
        """Count the time of a look."""
        if trainer.sanity_checking:
            self._time_share.spent += self._budget.seconds
        elif trainer.state.fn == "fit":
            self._time_share.end_look(self._budget.seconds)

    def _log(self, trainer: Trainer, pl_module: LightningModule, observation: Observation) -> None:
        seen = observation.samples > 0
        if trainer.world_size > 1:
            seen = trainer.strategy.reduce_boolean_decision(seen, all=False)
        if not seen:
            self._warn("RelevanceMonitor received no sample in this validation, so it logs nothing")
            return
        if observation.stopped_early:
            self._warn(
                f"RelevanceMonitor stopped after {observation.samples} samples: it reached "
                f"max_seconds={self.settings.max_seconds}"
            )
        values: dict[str, Tensor] = {}
        agree = trainer.strategy.reduce_boolean_decision
        with _as_outside_inference_mode(), self._measures.gathered(agree), self._guarded(trainer):
            values = self._measures.compute()
        self._agree(trainer)
        if not self._active:
            return
        for name, value in values.items():
            self._log_scalar(pl_module, name, value.float(), "mean")
        here = torch.tensor(observation.samples, device=pl_module.device)
        samples = int(trainer.strategy.reduce(here, reduce_op="sum"))  # on every process, because it waits for all
        scalars = {name: value.item() for name, value in values.items()}
        history = [*self._history, {"epoch": float(trainer.current_epoch), **scalars}]
        if trainer.state.fn == "fit":
            self._history = history
        if trainer.is_global_zero:
            self._write(trainer, observation, history, samples)
        for name, number, reduce in (("samples", observation.samples, "sum"), ("seconds", self._budget.seconds, "max")):
            if name in self.settings.log:
                self._log_scalar(pl_module, name, torch.tensor(float(number), device=pl_module.device), reduce)

    def _write(self, trainer: Trainer, observation: Observation, history: list[dict[str, float]], samples: int) -> None:
        """Write a look's findings to all loggers, on the first process; errors become warnings, so training goes on."""
        # the step of Lightning's scalars, unless that step has a look: of two records at a step only the first is read
        step = self._last_step = max(trainer.fit_loop.epoch_loop._batches_that_stepped, self._last_step + 1)
        look, done = self._look, self._complete or trainer.state.fn != "fit"
        self._undrawn = (
            None
            if done
            else _Undrawn(observation, look, samples, step, trainer.global_step, _fingerprint(observation.classifier))
        )
        before = self._budget.seconds
        try:
            with self._budget.spending(), _as_outside_inference_mode():
                self._tell_settings(trainer, step)
                drawn = Findings() if look is None else draw(look)
                write(self._open(trainer), self._findings(drawn, observation, history, samples), step)
        except Exception as error:
            self._warn(f"RelevanceMonitor could not log what it found: {error!r}")
        if look is not None:
            self._time_share.seconds_of_pictures = self._passes + self._budget.seconds - before

    def _draw_the_end(self, trainer: Trainer, in_a_hurry: bool) -> None:
        """Draw the final network of a fit if its last look could not be recognised as the last in advance."""
        undrawn = self._undrawn
        if undrawn is None or not {"shortcuts", *DRAWN, *INSIGHTS} & set(self.settings.log):
            return
        kept = self._kept
        if kept is not None:
            kept.most = self._time_share.samples_for_insights(len(kept))
        insights = 0.0 if kept is None else self._time_share.seconds_of_insights(len(kept))
        if in_a_hurry and insights > _HURRIED:
            kept, insights = None, 0.0
            if undrawn.look is not None:
                return
        pictures = 0.0 if undrawn.look is not None else self._time_share.seconds_of_pictures or math.inf
        self._draw_late(trainer, undrawn, kept, ", where training ended", insights + pictures)

    def _draw_late(self, trainer: Trainer, undrawn: _Undrawn, kept: Kept | None, why: str, seconds: float) -> None:
        """Draw what a look left out, with strategies and cards of the kept samples, if there are any."""
        observation, before, step = undrawn.observation, undrawn.look, undrawn.step
        epoch = int(self._history[-1]["epoch"])
        self._undrawn = None
        _tell(epoch, why, seconds)
        try:
            with self._budget.spending(), _as_outside_inference_mode():
                look = self._look = before or look_at(observation, epoch, has_tab(self._open(trainer)))
                if kept is not None:
                    self._add_insights(look, observation)
                drawn = draw(look, LOGGED if before is None else INSIGHTS)  # what is already in the log stays
                self._last_step = step = step if before is None else step + 1
                findings = self._findings(drawn, observation, self._history, undrawn.samples)
                write(self._open(trainer), replace(findings, scalars={}, histograms={}), step)
            for note in look.notes:
                self._warn(note)
        except Exception as error:  # training is over, or continues
            self._warn(f"RelevanceMonitor could not draw pictures of epoch {epoch}{why}: {error}")
        else:
            if kept is None and self._kept is not None:
                self._undrawn = replace(undrawn, look=look, step=step)

    def _has_new_best(self, trainer: Trainer) -> bool:
        """Whether a ModelCheckpoint that monitors a measure has saved its best network at this step."""
        found = False
        for n, checkpoint in enumerate(trainer.checkpoint_callbacks):
            if getattr(checkpoint, "monitor", None) is None or getattr(checkpoint, "best_model_score", None) is None:
                continue
            best = (checkpoint.best_model_path, float(checkpoint.best_model_score))  # type: ignore[attr-defined]
            if self._best.get(n) != best:
                self._best[n] = best
                found |= getattr(checkpoint, "_last_global_step_saved", None) == trainer.global_step
        return found

    def _log_scalar(self, pl_module: LightningModule, name: str, value: Tensor, reduce: str) -> None:
        pl_module.log(
            f"{self._name}/{name}", value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1, reduce_fx=reduce
        )

    def _open(self, trainer: Trainer) -> list[Destination]:
        if self._destinations is None:
            self._destinations = destinations(trainer, self._folder)
        return self._destinations

    def _tell_settings(self, trainer: Trainer, step: int) -> None:
        """Log the settings as text, at the start and when the number of samples is decided."""
        rows = {name: f"`{text}`" for name, text in self.settings.described().items()}
        if trainer.state.fn == "fit" and self._time_share.max_share is not None:
            limit = "max_share" if self._time_share.most < self.settings.max_samples else "max_samples"
            rows["measured in each epoch"] = f"at most {self._time_share.most} samples, limited by {limit}"
            rows["pictures"] = "of the first and the last epoch, and of others as max_share allows"
        text = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
        if "settings" in self.settings.log and text != self._described:
            step, self._described = step if self._described else 0, text
            write(self._open(trainer), Findings(texts={f"{self._name}/settings": f"| | |\n|-|-|\n{text}"}), step)

    def _findings(
        self, drawn: Findings, observation: Observation, history: list[dict[str, float]], samples: int
    ) -> Findings:
        """The drawings of a look by their full names in the log, with the measures."""
        scalars = {name: value for name, value in history[-1].items() if name != "epoch"}
        layers = list(observation.shares)
        number = {layer: f"{n:0{len(str(len(layers) - 1))}}" for n, layer in enumerate(layers)}
        some = {layers[n] for n in np.linspace(0, len(layers) - 1, _HISTOGRAMS).round().astype(int)} if layers else set()
        means = {
            layer: (of / observation.samples).cpu().numpy() for layer, of in observation.shares.items() if layer in some
        }
        record, report = drawn.record, None
        found = None if self._look is None else self._look.strategies
        names = self.settings.class_names
        said = headline(scalars, samples, kept_by(self.settings.selection), found, names)
        if drawn.report is not None and "report" in self.settings.log:
            report = replace(self._report(drawn.report, observation, scalars, history, samples), headline=said)
        return Findings(
            name=self._name,
            scalars={f"{self._name}/{name}": value for name, value in scalars.items()},
            counts={f"{self._name}/{name}": value for name, value in drawn.counts.items()},
            pictures={f"{self._name}/{name}": picture for name, picture in drawn.pictures.items()},
            histograms={f"{self._name}/shares/{number[layer]}_{layer}": values for layer, values in means.items()},
            # the tab shows one monitor; a second one only has its pictures
            record=record
            and replace(
                record,
                measures={**scalars, **drawn.counts},
                notes=[self._what_it_took(observation, samples), *record.notes],
                headline=said,
            )
            if self._name == "relevance"
            else None,
            report=report,
        )

    def _what_it_took(self, observation: Observation, samples: int) -> str:
        """The number of samples that a look measured, its time, and what it left for later."""
        total = observation.sampling.total
        of = "" if total is None else f" of {total:,}"
        fewer = observation.sampling.most < self.settings.max_samples and samples < (total or math.inf)
        share = self.settings.max_share
        why = f" max_share={share} allows no more." if fewer and share is not None else ""
        if not self._complete and self._kept is not None:
            why += " Strategies, shortcuts and neuron cards follow at the last epoch, or earlier if max_share allows."
        return f"Measured on {samples:,}{of} samples in {self._budget.now:.1f} s.{why}"

    def _report(
        self,
        report: Report,
        observation: Observation,
        scalars: dict[str, float],
        history: list[dict[str, float]],
        samples: int,
    ) -> Report:
        """The report with the measures of this and earlier epochs."""
        names = [name for name in SCALARS if name.endswith("accuracy") and all(name in row for row in history)]
        curves = {name.replace("_", " "): [row[name] for row in history] for name in names}
        epochs = [row["epoch"] for row in history]
        over_epochs = [Curves("Over epochs", curves, epochs, "epoch", "share of samples")] if curves else []
        numbers = {"samples": samples, **{name.replace("_", " "): value for name, value in scalars.items()}}
        asked, model = self.settings, type(observation.classifier.model).__name__
        how = {**report.settings, "model": model, "composite": asked.composite, "selection": asked.selection}
        return replace(report, measures=numbers, curves=over_epochs, settings=how)

    # errors

    @contextmanager
    def _guarded(self, trainer: Trainer) -> Iterator[None]:
        """Count time, and keep an error, which is raised or reported once all processes know of it."""
        try:
            with self._budget.spending(), _as_outside_inference_mode():
                yield
        except Exception as error:
            self._fault = error
            if trainer.world_size == 1:
                self._agree(trainer)

    def _agree(self, trainer: Trainer) -> None:
        """Agree with all processes on whether this epoch failed, so that none waits for a failed one.

        Raises:
            Exception: the error, if it stops the run; an LRPError on processes without an error.
        """
        if not self._active:
            return
        fault = self._fault
        failed, fatal = fault is not None, fault is not None and self._is_fatal(fault)
        if trainer.world_size > 1:
            failed = trainer.strategy.reduce_boolean_decision(failed, all=False)
            fatal = trainer.strategy.reduce_boolean_decision(fatal, all=False)
        if not failed:
            return
        self._active, self._observation, self._fault, self._look = False, None, None, None
        if fatal:
            raise fault or LRPError("RelevanceMonitor failed on another process; see the error there")
        why = fault if fault is not None else "it failed on another process; see the warning there"
        self._warn(f"RelevanceMonitor skips this validation: {why}", of_this_process=True)

    def _is_fatal(self, fault: Exception) -> bool:
        if self.settings.on_error == "warn" or isinstance(fault, NotFiniteError):  # caused by training, not by the monitor
            return False
        return not self._has_worked or isinstance(fault, MisconfigurationException)  # wrong labels, at any time

    def _warn(self, message: str, of_this_process: bool = False) -> None:
        """Warn, once per message."""
        if message not in self._warned:
            self._warned.add(message)
            (warnings.warn if of_this_process else rank_zero_warn)(message, stacklevel=2)


@dataclass(frozen=True)
class _Undrawn:
    """A look that left pictures, or strategies and cards, for later."""

    observation: Observation
    look: Look | None
    """The data that it drew."""
    samples: int
    step: int
    at: int
    """The trainer's step."""
    weights: Tensor

    def is_of(self, trainer: Trainer) -> bool:
        """Whether it has no pictures and the network has not changed; averaged weights may have been swapped back."""
        return (
            self.look is None
            and self.at == trainer.global_step
            and torch.equal(self.weights, _fingerprint(self.observation.classifier))
        )


def _fingerprint(model: nn.Module) -> Tensor:
    """The norms of the weights, to see whether they have changed."""
    weights = [p.detach() for p in model.parameters() if p.is_floating_point()]
    norms = torch._foreach_norm(weights) if weights else ()
    return torch.stack([n.to(weights[0].device, torch.float) for n in norms]) if weights else torch.zeros(0)


def _tell(epoch: int, why: str, seconds: float) -> None:
    """Announce that the monitor is working, if that takes a while."""
    about = f", about {max(seconds, 1):.0f} s" if seconds < math.inf else ""
    rank_zero_info(f"RelevanceMonitor: drawing epoch {epoch}{why}{about}")


@contextmanager
def _as_outside_inference_mode() -> Iterator[None]:
    """``trainer.validate`` runs under inference mode, whose tensors can be neither differentiated nor updated later."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _check(strategy: Any) -> None:
    kind = type(strategy).__name__
    if getattr(strategy, "zero_stage_3", False) or _is_a("FSDPStrategy", strategy):
        instead = " use ModelParallelStrategy, or"
    elif _is_a("ModelParallelStrategy", strategy) and strategy.device_mesh["tensor_parallel"].size() > 1:
        kind, instead = f"{kind} with tensor_parallel_size above 1", ""
    else:
        return
    raise MisconfigurationException(
        f"RelevanceMonitor needs unsharded parameters. It can gather those sharded by fully_shard, but not those of {kind}:"
        f"{instead} train without it and run trainer.validate on one device from the checkpoint, with RelevanceMonitor "
        "attached."
    )


def _is_a(name: str, strategy: Any) -> bool:
    """Compare a strategy by class name, because Lightning has two packages and older versions lack some strategies."""
    return any(kind.__name__ == name for kind in type(strategy).__mro__)


def _whole(strategy: Any, pl_module: LightningModule) -> LightningModule:
    if not _is_a("ModelParallelStrategy", strategy):
        return pl_module
    from lrp_lightning.callbacks.gathered import gathered  # not every build of torch has torch.distributed

    return gathered(pl_module)


def _evaluation_loop(trainer: Trainer) -> Any:
    if trainer.testing:
        return trainer.test_loop
    return trainer.fit_loop.epoch_loop.val_loop if trainer.state.fn == "fit" else trainer.validate_loop


def _sampling(trainer: Trainer, most: int) -> Sampling:
    """The choice of samples on this process for the epoch that begins."""
    loop = _evaluation_loop(trainer)
    loaders = loaders_of(loop)
    if len(loaders) != len(loop.max_batches):
        shares = [LoaderShare(None)]
    else:
        each = zip(loaders, loop.max_batches, strict=True)
        shares = [LoaderShare.of(loader, batches, trainer.world_size) for loader, batches in each]
    return Sampling(most, shares, trainer.world_size, trainer.global_rank)
