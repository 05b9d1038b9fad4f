"""Every static picture beside a small one that a person has looked at.

After a change that is meant, look at what ``python tests/drawing/test_pictures.py`` writes to ``baselines``, and commit it.
"""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import networkx as nx
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from packaging.version import Version
from PIL import Image
from torch import Tensor

from lrp_lightning import Path as Chain
from lrp_lightning import TopActivations
from lrp_lightning.drawing import (
    as_array,
    draw_contact_sheet,
    draw_curves,
    draw_graph,
    draw_heatmaps,
    draw_paths,
    draw_top_activations,
)
from lrp_lightning.errors import InputError
from lrp_lightning.patches import patches

BASELINES = Path(__file__).with_name("baselines")
WIDTH = 160
TOLERANCE = 4.0
"""Root of the mean squared difference in levels of 255: another font stays below it, a picture that is wrong does not."""


def ring(side: int = 24) -> Tensor:
    """An image of a ring, and heat on its upper half for, on its lower half against."""
    at = torch.linspace(-1, 1, side)
    distance = (at[:, None] ** 2 + at[None] ** 2).sqrt()
    return torch.exp(-(((distance - 0.6) / 0.12) ** 2))


def images_and_relevance() -> tuple[Tensor, Tensor]:
    shape = ring()
    signs = torch.where(torch.arange(24) < 12, 1.0, -1.0)[:, None]
    return shape.expand(3, 3, -1, -1) * torch.tensor([1.0, 0.6, 0.2]).view(1, 3, 1, 1), torch.stack(
        [(shape * signs)[None], (-shape * signs)[None], (shape.T * signs.T)[None]]
    )


def graph() -> tuple[nx.DiGraph, list[Chain]]:
    made = nx.DiGraph()
    layers = {"input": [3.0, 2.0], "conv": [4.0, 2.0, -1.0, 0.5], "head": [5.0]}
    for order, (layer, relevances) in enumerate(layers.items()):
        for neuron, relevance in enumerate(relevances):
            made.add_node((layer, neuron), relevance=relevance, order=order, kind="input" if order == 0 else "linear")
    for i, r in enumerate(layers["conv"]):
        made.add_edge(("conv", i), ("head", 0), relevance=r, share=r / 5)
        for n, part in enumerate((0.6, 0.4)):
            made.add_edge(("input", n), ("conv", i), relevance=r * part, share=part)
    chains = [Chain((("input", 0), ("conv", 0), ("head", 0)), 0.48), Chain((("input", 1), ("conv", 1), ("head", 0)), 0.16)]
    return made, chains


def heatmaps() -> Figure:
    return draw_heatmaps(*images_and_relevance(), titles=["one", "two", "three"])


def overlay() -> Figure:
    return draw_heatmaps(*images_and_relevance(), overlay=True, mean=[0.0] * 3, std=[1.0] * 3)


def contact_sheet() -> Figure:
    images, relevance = images_and_relevance()
    return draw_contact_sheet(images, torch.stack([relevance, relevance.flip(0)]), ["a", "b", "c"], ["path 1", "path 2"])


def curves() -> Figure:
    return draw_curves({"critical": [0.4, 0.8, 1.0], "random": [0.1, 0.2, 0.5]}, [0.1, 0.2, 0.5], "share kept", static=True)


def relevance_graph() -> Figure:
    made, chains = graph()
    return draw_graph(made, paths=chains, class_names=["cat"], static=True)


def deep_graph() -> Figure:
    """A network of seventeen layers, drawn in rows."""
    made = nx.DiGraph()
    for order in range(17):
        for neuron in range(4 if order < 16 else 1):
            made.add_node((f"features.{order}", neuron), relevance=(1.0, -0.6, 0.8, 0.3)[(neuron + order) % 4], order=order)
        if order:
            for a in range(4):
                for b in range(4 if order < 16 else 1):
                    share = (0.9, -0.2, 0.05, 0.25)[(a + 2 * b + order) % 4]
                    made.add_edge((f"features.{order - 1}", a), (f"features.{order}", b), relevance=share, share=share)
    chain = Chain((*((f"features.{order}", order % 3) for order in range(16)), ("features.16", 0)), 0.2)
    return draw_graph(made, paths=[chain], title="Seventeen layers", static=True)


