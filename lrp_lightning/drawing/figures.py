"""Figures that belong to nobody but their caller, their pixels, and how a notebook shows them."""

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
"""The ends of matplotlib's RdBu, which the colour-blind can tell apart."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, drawn by Agg, unknown to pyplot; a notebook shows it without any magic."""
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    # By itself IPython shows figures only after %matplotlib; what that registers goes before this, so that there is one
    # picture. Not a subclass: loggers such as W&B know figures by the name of their type
    figure._repr_png_ = partial(_png, figure)  # type: ignore[attr-defined]
    return figure


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def with_still(figure: go.Figure, still: Callable[[], Figure]) -> go.Figure:
    """The figure, which a notebook shows as a picture where nothing can show it interactively, and without network.

    By itself it is shown nowhere but where plotly's extension is installed: not on GitHub, not in what nbconvert writes, not
    where Jupyter is in another environment.

    Args:
        figure: a plotly figure, finished: once it is changed it is shown as plotly does, as the picture would be another.
        still: draws the picture, when it is asked for.
    """
    figure._ipython_display_ = partial(_display, figure, hash(figure.to_json()), still)
    return figure


def _display(figure: go.Figure, finished: int, still: Callable[[], Figure]) -> None:
    bundle = figure._repr_mimebundle_()  # by the renderers that the reader has chosen
    if list(bundle) != [_PLOTLY] or hash(figure.to_json()) != finished:
        type(figure)._ipython_display_(figure)
        return
    from IPython.display import display  # it is IPython that calls this

    display({**bundle, "image/png": base64.b64encode(_png(still())).decode()}, raw=True)


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
