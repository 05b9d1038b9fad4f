"""Run by test_distributed.py: trainings whose two processes Lightning itself forks or spawns."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader
from trainings import Classifier, images, trainer

from lrp_lightning.callbacks import RelevanceMonitor


def train(strategy: str, out: Path) -> None:
    torch.manual_seed(0)
    monitor = RelevanceMonitor(max_samples=12, n_heatmaps=2, graph_classes=1)
    run = trainer(out, monitor, logger=TensorBoardLogger(out / strategy), epochs=1, devices=2, strategy=strategy)
    run.fit(Classifier(), DataLoader(images(32), 8), DataLoader(images(21, 1), 5))
    measured = {name: value.item() for name, value in run.callback_metrics.items() if "relevance" in name}
    (out / f"{strategy}.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    folder, *launched = sys.argv[1:]
    for strategy in launched:
        train(strategy, Path(folder))
