"""An error at any point of a look never ends a training that has begun, and leaves nothing behind."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from faults import POINTS, at, logged
from lightning.pytorch.loggers import TensorBoardLogger
from trainings import Classifier, loaders, trainer

from lrp_lightning.callbacks import RelevanceMonitor

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("point", POINTS)
def test_training_goes_on_and_says_what_failed(tmp_path: Path, point: str) -> None:
    monitor = RelevanceMonitor(max_samples=12, n_heatmaps=2, max_share=None, log=logged(point))
    run = trainer(tmp_path, monitor, logger=TensorBoardLogger(tmp_path), epochs=2)
    torch.manual_seed(0)
    with (
        warnings.catch_warnings(record=True) as told,
        at(point, when=lambda: not run.sanity_checking and run.current_epoch == 0),
    ):
        warnings.simplefilter("always")
        run.fit(model := Classifier(), *loaders())
    assert run.current_epoch == 2
    assert [str(w.message) for w in told if f"fault in {point}" in str(w.message)]
    assert run.callback_metrics["relevance/critical_neuron_accuracy"] >= 0  # of the epoch after
    assert not model._forward_hooks
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
