"""Pictures: what is in them, on which scale, and that they belong to their caller alone."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from torch import Tensor

from lrp_lightning import Path, k_best_paths
from lrp_lightning.drawing import as_array, draw_graph, draw_heatmaps
from lrp_lightning.drawing.figures import NEGATIVE, POSITIVE
from lrp_lightning.errors import GraphError, InputError

# Heatmaps


def random_batch(samples: int, channels: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = samples, channels, 6, 5
    return torch.rand(shape, generator=generator), torch.randn(shape, generator=generator)


def split(figure: Figure) -> tuple[list[Axes], list[Axes], list[Axes]]:
    """Axes of images, of heatmaps, and those of the colour bar, in the order of the samples."""
    shown = [axis for axis in figure.axes if axis.images]
    heat = [axis for axis in shown if axis.images[0].get_cmap().name == "RdBu_r"]
    bars = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
    return [axis for axis in shown if axis not in heat], heat, bars


@pytest.mark.parametrize(("samples", "columns"), [(1, 8), (3, 8), (8, 8), (9, 8), (5, 2)])
def test_an_image_and_a_heatmap_for_each_sample(samples: int, columns: int) -> None:
    images, relevance = random_batch(samples)
    above, below, bars = split(draw_heatmaps(images, relevance, columns=columns))
    assert (len(above), len(below), len(bars)) == (samples, samples, 1)
    for axis, r in zip(below, relevance, strict=True):
        np.testing.assert_allclose(axis.images[0].get_array(), r.sum(0), rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels(channels: int) -> None:
    images, relevance = random_batch(2, channels)
    above, below, _ = split(draw_heatmaps(10 * images - 3, relevance))
    for axis, image in zip(above, images, strict=True):
        pixels = image.permute(1, 2, 0) if channels == 3 else image.mean(0)
        stretched = (pixels - pixels.min()) / (pixels.max() - pixels.min())
        np.testing.assert_allclose(axis.images[0].get_array(), stretched, atol=1e-5)
    np.testing.assert_allclose(below[0].images[0].get_array(), relevance[0].sum(0), rtol=1e-5)


def test_the_colour_scale_is_centred_on_zero_and_shared() -> None:
    images, relevance = random_batch(4)
    relevance = relevance.abs()  # even where nothing is negative
    relevance[2] *= 10
    _, below, _ = split(draw_heatmaps(images, relevance, percentile=100))
    (norm,) = {axis.images[0].norm for axis in below}
    assert norm.vmax == -norm.vmin == pytest.approx(relevance.max().item())
    to_rgb = below[0].images[0].get_cmap()
    red, blue, middle = (np.array(to_rgb(norm(value))[:3]) for value in (norm.vmax, norm.vmin, 0.0))
    assert red[0] > 2 * red[2]
    assert blue[2] > 2 * blue[0]
    assert middle.min() > 0.9


def test_one_outlier_does_not_wash_out_the_rest() -> None:
    images, relevance = random_batch(8)
    relevance = relevance.clamp(-1, 1)
    relevance[0, 0, 0, 0] = 1e6
    _, below, _ = split(draw_heatmaps(images, relevance, percentile=99))
    assert below[0].images[0].norm.vmax == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("value", [0.0, 1e-30])
def test_relevance_of_nothing_can_be_drawn(value: float) -> None:
    images, relevance = random_batch(2)
    _, below, _ = split(figure := draw_heatmaps(torch.zeros_like(images), torch.full_like(relevance, value)))
    norm = below[0].images[0].norm
    assert norm.vmax == -norm.vmin > 0
    assert as_array(figure).std() > 0


def test_titles_stand_above_their_images() -> None:
    titles = ["3", "cat (is dog)", "ü"]
    above, *_ = split(draw_heatmaps(*random_batch(3), titles=titles))
    assert [axis.get_title() for axis in above] == titles
    untitled, *_ = split(draw_heatmaps(*random_batch(3)))
    assert {axis.get_title() for axis in untitled} == {""}


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


def edges_drawn(figure: Figure) -> LineCollection:
    (edges,) = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]
    return edges


def test_layers_are_columns_in_the_order_of_the_forward() -> None:
    graph = small_graph()
    backwards = nx.DiGraph()
    backwards.add_nodes_from(reversed(list(graph.nodes(data=True))))
    backwards.add_edges_from(graph.edges(data=True))
    for given in (graph, backwards):
        figure = draw_graph(given)
        columns, count = np.unique(neurons_drawn(figure)[:, 0], return_counts=True)
        assert columns.tolist() == [0, 1, 2]
        assert count.tolist() == [2, 4, 1]
        assert [text for text in texts(figure) if text in ("input", "conv", "head")] == ["input", "conv", "head"]


def test_only_the_strongest_neurons_are_drawn_with_the_most_relevant_on_top() -> None:
    figure = draw_graph(small_graph([0.1, 4.0, -3.0, 1.0, 0.2]), neurons_per_layer=3)
    at = {
        text.get_text(): text.get_position()
        for text in figure.axes[0].texts
        if text.get_position()[0] == 1 and len(text.get_text()) < 9
    }
    assert set(at) == {"1", "2", "3", "conv"}
    assert sorted(("1", "2", "3"), key=lambda neuron: -at[neuron][1]) == ["1", "3", "2"]
    assert len(edges_drawn(figure).get_segments()) == 2 * 3 + 3


def test_edges_are_coloured_by_sign_and_as_wide_as_what_they_carry() -> None:
    figure = draw_graph(small_graph([4.0, -1.0, 2.0]))
    edges = edges_drawn(figure)
    drawn = zip(edges.get_linewidths(), map(to_hex, edges.get_colors()), edges.get_segments(), strict=True)
    to_head = sorted((width, colour) for width, colour, segment in drawn if segment[1][0] == 2)
    assert [colour for _, colour in to_head] == [NEGATIVE, POSITIVE, POSITIVE]
    widths = np.array([width for width, _ in to_head])
    np.testing.assert_allclose((widths - 0.3) / (widths[-1] - 0.3), [0.25, 0.5, 1.0])


def test_paths_are_drawn_in_black_through_neurons_that_are_always_shown() -> None:
    graph = small_graph([4.0, 3.0, 2.0, 0.1])
    weak = Path((("input", 1), ("conv", 3), ("head", 0)), 0.01)
    figure = draw_graph(graph, neurons_per_layer=2, paths=[weak, *k_best_paths(graph, 1)])
    lines = figure.axes[0].get_lines()
    assert len(lines) == 2
    assert {to_hex(line.get_color()) for line in lines} == {"#000000"}
    assert [list(line.get_xdata()) for line in lines] == [[0, 1, 2], [0, 1, 2]]
    assert "3" in texts(figure)
    assert len(draw_graph(graph).axes[0].get_lines()) == 0


def test_class_names_name_the_output_neurons_and_no_others() -> None:
    named = texts(draw_graph(small_graph(), class_names=["cat", "dog"]))
    assert named.count("cat") == 1
    assert "dog" not in named  # not in the graph
    graph = small_graph()
    graph.add_node(("head", 7), relevance=1.0, order=2, kind="linear")
    assert {"cat", "7"} <= set(texts(draw_graph(graph, class_names=["cat", "dog"])))  # a class without a name is its number


def test_title() -> None:
    titled, untitled = draw_graph(small_graph(), title="Critical paths, epoch 3"), draw_graph(small_graph())
    assert [figure.axes[0].get_title(loc="left") for figure in (titled, untitled)] == ["Critical paths, epoch 3", ""]


def test_the_picture_grows_with_the_graph() -> None:
    long = nx.path_graph([("layer", 0)], create_using=nx.DiGraph)
    for n in range(30):
        long.add_node((f"layer{n}", 0), relevance=1.0, order=n)
    long.remove_node(("layer", 0))
    for lower, upper in nx.utils.pairwise(list(long)):
        long.add_edge(lower, upper, relevance=1.0, share=1.0)
    assert draw_graph(long).get_figwidth() > 3 * draw_graph(small_graph()).get_figwidth()
    assert draw_graph(small_graph(), neurons_per_layer=40).get_figheight() > draw_graph(small_graph()).get_figheight()


def test_a_graph_without_relevance_can_be_drawn() -> None:
    assert as_array(draw_graph(small_graph([0.0, 0.0]))).std() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"graph": nx.DiGraph()}, "nothing to draw"),
        ({"graph": small_graph(), "neurons_per_layer": 0}, "neurons_per_layer must be at least 1, got 0"),
        ({"graph": small_graph(), "paths": [Path((("conv", 99), ("head", 0)), 0.5)]}, r"\('conv', 99\), which is not in"),
    ],
)
def test_graphs_that_cannot_be_drawn(arguments: dict, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        draw_graph(**arguments)


# Figures


@pytest.fixture(params=["heatmaps", "graph"])
def figure(request: pytest.FixtureRequest) -> Figure:
    graph = small_graph()
    return draw_heatmaps(*random_batch(3)) if request.param == "heatmaps" else draw_graph(graph, paths=k_best_paths(graph))


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
    as_array(draw_graph(graph, class_names=[text], title=text))


def test_all_neurons_of_paths_are_shown() -> None:
    graph = nx.DiGraph()
    for order, layer in enumerate("ab"):
        graph.add_nodes_from([(layer, i) for i in range(5)], relevance=1.0, order=order)
    paths = []
    for i in range(5):
        graph.add_edge(("a", i), ("b", i), relevance=1.0, share=1.0)
        paths.append(Path((("a", i), ("b", i)), 0.2))
    [axis] = draw_graph(graph, neurons_per_layer=2, paths=paths).axes
    assert sum(line.get_color() == "black" and len(line.get_xdata()) == 2 for line in axis.lines) == 5


@pytest.mark.parametrize("wrong", [{"columns": 0}, {"relevance": torch.zeros(2, 1, 6, 4)}])
def test_heatmaps_that_cannot_be_laid_out(wrong: dict) -> None:
    images, relevance = random_batch(2)
    with pytest.raises(InputError):
        draw_heatmaps(**({"images": images, "relevance": relevance} | wrong))
