"""What two graphs differ in."""

from __future__ import annotations

import json
from pathlib import Path

import networkx as nx
import pytest
import torch
from small_networks import mlp

from lrp_lightning import SelectiveLRP, TopK, build_graph, diff_graphs
from lrp_lightning.drawing import draw_graph
from lrp_lightning.errors import GraphError

# what the tab's test reads too
CHANGES = json.loads((Path(__file__).parents[1] / "tensorboard_plugin" / "front_end" / "changes.json").read_text())


def graph(target: int, seed: int = 0, scale: float = 1.0) -> nx.DiGraph:
    model = mlp(4, 12, 8, 3, seed=seed).double()
    with torch.no_grad():
        model[4].weight.mul_(scale)
        model[4].bias.mul_(scale)
    x = torch.rand(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    return build_graph(SelectiveLRP(model, selection=TopK(4)).trace(x, target=target, edges=True))


def test_against_itself_nothing_changed() -> None:
    diff = diff_graphs(graph(0), graph(0))
    assert {about["change"] for _, about in diff.nodes(data=True)} == {"same"}
    assert {about["relevance"] for *_, about in diff.edges(data=True)} == {0.0}
    louder = diff_graphs(graph(0), graph(0, scale=5.0))  # an output five times as large is the same decision
    assert max(abs(about["relevance"]) for _, about in louder.nodes(data=True)) == pytest.approx(0, abs=1e-4)


def test_between_two_classes() -> None:
    before, after = graph(0), graph(1)
    diff = diff_graphs(before, after)
    assert set(diff) == set(before) | set(after)
    assert set(diff.edges) == set(before.edges) | set(after.edges)
    total = [sum(g.nodes[n]["relevance"] for n in g if g.nodes[n]["output"]) for g in (before, after)]
    seen = set()
    for things, one, two in ((diff.nodes, before.nodes, after.nodes), (diff.edges, before.edges, after.edges)):
        for thing, about in things.items():
            was = one[thing]["relevance"] / total[0] if thing in one else 0.0
            now = two[thing]["relevance"] / total[1] if thing in two else 0.0
            assert (about["before"], about["after"]) == pytest.approx((was, now))
            assert about["relevance"] == pytest.approx(now - was)
            there = ("grew", "shrank", "same")
            expected = ("appeared",) if thing not in one else ("vanished",) if thing not in two else there
            assert about["change"] in expected
            seen.add(about["change"])
    assert seen >= {"appeared", "vanished", "grew", "shrank"}
    assert diff.nodes["4", 0]["change"] == "vanished"
    assert diff.nodes["4", 1]["change"] == "appeared"


@pytest.mark.parametrize(("before", "after", "change"), CHANGES)
def test_a_change_is_called_as_in_the_tab(before: float | None, after: float | None, change: str) -> None:
    def of(share: float | None) -> nx.DiGraph:
        made = nx.DiGraph()
        made.add_node(("head", 0), layer="head", kind="linear", order=1, relevance=4.0, output=True)
        if share is not None:
            made.add_node(("conv", 0), layer="conv", kind="convolution", order=0, relevance=4.0 * share, output=False)
            made.add_edge(("conv", 0), ("head", 0), relevance=4.0 * share, share=share)
        return made

    diff = diff_graphs(of(before), of(after))
    assert diff.nodes["conv", 0]["change"] == diff.edges[("conv", 0), ("head", 0)]["change"] == change


def test_it_can_be_drawn_and_kept_like_any_graph() -> None:
    diff = diff_graphs(graph(0), graph(1))
    assert len(draw_graph(diff).data) > 2
    read = nx.node_link_graph(json.loads(json.dumps(nx.node_link_data(diff))))
    assert dict(read.nodes(data=True)) == dict(diff.nodes(data=True))
    assert dict(read.edges) == dict(diff.edges)


def test_graphs_that_cannot_be_compared() -> None:
    with pytest.raises(GraphError, match="empty"):
        diff_graphs(graph(0), nx.DiGraph())
    silent = graph(0)
    for node in silent:
        silent.nodes[node]["relevance"] = 0.0
    with pytest.raises(GraphError, match="no relevance"):
        diff_graphs(silent, graph(0))
