"""Figures without global state, their pixels, and how a notebook shows them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import partial

import numpy as np
import plotly.graph_objects as go
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["NEGATIVE", "POSITIVE", "as_array", "new_figure", "plain", "with_still"]

_PLOTLY = "application/vnd.plotly.v1+json"

POSITIVE, NEGATIVE = "#b2182b", "#2166ac"
"""The ends of matplotlib's RdBu, which colour-blind people can distinguish."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, drawn by Agg and unknown to pyplot; notebooks show it without a magic command."""
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    # IPython shows figures only after %matplotlib. A formatter that this command registers takes precedence, so there is
    # one picture. No subclass is used, because loggers such as W&B recognise figures by the name of their type
    figure._repr_png_ = partial(_png, figure)  # type: ignore[attr-defined]
    return figure


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def with_still(figure: go.Figure, still: Callable[[], Figure]) -> go.Figure:
    """Make a notebook show the figure as a picture where it cannot be interactive, without network.

    Otherwise the figure is visible only where plotly's extension is installed: not on GitHub, not in the output of
    nbconvert, and not if Jupyter is in another environment.

    Args:
        figure: a finished plotly figure; if it is changed afterwards, only plotly shows it, since the picture would differ.
        still: a function that draws the picture on demand.
    """
    figure._ipython_display_ = partial(_display, figure, hash(figure.to_json()), still)
    return figure


def _display(figure: go.Figure, finished: int, still: Callable[[], Figure]) -> None:
    bundle = figure._repr_mimebundle_()  # by the renderers that the user chose
    if list(bundle) != [_PLOTLY] or hash(figure.to_json()) != finished:
        type(figure)._ipython_display_(figure)
        return
    from IPython.display import display  # called by IPython

    display({**bundle, "image/png": base64.b64encode(_png(still())).decode()}, raw=True)


def plain(text: str) -> str:
    """Text that plotly shows verbatim, not as markup or mathematics."""
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
