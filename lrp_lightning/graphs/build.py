"""The relevance graph: nodes are neurons, edges the relevance propagated from one neuron to another."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

import networkx as nx
import torch
from torch import Tensor

from lrp_lightning.compat import in_double
from lrp_lightning.errors import GraphError
from lrp_lightning.graphs.arrays import Node
from lrp_lightning.trace import Trace

__all__ = ["build_graph", "check_graph", "outputs_of"]

_MOST_EDGES = 1_000_000
"""networkx takes about 0.5 kB per edge."""


def build_graph(trace: Trace, min_share: float = 0.0, classes: Sequence[str] | None = None) -> nx.DiGraph:
    """The relevance graph of a trace, summed over its batch.

    Nodes are ``(layer, neuron)`` with ``relevance`` (summed over samples and space), ``activation`` (their mean), ``layer``,
    ``neuron``, ``kind``, ``places`` (number of values of a neuron per sample), ``order`` (the layer's position in the
    forward pass), ``output`` (whether the neuron belongs to the output), ``absorbed`` (the part of its relevance that
    reaches no neuron of the graph: it is absorbed by biases, stabilisers and unselected neurons, or belongs to edges that
    are left out) and, with ``classes``, ``class_name``. Edges point in the direction of the forward pass and have
    ``relevance``, which the upper neuron propagates to the lower one, and ``share``, that divided by the upper neuron's
    relevance. So the relevance of a node's incoming edges sums to its own relevance minus what it absorbs.

    Left out are neurons without edges and, if the trace has a selection, neurons that are critical in no sample, since they
    propagate nothing. Neurons of the output are always included. More than a million edges are too many for a graph in
    Python: then the strongest million are kept, with a warning; a selection or ``min_share`` reduces their number.

    Args:
        trace: made with ``edges=True``.
        min_share: leave out edges whose ``|share|`` is below this.
        classes: names of the output's neurons, one each.

    Raises:
        GraphError: if the trace has no edges, ``min_share`` is not in [0, 1], or ``classes`` are not a name for each output.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, build_graph
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> graph = build_graph(SelectiveLRP(model).trace(torch.randn(5, 4), target=1, edges=True))
        >>> sorted({layer for layer, neuron in graph})
        ['0', '2', 'input']
    """
    if not isinstance(trace, Trace):
        raise GraphError(
            f"build_graph needs a Trace, of SelectiveLRP(...).trace(..., edges=True), got {type(trace).__name__}"
        )
    if not trace.edges:
        raise GraphError("the trace has no edges; trace with SelectiveLRP(...).trace(..., edges=True)")
    if not 0 <= min_share <= 1:
        raise GraphError(f"min_share must be in [0, 1], got {min_share}")
    relevance = {layer: in_double(r).sum(0).cpu() for layer, r in trace.relevance.items()}
    lowers = {lower for lower, _ in trace.edges}
    outputs = [layer for layer in trace.relevance if layer not in lowers]
    if classes is not None and (isinstance(classes, str) or not isinstance(classes, Sequence)):
        raise GraphError(f"classes must be names, one for each output, such as ['cat', 'dog'], got {classes!r:.80}")
    for layer in outputs:
        if classes is not None and len(classes) != len(relevance[layer]):
            raise GraphError(f"{len(classes)} class names were given for {len(relevance[layer])} outputs")

    found = {pair: _present(trace, *pair, relevance[pair[1]], min_share) for pair in trace.edges}
    _keep_strongest(found)
    handed = {layer: torch.zeros_like(r) for layer, r in relevance.items()}
    connected = {layer: torch.zeros_like(r, dtype=torch.bool) for layer, r in relevance.items()}
    for layer in outputs:
        connected[layer] |= relevance[layer] != 0
    for (lower, upper), (rows, columns, edges) in found.items():
        handed[upper].index_add_(0, columns, edges)
        connected[lower][rows] = True
        connected[upper][columns] = True

    graph = nx.DiGraph()
    for order, (layer, r) in enumerate(relevance.items()):
        neurons = connected[layer].nonzero().flatten()
        activation = in_double(trace.activation[layer]).mean(0).cpu()
        numbers = (t[neurons].tolist() for t in (r, activation, r - handed[layer]))
        about = {
            "layer": layer, "kind": trace.kinds[layer], "places": trace.places[layer], "order": order,
            "output": layer in outputs,
        }  # fmt: skip
        graph.add_nodes_from(
            (
                (layer, n),
                {
                    "relevance": r,
                    "activation": a,
                    "absorbed": 0.0 if about["kind"] == "input" else kept,
                    "neuron": n,
                    **about,
                },
            )
            for n, r, a, kept in zip(neurons.tolist(), *numbers, strict=True)
        )
        if classes is not None and layer in outputs:
            for n in neurons.tolist():
                graph.nodes[layer, n]["class_name"] = str(classes[n])
    _add_edges(graph, found, relevance)
    return graph


def check_graph(graph: object, nodes: Collection[str] = (), edges: Collection[str] = ()) -> None:
    """Raise an error unless the argument is a relevance graph that is not empty.

    Args:
        graph: the argument.
        nodes, edges: the attributes that each node and each edge must have.

    Raises:
        GraphError: saying what to give.
    """
    if isinstance(graph, Trace):
        raise GraphError("expected a graph, got a trace; make one with build_graph(trace), of a trace with edges=True")
    if not isinstance(graph, nx.DiGraph):
        raise GraphError(f"expected a graph, a networkx.DiGraph from build_graph, got {type(graph).__name__}")
    if len(graph) == 0:
        raise GraphError("the graph is empty")
    for name in sorted(nodes):
        for node, about in graph.nodes(data=True):
            if name not in about:
                raise GraphError(f"node {node!r} has no {name!r}; make relevance graphs with build_graph")
    for name in sorted(edges):
        for node, above in graph.adjacency():
            for other, about in above.items():
                if name not in about:
                    raise GraphError(f"edge {(node, other)!r} has no {name!r}; make relevance graphs with build_graph")


def outputs_of(graph: nx.DiGraph) -> list[Node]:
    """The output's neurons; in a graph that does not mark them, all neurons without an edge to a higher one."""
    return [n for n, output in graph.nodes(data="output") if output] or [n for n in graph if graph.out_degree(n) == 0]


