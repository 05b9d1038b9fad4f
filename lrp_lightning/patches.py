"""Image patches that activate neurons, and the parts of them that do, as pixels for figures, the tab and reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from lrp_lightning.pixels import displayable, limit_of

if TYPE_CHECKING:
    from lrp_lightning.deconvnet import TopActivations

__all__ = ["patches", "reconstruction_pixels", "squares"]

_BLURRED = 24
"""The map of what activates a neuron is blurred by the longer side of its patch divided by this."""


def patches(
    top: TopActivations, mean: Sequence[float] | None, std: Sequence[float] | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The patch that a neuron sees in each image, and the part that it responds to: pairs of ``(h, w, 3)`` in [0, 1]."""
    windows = [(slice(up, down), slice(left, right)) for (up, left), (down, right) in top.fields.tolist()]
    return [
        (image[window], reconstruction_pixels(r[:, window[0], window[1]]))
        for image, r, window in zip(displayable(top.images, mean, std), top.reconstructions, windows, strict=True)
    ]


def squares(
    top: TopActivations, side: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The patches that a neuron sees, and the same with irrelevant parts in grey: ``(k, side, side, 3)`` each, in [0, 1].

    A field that is cut by the image's edge is widened to a square within the image; if it is still not square, it is padded
    with grey.
    """
    seen, lit = [np.zeros((0, side, side, 3))], [np.zeros((0, side, side, 3))]
    for image, reconstruction, field in zip(
        displayable(top.images, mean, std), top.reconstructions, top.fields, strict=True
    ):
        (up, left), (down, right) = _widened(field, image.shape[:2]).tolist()
        patch = image[up:down, left:right]
        light = _light(reconstruction[:, up:down, left:right])[..., None]
        seen.append(_fitted(patch, side)[None])
        lit.append(_fitted(0.5 + light * (patch - 0.5), side)[None])
    return np.concatenate(seen), np.concatenate(lit)


def _light(reconstruction: Tensor) -> np.ndarray:
    """How much each place of a patch activates a neuron, ``(H, W)`` in [0, 1], blurred to include its surroundings."""
    size = reconstruction.detach().cpu().double().abs().sum(0).numpy()
    if not size.any():  # as of a card's thumbnail
        return size
    grey = Image.fromarray(np.rint(255 * np.clip(size / limit_of(size, 99.5), 0, 1)).astype(np.uint8))
    blurred = np.asarray(grey.filter(ImageFilter.GaussianBlur(max(size.shape) / _BLURRED)), dtype=np.float64)
    return np.clip(blurred / limit_of(blurred, 99), 0, 1) ** 0.75


def _widened(field: Tensor, sides: Sequence[int]) -> Tensor:
    """A field ``(2, 2)``, first and one past last index, enlarged to a square where the image is large enough."""
    sizes = field[1] - field[0]
    wanted = torch.minimum(sizes.amax().expand(2), torch.tensor(sides))
    first = (field[0] - (wanted - sizes) // 2).clamp(min=0)
    first = torch.minimum(first, torch.tensor(sides) - wanted)
    return torch.stack([first, first + wanted])


def _fitted(picture: np.ndarray, side: int) -> np.ndarray:
    """``(h, w, 3)`` in [0, 1], resized so that the longer side is ``side`` pixels, centred on grey: ``(side, side, 3)``."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    of = Image.fromarray(np.rint(picture * 255).astype(np.uint8))
    fitted = np.asarray(of.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST)) / 255
    square = np.full((side, side, 3), 0.5)
    up, left = (side - size[1]) // 2, (side - size[0]) // 2
    square[up : up + size[1], left : left + size[0]] = fitted
    return square


def reconstruction_pixels(reconstruction: Tensor) -> np.ndarray:
    """``(C, H, W)`` to ``(H, W, 3)`` in [0, 1]: zero is grey; three channels are shown in colour, others by their mean."""
    pixels = reconstruction.detach().cpu().double()
    pixels = pixels if len(pixels) == 3 else pixels.mean(0, keepdim=True).expand(3, -1, -1)
    values = pixels.permute(1, 2, 0).numpy()
    return np.clip(values / limit_of(values, 99.9), -1, 1) / 2 + 0.5
