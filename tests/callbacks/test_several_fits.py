"""One monitor in several runs, several monitors in one, copies of one, and runs that crash before another."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.utils.data import DataLoader
from trainings import Classifier, images, loaders, same, trainer, weights_only

from lrp_lightning import TopK
from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.settings import SCALARS
from lrp_lightning.errors import UnsupportedOperatorError


def few(**more) -> RelevanceMonitor:
    given = {"max_samples": 12, "n_heatmaps": 3, "graph_classes": 2, "max_share": None, "log": [*SCALARS, "heatmaps"]}
    return RelevanceMonitor(**(given | more))


def fit(folder: Path, monitor: RelevanceMonitor, *more: Callback, model: Classifier | None = None, **options) -> Trainer:
    run = trainer(folder, monitor, *more, **options)
    run.fit(Classifier() if model is None else model, *loaders())
    return run


def epochs_of(monitor: RelevanceMonitor) -> list[float]:
    return [row["epoch"] for row in monitor._history]


def shown_in(monitor: RelevanceMonitor) -> list[int]:
    return [int(sample.labels) for sample in monitor._remembered["validation"].shown]


class Crashing(Classifier):
    """Fails in its second epoch."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.where == "training" and self.current_epoch == 1:
            raise ValueError("in training")
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        if self.where == "validation" and self.current_epoch == 1 and batch_idx == 1:
            raise ValueError("in validation")
        super().validation_step(batch, batch_idx)


class Unsupported(Classifier):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).cumprod(1)


# one after another


def test_the_same_trainer_goes_on_and_the_monitor_begins_anew(tmp_path: Path) -> None:
    monitor, model = few(), Classifier()
    run = fit(tmp_path, monitor, model=model)
    assert epochs_of(monitor) == [0, 1]
    run.fit_loop.max_epochs = 4
    run.fit(model, *loaders())
    assert epochs_of(monitor) == [2, 3]
    assert len(shown_in(monitor)) == 3


def test_validate_and_test_after_a_fit_leave_what_it_remembers(tmp_path: Path) -> None:
    monitor = few()
    run = fit(tmp_path, monitor)
    state = copy.deepcopy(monitor.state_dict())
    for stage in ("validate", "test", "validate"):
        [measured] = getattr(run, stage)(run.lightning_module, loaders()[1], verbose=False)
        assert measured["relevance/samples"] == 12
    assert monitor.state_dict()["history"] == state["history"]
    for account in ("spent", "trained", "samples"):
        assert monitor.state_dict()["time_share"][account] == state["time_share"][account]
    assert same(monitor.state_dict()["remembered"]["validation"], state["remembered"]["validation"])
    assert same(monitor.state_dict()["measures"]["degrees"], state["measures"]["degrees"])
    assert len(monitor.state_dict()["remembered"]["test"]["shown"]) == 3


def test_another_model_with_other_classes(tmp_path: Path) -> None:
    monitor = few(log=[*SCALARS, "heatmaps", "critical_paths"])
    fit(tmp_path / "ten", monitor)
    run = trainer(tmp_path / "three", monitor)
    run.fit(Classifier(3), DataLoader(images(24, classes=3), 8), DataLoader(images(24, 1, classes=3), 8))
    assert run.callback_metrics["relevance/samples"] == 12
    assert set(shown_in(monitor)) == {0, 1, 2}
    assert not monitor._warned


def test_another_model_that_cannot_be_explained_is_told_before_training_too(tmp_path: Path) -> None:
    monitor = few()
    fit(tmp_path, monitor, epochs=1)
    with pytest.raises(UnsupportedOperatorError, match="cumprod"):
        fit(tmp_path, monitor, model=(model := Unsupported()))
    assert model.global_step == 0


def test_warnings_of_a_fit_are_given_again_in_another(tmp_path: Path) -> None:
    monitor = few(on_error="warn")
    for _ in range(2):
        with pytest.warns(UserWarning, match="plain gradient") as told:
            fit(tmp_path, monitor, model=Unsupported())
        assert len([w for w in told if "cumprod" in str(w.message)]) == 1
    fit(tmp_path, monitor)
    assert monitor._on_unsupported == "raise"


