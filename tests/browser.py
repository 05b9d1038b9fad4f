"""TensorBoard with the tab, and a headless browser to look at it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tensorboard import default, program
from trainings import Classifier, loaders, trainer

from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.settings import LOGGED
from lrp_lightning.tensorboard_plugin.plugin import RelevanceLoader

__all__ = ["Tab", "browser", "serve", "train"]


def train(folder: Path, name: str, epochs: int, classes: tuple[str, ...]) -> None:
    """A run as a user makes one."""
    import torch
    from lightning.pytorch.loggers import TensorBoardLogger

    torch.manual_seed(len(name))
    monitor = RelevanceMonitor(
        max_samples=16, n_heatmaps=6, graph_classes=2, class_names=classes, log=LOGGED, max_share=None
    )
    trainer(folder, monitor, logger=TensorBoardLogger(folder, name=name, version=""), epochs=epochs).fit(
        Classifier(), *loaders(train=320, val=32)
    )


def serve(folder: Path, *flags: str) -> str:
    """TensorBoard's address. It serves as long as the process lives."""
    board = program.TensorBoard(plugins=[*default.get_static_plugins(), RelevanceLoader])
    board.configure(argv=["", "--logdir", str(folder), "--port", "0", "--reload_interval", "1", *flags])
    return board.launch()


@contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium. Where there is none tests skip, but not in continuous integration."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        reason = "the tab is tested in Chromium, which is not here: apt-get install chromium; pip install playwright"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        # as root, as containers have it, Chromium has no sandbox
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if root else [])
        yield chromium
        chromium.close()


class Tab:
    """The tab in a page, with all that the page asked for and complained of.

    ``alone``: without TensorBoard around it, which takes seconds to load.
    """

    def __init__(
        self,
        chromium: Any,
        address: str,
        hash: str = "#relevance",
        width: int = 1440,
        height: int = 900,
        alone: bool = True,
        motion: str = "reduce",
    ) -> None:
        self.host = urlsplit(address).netloc
        self.context = chromium.new_context(
            viewport={"width": width, "height": height}, accept_downloads=True, reduced_motion=motion
        )
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.goto(f"{address}{'data/plugin_entry.html?name=relevance' if alone else ''}{hash}")
        self.frame = self.page if alone else self.page.frame_locator("iframe[src*='name=relevance']")

    def _heard(self, message: Any) -> None:
        # alone, the page has no icon, which browsers ask for by themselves
        if message.type == "error" and not message.location["url"].endswith("favicon.ico"):
            self.complaints.append(message.text)

    def __call__(self, selector: str, **more: Any) -> Any:
        return self.frame.locator(selector, **more)

    def ready(self) -> Tab:
        self(".tile canvas").first.wait_for()
        return self

    def evaluate(self, expression: str) -> Any:
        [frame] = [frame for frame in self.page.frames if "plugin_entry" in frame.url]
        return frame.evaluate(expression)

    def until(self, holds: Any, what: str) -> None:
        end = time.monotonic() + 15
        while not holds():
            assert time.monotonic() < end, what
            self.page.wait_for_timeout(30)

    @property
    def strangers(self) -> list[str]:
        """Requests to other hosts."""
        return [
            url
            for url in self.asked
            if urlsplit(url).scheme in ("http", "https", "ws", "wss") and urlsplit(url).netloc != self.host
        ]

    def close(self) -> None:
        """With the promise that nothing went wrong and nothing left the host."""
        complaints, strangers = self.complaints, self.strangers
        self.context.close()
        assert not complaints, complaints[:3]
        assert not strangers
