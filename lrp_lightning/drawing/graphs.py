"""The relevance graph as a picture: layers as columns, neurons by relevance, edges as wide as what they carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import networkx as nx
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lrp_lightning.drawing.figures import NEGATIVE, POSITIVE, new_figure
from lrp_lightning.errors import GraphError
from lrp_lightning.paths import Path

__all__ = ["draw_graph"]


def draw_graph(
    graph: nx.DiGraph,
    neurons_per_layer: int = 8,
    paths: Sequence[Path] = (),
    class_names: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """The strongest neurons of each layer and what flows between them; paths drawn over them in black.

    Layers stand from left (input) to right (output), in each the neurons with the most ``|relevance|`` from the top, those
    on ``paths`` always among them. Edges are as wide as the relevance that they carry, red positive and blue negative.

    Args:
        graph: from :func:`lrp_lightning.build_graph`.
        neurons_per_layer: how many are shown of each layer.
        paths: from :func:`lrp_lightning.k_best_paths`.
        class_names: names of the output layer's neurons.
        title: above the picture.

    Raises:
        GraphError: if the graph is empty, a path is not in it, or ``neurons_per_layer`` is below 1.
    """
    if len(graph) == 0:
        raise GraphError("the graph is empty: nothing to draw")
    if neurons_per_layer < 1:
        raise GraphError(f"neurons_per_layer must be at least 1, got {neurons_per_layer}")
    on_paths = {node for path in paths for node in path.nodes}
    if not on_paths <= set(graph):
        raise GraphError(f"the paths run through {sorted(on_paths - set(graph))[0]!r}, which is not in the graph")

    layers: dict[str, list] = {}
    for node in graph:
        layers.setdefault(node[0], []).append(node)
    place: dict[tuple[str, int], tuple[float, float]] = {}
    names = sorted(layers, key=lambda layer: graph.nodes[layers[layer][0]]["order"])
    for column, layer in enumerate(names):
        ranked = sorted(layers[layer], key=lambda n: (n not in on_paths, -abs(graph.nodes[n]["relevance"])))
        shown = sorted(
            ranked[: max(neurons_per_layer, sum(n in on_paths for n in ranked))], key=lambda n: -graph.nodes[n]["relevance"]
        )
        for row, node in enumerate(shown):
            place[node] = (column, (len(shown) - 1) / 2 - row)

    figure = new_figure(max(6.0, 0.85 * len(names) + 0.6), max(3.2, 0.42 * neurons_per_layer + 1.5))
    axis = figure.subplots()
    axis.set_axis_off()
    if title:
        axis.set_title(title, fontsize=11, loc="left", parse_math=False)
    _draw_edges(axis, graph, place)
    strongest = max((path.share for path in paths), default=1.0)
    for path in paths:
        at = [place[node] for node in path.nodes]
        width = 0.6 + 2.0 * path.share / strongest
        axis.plot(*zip(*at, strict=True), color="black", linewidth=width, alpha=0.85, zorder=3, solid_joinstyle="round")
    _draw_neurons(axis, graph, place, names, class_names)

    lowest, highest = min(y for _, y in place.values()), max(y for _, y in place.values())
    axis.set_ylim(lowest - 0.7, highest + 0.5)
    legend = "neurons: relevance within their layer, red for, blue against · edges: as wide as what they carry"
    axis.text(
        1.0, 1.01, legend + (" · black: best paths" if paths else ""),
        transform=axis.transAxes, fontsize=7, ha="right", va="bottom", color="#555555",
    )  # fmt: skip
    for column, layer in enumerate(names):
        axis.text(column, lowest - 0.75, layer, rotation=38, ha="right", va="top", fontsize=8, rotation_mode="anchor",
                  parse_math=False)  # fmt: skip
    axis.set_xlim(-0.8, len(names) - 0.5 + (0.5 if class_names else 0))
    return figure


def _draw_edges(axis, graph: nx.DiGraph, place: Mapping) -> None:  # type: ignore[no-untyped-def]
    edges = [(a, b, r) for a, b, r in graph.edges(data="relevance") if a in place and b in place]
    if not edges:
        return
    relevance = np.array([r for _, _, r in edges])
    # each pair of layers has its own scale: what counts is which way relevance takes from a layer
    columns = np.array([place[b][0] for _, b, _ in edges])
    strength = np.abs(relevance)
    for column in np.unique(columns):
        strength[columns == column] /= strength[columns == column].max() or 1.0
    order = np.argsort(strength)
    axis.add_collection(
        LineCollection(
            [(place[edges[i][0]], place[edges[i][1]]) for i in order],
            linewidths=0.3 + 3.2 * strength[order],
            colors=[POSITIVE if relevance[i] > 0 else NEGATIVE for i in order],
            alpha=0.08 + 0.72 * strength[order],
            capstyle="round",
            zorder=1,
        )
    )


def _draw_neurons(axis, graph, place, names, class_names) -> None:  # type: ignore[no-untyped-def]
    nodes = list(place)
    at = np.array([place[n] for n in nodes])
    relevance = np.array([graph.nodes[n]["relevance"] for n in nodes])
    largest = {c: np.abs(relevance[at[:, 0] == c]).max() or 1.0 for c in np.unique(at[:, 0])}
    share = relevance / np.array([largest[c] for c in at[:, 0]])
    axis.scatter(
        at[:, 0],
        at[:, 1],
        c=share,
        s=90,
        cmap="RdBu_r",
        norm=Normalize(-1, 1),
        edgecolors="#333333",
        linewidths=0.6,
        zorder=4,
    )
    output = names[-1]
    for (layer, neuron), (x, y) in place.items():
        if layer == output and class_names is not None and neuron < len(class_names):
            axis.text(x + 0.22, y, class_names[neuron], fontsize=8, va="center", zorder=5, parse_math=False)
        else:
            label = axis.text(x, y - 0.24, str(neuron), fontsize=6, ha="center", va="top", color="#222222", zorder=5)
            label.set_path_effects([withStroke(linewidth=2, foreground="white")])  # legible over edges
