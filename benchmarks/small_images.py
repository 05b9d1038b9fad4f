"""Digits and clothes, and a small convolutional network that classifies them; pixels from 0 to 1, or from -1 to 1.

Digits are scikit-learn's, 8 x 8 scaled up to 16 x 16; clothes are Fashion-MNIST, 28 x 28, as Debian packages it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from ground_truth import train
from sklearn.datasets import load_digits
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import fashion_mnist

HELD_OUT = 360


class Images(NamedTuple):
    """Images ``(N, 1, side, side)`` and classes ``(N,)``."""

    images: Tensor
    labels: Tensor


def digits(centred: bool = True) -> tuple[Images, Images]:
    """Training and held-out digits; pixels from -1 to 1, or from 0 to 1."""
    found = load_digits()
    images = F.interpolate(torch.tensor(found.images[:, None] / 16).float(), size=(16, 16), mode="bilinear")
    images, labels = 2 * images - 1 if centred else images, torch.tensor(found.target)
    return Images(images[:-HELD_OUT], labels[:-HELD_OUT]), Images(images[-HELD_OUT:], labels[-HELD_OUT:])


def clothes(centred: bool = True) -> tuple[Images, Images]:
    """3,000 training images of clothes, and held-out ones; pixels from -1 to 1, or from 0 to 1."""
    found = fashion_mnist.load(train=3000, test=HELD_OUT)
    train, test = (Images(2 * images - 1 if centred else images, labels) for images, labels in (found.train, found.test))
    return train, test


DATA = {"digits": digits, "clothes": clothes}


def network(side: int) -> nn.Sequential:
    """Three convolutions and two linear layers, with weights at random."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2 * side * side, 64), nn.ReLU(),
        nn.Linear(64, 10),
    )  # fmt: skip


def trained(data: Images, seed: int, epochs: int) -> nn.Sequential:
    """A network trained on the images, in eval mode."""
    torch.manual_seed(seed)
    model = network(data.images.shape[-1])
    train(model, data.images, data.labels, seed, epochs)
    return model