Found = tuple[Tensor, Tensor, Tensor]


def _add_edges(graph: nx.DiGraph, found: Mapping[tuple[str, str], Found], relevance: Mapping[str, Tensor]) -> None:
    """Add edges between existing nodes, like ``add_edges_from``, but without looking up the nodes of each."""
    above = dict(graph.adjacency())
    below = dict(nx.reverse_view(graph).adjacency())
    node_of: dict[str, dict[int, Node]] = defaultdict(dict)
    for node in graph:
        node_of[node[0]][node[1]] = node
    for (lower, upper), (rows, columns, edges) in found.items():
        share = edges / relevance[upper][columns]
        about = [{"relevance": r, "share": s} for r, s in zip(edges.tolist(), share.tolist(), strict=True)]
        _join(above, node_of[lower], node_of[upper], rows, columns, about)
        by_column = columns.argsort(stable=True)
        about = [about[n] for n in by_column.tolist()]
        _join(below, node_of[upper], node_of[lower], columns[by_column], rows[by_column], about)


def _join(
    adjacency: Mapping[Node, dict[Node, dict[str, float]]],
    nodes: Mapping[int, Node],
    others: Mapping[int, Node],
    ours: Tensor,
    theirs: Tensor,
    about: Sequence[dict[str, float]],
) -> None:
    """Write edges into one direction of an adjacency; ``ours``, ascending, and ``theirs`` are neurons of the two layers."""
    edges = zip(map(others.__getitem__, theirs.tolist()), about, strict=True)
    for neuron, count in zip(*(t.tolist() for t in ours.unique_consecutive(return_counts=True)), strict=True):
        adjacency[nodes[neuron]].update(islice(edges, count))


def _present(trace: Trace, lower: str, upper: str, arrived: Tensor, min_share: float) -> Found:
    """Lower neurons, upper neurons and relevance of the edges between two layers, for critical neurons only."""
    edges = trace.edges[lower, upper]
    edges = edges.sum(0) if trace.per_sample else edges
    below = torch.arange(trace.relevance[lower].shape[1], device=edges.device)
    if lower in trace.masks:
        below = trace.critical(lower).any(0).to(edges.device).nonzero().flatten()
    if edges.ndim == 1:  # channel to same channel
        rows, values = below.cpu(), in_double(edges[below]).cpu()
        columns = rows
    else:
        above = torch.arange(edges.shape[1], device=edges.device)
        if upper in trace.masks:
            above = trace.critical(upper).any(0).to(edges.device).nonzero().flatten()
        block = edges[below][:, above] if len(below) < len(edges) or len(above) < edges.shape[1] else edges
        row, column = block.nonzero(as_tuple=True)
        rows, columns, values = below[row].cpu(), above[column].cpu(), in_double(block[row, column]).cpu()
    there = (values != 0) & (arrived[columns] != 0) & (values.abs() >= min_share * arrived[columns].abs())
    return rows[there], columns[there], values[there]


def _keep_strongest(found: dict[tuple[str, str], Found]) -> None:
    total = sum(len(edges) for *_, edges in found.values())
    if total <= _MOST_EDGES:
        return
    strength = torch.cat([edges.abs() for *_, edges in found.values()])
    least = strength.kthvalue(total - _MOST_EDGES).values
    warnings.warn(
        f"the relevance graph has {total:,} edges; the {_MOST_EDGES:,} strongest are kept. Trace with a selection such as "
        "TopK(0.1), or set min_share, to choose which",
        stacklevel=3,
    )
    for pair, (rows, columns, edges) in found.items():
        strong = edges.abs() > least
        found[pair] = rows[strong], columns[strong], edges[strong]
