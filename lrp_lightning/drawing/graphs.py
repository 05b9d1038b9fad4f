"""The relevance graph as a picture: layers are columns, the width of an edge is its relevance; interactive or static."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Literal, overload

import networkx as nx
import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from lrp_lightning.drawing.figures import NEGATIVE, POSITIVE, new_figure, plain, with_still
from lrp_lightning.graphs.layout import DrawnEdge, Layout, label_of, lay_out
from lrp_lightning.graphs.paths import Node, Path

__all__ = ["draw_graph"]

_LEGEND = "neurons: relevance within their layer, red for, blue against · edges: as wide as what they carry"
_DIFF_LEGEND = "neurons and edges: by how much their share changed, red more, blue less"
_WIDTHS = 6
"""The number of widths of edges; plotly gives all lines of a trace the same width."""
_IN_A_ROW = 8
"""More layers than this are drawn in several rows in a static picture, so that it is legible in 400 pixels of width."""
_LARGER = 1.4
"""Size of text in a picture of several rows, relative to that of one row."""
_CHARACTER = 0.07
"""Inches of a character of 8 points."""


@overload
def draw_graph(
    graph: nx.DiGraph, neurons_per_layer: int = 8, paths: Sequence[Path] = (), class_names: Sequence[str] | None = None,
    title: str = "", layers: Sequence[str] | None = None, *, static: Literal[True],
) -> Figure: ...  # fmt: skip
@overload
def draw_graph(
    graph: nx.DiGraph, neurons_per_layer: int = 8, paths: Sequence[Path] = (), class_names: Sequence[str] | None = None,
    title: str = "", layers: Sequence[str] | None = None, static: Literal[False] = False,
) -> go.Figure: ...  # fmt: skip
def draw_graph(
    graph: nx.DiGraph,
    neurons_per_layer: int = 8,
    paths: Sequence[Path] = (),
    class_names: Sequence[str] | None = None,
    title: str = "",
    layers: Sequence[str] | None = None,
    static: bool = False,
) -> go.Figure | Figure:
    """The strongest neurons of each layer and the relevance between them, with paths drawn in black.

    Layers are drawn from left (input) to right (output), each with its neurons of most ``|relevance|`` and those on
    ``paths``, ordered so that few edges cross. The width of an edge is the relevance that it carries; red is positive, blue
    negative. The interactive figure shows numbers under the pointer, and its ``write_html`` writes a self-contained file.

    Args:
        graph: from :func:`lrp_lightning.build_graph`.
        neurons_per_layer: number of neurons shown in each layer.
        paths: from :func:`lrp_lightning.k_best_paths`.
        class_names: names of the output layer's neurons; None for those in the graph, if it has any.
        title: above the picture.
        layers: the layers to show. None for all or, if there are more than 24, for the last of each block, such as the 16
            residual sums of a ResNet-50. Relevance through layers that are not shown is merged into one edge.
        static: whether to draw a matplotlib figure instead. It draws more than eight layers in several rows; each row
            begins with the last layer of the row above.

    Returns:
        A plotly figure, or with ``static`` a matplotlib one that is not registered with pyplot.

    Raises:
        GraphError: if the graph is empty, a path is not in it, or ``neurons_per_layer`` is below 1.
        LayerError: if a layer is not in the graph.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, build_graph
        >>> from lrp_lightning.drawing import draw_graph
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> graph = build_graph(SelectiveLRP(model).trace(torch.randn(5, 4), target=1, edges=True))
        >>> type(draw_graph(graph)).__module__, type(draw_graph(graph, static=True)).__module__
        ('plotly.graph_objs._figure', 'matplotlib.figure')
    """
    layout = lay_out(graph, neurons_per_layer, paths, layers)
    labels = {node: label_of(graph, node, class_names) for node in layout.place}

    def still() -> Figure:
        return _static(graph, layout, paths, labels, title, neurons_per_layer)

    return still() if static else with_still(_interactive(graph, layout, paths, labels, title), still)


# interactive


def _interactive(graph: nx.DiGraph, layout: Layout, paths: Sequence[Path], labels: dict[Node, str], title: str) -> go.Figure:
    figure = go.Figure()
    for sign, colour in ((1, POSITIVE), (-1, NEGATIVE)):
        for width in range(_WIDTHS):
            edges = [e for e in layout.edges if (e.relevance > 0) == (sign > 0) and _width_class(e) == width]
            if edges:
                figure.add_trace(_lines(layout, edges, colour, (width + 0.5) / _WIDTHS))
    if layout.edges:
        figure.add_trace(_edge_numbers(layout, labels))
    strongest = max((abs(path.share) for path in paths), default=1.0) or 1.0
    for rank, (path, chain) in enumerate(zip(paths, layout.chains, strict=True), 1):
        xs, ys = zip(*(layout.place[node] for node in chain), strict=True) if chain else ((), ())
        figure.add_trace(
            go.Scatter(
                x=xs, y=ys, mode="lines", opacity=0.85,
                line={"color": "black", "width": 1 + 3 * abs(path.share) / strongest},
                name=f"path {rank}: {path.carries}", hoverinfo="skip", showlegend=True,
            )
        )  # fmt: skip
    figure.add_trace(_neurons(graph, layout, labels))
    rows = layout.highest - layout.lowest + 1
    figure.update_layout(
        title={
            "text": plain(title),
            "x": 0,
            "xanchor": "left",
            "xref": "container",
            "pad": {"l": 12},
            "font": {"size": 15},
        },
        template="plotly_white",
        height=int(max(320, 34 * rows + 170 + 36 * bool(title) + 40 * bool(paths))),
        margin={
            "l": 12,
            "r": 16 + 6 * min(max(map(len, labels.values())), 24),
            "t": 56 if title else 20,
            "b": 130 if paths else 90,
        },
        modebar={"orientation": "v"},
        hovermode="closest",
        dragmode="pan",
        legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom", "x": 0, "font": {"size": 11}},
        meta={"layers": layout.layers},
    )
    columns = len(layout.layers)
    figure.update_xaxes(
        tickvals=list(range(columns)), ticktext=[plain(layer) for layer in layout.layers], tickangle=-45, showgrid=False,
        zeroline=False, range=[-0.6, columns - 0.4], tickfont={"size": 10},
    )  # fmt: skip
    figure.update_yaxes(visible=False, range=[layout.lowest - 0.8, layout.highest + 0.7])
    return figure


def _width_class(edge: DrawnEdge) -> int:
    return min(int(edge.strength * _WIDTHS), _WIDTHS - 1)


def _lines(layout: Layout, edges: list[DrawnEdge], colour: str, strength: float) -> go.Scatter:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for edge in edges:
        (x0, y0), (x1, y1) = layout.place[edge.lower], layout.place[edge.upper]
        xs += [x0, x1, None]
        ys += [y0, y1, None]
    return go.Scatter(
        x=xs, y=ys, mode="lines", line={"color": colour, "width": 0.3 + 5.5 * strength}, opacity=0.06 + 0.74 * strength,
        hoverinfo="skip", showlegend=False,
    )  # fmt: skip


def _edge_numbers(layout: Layout, labels: dict[Node, str]) -> go.Scatter:
    """Invisible points in the middle of the stronger edges, which show an edge's numbers."""
    edges = [edge for edge in layout.edges if edge.strength >= 0.05]
    middle = [np.mean([layout.place[edge.lower], layout.place[edge.upper]], axis=0) for edge in edges]
    return go.Scatter(
        x=[float(x) for x, _ in middle],
        y=[float(y) for _, y in middle],
        mode="markers",
        marker={"size": 9, "opacity": 0},
        text=[
            f"{plain(e.lower[0])} [{plain(labels[e.lower])}] → {plain(e.upper[0])} [{plain(labels[e.upper])}]<br>"
            f"relevance {e.relevance:.4g}<br>{e.share:.1%} of the upper neuron's"
            for e in edges
        ],
        hoverinfo="text",
        showlegend=False,
        name="edges",
    )


