"""Figures that belong to nobody but their caller, and their pixels."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["NEGATIVE", "POSITIVE", "as_array", "new_figure", "plain"]

POSITIVE, NEGATIVE = "#b2182b", "#2166ac"
"""The ends of matplotlib's RdBu, which the colour-blind can tell apart."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, drawn by Agg, unknown to pyplot."""
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(text: str) -> str:
    """Text that plotly shows as it is, not as markup or mathematics."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def as_array(figure: Figure) -> np.ndarray:
    """The figure's pixels.

    Args:
        figure: one of this library's static figures, or any that Agg draws.

    Returns:
        ``(height, width, 3)``, uint8.

    Example:
        >>> from lrp_lightning.drawing import as_array, draw_curves
        >>> as_array(draw_curves({"critical": [0.4, 1.0]}, [0.1, 0.5], static=True)).dtype
        dtype('uint8')
    """
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
