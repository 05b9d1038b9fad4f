"""Nodes without weights: residual sums and, if edges are requested, all operators that combine values of several neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lrp_lightning.axes import Axis
from lrp_lightning.engine.edges import features_of
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.visitor import Part

__all__ = ["apart", "neuron_dim_of", "node", "relayed"]


def neuron_dim_of(facts: Facts, t: Tensor) -> int:
    """The dimension that holds the neurons: as known; otherwise the last for tokens, 1 for others."""
    likely = t.ndim - 1 if t.ndim in (1, 3) else 1
    neurons = facts.neurons
    if not isinstance(neurons, Axis) or (facts.near_input and t.ndim == 3):  # (N, C, L) or (N, L, C)
        return likely
    samples = facts.samples.dims if facts.samples is not None else []
    if len(neurons.dims) == 1:  # its number within the sample, if each sample has its own
        return neurons.dims[0] if neurons.dims[0] not in samples else likely
    if not neurons.dims:  # a layer with one neuron
        one = [d for d in (likely, *range(1, t.ndim)) if t.shape[d] == 1 and d not in samples]
        return one[0] if one else likely
    return likely


def apart(run: Interpreter, t: Any) -> Any:
    """A tensor of the same values for one node only."""
    return run.visitor.apart(run, t)


def node(
    run: Interpreter, name: str, kind: str, y: Tensor, facts: Facts, dim: int, parts: Sequence[Part], stays: Any = None
) -> tuple[Tensor, Facts]:
    """Make ``y`` a node whose neurons are in ``dim``; return its value and facts."""
    layer = run.visitor.layers.add(name, kind, y, dim, facts.samples, facts.lost, facts.near_input)
    out = run.visitor.node(run, layer, y, parts, stays and stays(layer))
    return out, facts._replace(neurons=layer.axis(y.shape), made_by=None)


def relayed(run: Interpreter, t: Tensor, dim: int) -> Tensor:
    """``t`` with each value along ``dim`` from one neuron; if values of several neurons were combined, it becomes a node."""
    if not run.visitor.follows:
        return t
    facts = run.of(t)
    if facts.neurons is None or facts.samples is None or features_of(facts.neurons, t.shape, dim) is not None:
        return t
    part = apart(run, t)
    y, known = node(run, run.names.here("values"), "junction", part.view_as(part), facts, dim, [Part(part)])
    run.facts[y] = known
    return y