def _neurons(graph: nx.DiGraph, layout: Layout, labels: dict[Node, str]) -> go.Scatter:
    nodes = list(layout.place)

    def about(node: Node) -> str:
        known = graph.nodes[node]
        lines = [f"<b>{plain(node[0])} [{node[1]}]</b>", f"relevance {known['relevance']:.4g}"]
        if labels[node] != str(node[1]):
            lines.insert(1, plain(labels[node]))
        if "activation" in known:
            lines.append(f"mean activation {known['activation']:.4g}")
        if "absorbed" in known:
            lines.append(f"absorbed {known['absorbed']:.4g}")
        return "<br>".join(lines)

    named = {node for node in nodes if labels[node] != str(node[1])}
    return go.Scatter(
        x=[layout.place[node][0] for node in nodes],
        y=[layout.place[node][1] for node in nodes],
        mode="markers+text",
        marker={
            "size": 13, "color": [layout.colour[node] for node in nodes], "colorscale": "RdBu", "reversescale": True,
            "cmin": -1, "cmax": 1, "line": {"color": "#333333", "width": 0.8},
        },
        text=[plain(labels[node]) for node in nodes],
        textposition=["middle right" if node in named else "bottom center" for node in nodes],
        textfont={"size": [11 if node in named else 10 for node in nodes], "color": "#222222", "shadow": "auto"},
        cliponaxis=False,
        customdata=[[node[0], node[1]] for node in nodes],
        hovertext=[about(node) for node in nodes],
        hoverinfo="text",
        showlegend=False,
        name="neurons",
    )  # fmt: skip


