"""Critical paths as a picture: one row per path, its neurons from input to output, and its heatmap."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import partial
from typing import Literal, overload

import networkx as nx
import numpy as np
import plotly.graph_objects as go
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.image import imsave
from torch import Tensor

from lrp_lightning.drawing.figures import NEGATIVE, POSITIVE, new_figure, plain, with_still
from lrp_lightning.errors import GraphError, InputError
from lrp_lightning.graphs.layout import label_of
from lrp_lightning.graphs.paths import Path

__all__ = ["draw_paths"]


@overload
def draw_paths(
    graph: nx.DiGraph, paths: Sequence[Path], heatmaps: Tensor | None = None, class_names: Sequence[str] | None = None,
    title: str = "", *, static: Literal[True],
) -> Figure: ...  # fmt: skip
@overload
def draw_paths(
    graph: nx.DiGraph, paths: Sequence[Path], heatmaps: Tensor | None = None, class_names: Sequence[str] | None = None,
    title: str = "", static: Literal[False] = False,
) -> go.Figure: ...  # fmt: skip
def draw_paths(
    graph: nx.DiGraph,
    paths: Sequence[Path],
    heatmaps: Tensor | None = None,
    class_names: Sequence[str] | None = None,
    title: str = "",
    static: bool = False,
) -> go.Figure | Figure:
    """Paths, best first, one per row: their neurons, the relevance between these, and their heatmaps.

    The width of a line from a neuron to the next higher one is the share of the upper neuron's relevance that it carries;
    red is positive, blue negative. Heatmaps have one colour scale, centred on zero; red raises the output, blue lowers it.

    Args:
        graph: the graph in which the paths were found.
        paths: from :func:`lrp_lightning.k_best_paths`.
        heatmaps: ``(k, N, C, H, W)`` from :func:`lrp_lightning.path_heatmaps`,
            shown summed over the samples; None to show no heatmaps.
        class_names: names of the output layer's neurons; None for those in the graph, if it has any.
        title: above the picture.
        static: whether to draw a matplotlib figure instead.

    Returns:
        A plotly figure, or with ``static`` a matplotlib one that is not registered with pyplot.

    Raises:
        GraphError: if there are no paths, or one is not in the graph.
        InputError: if ``heatmaps`` are not ``(k, N, C, H, W)``, or not finite.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, build_graph, k_best_paths
        >>> from lrp_lightning.drawing import draw_paths
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> graph = build_graph(SelectiveLRP(model).trace(torch.rand(5, 4), target=1, edges=True))
        >>> figure = draw_paths(graph, k_best_paths(graph, k=2))
    """
    if not paths:
        raise GraphError("paths is empty: give at least one path")
    for path in paths:
        for edge in nx.utils.pairwise(path.nodes):
            if not graph.has_edge(*edge):
                raise GraphError(f"{path!r} has the edge {edge[0]!r} -> {edge[1]!r}, which is not in the graph")
    order = {node[0]: graph.nodes[node]["order"] for path in paths for node in path.nodes}
    layers = sorted(order, key=lambda layer: order[layer])
    rows = [
        _Row(
            [float(layers.index(layer)) for layer, _ in path.nodes],
            [label_of(graph, node, class_names) for node in path.nodes],
            [graph.edges[edge]["share"] for edge in nx.utils.pairwise(path.nodes)],
            path.carries,
        )
        for path in paths
    ]
    pictures = _pictures(heatmaps, len(paths)) if heatmaps is not None else None
    still = partial(_static, layers, rows, pictures, title)
    return still() if static else with_still(_interactive(layers, rows, pictures, title), still)


class _Row:
    def __init__(self, columns: list[float], labels: list[str], shares: list[float], carries: str) -> None:
        self.columns, self.labels, self.shares, self.carries = columns, labels, shares, carries


def _pictures(heatmaps: Tensor, k: int) -> list[np.ndarray]:
    """RGB of each heatmap, on a common scale."""
    if heatmaps.ndim != 5 or len(heatmaps) != k:
        raise InputError(f"heatmaps must be (k, N, C, H, W) with k = {k} paths, got {tuple(heatmaps.shape)}")
    summed = heatmaps.detach().cpu().double().sum((1, 2)).numpy()
    if not np.isfinite(summed).all():
        raise InputError("heatmaps hold NaN or infinite values")
    scale = np.percentile(np.abs(summed), 99.5) or np.abs(summed).max() or 1.0
    return [colormaps["RdBu_r"]((np.clip(picture / scale, -1, 1) + 1) / 2)[..., :3] for picture in summed]


def _interactive(layers: list[str], rows: list[_Row], pictures: list[np.ndarray] | None, title: str) -> go.Figure:
    figure = go.Figure()
    columns, room = len(layers), 0.0
    if pictures is not None:
        room = max(1.5, 0.11 * len(layers))
        for at, picture in enumerate(pictures):
            png = io.BytesIO()
            imsave(png, picture)
            figure.add_layout_image(
                source="data:image/png;base64," + base64.b64encode(png.getvalue()).decode(), xref="x", yref="y",
                x=-0.5 - room / 2, y=-at, sizex=room, sizey=0.92, xanchor="center", yanchor="middle", sizing="contain",
            )  # fmt: skip
    for at, row in enumerate(rows):
        for (x0, x1), share in zip(nx.utils.pairwise(row.columns), row.shares, strict=True):
            figure.add_trace(
                go.Scatter(
                    x=[x0, x1], y=[-at, -at], mode="lines",
                    line={"color": POSITIVE if share > 0 else NEGATIVE, "width": 1 + 9 * min(abs(share), 1.0)},
                    opacity=0.35 + 0.5 * min(abs(share), 1.0), hoverinfo="skip", showlegend=False,
                )
            )  # fmt: skip
        shares = [None, *row.shares]
        figure.add_trace(
            go.Scatter(
                x=row.columns, y=[-at] * len(row.columns), mode="markers+text",
                marker={"size": 13, "color": "white", "line": {"color": "#333333", "width": 1}},
                text=[plain(label) for label in row.labels], textposition="top center", textfont={"size": 10},
                hovertext=[
                    f"<b>{plain(layers[int(x)])} [{plain(label)}]</b>"
                    + (f"<br>{share:.1%} of its relevance comes along this path" if share is not None else "")
                    for x, label, share in zip(row.columns, row.labels, shares, strict=True)
                ],
                hoverinfo="text", showlegend=False, cliponaxis=False, name=f"path {at + 1}",
            )
        )  # fmt: skip
    figure.update_layout(
        title={"text": plain(title), "x": 0, "xanchor": "left", "pad": {"l": 12}, "font": {"size": 15}},
        template="plotly_white", height=(110 if pictures else 64) * len(rows) + 170 + 30 * bool(title),
        margin={"l": 12, "r": 24, "t": 56 if title else 24, "b": 12}, hovermode="closest", dragmode="pan",
        modebar={"orientation": "v"},
    )  # fmt: skip
    figure.update_xaxes(
        tickvals=list(range(columns)), ticktext=[plain(layer) for layer in layers], tickangle=-45, showgrid=False,
        zeroline=False, range=[-0.7 - room, columns - 0.4], tickfont={"size": 10}, automargin=True,
    )  # fmt: skip
    figure.update_yaxes(tickvals=[-at for at in range(len(rows))], ticktext=[row.carries for row in rows],
                        showgrid=False, zeroline=False, range=[0.6 - len(rows), 0.6])  # fmt: skip
    return figure


def _static(layers: list[str], rows: list[_Row], pictures: list[np.ndarray] | None, title: str) -> Figure:
    height = 1.15 if pictures is not None else 0.6
    figure = new_figure(
        max(6.0, 0.62 * len(layers) + 1.2 + (height if pictures is not None else 0)), height * len(rows) + 1.4
    )
    grid = figure.add_gridspec(len(rows), 2, width_ratios=[1 if pictures is not None else 0.01, 0.6 * len(layers)])
    chains = figure.add_subplot(grid[:, 1])
    for at, row in enumerate(rows):
        for (x0, x1), share in zip(nx.utils.pairwise(row.columns), row.shares, strict=True):
            strength = min(abs(share), 1.0)
            chains.plot([x0, x1], [-at, -at], color=POSITIVE if share > 0 else NEGATIVE,
                        linewidth=0.8 + 6 * strength, alpha=0.35 + 0.5 * strength,
                        solid_capstyle="butt", zorder=1)  # fmt: skip
        chains.scatter(
            row.columns, [-at] * len(row.columns), s=70, c="white", edgecolors="#333333", linewidths=0.8, zorder=2
        )
        for x, label in zip(row.columns, row.labels, strict=True):
            chains.text(x, 0.17 - at, label, fontsize=7, ha="center", va="bottom", parse_math=False)
        if pictures is not None:
            axis = figure.add_subplot(grid[at, 0])
            axis.imshow(pictures[at])
            axis.set_axis_off()
    chains.set_xlim(-0.6, len(layers) - 0.4)
    chains.set_ylim(0.5 - len(rows), 0.6)
    chains.spines[:].set_visible(False)
    chains.tick_params(length=0)
    chains.set_yticks([-at for at in range(len(rows))], [row.carries for row in rows], fontsize=8)
    chains.set_xticks(
        range(len(layers)), layers, rotation=38, ha="right", fontsize=8, rotation_mode="anchor", parse_math=False
    )
    if title:
        chains.set_title(title, fontsize=11, loc="left", parse_math=False)
    return figure
