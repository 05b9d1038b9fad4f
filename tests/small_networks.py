"""Networks that are small enough to be looked at neuron by neuron, always with the same weights."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


def mlp(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for lower, upper in pairwise(widths):
        layers += [nn.Linear(lower, upper), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 5),
    ).eval()  # fmt: skip
