"""Run by in_processes.py: a fault on one of two processes at each point of a look, and what each process saw of it.

It is the second that fails, where that comes to the point.
"""

from __future__ import annotations

import argparse
import sys
import warnings

import torch
from faults import ON_THE_FIRST, POINTS, at, logged
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader
from trainings import Classifier, images

from lrp_lightning.callbacks import RelevanceMonitor


def faults(options: argparse.Namespace) -> dict[str, dict]:
    """By point and failing process, what this process saw."""
    seen: dict[str, dict] = {}
    for point in POINTS:
        failing = 0 if point in ON_THE_FIRST else 1
        print(f"{point} on {failing}", file=sys.stderr, flush=True)  # the last one is where it hung
        torch.manual_seed(0)
        monitor = RelevanceMonitor(max_samples=8, n_heatmaps=2, max_share=None, log=logged(point))
        run = Trainer(
            accelerator="cpu", devices=options.processes, strategy="ddp", callbacks=[monitor], max_epochs=2, logger=False,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, default_root_dir=options.out,
        )  # fmt: skip

        def here(run: Trainer = run, failing: int = failing) -> bool:
            return run.global_rank == failing and not run.sanity_checking and run.current_epoch == 0

        with warnings.catch_warnings(record=True) as told, at(point, when=here):
            warnings.simplefilter("always")
            run.fit(Classifier(), DataLoader(images(16), 4), DataLoader(images(12, 1), 4))
        seen[f"{point} on {failing}"] = {
            "epochs": run.current_epoch,
            "told": any(f"fault in {point}" in str(w.message) for w in told),
            "measured": "relevance/critical_neuron_accuracy" in run.callback_metrics,
        }
    return seen
