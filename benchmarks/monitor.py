"""What RelevanceMonitor costs of the demo's training, in a fit and by what it logs; writes ``benchmarks/monitor.md``.

    python benchmarks/monitor.py

One epoch of VGG16-BN on 1,437 digits of 32 x 32 without the callback, as many as the demo has with it at its defaults, then
validations of the same model, in which there is no ``max_share``. Seconds of the processor, so that what else the machine
does counts little.
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
    "all that is logged by default": {},
    "everything": {"log": LOGGED},
    "without neurons": {"log": [name for name in DEFAULT if name != "neurons"]},
    "scalars": {"log": SCALARS},
    "scalars, 64 samples": {"log": SCALARS, "max_samples": 64},
    "critical-neuron accuracy, 16 samples": {"log": ["critical_neuron_accuracy"], "max_samples": 16},
}


class Timed(RelevanceMonitor):
    """Counts seconds of the processor in its hooks, and notes them after each epoch."""

    cpu = 0.0
    epochs: tuple[float, ...] = ()

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        began = time.process_time()
        super().on_validation_batch_end(*args, **kwargs)
        self.cpu += time.process_time() - began

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        began = time.process_time()
        super().on_validation_epoch_end(trainer, pl_module)
        self.cpu += time.process_time() - began
        self.epochs, self.cpu = (*self.epochs, self.cpu), 0.0


def trainer(folder: str, *callbacks: Any, epochs: int = 1) -> Trainer:
    return Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=list(callbacks), logger=TensorBoardLogger(folder),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def of_fit(folder: str, train: DataLoader, val: DataLoader, epochs: int, epoch: float) -> list[str]:
    """What it takes at its defaults of a training, as text."""
    monitor = Timed()
    run = trainer(f"{folder}/fit", monitor, epochs=epochs)
    run.fit(DigitsVGG16(), train, val)
    before, first, *ordinary, last = monitor.epochs
    each = sum(ordinary) / len(ordinary)
    pictures = first + last - 2 * each
    enough = (before + pictures) / (0.03 * epoch - each) if each < 0.03 * epoch else float("inf")
    told = f"below 3 % over a fit of {enough:,.0f} epochs or more" if enough < float("inf") else "never below 3 %"
    share = sum(monitor.epochs) / (epochs * epoch)
    samples = run.callback_metrics["relevance/samples"]
    return [
        f"{epochs} epochs, measures on {samples:.0f} samples in each:",
        "",
        "| when | seconds | share of an epoch |",
        "| --- | --- | --- |",
        f"| sanity check: whether it works, and what a sample takes | {before:.1f} | {100 * before / epoch:.1f} % |",
        f"| first epoch, with pictures | {first:.1f} | {100 * first / epoch:.1f} % |",
        f"| an epoch between, {len(ordinary)} on average | {each:.2f} | {100 * each / epoch:.1f} % |",
        f"| last epoch, with pictures | {last:.1f} | {100 * last / epoch:.1f} % |",
        "",
        f"In all {100 * share:.1f} % of these {epochs} epochs; {told}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
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
        loaders = DataLoader(train, 64, shuffle=True, drop_last=True), DataLoader(val, 120)
        trainer(folder).fit(model, *loaders)
        epoch = time.process_time() - began
        in_fit = of_fit(
            folder, DataLoader(train, 64, shuffle=True, drop_last=True), DataLoader(val, 120), options.epochs, epoch
        )
        torch.nn.init.constant_(model.model.classifier[1].bias, 5.0)  # each class has critical paths, as once trained
        for name, options_of in WAYS.items():
            monitor, run = Timed(**options_of), f"{folder}/{name}"
            trainer(run, monitor).validate(model, DataLoader(val, 120), verbose=False)
            [seconds] = monitor.epochs
            written = sum(path.stat().st_size for path in Path(run).rglob("events*"))
            share = seconds / epoch
            rows.append(
                f"| {name} | {seconds:.1f} | {100 * share:.0f} % | {written / 1e3:,.0f} | {share * 1437 / 0.03:,.0f} |"
            )
            print(rows[-1])
    text = "\n".join(
        [
            "# What RelevanceMonitor costs",
            "",
            f"Of the demo's training (VGG16-BN, 1,437 digits of 32 x 32), whose epoch takes {epoch:.1f} seconds of the",
            f"processor, {torch.get_num_threads()} thread, torch {torch.__version__}.",
            "",
            "## In a fit, by default (`max_share=0.03`)",
            "",
            *in_fit,
            "",
            "## A whole look (`max_share=None`, and in `validate` and `test`)",
            "",
            "Its cost does not grow with the training set: from the last column's number of training images on it is below",
            "3 % of an epoch, and by default each epoch of a fit has it. Kilobytes: the whole log of one look, pictures and",
            "record, in TensorBoard's file.",
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
