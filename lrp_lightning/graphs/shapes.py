"""A relevance graph as the shapes of a web page: lines, circles and text, in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np

from lrp_lightning.graphs.layout import DrawnEdge, label_of, lay_out
from lrp_lightning.graphs.paths import Node, Path
from lrp_lightning.pixels import coloured

__all__ = ["Circle", "Line", "Shapes", "shapes_of"]

_NEURONS = 8
"""Number of neurons of a layer."""
_ROW, _MARGIN, _WIDE = 34, 22, 1000
"""Pixels between two rows, around the graph, and of all columns together for a medium number of columns."""
_COLUMN = (56, 110)
"""The least and the greatest number of pixels between two columns."""
_LETTER = 6.2
"""Pixels of a letter in the names of layers and of classes."""
_LONG = 26
"""The number of letters of a class's name that are shown."""
_TOOLTIP = 0.05
"""The strength from which a line has a tooltip."""


@dataclass(frozen=True)
class Line:
    """A line between neurons, through ``points``, with a tooltip."""

    points: str
    kind: str
    width: float
    opacity: float
    tooltip: str = ""


@dataclass(frozen=True)
class Circle:
    """A neuron, with the label beside it."""

    node: Node
    x: float
    y: float
    colour: str
    label: str
    named: bool
    tooltip: str


@dataclass(frozen=True)
class Shapes:
    """The shapes of a graph; ``layers`` are names with the ``x`` of their columns."""

    width: float
    height: float
    base: float
    lines: list[Line]
    circles: list[Circle]
    layers: list[tuple[float, str]]


def shapes_of(
    graph: nx.DiGraph,
    paths: Sequence[Path],
    class_names: Sequence[str] | None = None,
    neurons: int = _NEURONS,
    lines: int | None = None,
) -> Shapes:
    """The shapes of the strongest neurons of each layer, as :func:`lrp_lightning.drawing.draw_graph` shows them.

    Args:
        graph: from :func:`lrp_lightning.build_graph`.
        paths: of that graph, drawn over it.
        class_names: names of the output's neurons.
        neurons: the number of neurons of a layer.
        lines: the number of edges, strongest first; None for all between neurons that are drawn.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, build_graph
        >>> from lrp_lightning.graphs.shapes import shapes_of
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
        >>> graph = build_graph(SelectiveLRP(model).trace(torch.ones(1, 4), target=1, edges=True))
        >>> [name for _, name in shapes_of(graph, []).layers]
        ['input', '0', '2']
    """
    layout = lay_out(graph, neurons, paths)
    labels = {node: label_of(graph, node, class_names) for node in layout.place}
    step = float(np.clip(_WIDE / len(layout.layers), *_COLUMN))
    leaning = 0.77 * _LETTER * max(map(len, layout.layers))  # names of layers lean by 40 degrees
    left = max(_MARGIN, leaning + 8)
    place = {node: (round(left + step * x, 1), round(_MARGIN + _ROW * (layout.highest - y), 1))
             for node, (x, y) in layout.place.items()}  # fmt: skip
    named = [min(len(label), _LONG) for node, label in labels.items() if label != str(node[1])]
    base = _MARGIN + _ROW * (layout.highest - layout.lowest) + 36

    def line(nodes: Sequence[Node]) -> str:
        return "M" + "L".join(f"{x:g} {y:g}" for x, y in map(place.__getitem__, nodes))

    def tooltip(edge: DrawnEdge) -> str:
        ends = " → ".join(f"{layer}, {labels[layer, neuron]}" for layer, neuron in (edge.lower, edge.upper))
        return f"{ends}: {edge.share:.1%} of the upper one's relevance" if edge.strength >= _TOOLTIP else ""

    strongest = max((abs(path.share) for path in paths), default=1.0) or 1.0
    return Shapes(
        width=round(left + step * (len(layout.layers) - 1) + _MARGIN + _LETTER * max(named, default=0)),
        height=round(base + 0.64 * _LETTER * max(map(len, layout.layers)) + 8),
        base=base,
        lines=[
            Line(line([e.lower, e.upper]), "for" if e.relevance > 0 else "against", round(0.3 + 5.5 * e.strength, 2),
                 round(0.06 + 0.74 * e.strength, 2), tooltip(e))
            for e in layout.edges[-lines if lines else None :]
        ] + [
            Line(line(chain), "path", round(1 + 3 * abs(path.share) / strongest, 2), 0.85)
            for path, chain in zip(paths, layout.chains, strict=True) if chain
        ],
        circles=[
            Circle(node, *place[node], "#{:02x}{:02x}{:02x}".format(*coloured(np.array([colour]), 1.0)[0]),
                   _shortened(labels[node]), labels[node] != str(node[1]), _told(graph, node, labels[node]))
            for node, colour in layout.colour.items()
        ],
        layers=[(round(left + step * x, 1), layer) for x, layer in enumerate(layout.layers)],
    )  # fmt: skip


def _shortened(label: str) -> str:
    return label if len(label) <= _LONG else f"{label[: _LONG - 1]}…"


def _told(graph: nx.DiGraph, node: Node, label: str) -> str:
    """The tooltip of a neuron."""
    about = graph.nodes[node]
    known = {"relevance": "relevance", "activation": "mean activation", "absorbed": "absorbed"}
    numbers = [f"{words} {about[name]:.4g}" for name, words in known.items() if name in about]
    name = "" if label == str(node[1]) else f" ({label})"
    return ", ".join([f"{node[0]}, neuron {node[1]}{name}", *numbers])
