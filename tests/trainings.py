"""Small trainings for tests of callbacks: a classifier that a careless observer would disturb, a witness that sees it."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning import __version__
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from packaging.version import Version
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

LIGHTNING = Version(__version__)


def weights_only(value: bool | None) -> dict[str, bool | None]:
    """An argument of ``Trainer.fit``, where it has it."""
    return {"weights_only": value} if Version("2.6") <= LIGHTNING else {}


class Classifier(LightningModule):
    """Batch norm, dropout and functional operators, on images of 1 x 8 x 8."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.head = nn.Conv2d(8, 16, 3, padding=1), nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn(self.conv1(x))), 2)
        x = F.relu(self.conv2(x)).mean([2, 3])
        return self.head(F.dropout(x, 0.2, self.training))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class Lenient(Classifier):
    """Takes batches of any kind, and does nothing with them in validation."""

    def validation_step(self, batch: object, batch_idx: int, dataloader_idx: int = 0) -> None:
        pass

    test_step = validation_step


def images(samples: int, seed: int = 0, classes: int = 10) -> TensorDataset:
    """Noise with a bright place for each class, so that a little can be learnt."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(samples, 1, 8, 8, generator=generator)
    y = torch.randint(classes, (samples,), generator=generator)
    x.view(samples, 64)[torch.arange(samples), 6 * y] += 2
    return TensorDataset(x, y)


def loaders(train: int = 48, val: int = 24, size: int = 8) -> tuple[DataLoader, DataLoader]:
    """Fresh loaders of training and validation images."""
    return DataLoader(images(train), size, shuffle=True), DataLoader(images(val, seed=1), size)


def trainer(folder: Path, *callbacks: Callback, logger=False, epochs: int = 2, **more) -> Trainer:
    """A quiet one on the CPU."""
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
        "devices": 1,
        "log_every_n_steps": 1,
    }
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), logger=logger, max_epochs=epochs, **(quiet | more))


class Witness(Callback):
    """Writes down, after every validation, all that a callback could disturb."""

    def __init__(self) -> None:
        self.seen: list[dict] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append(
            {
                "state": copy.deepcopy(pl_module.state_dict()),
                "grads": [None if p.grad is None else p.grad.clone() for p in pl_module.parameters()],
                "requires_grad": [p.requires_grad for p in pl_module.parameters()],
                "modes": [m.training for m in pl_module.modules()],
                "hooks": [
                    [len(getattr(m, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
                    for m in pl_module.modules()
                ],
                "attributes": [sorted(vars(m)) for m in pl_module.modules()],
                "random": random_states(),
                "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
                "deterministic": torch.are_deterministic_algorithms_enabled(),
            }
        )


def random_states() -> dict:
    """Of every generator that is the process's own."""
    return {"torch": torch.get_rng_state(), "numpy": np.random.get_state()[1], "python": random.getstate()}


def same(a: object, b: object) -> bool:
    """Equal, tensors bit by bit; NaN equals NaN."""
    if isinstance(a, Tensor | np.ndarray):
        return type(a) is type(b) and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b
