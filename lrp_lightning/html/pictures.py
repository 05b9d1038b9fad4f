"""Arrays as images embedded in the page; small ones are exact."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from PIL import Image

from lrp_lightning.pixels import COLOURS

__all__ = ["SIDE", "SMALL", "Picture", "Row", "data_uri", "heat_picture", "palette_picture", "picture", "strip"]

SIDE = 320
"""Larger images are reduced to this number of pixels."""
SMALL = 64
"""Images up to this number of pixels are shown pixel by pixel."""
_BETWEEN = 3
"""Number of pixels between two pictures of a strip."""


class Picture(NamedTuple):
    """An image of the page, with an optional label below it."""

    source: str
    alt: str
    small: bool = False
    label: str = ""


class Row(NamedTuple):
    """A row of pictures with a title."""

    pictures: list[Picture]
    title: str


def picture(pixels: np.ndarray, alt: str) -> Picture:
    """``(H, W, 3)`` in [0, 1] as a picture: small ones exactly, photographs as JPEG."""
    image = _image(pixels)
    image.thumbnail((SIDE, SIDE))
    small = max(image.size) <= SMALL
    return Picture(_source(image, "PNG" if small else "JPEG"), alt, small)


def heat_picture(heat: np.ndarray, limit: float, alt: str, label: str = "", side: int = SIDE) -> Picture:
    """``(H, W)`` as a picture of 255 colours; white is exactly 0."""
    image = Image.fromarray(heat.astype(np.float32))
    image.thumbnail((side, side), Image.Resampling.BOX)
    level = np.round(127 + 127 * np.clip(np.asarray(image) / limit, -1, 1)).astype(np.uint8)
    indexed = Image.fromarray(level).convert("P")
    indexed.putpalette(colormaps[COLOURS](np.linspace(0, 1, 255), bytes=True)[:, :3].tobytes())
    return Picture(_source(indexed, "PNG"), alt, max(heat.shape) <= SMALL, label)


def palette_picture(pixels: np.ndarray, alt: str, side: int | None = None, label: str = "") -> Picture:
    """``(H, W, 3)``, uint8 or in [0, 1], as a picture of at most 256 colours, so of at most a byte per pixel."""
    image = _image(pixels)
    if side is not None:
        image.thumbnail((side, side))
    return Picture(_source(image.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), alt, max(image.size) <= SMALL, label)


def strip(rows: Sequence[np.ndarray], alt: str) -> Picture:
    """Rows of pictures, ``(k, side, side, 3)`` in [0, 1] each, as one picture with transparent gaps."""
    k, side = rows[0].shape[:2]
    width, height = k * (side + _BETWEEN) - _BETWEEN, len(rows) * (side + _BETWEEN) - _BETWEEN
    sheet, between = np.ones((height, width, 3)), np.ones((height, width), dtype=bool)
    for row, pictures in enumerate(rows):
        for column, one in enumerate(pictures):
            at = tuple(slice(n * (side + _BETWEEN), n * (side + _BETWEEN) + side) for n in (row, column))
            sheet[at], between[at] = one, False
    indexed = _image(sheet).convert("P", palette=Image.Palette.ADAPTIVE, colors=255)
    level = np.asarray(indexed).copy()
    level[between] = 255
    clear = Image.fromarray(level).convert("P")
    clear.putpalette(((indexed.getpalette() or [])[: 3 * 255] + [0] * 3 * 256)[: 3 * 256])
    file = io.BytesIO()
    clear.save(file, "PNG", optimize=True, transparency=255)
    return Picture(data_uri("png", file), alt, True)


def data_uri(kind: str, file: io.BytesIO) -> str:
    """An image file as a ``data:`` URI."""
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels if pixels.dtype == np.uint8 else np.round(255 * pixels).astype(np.uint8))


def _source(image: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    return data_uri(kind.lower(), file)
