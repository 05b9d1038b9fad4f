"""Pictures of the network that a ModelCheckpoint has just saved as its best, where the look itself had no share for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from trainings import Classifier, loaders, trainer

from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.time_share import TimeShare
from lrp_lightning.tensorboard_plugin import schema

SCORES = [3.0, 1.0, 2.0, 0.5, 4.0, 5.0]
"""Of each epoch; less is better, so epochs 0, 1 and 3 are the best so far."""


class Scored(Classifier):
    def validation_step(self, batch: list[torch.Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(batch, batch_idx, dataloader_idx)
        self.log("score", SCORES[self.current_epoch])


def drawn(folder: Path, *callbacks: Callback, **more) -> list[int]:
    """Epochs with pictures."""
    logger = TensorBoardLogger(folder)
    monitor = RelevanceMonitor(log=["contest_accuracy", "heatmaps", "critical_paths"], max_samples=16)
    best = ModelCheckpoint(folder / "best", monitor="score", **more)
    run = trainer(folder, monitor, *callbacks, best, logger=logger, epochs=len(SCORES), enable_checkpointing=True)
    run.fit(Scored(), *loaders())
    logged = EventAccumulator(logger.log_dir, {"tensors": 0}).Reload()
    heads = [schema.read_head(make_ndarray(event.tensor_proto)) for event in logged.Tensors(schema.RECORD)]
    return sorted(head["epoch"] for head in heads if head["explained"])


@pytest.fixture
def poor(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account that pays for no pictures but the first, and for the best."""
    monkeypatch.setattr(TimeShare, "allows_pictures", lambda self, now: self.seconds_of_pictures is None)
    monkeypatch.setattr(TimeShare, "allows_best", lambda self: True)


@pytest.mark.parametrize("at_train_end", [False, True])
def test_each_new_best_is_drawn_once(tmp_path: Path, poor: None, at_train_end: bool) -> None:
    assert drawn(tmp_path, save_on_train_epoch_end=at_train_end) == [0, 1, 3, 5]


def test_without_half_the_price_it_is_not(tmp_path: Path, poor: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimeShare, "allows_best", lambda self: False)
    assert drawn(tmp_path) == [0, 5]


class AveragesWeights(Callback):
    """Validates other weights than it trains, as callbacks that average them do."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trained = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
        with torch.no_grad():
            for p in pl_module.parameters():
                p.data.mul_(0.5)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with torch.no_grad():
            for name, p in pl_module.named_parameters():
                p.data.copy_(self.trained[name])


def test_other_weights_than_were_validated_are_not_drawn(tmp_path: Path, poor: None) -> None:
    assert drawn(tmp_path, AveragesWeights()) == [0, 5]


def test_half_the_price_must_be_saved() -> None:
    time_share = TimeShare(0.03, 64)
    assert not time_share.allows_best()
    time_share.seconds_of_pictures, time_share.saved = 2.0, 0.9
    assert not time_share.allows_best()
    time_share.saved = 1.0
    assert time_share.allows_best()
    time_share.spend(2.0)
    assert (time_share.saved, time_share.spent) == (0.0, 2.0)
