"""Checkpoints of all versions, and of none: no training fails to resume because of what a monitor finds in one."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from trainings import Classifier, loaders, trainer, weights_only

from lrp_lightning import TopK
from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.settings import SCALARS

IMAGE = torch.arange(64.0).view(1, 1, 8, 8) / 64
FIRST: dict[str, Any] = {
    "remembered": {
        "validation": {"shown": [{"inputs": [IMAGE], "labels": torch.tensor([2])}], "classes": [2], "settled": True}
    },
    "measures": {"classes": 10, "neurons": {"conv1": 8, "conv2": 16}, "degrees": torch.full((10, 24), 0.5)},
    "history": [
        {
            "epoch": 0.0, "critical_neuron_accuracy": 0.25, "random_accuracy": 0.125, "retained_accuracy": 0.5,
            "ablated_accuracy": 0.0, "smape": 1.4, "mse": 0.005, "conservation_error": 3.6e-07,
        },
    ],
    "has_worked": True,
}  # fmt: skip
"""As 0.1.0 wrote it."""
SPENT = {
    "samples": 16,
    "seconds_per_sample": 1e-3,
    "seconds_of_pictures": 0.5,
    "spent": 0.5,
    "trained": 20.0,
    "at_last_look": 9.0,
}
"""The account of a fit, as it was before strategies."""


def few(**more) -> RelevanceMonitor:
    return RelevanceMonitor(selection=TopK(0.1, by="relevance"), n_heatmaps=1, graph_classes=1, **more)


class Replacing(Callback):
    """Puts something else into a checkpoint, as the monitor's state."""

    def __init__(self, key: str, state: object) -> None:
        self.key, self.state = key, state

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["callbacks"][self.key] = self.state


def resumed(folder: Path, state: object, **more) -> tuple[RelevanceMonitor, Trainer]:
    """A fit of a second epoch, from a checkpoint of the first with that state."""
    saved, monitor = ModelCheckpoint(folder, filename="one"), few(**more)
    run = trainer(folder, saved, Replacing(monitor.state_key, state), epochs=1, enable_checkpointing=True)
    run.fit(Classifier(), *loaders())
    run = trainer(folder, monitor, epochs=2)
    run.fit(Classifier(), *loaders(), ckpt_path=saved.best_model_path, **weights_only(True))
    assert run.current_epoch == 2
    assert monitor._history[-1]["epoch"] == 1
    assert run.callback_metrics["relevance/critical_neuron_accuracy"] >= 0
    return monitor, run


@pytest.mark.parametrize("account", [{}, {"time_share": SPENT}], ids=["0.1.0", "with an account"])
def test_a_state_of_version_0_1_is_read(tmp_path: Path, account: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="RelevanceMonitor")
        monitor, run = resumed(tmp_path, FIRST | account)
    assert monitor._history[0] == FIRST["history"][0]
    [shown] = monitor._remembered["validation"].shown
    assert torch.equal(shown.inputs[0], IMAGE)
    assert monitor._remembered["validation"].classes == [2]
    assert "relevance/stability" in run.callback_metrics  # compared with the epoch before
    assert monitor._time_share.samples == (16 if account else monitor._time_share.samples)
    assert monitor._time_share.trained > (20 if account else 0)


@pytest.mark.parametrize("lacking", [*FIRST, "all"])
def test_a_state_that_lacks_something_is_read_as_far_as_it_goes(tmp_path: Path, lacking: str) -> None:
    state = {} if lacking == "all" else {name: of for name, of in FIRST.items() if name != lacking}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="RelevanceMonitor")
        monitor, _ = resumed(tmp_path, {**state, "of a later version": {"a": 1}}, log=SCALARS)
    assert [row["epoch"] for row in monitor._history] == ([1] if lacking in ("history", "all") else [0, 1])


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("remembered", [1, 2]),
        ("remembered", {"validation": {"images": [IMAGE]}}),
        ("remembered", {"validation": {"shown": [{"inputs": ["a"], "labels": None}], "classes": [], "settled": True}}),
        ("remembered", {"validation": {"shown": [{"inputs": [IMAGE], "labels": 3}], "classes": [], "settled": True}}),
        ("measures", {"degrees": torch.zeros(10, 24)}),
        ("measures", {"classes": 10, "neurons": {"conv1": 8}, "degrees": torch.zeros(10, 24)}),
        ("measures", {"classes": "many", "neurons": {"conv1": 8}, "degrees": torch.zeros(10, 8)}),
        ("measures", 3),
        ("history", [{"smape": 1.0}]),
        ("history", [{"epoch": 0.0, "smape": "small"}]),
        ("history", 3),
        ("time_share", {"samples": "all"}),
        ("time_share", 7),
    ],
)
def test_what_cannot_be_read_is_named_and_begins_anew(tmp_path: Path, part: str, found: object) -> None:
    with pytest.warns(UserWarning, match=f"cannot restore {part!r} from the checkpoint and starts it afresh: ") as told:
        monitor, _ = resumed(tmp_path, {**FIRST, "time_share": SPENT, part: found}, log=SCALARS)
    assert len([w for w in told if "RelevanceMonitor" in str(w.message)]) == 1
    assert [row["epoch"] for row in monitor._history] == ([1] if part == "history" else [0, 1])


@pytest.mark.parametrize("state", [3, None, "a state", [1]])
def test_something_else_altogether(tmp_path: Path, state: object) -> None:
    monitor, _ = resumed(tmp_path, state, log=SCALARS)
    assert [row["epoch"] for row in monitor._history] == [1]


def test_another_networks_state_is_of_no_use_and_no_harm(tmp_path: Path) -> None:
    """Other classes, other layers, images of another size."""
    other = {
        **FIRST,
        "remembered": {
            "validation": {
                "shown": [{"inputs": [torch.rand(1, 3, 16, 16)], "labels": torch.tensor([99])}],
                "classes": [99],
                "settled": True,
            }
        },
        "measures": {"classes": 100, "neurons": {"features.0": 64}, "degrees": torch.zeros(100, 64)},
    }
    with pytest.warns(UserWarning, match="could not draw the heatmaps"):
        monitor, run = resumed(tmp_path, other)
    assert "relevance/stability" not in run.callback_metrics
    assert monitor._measures.stability.num_classes == 10
