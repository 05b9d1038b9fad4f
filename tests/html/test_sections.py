"""What a notebook shows of an object: parts of the report, whole, escaped, small, and with the figures of the object."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import mlp
from torch import nn

from lrp_lightning import (
    Circuits,
    Contest,
    NeuronCard,
    Path,
    PathCurve,
    SelectiveLRP,
    Strategies,
    Strategy,
    TopK,
    Trace,
    build_graph,
    contrast,
    k_best_paths,
    neuron_cards,
)
from lrp_lightning.drawing import ClassGraph, Report, report_of, write_report
from lrp_lightning.insight.neuron_cards import NeuronCards
from lrp_lightning.insight.transplant import Transplant
from lrp_lightning.pixels import coloured
from lrp_lightning.report.page import page_of
from lrp_lightning.words import percent

EVIL = "<script>alert('x')</script>&\"</td>"
VOID = {"img", "br", "hr", "meta", "input"}


class Part(HTMLParser):
    """Markup whose elements must close in the order that they were opened in."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text.append(data.strip())

    @property
    def images(self) -> list[np.ndarray]:
        sources = [str(given["src"]) for tag, given in self.elements if tag == "img"]
        assert all(source.startswith("data:image/png;base64,") for source in sources)
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(s.partition(",")[2]))).convert("RGB")) for s in sources]


def network(layer: str = "first") -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module(layer, nn.Conv2d(1, 4, 3))
    model.add_module("relu", nn.ReLU())
    model.add_module("flat", nn.Flatten())
    model.add_module("last", nn.Linear(144, 3))
    return model.eval()


def trace_of(layer: str = "first", samples: int = 3) -> Trace:
    model = network(layer)
    return SelectiveLRP(model, selection=TopK(0.5)).trace(torch.rand(samples, 1, 8, 8), target=1, edges=True)


def strategy(label: int = 1, share: float = 0.4, bound: float = 0.3, side: int = 12, moves: bool = False) -> Strategy:
    test = Transplant((3, 6, 4, 2), moves, flipped=0.6, control=0.1, bound=bound, pairs=64)
    images = torch.rand(8, 3, side, side)
    return Strategy(
        label, torch.arange(20), share, (("first", 2, 3.1),), images, images.mean(1), torch.randn(side, side), test
    )


def cards(layer: str = "first", neurons: int = 2) -> Any:
    return neuron_cards(network(layer), [torch.rand(20, 1, 8, 8)], {layer: list(range(neurons))}, k=6, progress=False)


def contest() -> Contest:
    logits = torch.randn(40, 3)
    return Contest(logits, logits, -logits, logits, -logits)


def curve() -> PathCurve:
    half = torch.full((2, 3), 0.5)
    return PathCurve([1, 5], torch.ones(2, 3), half, half, torch.tensor([0.25, torch.nan]))


def class_graph(layer: str = "first") -> ClassGraph:
    graph = build_graph(trace_of(layer))
    return ClassGraph(1, graph, k_best_paths(graph, 3, signed=True), 3)


MADE: dict[str, Callable[[], Any]] = {
    "trace": trace_of, "path": lambda: Path((("input", 0), ("last", 1)), 0.25), "class graph": class_graph,
    "paths": lambda: k_best_paths(build_graph(trace_of()), 3, signed=True), "strategy": strategy,
    "strategies": lambda: Strategies([strategy(0), strategy(1)]), "card": lambda: cards()[0], "cards": cards,
    "contest": contest, "path curve": curve, "contrast": lambda: contrast(network(), torch.rand(5, 1, 8, 8)),
    "circuits": lambda: Circuits({0: {"first": torch.tensor([True, False])}}, calibration={0: (2.0, 1.0)}),
}  # fmt: skip


