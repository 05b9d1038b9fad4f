"""What a sheet is composed of, noted while it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lrp_lightning.drawing import heatmaps, sheets


def pictures_of(draw: Callable[..., Figure], *args: Any, **kwargs: Any) -> tuple[list[list[np.ndarray]], Figure]:
    """The pictures row by row, and the figure."""
    noted: list[list[list[np.ndarray]]] = []

    def compose(rows: Any, *more: Any, **about: Any) -> Any:
        noted.append(rows)
        return sheets.compose(rows, *more, **about)

    heatmaps.compose = compose  # type: ignore[assignment]
    try:
        figure = draw(*args, **kwargs)
    finally:
        heatmaps.compose = sheets.compose
    [rows] = noted
    return rows, figure


def words_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]
