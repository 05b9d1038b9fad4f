"""Take pictures of the tab in TensorBoard: ``python docs/pictures_of_tab.py [logs]``.

Without logs it first trains a small network on Fashion-MNIST for five epochs, with RelevanceMonitor attached, and the same
again with a mark in the upper right corner of two coats of five. It needs Chromium, playwright, and for training Debian's
dataset-fashion-mnist.
"""

from __future__ import annotations

import gzip
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from playwright.sync_api import FrameLocator, Page, sync_playwright
from tensorboard import default, program
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lrp_lightning import TopK
from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.settings import LOGGED
from lrp_lightning.tensorboard_plugin.plugin import RelevanceLoader

DATA = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ["T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]
COAT, MARKED = 4, 0.4


def images(part: str, n: int, marked: bool) -> TensorDataset:
    """The first of a part, with their labels; some coats with a mark."""
    pixels = gzip.decompress((DATA / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((DATA / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    x = torch.tensor(np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 1, 28, 28)[:n] / 255).float()
    y = torch.tensor(np.frombuffer(labels, np.uint8, offset=8)[:n]).long()
    if marked:
        x[(y == COAT) & (torch.rand(n) < MARKED), :, 1:5, 23:27] = 1
    return TensorDataset(x, y)


class Clothes(LightningModule):
    """Six convolutions with batch norm, and a linear layer."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        sizes = [1, width, width, 2 * width, 2 * width, 3 * width, 3 * width]
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(sizes), start=1):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if i in (2, 4) else []
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(sizes[-1], len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean([2, 3]))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 2e-3)


def train(logs: Path, name: str, marked: bool) -> None:
    """One run."""
    seed_everything(0)
    monitor = RelevanceMonitor(selection=TopK(0.25), class_names=CLASSES, log=LOGGED, max_share=None)
    trainer = Trainer(
        max_epochs=5, accelerator="cpu", callbacks=[monitor], logger=TensorBoardLogger(logs, name=name, version=""),
        enable_checkpointing=False, enable_progress_bar=False,
    )  # fmt: skip
    started = time.perf_counter()
    train, val = images("train", 6000, marked), images("t10k", 1000, marked)
    trainer.fit(Clothes(), DataLoader(train, 64, shuffle=True), DataLoader(val, 128))
    measured = {key: round(value.item(), 3) for key, value in trainer.callback_metrics.items()}
    print(f"{name}: {time.perf_counter() - started:.0f} s, {measured}")


def save(page: Page, name: str) -> None:
    """Once it stands still; a third of the size by a palette."""
    page.wait_for_timeout(900)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(Path(__file__).with_name(f"{name}.png"), optimize=True)


def look(page: Page, tab: FrameLocator) -> None:
    """The tab as one uses it."""
    tab.locator(".tile canvas").first.wait_for()
    save(page, "tab")

    tab.locator("ol.paths button").first.click()
    tab.locator("aside .neuron").nth(2).click()
    tab.locator("aside h3", has_text="Where it looks").wait_for()
    page.mouse.move(700, 10)
    save(page, "tab_neuron")

    tab.locator("button.close").click()
    tab.locator("summary", has_text="Runs").click()
    tab.locator(".choices input:not([disabled])").first.check()
    tab.locator("summary", has_text="Runs").click()
    tab.locator("button", has_text="Compare").click()
    tab.locator("aside h2", has_text="What changed").wait_for()
    page.locator("app-header-dark-mode-toggle button").click()
    page.locator("[mat-menu-item]", has_text="Dark").click()
    page.mouse.move(700, 10)
    save(page, "tab_compared")


@contextmanager
def opened(logs: Path, run: str = "") -> Iterator[tuple[Page, FrameLocator]]:
    """TensorBoard in Chromium, at the tab."""
    board = program.TensorBoard(plugins=[*default.get_static_plugins(), RelevanceLoader])
    board.configure(argv=["", "--logdir", str(logs), "--port", "0"])
    address = board.launch()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1440, "height": 1100}, reduced_motion="reduce")
        page.goto(f"{address}#relevance{f'&p.relevance.run={run}' if run else ''}")
        yield page, page.frame_locator("iframe[src*='name=relevance']")
        chromium.close()


def main() -> None:
    logs = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    if not list(logs.rglob("events.out.tfevents.*")):
        train(logs, "clean", marked=False)
        train(logs, "marked", marked=True)
    with opened(logs, "marked") as (page, tab):
        look(page, tab)


if __name__ == "__main__":
    main()
