"""Whether relevance flows: what arrives at each neuron leaves it, along edges or absorbed."""

from __future__ import annotations

import torch

from lrp_lightning import Trace


def flow_error(trace: Trace) -> float:
    """The largest difference between what a neuron has and what leaves it to below, or came from above, over the output."""
    scale = trace.explained.abs().sum().item()
    error = 0.0
    below = {layer: torch.zeros_like(r.sum(0)) for layer, r in trace.relevance.items()}
    above = {layer: torch.zeros_like(r.sum(0)) for layer, r in trace.relevance.items()}
    for (lower, upper), edges in trace.edges.items():
        edges = edges.sum(0) if trace.per_sample else edges
        below[upper] += edges if edges.ndim == 1 else edges.sum(0)
        above[lower] += edges if edges.ndim == 1 else edges.sum(1)
    lowers = {lower for lower, _ in trace.edges}
    for layer, r in trace.relevance.items():
        r = r.sum(0)
        stays = trace.absorbed_by.get(layer, torch.zeros_like(r))
        stays = stays.sum(0) if trace.per_sample else stays
        if trace.kinds[layer] != "input":
            error = max(error, (r - below[layer] - stays).abs().max().item())
        if layer in lowers:
            error = max(error, (r - above[layer]).abs().max().item())
    return error / scale