def paths() -> Figure:
    made, chains = graph()
    _, relevance = images_and_relevance()
    return draw_paths(made, chains, torch.stack([relevance[:1], relevance[1:2]]), static=True)


def top_activations() -> Figure:
    images, relevance = images_and_relevance()
    fields = torch.tensor([[[0, 0], [24, 24]], [[0, 6], [18, 24]], [[6, 0], [24, 18]]])
    return draw_top_activations(TopActivations("conv", 3, torch.ones(3), torch.arange(3), images, relevance, fields))


PICTURES = {
    f.__name__: f for f in (heatmaps, overlay, contact_sheet, curves, relevance_graph, deep_graph, paths, top_activations)
}


def small(figure: Figure) -> np.ndarray:
    picture = Image.fromarray(as_array(figure))
    return np.asarray(picture.resize((WIDTH, round(WIDTH * picture.height / picture.width)), Image.Resampling.BOX))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    if one.shape != other.shape:
        return float("inf")
    return float(np.sqrt(((one.astype(float) - other) ** 2).mean()))


@pytest.mark.skipif(
    Version(matplotlib.__version__) < Version("3.10"), reason="matplotlib before 3.10 shares out the space otherwise"
)
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_as_they_were_seen(name: str) -> None:
    baseline = np.asarray(Image.open(BASELINES / f"{name}.png").convert("RGB"))
    assert difference(small(PICTURES[name]()), baseline) < TOLERANCE


def test_what_is_wrong_is_seen() -> None:
    """A sign turned round, a map that is shifted, an image left out: each is beyond the tolerance."""
    images, relevance = images_and_relevance()
    titles = ["one", "two", "three"]
    baseline = np.asarray(Image.open(BASELINES / "heatmaps.png").convert("RGB"))
    for wrong in (
        (images, -relevance),
        (images, relevance.roll(4, 2)),
        (images.flip(1), relevance),
        (images, 0 * relevance),
    ):
        assert difference(small(draw_heatmaps(*wrong, titles=titles)), baseline) > 2 * TOLERANCE


def test_reconstructions_that_cannot_be_drawn() -> None:
    signal = TopActivations(
        "0", 1, torch.ones(1), torch.zeros(1), torch.ones(1, 2, 9), torch.ones(1, 2, 9), torch.ones(1, 2, 1)
    )
    for wrong in ([], signal):
        with pytest.raises(InputError, match="at least one"):
            draw_top_activations(wrong)


def test_a_patch_is_scaled_by_itself() -> None:
    """Of a small receptive field in a large image no more saturates than of a large one."""
    reconstruction = torch.zeros(1, 1, 100, 100)
    reconstruction[..., 40:44, 40:44] = torch.linspace(-1, 1, 16).view(4, 4)
    top = TopActivations("0", 0, torch.ones(1), torch.zeros(1), torch.rand(1, 1, 100, 100), reconstruction,
                         torch.tensor([[[40, 40], [44, 44]]]))  # fmt: skip
    [(seen, back)] = patches(top, None, None)
    assert seen.shape == back.shape == (4, 4, 3)
    np.testing.assert_allclose(back[..., 0], (reconstruction[0, 0, 40:44, 40:44] + 1) / 2, atol=0.01)


def test_the_gallery_shows_what_there_is() -> None:
    gallery = Path(__file__).parents[2] / "docs" / "gallery"
    shown = re.findall(r"\]\((\w+\.png)\)", (gallery / "README.md").read_text())
    assert sorted(shown) == sorted(path.name for path in gallery.glob("*.png"))
    assert all((gallery / name).stat().st_size < 1e6 for name in shown)


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        Image.fromarray(small(draw())).save(BASELINES / f"{name}.png", optimize=True)
