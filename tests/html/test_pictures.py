"""Arrays as images in a page."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from lrp_lightning.html.pictures import Picture, palette_picture, strip


def opened(picture: Picture) -> Image.Image:
    kind, _, data = picture.source.partition(";base64,")
    assert kind == "data:image/png"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_what_is_between_the_pictures_of_a_strip_is_transparent() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.random((3, 10, 10, 3)).round(1) * [1, 0, 0], np.full((3, 10, 10, 3), 0.5)]
    image = np.asarray(opened(strip(rows, "patches")).convert("RGBA"))
    assert image.shape == (23, 36, 4)
    opaque = np.zeros((23, 36), dtype=bool)
    for row in range(2):
        for column in range(3):
            at = slice(13 * row, 13 * row + 10), slice(13 * column, 13 * column + 10)
            opaque[at] = True
            np.testing.assert_allclose(image[at][..., :3], 255 * rows[row][column], atol=2)
    assert ((image[..., 3] == 255) == opaque).all()
    assert ((image[..., 3] == 0) == ~opaque).all()


def test_greys_and_few_colours_are_exact_and_large_ones_smaller() -> None:
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (40, 30, 1), dtype=np.uint8), 3, axis=2)
    np.testing.assert_array_equal(np.asarray(opened(palette_picture(grey, "grey")).convert("RGB")), grey)
    assert opened(palette_picture(np.random.default_rng(0).random((400, 200, 3)), "noise", side=64)).size == (32, 64)
