"""Curves of measures, over budgets or over epochs; interactive, or static."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, overload

import plotly.graph_objects as go
from matplotlib.figure import Figure
from torch import Tensor

from lrp_lightning.drawing.figures import new_figure, plain, with_still
from lrp_lightning.errors import InputError

__all__ = ["draw_curves"]

_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c"]
"""Okabe and Ito's colours, which colour-blind people can distinguish; grey instead of black and yellow, for any theme."""
_MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "x": "X"}  # in plotly and in matplotlib


@overload
def draw_curves(
    curves: Mapping[str, Sequence[float] | Tensor], x: Sequence[float] | Tensor | None = None, xlabel: str = "",
    ylabel: str = "", title: str = "", *, static: Literal[True],
) -> Figure: ...  # fmt: skip
@overload
def draw_curves(
    curves: Mapping[str, Sequence[float] | Tensor], x: Sequence[float] | Tensor | None = None, xlabel: str = "",
    ylabel: str = "", title: str = "", static: Literal[False] = False,
) -> go.Figure: ...  # fmt: skip
def draw_curves(
    curves: Mapping[str, Sequence[float] | Tensor],
    x: Sequence[float] | Tensor | None = None,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    static: bool = False,
) -> go.Figure | Figure:
    """One line per measure, over a common axis such as budgets or epochs.

    Args:
        curves: ``{name: values}``, all of one length; NaN leaves a gap.
        x: the positions of the values; None for 0, 1, 2, ...
        xlabel: what ``x`` is, with its unit.
        ylabel: what the values are, with their unit.
        title: above the picture.
        static: whether to draw a matplotlib figure instead.

    Returns:
        A plotly figure, or with ``static`` a matplotlib one that is not registered with pyplot. If all values lie in [0, 1],
        the axis shows that range.

    Raises:
        InputError: if there are no curves, or lengths differ.

    Example:
        >>> from lrp_lightning.drawing import draw_curves
        >>> figure = draw_curves({"critical": [0.9, 1.0], "random": [0.2, 0.4]}, x=[0.1, 0.2], xlabel="share kept")
        >>> [line.name for line in figure.data]
        ['critical', 'random']
    """
    if not curves:
        raise InputError("curves is empty: give at least one curve")
    values = {name: [float(v) for v in line] for name, line in curves.items()}
    longest = max(map(len, values.values()))
    at = [float(v) for v in (range(longest) if x is None else x)]
    for name, line in values.items():
        if not len(line) == len(at) > 0:
            raise InputError(f"curve {name!r} has {len(line)} values for {len(at)} places")
    finite = [v for line in values.values() for v in line if not math.isnan(v)]
    share = bool(finite) and min(finite) >= 0 and max(finite) <= 1
    still = partial(_static, values, at, xlabel, ylabel, title, share)
    return still() if static else with_still(_interactive(values, at, xlabel, ylabel, title, share), still)


def _interactive(
    curves: dict[str, list[float]], x: list[float], xlabel: str, ylabel: str, title: str, share: bool
) -> go.Figure:
    figure = go.Figure()
    for i, (name, line) in enumerate(curves.items()):
        figure.add_trace(
            go.Scatter(
                x=x, y=line, name=plain(name), mode="lines+markers",
                line={"color": _COLOURS[i % len(_COLOURS)], "width": 2},
                marker={"size": 7, "symbol": list(_MARKERS)[i % len(_MARKERS)]},
            )
        )  # fmt: skip
    figure.update_layout(
        title={"text": plain(title), "x": 0, "xanchor": "left", "pad": {"l": 12}, "font": {"size": 15}},
        template="plotly_white", height=360, margin={"l": 12, "r": 24, "t": 56 if title else 24, "b": 12},
        hovermode="x unified", legend={"orientation": "h", "y": -0.25}, showlegend=True,
    )  # fmt: skip
    figure.update_xaxes(title=plain(xlabel), automargin=True)
    figure.update_yaxes(title=plain(ylabel), automargin=True, range=[-0.02, 1.03] if share else None)
    return figure


def _static(curves: dict[str, list[float]], x: list[float], xlabel: str, ylabel: str, title: str, share: bool) -> Figure:
    figure = new_figure(6.4, 3.4 + 0.19 * len(curves))
    axis = figure.subplots()
    for i, (name, line) in enumerate(curves.items()):
        marker = list(_MARKERS.values())[i % len(_MARKERS)]
        [drawn] = axis.plot(x, line, color=_COLOURS[i % len(_COLOURS)], marker=marker, markersize=5, linewidth=1.8)
        drawn.set_label(name if not name.startswith("_") else " " + name)  # matplotlib omits labels with this prefix
    if share:
        axis.set_ylim(-0.02, 1.03)
    axis.set_xlabel(xlabel, fontsize=9, parse_math=False)
    axis.set_ylabel(ylabel, fontsize=9, parse_math=False)
    axis.set_title(title, fontsize=11, loc="left", parse_math=False)
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    for text in axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0.0, -0.55 / 3.4)).get_texts():
        text.set_parse_math(False)
    return figure
