"""Training with and without RelevanceMonitor ends in the same bits, however it is done."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch.callbacks import (
    Callback,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import TensorBoardLogger
from packaging.version import Version
from torch import Tensor
from torch.utils.data import DataLoader
from trainings import LIGHTNING, Classifier, Witness, images, loaders, random_states, same, trainer, weights_only

from lrp_lightning.callbacks import RelevanceMonitor


class Manual(Classifier):
    """Two optimizers, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
            optimizer.step()

    def configure_optimizers(self) -> list:
        return [
            torch.optim.SGD([*self.conv1.parameters(), *self.bn.parameters()], lr=0.1, momentum=0.9),
            torch.optim.Adam([*self.conv2.parameters(), *self.head.parameters()], lr=1e-2),
        ]


class Frozen(Classifier):
    """Fine-tuning: the first layer does not learn, and its module is in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1.requires_grad_(False)
        self.bn.eval()


class Plain(Classifier):
    """Stepped by plain SGD, whose steps half precision can hold."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Augmented:
    """A collate function of data-loader workers that draws from every generator there."""

    def __call__(self, rows: list) -> tuple[Tensor, Tensor]:
        x, y = (torch.stack(column) for column in zip(*rows, strict=True))
        return x + torch.rand(1) + float(np.random.rand()) + random.random(), y


def compiled() -> LightningModule:
    return torch.compile(Classifier(), backend="eager")


def averaging() -> list[Callback]:
    from lightning.pytorch.callbacks.weight_averaging import EMAWeightAveraging

    return [EMAWeightAveraging()]


@dataclass(frozen=True)
class Variant:
    """A way to train."""

    model: Callable[[], LightningModule] = Classifier
    callbacks: Callable[[], list[Callback]] = list
    options: dict = field(default_factory=dict)
    data: Callable[[], tuple[DataLoader, DataLoader]] = loaders
    epochs: int = 2


def with_workers() -> tuple[DataLoader, DataLoader]:
    how = {"batch_size": 16, "num_workers": 2, "collate_fn": Augmented(), "persistent_workers": True}
    return DataLoader(images(48), shuffle=True, **how), DataLoader(images(32, 1), **how)


VARIANTS = {
    "plain": Variant(epochs=3),
    "bf16-mixed": Variant(options={"precision": "bf16-mixed"}),
    "bf16 weights": Variant(options={"precision": "bf16-true"}),
    "fp16 weights": Variant(Plain, options={"precision": "16-true"}),
    "float64": Variant(options={"precision": "64-true"}),
    "gradients accumulated": Variant(options={"accumulate_grad_batches": 3}),
    "accumulation scheduled": Variant(callbacks=lambda: [GradientAccumulationScheduler({0: 2, 1: 1})]),
    "gradients clipped": Variant(options={"gradient_clip_val": 0.1}),
    "clipped by value": Variant(options={"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
    "manual, two optimizers": Variant(Manual),
    "partly frozen": Variant(Frozen),
    "weights averaged, SWA": Variant(callbacks=lambda: [StochasticWeightAveraging(1e-2, swa_epoch_start=1)], epochs=3),
    "weights averaged, EMA": Variant(callbacks=averaging),
    "validated every second epoch": Variant(options={"check_val_every_n_epoch": 2}),
    "validated within the epoch": Variant(options={"val_check_interval": 2}, epochs=1),
    "compiled": Variant(compiled),
    "deterministic": Variant(options={"deterministic": True}),
    "no sanity check": Variant(options={"num_sanity_val_steps": 0}),
    "barebones": Variant(
        options={"barebones": True, "logger": None, "enable_checkpointing": None, "log_every_n_steps": None}
    ),
    "overfitted batches": Variant(options={"overfit_batches": 2}),
    "data-loader workers": Variant(data=with_workers),
    "validation shuffled": Variant(data=lambda: (loaders()[0], DataLoader(images(24, 1), 8, shuffle=True))),
}
QUICK = {"plain", "bf16-mixed", "gradients accumulated", "manual, two optimizers", "partly frozen", "compiled"}


def train(folder: Path, variant: Variant, *monitors: Callback) -> dict:
    """All that a training leaves behind."""
    seed_everything(0, workers=True)
    model, witness = variant.model(), Witness()
    run = trainer(folder, *monitors, *variant.callbacks(), witness, **({"epochs": variant.epochs} | variant.options))
    try:
        run.fit(model, *variant.data())
    finally:
        torch.use_deterministic_algorithms(False)
    return {
        "seen": witness.seen,
        "weights": run.lightning_module.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "random": random_states(),
        "steps": run.global_step,
    }


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in VARIANTS]
)
def test_training_with_and_without_it_ends_in_the_same_bits(tmp_path: Path, name: str):
    if name == "compiled" and Version("2.3") > LIGHTNING:
        pytest.skip("a compiled LightningModule does not train there, with or without it")
    variant, monitor = VARIANTS[name], RelevanceMonitor(max_samples=16, n_heatmaps=2, graph_classes=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        without, with_it = train(tmp_path, variant), train(tmp_path, variant, monitor)
    assert without["seen"]
    assert monitor._has_worked
    for what in without:
        assert same(without[what], with_it[what]), what


def test_a_logger_that_takes_pictures_changes_nothing(tmp_path: Path):
    logging = Variant(options={"logger": TensorBoardLogger(tmp_path)})
    assert same(train(tmp_path, Variant()), train(tmp_path, logging, RelevanceMonitor(max_samples=16)))


def test_a_difference_would_be_seen(tmp_path: Path):
    """The comparison can fail: one random number drawn in between is enough."""

    class Careless(Callback):
        def on_validation_batch_end(self, *args, **kwargs) -> None:
            torch.rand(1)

    assert not same(train(tmp_path, Variant()), train(tmp_path, Variant(), Careless()))


def test_resumed_in_the_middle_of_an_epoch(tmp_path: Path):
    """A checkpoint of a training with it, resumed with it, ends where the training without it ends."""

    def fit(folder: Path, *monitors: Callback) -> dict:
        seed_everything(0)
        saved = ModelCheckpoint(folder, every_n_train_steps=3, save_top_k=-1)
        trainer(folder, *monitors, saved, enable_checkpointing=True).fit(Classifier(), *loaders())
        seed_everything(1)
        run = trainer(folder, *monitors, Witness(), epochs=3)
        checkpoint = folder / "epoch=0-step=3.ckpt"
        run.fit(model := Classifier(), *loaders(), ckpt_path=checkpoint, **weights_only(False))
        return {"weights": model.state_dict(), "steps": run.global_step, "random": random_states()}

    def monitor() -> RelevanceMonitor:
        return RelevanceMonitor(max_samples=24, n_heatmaps=2)

    assert same(fit(tmp_path / "without"), fit(tmp_path / "with", monitor()))