@pytest.mark.parametrize("what", MADE)
def test_a_part_is_whole_and_asks_for_nothing(what: str) -> None:
    source = MADE[what]()._repr_html_()
    part = Part(source)
    assert part.elements[0] == ("div", {"class": "lrp lrp-part"})
    assert not {tag for tag, _ in part.elements} & {"script", "link", "iframe", "object"}
    for _, given in part.elements:
        assert not {name for name in given if name.startswith("on") or name == "id"}  # cells of one page do not collide
        assert (given.get("src") or given.get("href") or "data:").startswith("data:")
        assert all(name.startswith("lrp") for name in (given.get("class") or "lrp").split()) or "svg" in source
    assert "http" not in re.sub(r"xmlns=\S+", "", source)


def test_no_rule_reaches_what_is_around() -> None:
    [style] = re.findall(r"<style>(.*?)</style>", contest()._repr_html_(), re.DOTALL)
    rules = re.sub(r"@media[^{]*\{", "", re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL))
    selectors = [one.strip() for rule in re.findall(r"([^{}]+)\{", rules) for one in rule.split(",")]
    assert len(selectors) > 50
    assert [one for one in selectors if not one.startswith(".lrp")] == []


@pytest.mark.parametrize("kind", ["trace", "class graph", "paths", "cards", "strategy", "contrast"])
def test_text_is_never_markup(kind: str) -> None:
    layer = EVIL.replace(".", "")
    shown = {
        "trace": lambda: trace_of(layer), "class graph": lambda: class_graph(layer), "cards": lambda: cards(layer),
        "paths": lambda: k_best_paths(build_graph(trace_of(layer)), 3, signed=True),
        "contrast": lambda: contrast(network(layer), torch.rand(2, 1, 8, 8)),
        "strategy": lambda: replace(strategy(), neurons=((layer, 1, 2.0),), images=None, test=None),
    }[kind]()  # fmt: skip
    part = Part(shown._repr_html_())
    assert not [tag for tag, _ in part.elements if tag == "script"]
    assert "<script>alert" in " ".join(part.text)  # it is shown, as text


