"""The graph of one class, for the report and the tab."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from torch import Tensor

from lrp_lightning.graphs.paths import Path

__all__ = ["ClassGraph"]

_NEURONS, _LINES, _PATHS = 6, 500, 5
"""The numbers of neurons per layer, edges and paths that a notebook shows."""


@dataclass(frozen=True, eq=False)
class ClassGraph:
    """The relevance graph of one class.

    Attributes:
        label: the class.
        graph: from :func:`lrp_lightning.build_graph`; only a part of it is shown.
        paths: from :func:`lrp_lightning.k_best_paths`.
        n_samples: number of samples that the graph sums over.
        path_heatmaps: ``(len(paths), S, H, W)``, the relevance of this class along each path, for each of the samples that
            are shown; all NaN for a sample without heatmaps.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, build_graph
        >>> from lrp_lightning.drawing import ClassGraph, Report
        >>> lrp = SelectiveLRP(torch.nn.Linear(4, 3))
        >>> graphs = [ClassGraph(c, build_graph(lrp.trace(torch.rand(2, 4), target=c, edges=True))) for c in range(3)]
        >>> [of.label for of in Report(graphs=graphs).graphs]
        [0, 1, 2]
    """

    label: int
    graph: nx.DiGraph
    paths: Sequence[Path] = ()
    n_samples: int = 0
    path_heatmaps: np.ndarray | Tensor | None = None

    def _heading(self) -> str:
        size = f"{len(self.graph):,} neurons, {self.graph.number_of_edges():,} edges, {len(self.paths)} paths"
        return f"class {self.label}: {size}{f', summed over {self.n_samples} samples' if self.n_samples else ''}"

    def __repr__(self) -> str:
        return f"ClassGraph({self._heading()})"

    def _repr_html_(self) -> str:
        """For a notebook: the graph's strongest neurons and edges, with the paths over them and below."""
        from lrp_lightning.graphs.shapes import shapes_of
        from lrp_lightning.html import sections
        from lrp_lightning.html.markup import part

        few = self.paths[:_PATHS]
        shapes = shapes_of(self.graph, few, neurons=_NEURONS, lines=_LINES) if len(self.graph) else None
        return part(
            f"Graph of {self._heading()}", ("graph", sections.graph(self.graph, shapes, few, many_paths=len(self.paths)))
        )
