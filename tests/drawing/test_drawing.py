"""Pictures: what is in them, on which scale, and that they belong to their caller alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path as FilePath
from typing import Any

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from sheets import pictures_of, words_of
from torch import Tensor

from lrp_lightning import Path, diff_graphs, k_best_paths
from lrp_lightning.drawing import as_array, draw_graph, draw_heatmaps, draw_paths
from lrp_lightning.drawing.figures import NEGATIVE, POSITIVE
from lrp_lightning.errors import GraphError, InputError, LayerError
from lrp_lightning.graphs.layout import Layout, lay_out
from lrp_lightning.pixels import coloured, limit_of, summed

# Heatmaps


def random_batch(samples: int, channels: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = samples, channels, 6, 5
    return torch.rand(shape, generator=generator), torch.randn(shape, generator=generator)


@pytest.mark.parametrize(
    ("samples", "columns", "blocks"), [(1, 8, [1]), (3, 8, [3]), (8, 8, [8]), (9, 8, [5, 4]), (5, 2, [2, 2, 1])]
)
def test_an_image_and_a_heatmap_for_each_sample(samples: int, columns: int, blocks: list[int]) -> None:
    images, relevance = random_batch(samples)
    rows, figure = pictures_of(draw_heatmaps, images, relevance, columns=columns)
    assert [len(row) for row in rows] == [n for n in blocks for _ in range(2)]
    assert [axis.get_label() for axis in figure.axes] == ["", "<colorbar>"]
    heat = summed(relevance, False)
    drawn = np.concatenate([np.stack(row) for row in rows[1::2]])
    np.testing.assert_array_equal(drawn, coloured(heat, limit_of(heat, 99.5)))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels(channels: int) -> None:
    images, relevance = random_batch(2, channels)
    (above, below), _ = pictures_of(draw_heatmaps, 10 * images - 3, relevance)
    for drawn, image in zip(above, images, strict=True):
        pixels = (image if channels == 3 else image.mean(0).expand(3, -1, -1)).permute(1, 2, 0)
        stretched = (pixels - pixels.min()) / (pixels.max() - pixels.min())
        np.testing.assert_allclose(drawn, stretched, atol=1e-5)
    heat = relevance.double().sum(1).numpy()
    np.testing.assert_array_equal(below, coloured(heat, limit_of(heat, 99.5)))


def limits(figure: Figure) -> tuple[float, float]:
    """Of the colour bar."""
    return figure.axes[-1].get_ylim()


def test_the_colour_scale_is_centred_on_zero_and_shared() -> None:
    images, relevance = random_batch(4)
    relevance = relevance.abs()  # even where nothing is negative
    relevance[2] *= 10
    relevance[0, 0, 0, 0] = -relevance.max()
    (_, below), figure = pictures_of(draw_heatmaps, images, relevance, percentile=100)
    low, high = limits(figure)
    assert high == -low == pytest.approx(relevance.max().item())
    red, blue = below[2].reshape(-1, 3)[relevance[2].argmax()].astype(int), below[0][0, 0].astype(int)
    assert red[0] > 2 * red[2]
    assert blue[2] > 2 * blue[0]
    assert coloured(np.zeros((1, 1)), high).min() > 230


def test_one_outlier_does_not_wash_out_the_rest() -> None:
    images, relevance = random_batch(8)
    relevance = relevance.clamp(-1, 1)
    relevance[0, 0, 0, 0] = 1e6
    assert limits(draw_heatmaps(images, relevance, percentile=99))[1] == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("value", [0.0, 1e-30])
def test_relevance_of_nothing_can_be_drawn(value: float) -> None:
    images, relevance = random_batch(2)
    figure = draw_heatmaps(torch.zeros_like(images), torch.full_like(relevance, value))
    low, high = limits(figure)
    assert high == -low > 0
    assert as_array(figure).std() > 0


def test_titles_stand_above_their_images() -> None:
    titles = ["3", "cat (is dog)", "ü", "$x"]
    figure = draw_heatmaps(*random_batch(4), titles=titles)
    assert words_of(figure) == titles
    places = [text.get_position() for text in figure.texts]
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert words_of(draw_heatmaps(*random_batch(3))) == []


def test_what_needs_gradients_can_be_drawn() -> None:
    images, relevance = random_batch(2)
    figure = draw_heatmaps(images.requires_grad_(), relevance.requires_grad_())
    assert np.array_equal(as_array(figure), as_array(draw_heatmaps(images.detach(), relevance.detach())))


@pytest.mark.parametrize(
    ("images", "relevance", "titles", "message"),
    [
        (torch.rand(2, 6, 5), torch.rand(2, 1, 6, 5), None, r"\(N, C, H, W\)"),
        (torch.rand(2, 1, 6, 5), torch.rand(2, 6, 5), None, r"\(2, 1, 6, 5\) and \(2, 6, 5\)"),
        (torch.rand(2, 1, 6, 5), torch.rand(3, 1, 6, 5), None, "the same N"),
        (torch.rand(0, 1, 6, 5), torch.rand(0, 1, 6, 5), None, "the same N"),
        (torch.rand(2, 1, 6, 5), torch.rand(2, 1, 6, 5), ["one"], "1 titles were given for 2 images"),
        (torch.rand(2, 1, 6, 5), torch.full((2, 1, 6, 5), torch.nan), None, "NaN"),
        (torch.rand(2, 1, 6, 5), torch.full((2, 1, 6, 5), -torch.inf), None, "infinite"),
    ],
)
def test_heatmaps_that_cannot_be_drawn(images: Tensor, relevance: Tensor, titles: list[str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_heatmaps(images, relevance, titles)


# Graphs


def draw_static(*args: Any, **kwargs: Any) -> Figure:
    return draw_graph(*args, **kwargs, static=True)


def small_graph(hidden: Sequence[float] = (4.0, 2.0, -1.0, 0.5)) -> nx.DiGraph:
    graph = nx.DiGraph()
    layers = {"input": [3.0, 2.0], "conv": hidden, "head": [5.0]}
    for order, (layer, relevances) in enumerate(layers.items()):
        for neuron, relevance in enumerate(relevances):
            graph.add_node((layer, neuron), relevance=relevance, order=order, kind="input" if order == 0 else "linear")
    for i, r in enumerate(hidden):
        graph.add_edge(("conv", i), ("head", 0), relevance=r, share=r / 5)
        for n, part in enumerate((0.6, 0.4)):
            graph.add_edge(("input", n), ("conv", i), relevance=r * part, share=part)
    return graph


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def neurons_drawn(figure: Figure) -> np.ndarray:
    (dots,) = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    return np.asarray(dots.get_offsets())


def drawn_in(axis: Any) -> np.ndarray:
    """Where the neurons of a row stand."""
    (dots,) = [c for c in axis.collections if isinstance(c, PathCollection)]
    return np.asarray(dots.get_offsets())


def edges_in(axis: Any) -> LineCollection:
    (edges,) = [c for c in axis.collections if isinstance(c, LineCollection)]
    return edges


def edges_drawn(figure: Figure) -> LineCollection:
    (edges,) = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]
    return edges


def test_layers_are_columns_in_the_order_of_the_forward() -> None:
    graph = small_graph()
    backwards = nx.DiGraph()
    backwards.add_nodes_from(reversed(list(graph.nodes(data=True))))
    backwards.add_edges_from(graph.edges(data=True))
    for given in (graph, backwards):
        figure = draw_static(given)
        columns, count = np.unique(neurons_drawn(figure)[:, 0], return_counts=True)
        assert columns.tolist() == [0, 1, 2]
        assert count.tolist() == [2, 4, 1]
        assert [text for text in texts(figure) if text in ("input", "conv", "head")] == ["input", "conv", "head"]


def test_only_the_strongest_neurons_are_drawn() -> None:
    figure = draw_static(small_graph([0.1, 4.0, -3.0, 1.0, 0.2]), neurons_per_layer=3)
    at = {
        text.get_text(): text.get_position()
        for text in figure.axes[0].texts
        if text.get_position()[0] == 1 and len(text.get_text()) < 9
    }
    assert set(at) == {"1", "2", "3", "conv"}
    assert len(edges_drawn(figure).get_segments()) == 2 * 3 + 3


def test_edges_are_coloured_by_sign_and_as_wide_as_what_they_carry() -> None:
    figure = draw_static(small_graph([4.0, -1.0, 2.0]))
    edges = edges_drawn(figure)
    drawn = zip(edges.get_linewidths(), map(to_hex, edges.get_colors()), edges.get_segments(), strict=True)
    to_head = sorted((width, colour) for width, colour, segment in drawn if segment[1][0] == 2)
    assert [colour for _, colour in to_head] == [NEGATIVE, POSITIVE, POSITIVE]
    widths = np.array([width for width, _ in to_head])
    np.testing.assert_allclose((widths - 0.3) / (widths[-1] - 0.3), [0.25, 0.5, 1.0])


def test_paths_are_drawn_in_black_through_neurons_that_are_always_shown() -> None:
    graph = small_graph([4.0, 3.0, 2.0, 0.1])
    weak = Path((("input", 1), ("conv", 3), ("head", 0)), 0.01)
    figure = draw_static(graph, neurons_per_layer=2, paths=[weak, *k_best_paths(graph, 1)])
    lines = figure.axes[0].get_lines()
    assert len(lines) == 2
    assert {to_hex(line.get_color()) for line in lines} == {"#000000"}
    assert [list(line.get_xdata()) for line in lines] == [[0, 1, 2], [0, 1, 2]]
    assert "3" in texts(figure)
    assert len(draw_static(graph).axes[0].get_lines()) == 0


def test_class_names_name_the_output_neurons_and_no_others() -> None:
    named = texts(draw_static(small_graph(), class_names=["cat", "dog"]))
    assert named.count("cat") == 1
    assert "dog" not in named  # not in the graph
    graph = small_graph()
    graph.add_node(("head", 7), relevance=1.0, order=2, kind="linear")
    assert {"cat", "7"} <= set(texts(draw_static(graph, class_names=["cat", "dog"])))  # a class without a name is its number


def test_the_colours_of_what_changed_are_told_as_such() -> None:
    graph = small_graph()
    diff = diff_graphs(graph, graph)
    assert [any("red more, blue less" in text for text in texts(draw_static(g))) for g in (graph, diff)] == [False, True]
    assert any("red for, blue against" in text for text in texts(draw_static(graph)))


def test_title() -> None:
    titled, untitled = draw_static(small_graph(), title="Critical paths, epoch 3"), draw_static(small_graph())
    assert [figure.axes[0].get_title(loc="left") for figure in (titled, untitled)] == ["Critical paths, epoch 3", ""]


def test_the_picture_grows_with_the_graph() -> None:
    long = nx.path_graph([("layer", 0)], create_using=nx.DiGraph)
    for n in range(30):
        long.add_node((f"layer{n}", 0), relevance=1.0, order=n)
    long.remove_node(("layer", 0))
    for lower, upper in nx.utils.pairwise(list(long)):
        long.add_edge(lower, upper, relevance=1.0, share=1.0)
    assert draw_static(long).get_figheight() > 3 * draw_static(small_graph()).get_figheight()
    assert draw_static(small_graph(), neurons_per_layer=40).get_figheight() > draw_static(small_graph()).get_figheight()


def test_many_layers_are_in_several_rows_that_a_card_can_show() -> None:
    for layers in range(1, 25):
        graph = random_graph(layers, layers, 3)
        figure = draw_static(graph, class_names=["a class of some length"] * 3, title="Critical paths of a class, epoch 3")
        columns = [[int(x) for x in np.unique(drawn_in(axis)[:, 0])] for axis in figure.axes]
        assert max(map(len, columns)) <= 8
        assert columns[0][0] == 0
        assert columns[-1][-1] == layers - 1
        assert all(row == list(range(row[0], row[-1] + 1)) for row in columns)
        assert all(a[-1] == b[0] for a, b in pairwise(columns)), "a row begins where the one above ends"
        assert len({node for axis in figure.axes for node in map(tuple, drawn_in(axis))}) == len(graph)
        named = [text.get_text() for axis in figure.axes for text in axis.texts if text.get_rotation() == 38]
        assert named == [f"l{x}" for row in columns for x in row]
        assert (len(columns) > 1) == (layers > 8)
        width = figure.get_figwidth()
        smallest = min(text.get_fontsize() for axis in figure.axes for text in axis.texts) / 72
        if layers > 8:
            assert width < 7.5
            assert 400 * smallest / width > 6, "pixels of the smallest words in a card of 400"
        texts = [text.get_window_extent() for axis in figure.axes for text in axis.texts if text.get_rotation() == 38]
        for box in texts:
            assert box.x0 >= 0
            assert box.y0 >= 0


def test_edges_between_rows_are_seen_in_both() -> None:
    """A residual connection that begins in one row and ends in the next."""
    graph = random_graph(0, 17, 2)
    figures = []
    for far in (False, True):
        if far:
            graph.add_edge(("l4", 0), ("l9", 1), relevance=9.0, share=9.0)
        figures.append(draw_static(graph))
    before, after = ([len(edges_in(axis).get_segments()) for axis in figure.axes] for figure in figures)
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 0]
    path = Path(tuple((f"l{x}", 0) for x in range(17)), 0.5)
    for x in range(16):
        graph.add_edge((f"l{x}", 0), (f"l{x + 1}", 0), relevance=1.0, share=1.0)
    figure = draw_static(graph, paths=[path])
    assert [len(axis.get_lines()) for axis in figure.axes] == [1, 1, 1]


def test_what_is_of_another_row_is_not_seen_in_the_margin() -> None:
    graph = random_graph(0, 17, 2)
    for x in range(16):
        graph.add_edge((f"l{x}", 0), (f"l{x + 1}", 0), relevance=100.0, share=100.0)
    figure = draw_static(graph)
    pixels = as_array(figure).astype(int)
    middle = figure.axes[1]
    (left, bottom), (right, top) = (middle.transData.transform(at) for at in ((5.55, -1), (5.8, 1)))
    height = len(pixels)
    beside = pixels[height - round(top) : height - round(bottom), round(left) : round(right)]
    assert beside.size > 0
    assert beside.min() == 255


def test_a_graph_without_relevance_can_be_drawn() -> None:
    assert as_array(draw_static(small_graph([0.0, 0.0]))).std() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"graph": nx.DiGraph()}, "the graph is empty"),
        ({"graph": small_graph(), "neurons_per_layer": 0}, "neurons_per_layer must be at least 1, got 0"),
        ({"graph": small_graph(), "paths": [Path((("conv", 99), ("head", 0)), 0.5)]}, r"\('conv', 99\), which is not in"),
    ],
)
def test_graphs_that_cannot_be_drawn(arguments: dict, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        draw_static(**arguments)


# Interactive


def crossings(layout: Layout) -> float:
    """How much relevance crosses: over every two edges between the same columns, the product of what they carry."""
    crossed = 0.0
    for i, one in enumerate(layout.edges):
        for other in layout.edges[i + 1 :]:
            (x0, y0), (x1, y1) = layout.place[one.lower], layout.place[one.upper]
            (u0, v0), (u1, v1) = layout.place[other.lower], layout.place[other.upper]
            if (x0, x1) == (u0, u1) and (y0 - v0) * (y1 - v1) < 0:
                crossed += abs(one.relevance * other.relevance)
    return crossed


def random_graph(seed: int, layers: int = 5, neurons: int = 6) -> nx.DiGraph:
    draw = np.random.default_rng(seed)
    graph = nx.DiGraph()
    for order in range(layers):
        for n in range(neurons):
            graph.add_node((f"l{order}", n), relevance=float(draw.normal()), order=order, kind="linear")
    for order in range(layers - 1):
        for i in range(neurons):
            for o in draw.choice(neurons, 2, replace=False):
                share = float(draw.normal())
                graph.add_edge((f"l{order}", i), (f"l{order + 1}", int(o)), relevance=share, share=share)
    return graph


@pytest.mark.parametrize("seed", range(4))
def test_few_edges_cross(seed: int) -> None:
    graph = random_graph(seed)
    layout = lay_out(graph, 6)
    shuffled = []
    for trial in range(20):
        draw = np.random.default_rng(trial)
        rows = {
            node: int(row)
            for x in range(5)
            for node, row in zip([(f"l{x}", n) for n in range(6)], draw.permutation(6), strict=True)
        }
        shuffled.append(crossings(replace(layout, place={node: (at[0], rows[node]) for node, at in layout.place.items()})))
    assert crossings(layout) < 0.7 * np.mean(shuffled)
    assert sorted(layout.place) == sorted(graph)
    assert len(set(layout.place.values())) == len(graph)  # no two in one place


def test_what_flows_through_layers_that_are_not_drawn_is_one_edge() -> None:
    graph = random_graph(0)
    layout = lay_out(graph, 6, layers=["l0", "l3"])
    assert layout.layers == ["l0", "l3"]
    found = {(edge.lower, edge.upper): edge.share for edge in layout.edges}
    for lower in [node for node in graph if node[0] == "l0"]:
        for upper in [node for node in graph if node[0] == "l3"]:
            chains = nx.all_simple_paths(graph, lower, upper)
            share = sum(np.prod([graph.edges[e]["share"] for e in nx.utils.pairwise(chain)]) for chain in chains)
            assert found.get((lower, upper), 0.0) == pytest.approx(share, abs=1e-12)


def test_many_layers_are_drawn_by_block() -> None:
    graph = nx.DiGraph()
    names = [
        "input",
        *(f"layer{b}.{i}.{part}" for b in range(3) for i in range(4) for part in ("conv1", "conv2", "add")),
        "fc",
    ]
    for order, name in enumerate(names):
        graph.add_node((name, 0), relevance=1.0, order=order, output=name == "fc")
    for lower, upper in nx.utils.pairwise(names):
        graph.add_edge((lower, 0), (upper, 0), relevance=1.0, share=1.0)
    drawn = lay_out(graph, 8).layers
    assert drawn == ["input", *(f"layer{b}.{i}.add" for b in range(3) for i in range(4)), "fc"]
    assert lay_out(graph, 8, layers=names).layers == names
    with pytest.raises(LayerError, match="no layer 'fc2' in the graph"):
        draw_graph(graph, layers=["fc2"])


def traces(figure: go.Figure, name: str) -> list[Any]:
    return [trace for trace in figure.data if (trace.name or "").startswith(name)]


def test_interactive_graph_shows_numbers_where_the_pointer_rests() -> None:
    graph = small_graph()
    paths = k_best_paths(graph, 2)
    figure = draw_graph(graph, paths=paths, class_names=["cat"], title="a title")
    [neurons], [edges] = traces(figure, "neurons"), traces(figure, "edges")
    assert len(neurons.x) == len(graph)
    about = dict(zip(map(tuple, neurons.customdata), neurons.hovertext, strict=True))
    assert "relevance 4" in about["conv", 0]
    assert "cat" in about["head", 0]
    assert "cat" in neurons.text
    assert any("conv [0] → head [cat]" in text and "relevance 4" in text and "80.0%" in text for text in edges.text)
    assert [trace.name for trace in traces(figure, "path")] == [
        f"path {i}: {100 * p.share:.2g} %" for i, p in enumerate(paths, 1)
    ]
    assert list(figure.layout.xaxis.ticktext) == ["input", "conv", "head"]
    assert figure.layout.title.text == "a title"
    lines = [t for t in figure.data if t.mode == "lines" and t.line.color in (POSITIVE, NEGATIVE)]
    drawn = sum(t.x.count(None) for t in lines)
    assert drawn == graph.number_of_edges()
    assert {t.line.color for t in lines} == {POSITIVE, NEGATIVE}


def test_interactive_graph_is_one_file_that_needs_no_network(tmp_path: FilePath) -> None:
    graph = small_graph()
    for figure in (draw_graph(graph), draw_paths(graph, k_best_paths(graph, 2), torch.randn(2, 3, 1, 6, 5))):
        figure.write_html(tmp_path / "graph.html")
        html = (tmp_path / "graph.html").read_text()
        assert 'script src="http' not in html.replace("'", '"')
        assert len(html) > 1_000_000  # plotly itself is in it


@pytest.mark.parametrize("static", [False, True])
def test_paths_stand_one_below_the_other(static: bool) -> None:
    graph = small_graph()
    paths = k_best_paths(graph, 3)
    figure = draw_paths(graph, paths, torch.randn(3, 2, 1, 6, 5), class_names=["cat"], title="$x", static=static)
    if static:
        chains = next(axis for axis in figure.axes if axis.texts)
        assert [t.get_text() for t in chains.get_yticklabels()] == [f"{100 * p.share:.2g} %" for p in paths]
        shown = [t.get_text() for t in chains.texts]
        assert len([axis for axis in figure.axes if axis.images]) == 3
        as_array(figure)
    else:
        assert list(figure.layout.yaxis.ticktext) == [f"{100 * p.share:.2g} %" for p in paths]
        shown = [text for trace in traces(figure, "path") for text in trace.text]
        assert len(figure.layout.images) == 3
    assert shown == [str(n) if layer != "head" else "cat" for path in paths for layer, n in path.nodes]


def test_paths_that_cannot_be_drawn() -> None:
    graph = small_graph()
    paths = k_best_paths(graph, 2)
    with pytest.raises(GraphError, match="paths is empty"):
        draw_paths(graph, [])
    with pytest.raises(GraphError, match="which is not in the graph"):
        draw_paths(graph, [Path((("input", 0), ("head", 0)), 0.5)])
    with pytest.raises(InputError, match=r"\(k, N, C, H, W\) with k = 2"):
        draw_paths(graph, paths, torch.randn(3, 1, 1, 6, 5))
    with pytest.raises(InputError, match="NaN"):
        draw_paths(graph, paths, torch.full((2, 1, 1, 6, 5), torch.nan))


# Figures


@pytest.fixture(params=["heatmaps", "graph"])
def figure(request: pytest.FixtureRequest) -> Figure:
    graph = small_graph()
    return draw_heatmaps(*random_batch(3)) if request.param == "heatmaps" else draw_static(graph, paths=k_best_paths(graph))


def test_pyplot_knows_nothing_of_it(figure: Figure) -> None:
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == []


def test_pixels(figure: Figure) -> None:
    pixels = as_array(figure)
    height, width, channels = pixels.shape
    assert (pixels.dtype, channels) == (np.uint8, 3)
    assert (width, height) == tuple((figure.get_size_inches() * figure.dpi).astype(int))
    ink = (pixels != 255).any(2)
    assert 0.02 < ink.mean() < 0.9
    rows, columns = np.nonzero(ink)  # and the ink is spread over the picture
    assert np.ptp(rows) > 0.6 * height
    assert np.ptp(columns) > 0.6 * width
    assert ((pixels[..., 0].astype(int) - pixels[..., 2]) > 60).any()  # red is among it
    assert pixels.flags.owndata  # and does not change when the figure is drawn again


@pytest.mark.parametrize("text", [r"$\frac$", "a$b_$c"])
def test_text_is_never_markup(text: str) -> None:
    images, relevance = random_batch(2)
    as_array(draw_heatmaps(images, relevance, titles=[text, text]))
    graph = nx.DiGraph()
    graph.add_node((text, 0), relevance=1.0, order=0)
    as_array(draw_static(graph, class_names=[text], title=text))


@pytest.mark.parametrize("draw", [draw_graph, lambda graph, **given: draw_paths(graph, given.pop("paths"), **given)])
def test_text_is_never_markup_in_what_plotly_draws(draw: Any) -> None:
    hostile = "<img src=x>&$a$"
    graph = nx.DiGraph()
    for order, layer in enumerate(["a" + hostile, "b" + hostile]):
        graph.add_node((layer, 0), relevance=1.0, order=order, output=order == 1, kind="linear", layer=layer)
    nodes = tuple(graph)
    graph.add_edge(*nodes, relevance=1.0, share=1.0)
    figure = draw(graph, paths=[Path(nodes, 0.5)], class_names=[hostile], title=hostile)
    written = figure.update_traces(customdata=None).update_layout(meta=None).to_json()  # which nobody sees
    assert "img src=x" in written
    for wrong in ("<img", "\\u003cimg", "&$", "$a$"):
        assert wrong not in written


def test_all_neurons_of_paths_are_shown() -> None:
    graph = nx.DiGraph()
    for order, layer in enumerate("ab"):
        graph.add_nodes_from([(layer, i) for i in range(5)], relevance=1.0, order=order)
    paths = []
    for i in range(5):
        graph.add_edge(("a", i), ("b", i), relevance=1.0, share=1.0)
        paths.append(Path((("a", i), ("b", i)), 0.2))
    [axis] = draw_static(graph, neurons_per_layer=2, paths=paths).axes
    assert sum(line.get_color() == "black" and len(line.get_xdata()) == 2 for line in axis.lines) == 5


@pytest.mark.parametrize("wrong", [{"columns": 0}, {"relevance": torch.zeros(2, 1, 6, 4)}])
def test_heatmaps_that_cannot_be_laid_out(wrong: dict) -> None:
    images, relevance = random_batch(2)
    with pytest.raises(InputError):
        draw_heatmaps(**({"images": images, "relevance": relevance} | wrong))