@pytest.mark.parametrize("samples", [1, 1000])
@pytest.mark.parametrize("side", [24, 300])
def test_a_trace_of_whatever_size_is_small(samples: int, side: int) -> None:
    names = ["input", *(f"stage.{n // 10}.block.{n % 10}.convolution" for n in range(100))]
    few = min(samples, 20)  # noise, which no picture can compress
    noise = torch.randn(few, 1, side, side).expand(few, 3, side, side)
    trace = Trace(
        inputs=noise.repeat(samples // few, 1, 1, 1), output=torch.randn(samples, 10), explained=torch.randn(samples),
        relevance={name: torch.randn(samples, 64) for name in names},
        kinds=dict.fromkeys(names, "convolution") | {"input": "input"}, places=dict.fromkeys(names, 64),
        masks={name: torch.rand(samples, 64) > 0.5 for name in names[1:]},
        absorbed={f"{name}.unselected": torch.randn(samples) for name in names},
    )  # fmt: skip
    source = trace._repr_html_()
    assert len(source.encode()) < 200_000
    assert len(Part(source).images) == min(samples, 6)
    assert ("of 1,000 are shown" in source) == (samples == 1000)
    assert names[-1] in source


def test_others_are_small_too() -> None:
    graph = nx.DiGraph()
    layers = [f"stage.{n}.convolution" for n in range(24)]
    for order, layer in enumerate(layers):
        for n in range(16):
            graph.add_node((layer, n), relevance=1.0 + n, order=order, kind="convolution", places=9, output=order == 23)
        if order:
            share = np.random.default_rng(order).random((16, 16))
            for i in range(16):
                for o in range(16):
                    at = (layers[order - 1], i), (layer, o)
                    graph.add_edge(*at, relevance=share[i, o] * (1.0 + o), share=share[i, o] / 16)
    paths = k_best_paths(graph, 200)
    many = Strategies([strategy(n, side=200) for n in range(100)])
    sizes = {
        "class graph": ClassGraph(0, graph, paths), "paths": paths, "strategies": many,
        "cards": NeuronCards(cards(neurons=4) * 200),
        "circuits": Circuits({n: {"first": torch.ones(4) > 0} for n in range(1000)}),
        "contrast": replace(
            contrast(network(), torch.rand(40, 1, 8, 8)), inputs=torch.rand(40, 3, 300, 300),
            heatmaps=torch.randn(3, 40, 3, 300, 300), all_neurons=torch.randn(3, 40, 3, 300, 300),
        ),
    }  # fmt: skip
    for what, shown in sizes.items():
        assert len(shown._repr_html_().encode()) < 250_000, what


def test_a_traces_heatmaps_and_figures_are_its_own() -> None:
    trace = trace_of()
    assert isinstance(trace.inputs, torch.Tensor)
    part = Part(trace._repr_html_())
    heat = trace.inputs.sum(1).double()
    heat = (100 * heat / heat.abs().sum((1, 2), keepdim=True)).numpy()
    limit = np.percentile(np.abs(heat), 99.5)
    for drawn, expected in zip(part.images, coloured(heat, limit), strict=True):
        assert np.abs(drawn.astype(int) - expected).max() <= 4  # to a step of the scale
    at = part.text.index("output")
    assert f"{float(trace.explained[0]):.4g}" in part.text[at:]
    kept = float(trace.masks["first"].sum(1).double().mean())
    row = [text for text in part.text[part.text.index("first") :] if text][:4]
    assert row == ["first", "convolution", "4", f"{kept:.1f}"]


@pytest.mark.parametrize(
    "inputs",
    [
        torch.zeros(3, 5),
        torch.full((3, 1, 4, 4), torch.nan),
        (torch.zeros(3, 2), torch.zeros(3, 4)),
        torch.zeros(3, 0, 4, 4),
    ],
)
def test_a_trace_without_heatmaps_is_shown_too(inputs: Any) -> None:
    trace = replace(trace_of(), inputs=inputs)
    part = Part(trace._repr_html_())
    assert part.images == []
    assert "reached the input" in part.text


@pytest.mark.parametrize("selection", [None, TopK(0.5)])
def test_heatmaps_of_critical_neurons_say_so(selection: TopK | None) -> None:
    model, images = network(), torch.rand(2, 1, 8, 8)
    lrp = SelectiveLRP(model) if selection is None else SelectiveLRP(model, selection=selection)
    trace = lrp.trace(images, target=1)
    alone = " ".join(Part(trace._repr_html_()).text), page_of(report_of(trace, images))
    both = page_of(report_of(trace, images, model))
    for source in alone:
        assert ("worse at localising" in " ".join(source.split())) == (selection is not None)
        assert ("draw_heatmaps(..., all_neurons=...)" in source) == (selection is not None)
    assert "worse at localising" not in " ".join(both.split()), "all neurons are beside them"
    assert ("through the critical neurons and through all neurons" in " ".join(both.split())) == (selection is not None)


def test_a_contrasts_heatmaps_are_its_own_in_both_kinds() -> None:
    why = contrast(network(), torch.rand(5, 1, 8, 8), a=2, b=0)
    part = Part(why._repr_html_())
    assert len(part.images) == 2 * 2 * 4  # of two samples, two rows of an image and three heatmaps
    for kind, maps in enumerate((why.heatmaps, why.all_neurons)):
        heat = maps[:, :2].sum(2).double()
        heat = (100 * heat / heat.abs().sum((2, 3), keepdim=True)).numpy()
        limit = np.percentile(np.abs(heat), 99.5)
        for i in range(2):
            for what in range(3):
                drawn = part.images[8 * i + 4 * kind + 1 + what]
                assert np.abs(drawn.astype(int) - coloured(heat[what, i], limit)).max() <= 4
    text = " ".join(" ".join(part.text).split())
    for words in ("The first 2 of 5 are shown", "sample 1, all neurons", "for class 2:", "2, not 0:", "mean margin"):
        assert words in text, words
    assert f"holds {percent(float(why.logit_shares(why.heatmaps)[0, 1]))}" in text
    layer, neuron, share = why.neurons_against[0]
    row = part.text.index("lowers")
    assert [one for one in part.text[row:] if one][:4] == ["lowers", layer, str(neuron), f"{share:+.1%}"]


def test_a_contrast_without_images_has_its_neurons() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    part = Part(contrast(model, torch.rand(5, 4))._repr_html_())
    assert part.images == []
    assert "raises" in part.text
    assert not [tag for tag, _ in part.elements if tag == "summary"], "no heatmaps, nothing to say on reading them"


def test_an_empty_batch() -> None:
    trace = SelectiveLRP(nn.Linear(4, 3)).trace(torch.rand(1, 4), target=0)
    none = replace(
        trace, inputs=torch.zeros(0, 4), output=torch.zeros(0, 3), explained=torch.zeros(0), relevance={}, absorbed={}
    )
    assert "Trace of 0 samples" in Part(none._repr_html_()).text[1]


def test_what_paths_carry_is_drawn_beside_the_strongest() -> None:
    chain = (("input", 0), ("last", 1))
    graph = nx.DiGraph()
    graph.add_edge(*chain, relevance=1.0, share=0.75)
    graph.add_edge(("input", 1), ("last", 1), relevance=0.25, share=0.25)
    graph.add_node(("last", 1), relevance=1.0)
    paths = k_best_paths(graph, 2)
    part = Part(paths._repr_html_())
    widths = [given["style"] for tag, given in part.elements if tag == "i"]
    assert widths == ["width: 100.0%", "width: 33.3%"]
    assert {"75 %", "25 %"} <= set(part.text)
    assert "input[0] → last[1]" in part.text
    assert not [tag for tag, _ in Part(paths[0]._repr_html_()).elements if tag == "i"]  # one alone is compared with none


def test_of_many_paths_a_class_graph_has_the_first() -> None:
    graph = build_graph(trace_of())
    paths = k_best_paths(graph, 1, signed=True) * 9
    text = " ".join(Part(ClassGraph(1, graph, paths)._repr_html_()).text)
    assert "9 paths" in text
    assert "The first 5 of 9 are shown." in text


def test_the_region_of_a_strategy_is_framed_where_it_is() -> None:
    part = Part(strategy()._repr_html_())
    frames = {given["style"] for tag, given in part.elements if tag == "i"}
    assert frames == {"top: 25%; left: 50%; height: 33.33%; width: 16.67%"}
    assert len(part.images) == 1 + 6
    moving = Part(strategy(moves=True)._repr_html_())
    assert not [tag for tag, _ in moving.elements if tag == "i"]


def test_shortcuts_come_first() -> None:
    text = " ".join(Part(Strategies([strategy(n, bound=0.9 if n == 11 else 0.0) for n in range(12)])._repr_html_()).text)
    first, second = (text.index(f"class {n} ") for n in (11, 0))
    assert text.index("Likely shortcut.") < first < second
    assert "The first 6 of 12 are shown." in text


def test_cards_without_images_are_words() -> None:
    [card] = neuron_cards(mlp(4, 8, 3), [torch.rand(9, 4)], {"0": [1]}, progress=False)
    assert isinstance(card, NeuronCard)
    part = Part(card._repr_html_())
    assert part.images == []
    assert card.name() in part.text


def test_the_report_has_the_same_parts(tmp_path: Any) -> None:
    """One definition of the markup: what a notebook shows of a strategy or a card stands in the report, byte by byte."""
    found, of_neurons = Strategies([strategy(side=40)]), cards()
    page = write_report(Report(strategies=found, cards=of_neurons), tmp_path / "r.html").read_text()
    for shown, block in ((found, "lrp-strategy"), (of_neurons, "lrp-neuron")):
        parts = re.findall(rf'<div class="{block}"><p>.*?</p>', shown._repr_html_(), re.DOTALL)
        assert parts
        assert all(part in page for part in parts)
