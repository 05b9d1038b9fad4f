"""What RelevanceMonitor costs of an epoch of the demo's training, by what it logs; writes ``benchmarks/monitor.md``.

    python benchmarks/monitor.py

One epoch of VGG16-BN on 1,437 digits of 32 x 32 without the callback, then validations of the same model with it. Seconds of
the processor, so that what else the machine does counts little.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split

from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.settings import DEFAULT, LOGGED, SCALARS

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from digits_vgg16 import DigitsVGG16

WAYS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": {"log": LOGGED},
    "without neurons": {"log": [name for name in DEFAULT if name != "neurons"]},
    "scalars": {"log": SCALARS},
    "scalars, 64 samples": {"log": SCALARS, "max_samples": 64},
    "critical-neuron accuracy, 16 samples": {"log": ["critical_neuron_accuracy"], "max_samples": 16},
}


class Timed(RelevanceMonitor):
    """Counts seconds of the processor in its hooks."""

    cpu = 0.0

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        began = time.process_time()
        super().on_validation_batch_end(*args, **kwargs)
        self.cpu += time.process_time() - began

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        began = time.process_time()
        super().on_validation_epoch_end(trainer, pl_module)
        self.cpu += time.process_time() - began


def trainer(folder: str, *callbacks: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", max_epochs=1, num_sanity_val_steps=0, callbacks=list(callbacks), logger=TensorBoardLogger(folder),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("monitor.md"))
    options = parser.parse_args()
    seed_everything(0)
    digits = load_digits()
    images = F.interpolate(torch.tensor(digits.images[:, None] / 16).float(), size=(32, 32), mode="bilinear")
    train, val = random_split(TensorDataset(images, torch.tensor(digits.target)), [1437, 360])
    model = DigitsVGG16()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        trainer(folder).fit(model, DataLoader(train, 64, shuffle=True), DataLoader(val, 120))
        epoch = time.process_time() - began
        torch.nn.init.constant_(model.model.classifier[1].bias, 5.0)  # each class has critical paths, as once trained
        for name, options_of in WAYS.items():
            monitor, run = Timed(**options_of), f"{folder}/{name}"
            trainer(run, monitor).validate(model, DataLoader(val, 120), verbose=False)
            written = sum(path.stat().st_size for path in Path(run).rglob("events*"))
            share = monitor.cpu / epoch
            rows.append(
                f"| {name} | {monitor.cpu:.1f} | {100 * share:.0f} % | {written / 1e3:,.0f} | {share * 1437 / 0.03:,.0f} |"
            )
            print(rows[-1])
    text = "\n".join(
        [
            "# What RelevanceMonitor costs",
            "",
            f"Of an epoch of the demo's training (VGG16-BN, 1,437 digits of 32 x 32), {epoch:.1f} seconds of the",
            f"processor, {torch.get_num_threads()} thread, torch {torch.__version__}.",
            "Its cost does not grow with the training set: from the last column's number of training images on it is below",
            "3 % of an epoch. Kilobytes: the whole log of one look, pictures and record, in TensorBoard's file.",
            "",
            "| logged | seconds | share of the demo's epoch | kB | training images for 3 % |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )
    options.out.write_text(text)


if __name__ == "__main__":
    main()
