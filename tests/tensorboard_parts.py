"""Parts of a record, each whole, for tests that break them: as JSON of version 2, and as the newest version writes them."""

from __future__ import annotations

import json
import zlib

import numpy as np

from lrp_lightning.tensorboard_plugin import schema

__all__ = ["CARD", "GRAPH", "HEAD", "SAMPLES", "STRATEGY", "logged", "written"]

HEAD = {
    "version": 2, "epoch": 0, "class_names": ["a", "b"], "settings": {"rule": "ε"}, "measures": {"mse": 1.0, "smape": None},
    "explained": [1], "samples": None, "neurons": [["fc", 3, None, None]], "notes": [], "strategies": [], "cards": [],
    "headline": ["a sentence"],
}  # fmt: skip
GRAPH = {
    "class": 1, "samples": 4, "layers": [["input", "input"], ["fc", "linear"]],
    "nodes": [[0, 0, 1.0, 0.5, 0], [1, 3, 1.0, 0.5, 1]], "edges": [[0, 1, 1.0, 1.0]], "paths": [[[0, 1], 1.0, None]],
    "others": [[[], []], [[1, 2], [0.1, -0.2]]],
}  # fmt: skip
SAMPLES = {
    "labels": [1, 0], "predictions": [1, 1], "probabilities": [0.5, 1.0], "errors": [0.1, 0.2],
    "images": {"step": 0, "index": 0, "shape": [2, 8, 8, 1]},
    "heatmaps": {"step": 3, "index": 1, "shape": [2, 4, 4], "scale": [1.0, 0]},
    "all_neurons": {"step": 3, "index": 2, "shape": [2, 4, 4], "scale": [1.0, 0]}, "held": [[0.1, 0.9], [None, 1.0]],
}  # fmt: skip
STRATEGY = {
    "class": 1, "share": 0.4, "samples": 12, "shortcut": True, "moves": False, "where": "the left edge",
    "region": [0, 1, 2, 3], "shape": [8, 8],
    "flipped": 0.3, "control": 0.0, "bound": 0.2, "pairs": 256, "images": None, "heatmaps": None, "heatmap": None,
    "right": 0.75, "predictions": [1, 0],
}  # fmt: skip
PATCHES = {"images": {"step": 0, "index": 0, "shape": [2, 4, 4, 1]}, "drives": None, "labels": [1, 0], "predictions": [1, 1]}
CARD = {
    "layer": "fc", "neuron": 3, "classes": [[1, 0.8], [0, 0.2]], "similar": [[5, 0.9]], "share": 0.1, "samples": 40,
    "driven": PATCHES, "relevant": PATCHES, "mistaken": {"images": None, "drives": None, "labels": [], "predictions": []},
}  # fmt: skip


def logged(*parts: object) -> np.ndarray:
    return np.array([zlib.compress(json.dumps(part).encode()) for part in parts], dtype=object)


def written(head: dict, *graphs: dict) -> np.ndarray:
    """As the newest version writes them."""
    strings = [string for graph in graphs for string in schema.pack_graph(graph)]
    return np.array([schema.pack({**head, "version": schema.VERSION}), *strings], dtype=object)
