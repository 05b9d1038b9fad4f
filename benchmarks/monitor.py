"""How much time RelevanceMonitor takes, in a fit with its defaults and for what it logs: writes ``benchmarks/monitor.md``.

    python benchmarks/monitor.py

A narrow VGG16 with batch norm is trained on Fashion-MNIST (scikit-learn's digits, repeated, where that is not installed).
The number of images is chosen so that an epoch takes 20 seconds, then a minute, on this machine. Each fit runs once without
the monitor and once with its defaults. Then single epochs of the monitor's work are timed for what they log, in CPU seconds,
so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lrp_lightning.callbacks import RelevanceMonitor, relevance_monitor
from lrp_lightning.callbacks.settings import DEFAULT, LOGGED, SCALARS

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import fashion_mnist
import small_vgg

EPOCHS = {20: 6, 60: 4}
"""Seconds of an epoch, and the number of epochs."""
HEATMAPS, GRAPHS = ("heatmaps", "mistakes", "shares"), ("critical_paths", "path_heatmaps", "neurons")
WAYS: dict[str, tuple[str, ...]] = {
    "measures": SCALARS,
    "and heatmaps": (*SCALARS, *HEATMAPS),
    "and a graph of each class, with heatmaps of paths and neurons": (*SCALARS, *HEATMAPS, *GRAPHS),
    "and cards": (*SCALARS, *HEATMAPS, *GRAPHS, "cards"),
    "all defaults: strategies and shortcuts too": DEFAULT,
    "everything": LOGGED,
}


class Net(LightningModule):
    """A narrow VGG16 with batch norm; ``docs/pictures_of_tab.py`` trains it too."""

    def __init__(self, learning_rate: float = 0.02) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.model = small_vgg.small_vgg16(small_vgg.NARROW)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate, momentum=0.9)


class Timed(RelevanceMonitor):
    """Records for each look its seconds, its CPU seconds, and whether it drew."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.looks: list[tuple[float, float, bool]] = []
        self._cpu = 0.0

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        began = time.process_time()
        super().on_validation_batch_end(*args, **kwargs)
        self._cpu += time.process_time() - began

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        began = time.process_time()
        super().on_validation_epoch_end(trainer, pl_module)
        self.looks.append((self._budget.seconds, self._cpu + time.process_time() - began, self._look is not None))
        self._cpu = 0.0


class Clock(Callback):
    """The seconds of a fit, without setup and sanity check."""

    began = seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.perf_counter() - self.began


def loaded(n: int, train: bool = True) -> DataLoader:
    data = fashion_mnist.load(n, 2000, side=32)
    images, labels = data.train if train else data.test
    times = -(-n // len(images)) if train else 1  # digits are few
    whole = TensorDataset(images.repeat(times, 1, 1, 1), labels.repeat(times))
    return DataLoader(torch.utils.data.Subset(whole, range(min(n, len(whole)))), 64 if train else 250, shuffle=train)


def fitted(n: int, epochs: int, folder: str, *callbacks: Callback) -> tuple[Net, float]:
    """A network fitted to ``n`` images, and the seconds that took."""
    seed_everything(0)
    net, clock = Net(), Clock()
    trainer(folder, clock, *callbacks, epochs=epochs).fit(net, loaded(n), loaded(2000, train=False))
    return net, clock.seconds


def trainer(folder: str, *callbacks: Callback, epochs: int = 1) -> Trainer:
    return Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=list(callbacks), logger=TensorBoardLogger(folder),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def of_fits(folder: str, say: Callable[[str], None]) -> Net:
    """Fits without and with the monitor, as rows of a table; returns the last network."""
    few, many = (fitted(n, 1, folder)[1] for n in (2000, 8000))
    image = (many - few) / 6000  # validation takes the same time in both
    for wanted, epochs in EPOCHS.items():
        n = int(2000 + (wanted - few) / image)
        _, without = fitted(n, epochs, folder)
        monitor = Timed()
        net, beside = fitted(n, epochs, folder, monitor)
        _, (first, *_), *between, (last, *_) = monitor.looks
        looks = sum(seconds for seconds, *_ in monitor.looks[1:])
        each = sum(seconds for seconds, *_ in between) / len(between)
        drawn = sum(drawn for *_, drawn in monitor.looks[1:])
        epoch, samples = without / epochs, monitor._time_share.samples
        say(
            f"| {epoch:.1f} | {n:,} | {samples} | {drawn} of {epochs} | {first:.1f} | {each:.2f} | {last:.1f} | "
            f"{each / epoch:.1%} | {looks / (beside - looks):.1%} | {beside / without:.3f} |"
        )
    return net


class Drawing:
    """Adds up the CPU seconds that functions take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            began = time.process_time()
            try:
                return function(*args, **options)
            finally:
                self.seconds += time.process_time() - began

        return counted


def of_looks(folder: str, net: Net, say: Callable[[str], None]) -> None:
    """Single looks, as rows of a table; on one thread, because CPU seconds include waiting threads."""
    torch.set_num_threads(1)
    for samples in (64, 256):
        for name, log in WAYS.items():
            monitor = Timed(log=log, max_samples=samples, class_names=fashion_mnist.CLASSES)
            run, drawing = f"{folder}/{samples}/{name}", Drawing()
            parts = {part: drawing.of(getattr(relevance_monitor, part)) for part in ("draw", "write")}
            with mock.patch.multiple(relevance_monitor, **parts):
                for _ in range(2):  # the first draws with cold caches
                    drawing.seconds = 0.0
                    trainer(run, monitor).validate(net, loaded(2000, train=False), verbose=False)
            written = sum(path.stat().st_size for path in Path(run).rglob("events*")) / 2e3
            seconds, drawn = monitor.looks[-1][1], drawing.seconds
            say(f"| {samples} | {name} | {seconds:.2f} | {seconds - drawn:.2f} | {drawn:.2f} | {written:,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("monitor.md"))
    options = parser.parse_args()
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)
        options.out.write_text("\n".join([*lines, ""]))

    say(f"""# What RelevanceMonitor costs

A narrow VGG16 with batch norm (13 convolutions of 32 to 96 channels) is trained on Fashion-MNIST at 32 x 32 pixels, ten
classes; {torch.get_num_threads()} threads, torch {torch.__version__}.

## In a fit, with the defaults (`max_share=0.03`)

Wall time. The first and the last epoch are always drawn, and the last also has strategies, shortcuts and cards. The fewer
epochs a fit has, the greater is therefore the monitor's share. *First*, *between* and *last*: the monitor's seconds in the
first and the last epoch, and their mean over the epochs between. *Of an epoch*: that mean divided by an epoch without the
monitor. *Of other time*: the monitor's time divided by all other time of the same fit.
*Ratio to without*: two fits, one after the other, so it includes the machine's noise.

| epoch, s | images | samples | drawn | first, s | between, s | last, s | of an epoch | of other time | ratio to without |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |""")
    with tempfile.TemporaryDirectory() as folder:
        net = of_fits(folder, say)
        say("""
## A single epoch (`max_share=None`; also in `validate` and `test`)

CPU seconds on one thread; the cost does not depend on the size of the training set. *kB*: the growth of TensorBoard's file
per drawn epoch.

| samples | logged | seconds | of these, passes | of these, drawing and writing | kB |
| --- | --- | --- | --- | --- | --- |""")
        of_looks(folder, net, say)


if __name__ == "__main__":
    main()
