"""Take pictures of the tab in TensorBoard: ``python docs/pictures_of_tab.py [logs]``.

Without logs it first trains a narrow VGG16 on Fashion-MNIST for four epochs, with RelevanceMonitor attached, and the same
again with a mark in the upper right corner of two coats of five. It needs Chromium, playwright, and for training Debian's
dataset-fashion-mnist.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pictures
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from playwright.sync_api import FrameLocator, Page, sync_playwright
from tensorboard import default, program
from torch.utils.data import DataLoader, TensorDataset

from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.settings import LOGGED
from lrp_lightning.tensorboard_plugin.plugin import RelevanceLoader

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import fashion_mnist
from monitor import Net

COAT, MARKED = 4, 0.4


def train(logs: Path, name: str, marked: bool) -> None:
    """One run."""
    seed_everything(0)
    data = fashion_mnist.load(9000, 2000, side=32)
    for images, labels in (data.train, data.test) if marked else ():
        images[(labels == COAT) & (torch.rand(len(labels)) < MARKED), :, 2:6, 26:30] = 1
    monitor = RelevanceMonitor(class_names=data.class_names, log=LOGGED, max_share=None)
    trainer = Trainer(
        max_epochs=4, accelerator="cpu", callbacks=[monitor], logger=TensorBoardLogger(logs, name=name, version=""),
        enable_checkpointing=False, enable_progress_bar=False,
    )  # fmt: skip
    started = time.perf_counter()
    trainer.fit(
        Net(learning_rate=0.03),
        *(DataLoader(TensorDataset(*of), 64, shuffle=of is data.train) for of in (data.train, data.test)),
    )
    measured = {key: round(value.item(), 3) for key, value in trainer.callback_metrics.items()}
    print(f"{name}: {time.perf_counter() - started:.0f} s, {measured}")


def save(page: Page, name: str) -> None:
    """Once it stands still."""
    page.wait_for_timeout(900)
    pictures.save(Image.open(io.BytesIO(page.screenshot())), Path(__file__).with_name(f"{name}.png"))


def look(page: Page, tab: FrameLocator) -> None:
    """The tab as one uses it."""
    tab.locator(".tile canvas").first.wait_for()
    save(page, "tab")

    tab.locator("ol.paths button").first.click()
    tab.locator("aside .neuron").nth(2).click()
    tab.locator("aside h3", has_text="Heatmaps of this neuron").wait_for()
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
