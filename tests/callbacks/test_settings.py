"""The arguments of RelevanceMonitor: which are refused, and how they are described."""

from __future__ import annotations

from typing import Any

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lrp_lightning import Epsilon, TopK
from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.settings import LOGGED


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs must be an int >= 1, got 0"),
        ({"max_samples": 0}, "max_samples"),
        ({"max_samples": 1.5}, "max_samples"),
        ({"max_samples": True}, "max_samples"),
        ({"n_heatmaps": -1}, "n_heatmaps"),
        ({"n_paths": -1}, "n_paths"),
        ({"selection": 0.1}, "selection must be a selection such as"),
        ({"selection": TopK}, "selection"),
        ({"graph_classes": -1}, "graph_classes"),
        ({"graph_classes": [1, 1]}, "graph_classes"),
        ({"graph_classes": "cat"}, "graph_classes must be 'all', a number of classes, or the classes, by number or name"),
        ({"graph_classes": [-1]}, "graph_classes must be"),
        ({"graph_classes": [1.5]}, "graph_classes must be"),
        ({"graph_classes": ["cat"]}, "graph_classes has an unknown class 'cat'; give class_names too, or use class numbers"),
        ({"graph_classes": ["cow"], "class_names": ["cat", "dog"]}, "'cow'; class_names are cat, dog"),
        ({"graph_classes": ["dog", 1], "class_names": ["cat", "dog"]}, "each class once"),
        ({"class_names": "cat"}, "class_names must be a list of names"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"max_seconds": "1"}, "max_seconds"),
        ({"max_share": 0}, r"max_share must be a share in \(0, 1\], or None, got 0"),
        ({"max_share": 3}, "max_share"),
        ({"on_error": "ignore"}, "on_error must be 'raise' or 'warn'"),
        ({"batch_fn": 3}, "batch_fn"),
        ({"target_fn": "max"}, "target_fn"),
        ({"model": 3}, "model must be the name"),
        ({"log": "heatmaps"}, "log must be a list"),
        ({"log": ["heatmap"]}, "log= has an unknown name 'heatmap'.*did you mean 'heatmaps'"),
        ({"log": ["???"]}, "allowed names are contest_accuracy"),
    ],
)
def test_wrong_arguments(wrong: dict, message: str):
    with pytest.raises(MisconfigurationException, match=message):
        RelevanceMonitor(**wrong)


@pytest.mark.parametrize(
    ("given", "listed", "free"), [(3, [], 3), ("all", [], 20), ([4, 1], [4, 1], 0), (["dog", 0], [1, 0], 0), ([], [], 0)]
)
def test_classes_of_graphs_are_listed_or_free(given: Any, listed: list[int], free: int):
    settings = RelevanceMonitor(graph_classes=given, class_names=["cat", "dog"]).settings
    assert (settings.listed_classes, settings.free_classes) == (listed, free)


def test_wrong_composite():
    with pytest.raises(ValueError, match="epsilon_plus"):
        RelevanceMonitor(composite="epsilon_minus")


def test_described():
    def read(batch: object) -> object:
        return batch

    texts = RelevanceMonitor(Epsilon(), batch_fn=read, class_names=["a"]).settings.described()
    assert texts["composite"] == "Composite(default=Epsilon(eps=1e-06))"
    assert texts["selection"] == "TopK(keep=0.1, by='magnitude')"
    assert texts["batch_fn"].endswith("read")
    assert "model" not in texts


def test_every_name_that_is_logged_is_documented():
    doc = RelevanceMonitor.__doc__
    assert doc is not None
    assert all(f"``{name}``" in doc for name in LOGGED)