@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_fit_after_one_that_crashed_logs_to_its_own_place_and_begins_with_nothing(tmp_path: Path, where: str) -> None:
    monitor = few()
    with pytest.raises(ValueError, match=f"in {where}"):
        fit(tmp_path / "first", monitor, model=Crashing(where), logger=TensorBoardLogger(tmp_path / "first"))
    before = {path: path.stat().st_size for path in (tmp_path / "first").rglob("events*")}
    assert before
    logger = TensorBoardLogger(tmp_path / "second")
    fit(tmp_path / "second", monitor, logger=logger)
    assert epochs_of(monitor) == [0, 1]
    assert len(EventAccumulator(logger.log_dir).Reload().Images("relevance/heatmaps")) == 2
    assert {path: path.stat().st_size for path in (tmp_path / "first").rglob("events*")} == before


@pytest.mark.parametrize("where", ["", "training", "validation"])
def test_after_a_run_neither_model_nor_trainer_nor_samples_are_held(tmp_path: Path, where: str) -> None:
    monitor, model = few(log=[*SCALARS, "heatmaps", "cards"]), Crashing(where)
    run = trainer(tmp_path, monitor)
    with suppress(ValueError):
        run.fit(model, *loaders())
    gone = weakref.ref(model), weakref.ref(run)
    del model, run
    gc.collect()
    assert [of() for of in gone] == [None, None]
    assert monitor._kept is None
    assert len(pickle.dumps(monitor)) < 100_000


# several


def test_two_monitors_measure_what_each_measures_alone(tmp_path: Path) -> None:
    def measured(*monitors: RelevanceMonitor) -> dict[str, float]:
        torch.manual_seed(0)
        run = trainer(tmp_path, *monitors)
        run.fit(Classifier(), *loaders())
        return {name: value.item() for name, value in run.callback_metrics.items() if not name.endswith("seconds")}

    first, second = partial(few, selection=TopK(0.1)), partial(few, selection=TopK(0.5))
    both = measured(first(), second())
    assert measured(first()).items() <= both.items()
    alone = {name.replace("relevance", "relevance_2"): value for name, value in measured(second()).items()}
    assert alone.items() <= both.items()


# copies


class Copying(Callback):
    """Copies a monitor by either way, in the middle of everything."""

    def __init__(self, monitor: RelevanceMonitor) -> None:
        self.monitor = monitor
        self.copies: list[RelevanceMonitor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if batch_idx == 0:
            self.copies += [copy.deepcopy(self.monitor), pickle.loads(pickle.dumps(self.monitor))]

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        self.copies += [copy.deepcopy(self.monitor), pickle.loads(pickle.dumps(self.monitor))]


def test_copies_work_as_the_monitor_does_whenever_they_are_made(tmp_path: Path) -> None:
    def measured(monitor: RelevanceMonitor, *more: Callback) -> dict[str, float]:
        torch.manual_seed(0)
        run = fit(tmp_path, monitor, *more)
        assert epochs_of(monitor) == [0, 1]
        return {name: value.item() for name, value in run.callback_metrics.items() if not name.endswith("seconds")}

    monitor = few()
    expected = measured(monitor, copying := Copying(monitor))
    for again in (*copying.copies[::5], copy.deepcopy(monitor)):
        assert not hasattr(again, "log")  # by which Lightning ties a callback to the module
        assert measured(again) == expected


def test_a_copy_has_the_state(tmp_path: Path) -> None:
    monitor = few()
    fit(tmp_path, monitor)
    for again in (copy.deepcopy(monitor), pickle.loads(pickle.dumps(monitor))):
        assert same(again.state_dict(), monitor.state_dict())


# resumed


def test_a_resumed_fit_goes_on_in_a_fresh_monitor_and_in_the_one_that_has_gone_further(tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")
    monitor, model = few(), Classifier()
    run = fit(tmp_path, monitor, saved, model=model, epochs=3, enable_checkpointing=True)
    rows, shown = monitor._history, shown_in(monitor)
    checkpoint = {"ckpt_path": tmp_path / "epoch=1.ckpt", **weights_only(True)}
    again = few()
    trainer(tmp_path / "again", again, epochs=4).fit(Classifier(), *loaders(), **checkpoint)
    run.fit_loop.max_epochs = 4
    run.fit(model, *loaders(), **checkpoint)
    for resumed in (monitor, again):
        assert epochs_of(resumed) == [0, 1, 2, 3]
        assert resumed._history[:2] == rows[:2]
        assert "stability" in resumed._history[2]  # compared with the epoch before
        assert shown_in(resumed) == shown


def test_idle_time_after_a_fit_is_no_training(tmp_path: Path) -> None:
    monitor = few(max_share=0.03)
    fit(tmp_path, monitor)
    assert monitor.state_dict()["time_share"] == monitor.state_dict()["time_share"]
