"""The relevance graph: neurons as nodes, the relevance that one hands to another as edges."""

from __future__ import annotations

import networkx as nx
import torch

from lrp_lightning.errors import GraphError
from lrp_lightning.trace import Trace

__all__ = ["build_graph"]


def build_graph(trace: Trace, min_share: float = 0.0) -> nx.DiGraph:
    """The relevance graph of a trace, summed over its batch.

    Nodes are ``(layer, neuron)`` with ``relevance`` (summed over samples and space), ``activation`` (their mean), ``layer``,
    ``neuron``, ``kind``, ``order`` (the layer's place in the forward pass) and ``output`` (whether it is one of the
    output's). Edges point the way of the forward pass, with ``relevance``, what the upper neuron handed to the lower one,
    and ``share``, that over the upper one's relevance. Left out are neurons to and from which nothing flows, and, where the
    trace has a selection, those that are critical in no sample: they carry nothing on. Neurons of the output are always in.

    Args:
        trace: made with ``edges=True``.
        min_share: leave out edges whose ``|share|`` is below this.

    Raises:
        GraphError: if the trace has no edges, or ``min_share`` is not in [0, 1].

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, build_graph
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> graph = build_graph(SelectiveLRP(model).trace(torch.randn(5, 4), target=1, edges=True))
        >>> sorted({layer for layer, neuron in graph})
        ['0', '2', 'input']
    """
    if not isinstance(trace, Trace) or not trace.edges:
        raise GraphError("the trace has no edges; make it with SelectiveLRP(...).trace(..., edges=True)")
    if not 0 <= min_share <= 1:
        raise GraphError(f"min_share must be in [0, 1], got {min_share}")
    graph = nx.DiGraph()
    relevance = {layer: r.double().sum(0).cpu() for layer, r in trace.relevance.items()}
    activation = {layer: a.double().mean(0).cpu() for layer, a in trace.activation.items()}
    order = {layer: i for i, layer in enumerate(trace.relevance)}

    def add_nodes(layer: str, neurons: list[int]) -> None:
        about = zip(neurons, relevance[layer][neurons].tolist(), activation[layer][neurons].tolist(), strict=True)
        graph.add_nodes_from(
            (
                (layer, n),
                {
                    "relevance": r,
                    "activation": a,
                    "layer": layer,
                    "neuron": n,
                    "kind": trace.kinds[layer],
                    "order": order[layer],
                    "output": layer in outputs,
                },
            )
            for n, r, a in about
        )

    lowers = {lower for lower, _ in trace.edges}
    outputs = {layer for layer in trace.relevance if layer not in lowers}
    for layer in outputs:
        add_nodes(layer, relevance[layer].nonzero().flatten().tolist())
    for (lower, upper), edges in trace.edges.items():
        edges = edges.double().cpu()
        edges = torch.diag(edges) if edges.ndim == 1 else edges
        arrived = relevance[upper]
        share = torch.where(arrived == 0, 0, edges / torch.where(arrived == 0, 1, arrived))
        if lower in trace.masks:
            edges = edges * trace.critical(lower).any(0).cpu()[:, None]
        rows, columns = ((edges != 0) & (share.abs() >= min_share)).nonzero(as_tuple=True)
        add_nodes(lower, rows.unique().tolist())
        add_nodes(upper, columns.unique().tolist())
        graph.add_edges_from(
            ((lower, i), (upper, o), {"relevance": r, "share": s})
            for i, o, r, s in zip(
                rows.tolist(), columns.tolist(), edges[rows, columns].tolist(), share[rows, columns].tolist(), strict=True
            )
        )
    return graph
