"""How time grows with the batch, the image, the depth, the selected neurons and the graph, and over a whole data set."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from measure import resident, seconds
from methods import GRADIENT, METHODS
from models import Subject, gradient_x_input, subject
from torch import nn

from lrp_lightning import EpsilonPlus, SelectiveLRP, TopK, build_graph

PLUS = METHODS["EpsilonPlus"]
QUICK = 2
"""The number of points of each axis in a quick run."""


def points(config: pytest.Config, values: list[int]) -> list[int]:
    return values[:QUICK] if config.getoption("quick") else values


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    axes = {
        "images": [1, 2, 4, 8, 16, 32],
        "pixels": [64, 96, 128, 192, 256, 320],
        "depth": [4, 8, 16, 32, 64, 128],
        "kept": [1, 4, 16, 64, 256],
        "in_graph": [1, 4, 16, 64, 128],
    }
    for name, values in axes.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, points(metafunc.config, values))


def test_batch(record: Callable[..., None], compare: Callable[..., None], images: int, device: str) -> None:
    asked = subject("resnet50", 64, images, device)
    record("growth", axis="images in a batch (ResNet-50, 64 pixels)", at=images)
    compare(GRADIENT.work(asked), PLUS.work(asked))


def test_side(record: Callable[..., None], compare: Callable[..., None], pixels: int, device: str) -> None:
    asked = subject("resnet50", pixels, 1, device)
    record("growth", axis="pixels of a side (ResNet-50)", at=pixels, power=2)
    compare(GRADIENT.work(asked), PLUS.work(asked))


def test_depth(record: Callable[..., None], compare: Callable[..., None], depth: int, device: str) -> None:
    torch.manual_seed(0)
    layers = [m for _ in range(depth) for m in (nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())]
    net = nn.Sequential(nn.Conv2d(3, 32, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    asked = Subject(
        "deep",
        net.eval().to(device),
        torch.rand(1, 3, 34, 34, device=device),
        torch.zeros(1, dtype=torch.long, device=device),
    )
    record("growth", axis="layers (32 channels, 32 pixels)", at=depth)
    compare(GRADIENT.work(asked), PLUS.work(asked))


def test_selected(record: Callable[..., None], compare: Callable[..., None], kept: int, device: str) -> None:
    asked = subject("vgg16", 64, 2, device)
    lrp = SelectiveLRP(asked.model, EpsilonPlus(), TopK(kept))
    record("growth", axis="neurons selected in each layer (VGG16, 64 pixels)", at=kept, power=0)
    compare(GRADIENT.work(asked), lambda: lrp.attribute(asked.x, target=asked.target))


def test_graph(
    benchmark: Any, record: Callable[..., None], compare: Callable[..., None], in_graph: int, device: str
) -> None:
    """``build_graph`` of an existing trace."""
    asked = subject("vgg16", 64, 1, device)
    trace = SelectiveLRP(asked.model, EpsilonPlus(), TopK(in_graph)).trace(asked.x, asked.target, edges=True)
    graph = build_graph(trace)
    record(
        "growth", axis="edges of a graph (VGG16, build_graph)", at=graph.number_of_edges(), neurons=graph.number_of_nodes()
    )
    del graph
    compare(GRADIENT.work(asked), lambda: build_graph(trace))


def test_data_set(benchmark: Any, record: Callable[..., None], device: str, quick: bool) -> None:
    """Batches of eight in succession: seconds and memory of the process after each."""
    whole = subject("resnet50", 64, 8, device)
    lrp, rounds = SelectiveLRP(whole.model, EpsilonPlus(), TopK(0.1)), 4 if quick else 64
    record("data set", batches=rounds)
    held, took, gradients = [], [], []
    for _ in range(2):
        lrp.attribute(whole.x, target=whole.target)
    gc.collect()

    def attribute() -> None:
        for i in range(rounds):
            x = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(i)).to(device)
            gradients.append(seconds(lambda x=x: gradient_x_input(whole.model, x, whole.target), device))  # type: ignore[misc]
            took.append(seconds(lambda x=x: lrp.attribute(x, target=whole.target), device))  # type: ignore[misc]
            held.append(torch.cuda.memory_allocated() if device != "cpu" else resident("VmRSS"))

    benchmark.pedantic(attribute)
    benchmark.extra_info.update(took=took, held=held, ratios=[a / b for a, b in zip(took, gradients, strict=True)])
