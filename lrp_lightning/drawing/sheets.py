"""Grids of pictures composed as one array, with room for text: separate axes for each picture would be ten times slower."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from lrp_lightning.drawing.figures import new_figure
from lrp_lightning.pixels import COLOURS

__all__ = ["Box", "LINE", "colour_bar", "compose", "lines_of"]

Box = tuple[float, float, float, float]
"""Left, bottom, width and height, as shares of a figure."""

LINE = 0.14
"""Inches of a line of text of 8 points."""
_GAP = 0.08
"""Inches between two pictures."""


def compose(
    rows: Sequence[Sequence[np.ndarray | None]], width: float, above: Sequence[float], left: float = 0.0, right: float = 0.0
) -> tuple[Figure, Callable[[int, int], Box]]:
    """A figure of pictures in rows and columns.

    Args:
        rows: pictures of one size, ``(H, W, 3)``, uint8 or in [0, 1]; None leaves a place empty.
        width: of a picture in inches.
        above: inches for text above each row.
        left, right: inches for text and a colour bar.

    Returns:
        The figure, and a function that returns the place of the picture in a row and column.
    """
    height, pixels = next(picture.shape[:2] for row in rows for picture in row if picture is not None)
    inch = width / pixels
    gap = max(round(_GAP / inch), 1)
    heads = [round(words / inch) for words in above]
    tops = [sum(heads[: n + 1]) + n * (height + gap) for n in range(len(rows))]
    columns = max(len(row) for row in rows)
    sheet = np.full((tops[-1] + height, columns * (pixels + gap) - gap, 3), 255, dtype=np.uint8)
    for top, row in zip(tops, rows, strict=True):
        for column, picture in enumerate(row):
            if picture is not None:
                whole = picture if picture.dtype == np.uint8 else np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)
                sheet[top : top + height, column * (pixels + gap) :][:, :pixels] = whole

    size = left + sheet.shape[1] * inch + right + 2 * _GAP, sheet.shape[0] * inch + 2 * _GAP
    figure = new_figure(*size)
    figure.set_layout_engine("none")

    def box(top: float, start: float, tall: float, wide: float) -> Box:
        """A box of pixels of the sheet, as shares of the figure."""
        x, y = left + _GAP + start * inch, size[1] - _GAP - (top + tall) * inch
        return x / size[0], y / size[1], wide * inch / size[0], tall * inch / size[1]

    axis = figure.add_axes(box(0, 0, *sheet.shape[:2]))
    axis.set_axis_off()
    axis.imshow(sheet, interpolation="nearest", aspect="auto")
    return figure, lambda row, column: box(tops[row], column * (pixels + gap), height, pixels)


def colour_bar(figure: Figure, limit: float, label: str, right: float) -> None:
    """A colour bar from ``-limit`` to ``limit`` at the right of a sheet, in a margin of ``right`` inches."""
    width, height = figure.get_size_inches()
    share = 0.6 if height > 3 else 0.8
    axis = figure.add_axes((1 - (right - 0.1) / width, (1 - share) / 2, 0.1 / width, share))
    axis.set_label("<colorbar>")
    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), COLOURS), cax=axis)
    bar.ax.tick_params(labelsize=7)
    bar.set_label(textwrap.fill(label, max(12, int(11 * height))), fontsize=8)


def lines_of(texts: Sequence[str]) -> int:
    """The greatest number of lines of a text."""
    return max((text.count("\n") + 1 for text in texts if text), default=0)
