"""Small networks for tests, with the same weights whenever they are built."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


def mlp(*widths: int, bias: bool = True, seed: int = 0) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for lower, upper in pairwise(widths):
        layers += [nn.Linear(lower, upper, bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def cnn(inputs: int = 1, first: int = 8, second: int = 16, classes: int = 5, seed: int = 0) -> nn.Sequential:
    """Two convolutions with a batch norm and a max pooling, then a linear layer, for images of 8 x 8."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(inputs, first, 3), nn.BatchNorm2d(first), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(first, second, 2),
        nn.ReLU(), nn.Flatten(), nn.Linear(4 * second, classes),
    ).eval()  # fmt: skip


def convolutions(*channels: int, side: int, classes: int, bias: bool = True, norm: bool = False) -> nn.Sequential:
    """Convolutions of 3 x 3 with ReLU, the first with a batch norm if asked for, then a linear layer, for square images."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for lower, upper in pairwise(channels):
        layers.append(nn.Conv2d(lower, upper, 3, bias=bias))
        layers += [nn.BatchNorm2d(upper)] if norm and len(layers) == 1 else []
        layers.append(nn.ReLU())
    side -= 2 * (len(channels) - 1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * side**2, classes, bias)).eval()


def waves(seed: int = 0) -> nn.Sequential:
    """For grey images of 16 x 16 in three classes, wide enough to learn a class by its pattern and by a mark."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(384, 3),
    )  # fmt: skip


class Between(nn.Module):
    """A function between two linear layers, then the mean over tokens, where there are any."""

    def __init__(self, form: Callable[[Tensor], Tensor], inputs: int = 8, hidden: int = 8, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.below, self.above = nn.Linear(inputs, hidden, bias), nn.Linear(hidden, 3, bias)
        object.__setattr__(self, "form", form)  # not as a child, even if it is a module
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.above(self.form(self.below(x)))
        return y.mean(1) if y.ndim == 3 else y


class Tokens(nn.Module):
    """A linear layer over sequences of six values each: its neurons are the last dimension."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Linear(6, 9), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x.flatten(1).view(len(x), -1, 6)).relu().mean(1))


class TwoInputs(nn.Module):
    """A linear layer for each of two inputs; the head takes their sum, rectified and scaled."""

    def __init__(self, a: int, b: int, hidden: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other, self.head = nn.Linear(a, hidden), nn.Linear(b, hidden), nn.Linear(hidden, 2)

    def forward(self, a: Tensor, b: Tensor, scale: Any = 1.0) -> Tensor:
        return self.head((self.one(a) + self.other(b)).relu() * scale)