# static


def _static(
    graph: nx.DiGraph, layout: Layout, paths: Sequence[Path], labels: dict[Node, str], title: str, neurons_per_layer: int
) -> Figure:
    legend = _DIFF_LEGEND if any("change" in about for _, about in graph.nodes(data=True)) else _LEGEND
    legend += " · black: best paths" if paths else ""
    windows = _windows(len(layout.layers))
    larger = 1.0 if len(windows) == 1 else _LARGER
    if len(windows) > 1:
        legend = legend.replace(" · ", "\n", 1)
    labelled = max((len(text) for node, text in labels.items() if text != str(node[1])), default=0)
    words = max(0.058 * larger * max(map(len, legend.splitlines())), min(0.095 * len(title), 12.0))
    axes = _axes(layout.layers, windows, labelled, words, neurons_per_layer, bool(title), larger)
    if title:
        pad = 16 if len(windows) == 1 else 34
        axes[0].set_title(title, fontsize=11, loc="left", pad=pad, parse_math=False)  # above the legend
    axes[0].text(0.0, 1.01, legend, transform=axes[0].transAxes, fontsize=7 * larger, ha="left", va="bottom",
                 color="#555555")  # fmt: skip
    for axis, (first, last) in zip(axes, windows, strict=True):
        axis.set_axis_off()
        axis.set_ylim(layout.lowest - 0.7, layout.highest + 0.5)
        axis.set_xlim(first - 0.5, first + windows[0][1] + 0.5)
        _draw_edges(axis, layout, paths, first, last)
        _draw_neurons(axis, layout, labels, first, last, larger)
        for column in range(first, last + 1):
            axis.text(column, layout.lowest - 0.75, layout.layers[column], rotation=38, ha="right", va="top",
                      fontsize=8 * larger, rotation_mode="anchor", parse_math=False)  # fmt: skip
    return axes[0].figure  # type: ignore[return-value]


def _windows(columns: int) -> list[tuple[int, int]]:
    """The first and the last column of each row of the picture; a row begins with the last column of the row above."""
    rows = max(1, ceil((columns - 1) / (_IN_A_ROW - 1)))
    step = max(1, ceil((columns - 1) / rows))
    return [(first, min(first + step, columns - 1)) for first in range(0, max(1, columns - 1), step)]


