"""Dozens and hundreds of epochs: memory stays as it was, and log and checkpoint grow by the same few bytes an epoch."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from memory import Held, held, least, of_now
from torch import Tensor
from torch.utils.data import DataLoader
from trainings import Classifier, images, trainer

from lrp_lightning import TopK
from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.settings import DEFAULT, SCALARS

pytestmark = pytest.mark.slow

WEIGHED = 20
"""How often in a training."""


class Few(Classifier):
    """Three classes, and critical paths to each from the start."""

    def __init__(self) -> None:
        super().__init__(3)
        torch.nn.init.constant_(self.head.bias, 3.0)


class Weighing(Callback):
    """Weighs the process and the log after every so many epochs, and at the end the checkpoint's state."""

    def __init__(self, every: int, folder: Path) -> None:
        self.every, self.folder = every, folder
        self.seen: list[Held] = []
        self.written: list[int] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch % self.every == self.every - 1:
            self.seen.append(held())
            self.written.append(sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()))

    @property
    def logged(self) -> tuple[int, int]:
        """Bytes written in the second quarter of the epochs, and in the last."""
        quarter = WEIGHED // 4
        return self.written[2 * quarter - 1] - self.written[quarter - 1], self.written[-1] - self.written[-1 - quarter]

    @property
    def growth(self) -> tuple[float, float, float]:
        """Tensors, objects and bytes an epoch, from the second quarter to the last, at the least of either."""
        quarter = WEIGHED // 4
        before, after = least(self.seen[quarter : 2 * quarter]), least(self.seen[-quarter:])
        epochs = 2 * quarter * self.every
        return tuple((getattr(after, of) - getattr(before, of)) / epochs for of in ("tensors", "objects", "resident"))


def fit(folder: Path, monitor: RelevanceMonitor, epochs: int, *more: Callback) -> Weighing:
    torch.manual_seed(0)
    logger, weighing = TensorBoardLogger(folder), Weighing(epochs // WEIGHED, folder)
    run = trainer(folder, monitor, *more, weighing, logger=logger, epochs=epochs)
    with of_now():
        run.fit(Few(), DataLoader(images(8, classes=3), 8), DataLoader(images(8, 1, classes=3), 8))
    assert len(monitor._history) == epochs
    return weighing


def few(**more) -> RelevanceMonitor:
    return RelevanceMonitor(max_samples=8, n_heatmaps=2, graph_classes=1, selection=TopK(0.2), max_share=None, **more)


def test_two_hundred_epochs_of_measures(tmp_path: Path) -> None:
    weighing = fit(tmp_path, monitor := few(log=SCALARS), 200)
    tensors, objects, resident = weighing.growth
    assert tensors <= 0
    assert objects < 0.5
    assert resident < 20_000
    first, last = weighing.logged
    assert 0 < first < 2_500 * 50
    assert last < 1.1 * first
    assert not monitor._warned
    torch.save(monitor.state_dict(), saved := io.BytesIO())
    assert len(saved.getvalue()) < 300 * 200


def test_sixty_epochs_of_pictures(tmp_path: Path) -> None:
    weighing = fit(tmp_path, few(log=DEFAULT), 60)
    tensors, objects, resident = weighing.growth
    assert tensors < 0.5
    assert objects < 5
    assert resident < 1_000_000  # one picture, as an array, is 5 MB
    first, last = weighing.logged
    assert last < 1.3 * first
    assert last < 300_000 * 15


def test_what_stays_would_be_seen(tmp_path: Path) -> None:
    class Keeping(RelevanceMonitor):
        kept: list[Tensor] = []

        def _log(self, trainer, pl_module, observation) -> None:
            self.kept.append(torch.ones(100_000))
            super()._log(trainer, pl_module, observation)

    monitor = Keeping(max_samples=8, log=["smape"], max_share=None)
    tensors, objects, resident = fit(tmp_path, monitor, 60).growth
    assert tensors == 1
    assert objects >= 1
    assert resident == 0 or resident > 350_000
