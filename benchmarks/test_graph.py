"""The whole relevance graph of VGG16 compared with zennit-crp's, and the time to build it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from methods import GRADIENT, METHODS
from models import Subject

from lrp_lightning import EpsilonPlus, SelectiveLRP, TopK, build_graph

TOP = 10
Images = Callable[[str, int], Subject]


def test_build(benchmark: Any, record: Callable[..., None], compare: Callable[..., None], images: Images) -> None:
    asked = images("vgg16", 1)
    trace = SelectiveLRP(asked.model, EpsilonPlus(), TopK(0.1)).trace(asked.x, asked.target, edges=True)
    record("build", edges=build_graph(trace).number_of_edges())
    compare(GRADIENT.work(asked), lambda: build_graph(trace))


@pytest.mark.parametrize("place", ["low", "middle", "high"])
def test_zennit_crp(
    benchmark: Any, record: Callable[..., None], compare: Callable[..., None], images: Images, place: str, quick: bool
) -> None:
    """Edges into the ten most relevant neurons of a layer, by a batch of conditional passes, beside the whole graph.

    All layers take the same, since every pass goes through the whole net; three are timed.
    """
    if quick:
        pytest.skip("not in a quick run")
    attribution = pytest.importorskip("crp.attribution", reason="zennit-crp is not installed").CondAttribution
    from zennit.composites import EpsilonPlus as ZennitEpsilonPlus

    asked = images("vgg16", 1)
    trace = SelectiveLRP(asked.model, EpsilonPlus()).trace(asked.x, asked.target)
    hidden = [layer for layer in trace.relevance if trace.kinds[layer] != "input"][:-1]
    pairs = list(pairwise(hidden))
    lower, upper = pairs[{"low": 0, "middle": len(pairs) // 2, "high": -1}[place]]
    neurons = trace.relevance[upper].sum(0).topk(TOP).indices.tolist()
    conditions = [{upper: [neuron], "y": [int(asked.target[0])]} for neuron in neurons]
    conditional, composite = attribution(asked.model, no_param_grad=False), ZennitEpsilonPlus()
    record("crp", place=place, layers=len(pairs), neurons=sum(trace.relevance[layer].shape[1] for layer in hidden))
    compare(
        METHODS["EpsilonPlus, all edges"].work(asked),
        lambda: conditional(asked.x.clone().requires_grad_(), conditions, composite, record_layer=[lower]),
    )
    benchmark.extra_info["passes"] = TOP