def _axes(
    names: Sequence[str],
    windows: Sequence[tuple[int, int]],
    labelled: int,
    words: float,
    neurons: int,
    titled: bool,
    larger: float,
) -> list[Axes]:
    """The axes of a new figure, with margins for text; matplotlib's constrained layout would take a third of the time.

    Args:
        names: names of layers, drawn slanted below their columns.
        windows: the columns of each row of the picture.
        labelled: number of characters of the longest class name, at the right.
        words: inches of the text above.
        neurons: number of neurons of a column.
        titled: whether there is a title.
        larger: size of the text, relative to that in a picture of one row.
    """
    columns, character = windows[0][1] + 1, _CHARACTER * larger
    wide, tall = max(0.85 * columns / larger, words, 5.0), max(0.42 * neurons, 2.0)
    column = wide / columns
    leaning = max(0.8 * character * len(names[n]) - (n - first + 0.5) * column
                  for first, last in windows for n in range(first, last + 1))  # fmt: skip
    left, right = 0.1 + max(0.0, leaning), 0.1 + max(0.0, character * labelled - 0.28 * column)
    below, above = 0.3 + 0.65 * character * max(map(len, names)), (0.6 if titled else 0.3) + 0.8 * (larger - 1)
    figure = new_figure(left + wide + right, above + len(windows) * (tall + below))
    figure.set_layout_engine("none")
    width, height = figure.get_size_inches()
    bottoms = [height - above - row * (tall + below) - tall for row in range(len(windows))]
    return [figure.add_axes((left / width, bottom / height, wide / width, tall / height)) for bottom in bottoms]


def _draw_edges(axis: Axes, layout: Layout, paths: Sequence[Path], first: int, last: int) -> None:
    """Edges and paths between two columns, clipped to them."""
    edges = [e for e in layout.edges if layout.place[e.lower][0] < last and layout.place[e.upper][0] > first]
    box = Rectangle((first, -1e6), last - first, 2e6, transform=axis.transData)
    if edges:
        strength = np.array([edge.strength for edge in edges])
        drawn = axis.add_collection(
            LineCollection(
                [(layout.place[edge.lower], layout.place[edge.upper]) for edge in edges],
                linewidths=0.3 + 3.2 * strength,
                colors=[POSITIVE if edge.relevance > 0 else NEGATIVE for edge in edges],
                alpha=0.08 + 0.72 * strength,
                capstyle="round",
                zorder=1,
            )
        )
        drawn.set_clip_path(box)
    strongest = max((abs(path.share) for path in paths), default=1.0) or 1.0
    for path, chain in zip(paths, layout.chains, strict=True):
        at = np.array([layout.place[node] for node in chain]).reshape(-1, 2)
        width = 0.6 + 2.0 * abs(path.share) / strongest
        (line,) = axis.plot(*at.T, color="black", linewidth=width, alpha=0.85, zorder=3, solid_joinstyle="round")
        line.set_clip_path(box)


def _draw_neurons(axis: Axes, layout: Layout, labels: dict[Node, str], first: int, last: int, larger: float) -> None:
    nodes = [node for node, (x, _) in layout.place.items() if first <= x <= last]
    at = np.array([layout.place[node] for node in nodes])
    axis.scatter(
        at[:, 0],
        at[:, 1],
        c=[layout.colour[node] for node in nodes],
        s=90,
        cmap="RdBu_r",
        norm=Normalize(-1, 1),
        edgecolors="#333333",
        linewidths=0.6,
        zorder=4,
    )
    for node in nodes:
        x, y = layout.place[node]
        if labels[node] != str(node[1]):
            axis.text(x + 0.22, y, labels[node], fontsize=8 * larger, va="center", zorder=5, parse_math=False)
        else:
            label = axis.text(x, y - 0.24, labels[node], fontsize=6 * larger, ha="center", va="top", color="#222222",
                              zorder=5, parse_math=False)  # fmt: skip
            label.set_path_effects([withStroke(linewidth=2, foreground="white")])  # legible over edges
