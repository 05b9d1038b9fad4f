"""Where pictures are in a sheet, and words around them."""

from __future__ import annotations

import numpy as np
import pytest

from lrp_lightning.drawing import as_array
from lrp_lightning.drawing.sheets import colour_bar, compose, lines_of


@pytest.mark.parametrize("shape", [(6, 5), (40, 60), (224, 224)])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_pictures_are_where_they_are_said_to_be(shape: tuple[int, int], as_bytes: bool) -> None:
    colours = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 1, 1], [1, 0, 1], [1, 1, 0]]], dtype=float)
    rows = [[np.broadcast_to(colour, (*shape, 3)) for colour in row] for row in colours]
    if as_bytes:
        rows = [[(255 * picture).astype(np.uint8) for picture in row] for row in rows]
    figure, place = compose([rows[0], [*rows[1][:2], None]], 1.0, [0.3, 0.2], left=0.4, right=0.9)
    colour_bar(figure, 1.0, "share", 0.9)
    drawn = as_array(figure)
    for row, column in np.ndindex(2, 3):
        left, bottom, width, height = place(row, column)
        middle = drawn[round(drawn.shape[0] * (1 - bottom - height / 2)), round(drawn.shape[1] * (left + width / 2))]
        expected = (1, 1, 1) if (row, column) == (1, 2) else colours[row, column]
        np.testing.assert_array_equal(middle, 255 * np.array(expected))
        assert width * figure.get_figwidth() == pytest.approx(1.0)
        above = drawn[round(drawn.shape[0] * (1 - bottom - height)) - 8, round(drawn.shape[1] * (left + width / 2))]
        assert (above == 255).all()


def test_lines_are_counted() -> None:
    assert [lines_of(texts) for texts in ([], [""], ["a"], ["a", "b\nc\nd", ""])] == [0, 0, 1, 3]
