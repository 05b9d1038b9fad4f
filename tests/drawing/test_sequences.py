"""Pictures of tokens and of series: what stands where, in which colour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.patches import FancyBboxPatch

from lrp_lightning.drawing import as_array, draw_series, draw_tokens
from lrp_lightning.errors import InputError

TEXTS = [["Ġa", "fine", "film", "[PAD]"], ["dull"]]
RELEVANCE = torch.tensor([[0.5, 2.0, -1.0, 0.0], [-0.1, 0.0, 0.0, 0.0]])


def test_each_token_has_the_colour_of_its_share() -> None:
    axis = draw_tokens(TEXTS, RELEVANCE, titles=["good", "bad"]).axes[0]
    boxes = [patch for patch in axis.patches if isinstance(patch, FancyBboxPatch)]
    words = [text.get_text() for text in axis.texts]
    assert words == ["a", "fine", "film", "[PAD]", "dull", "good", "bad"]
    red, blue = ([box.get_facecolor()[channel] for box in boxes] for channel in (0, 2))
    assert red[1] > blue[1]
    assert blue[2] > red[2]
    assert boxes[3].get_facecolor()[:3] == pytest.approx((0.93, 0.93, 0.93))  # nothing
    assert blue[4] > red[4]  # the strongest of its own text, however weak


def test_long_texts_are_broken_within_the_figure() -> None:
    words = [f"word{i}" for i in range(60)]
    figure = draw_tokens([words], torch.ones(1, 60), width=5)
    boxes = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    assert all(box.get_x() >= 0 and box.get_x() + box.get_width() <= 5 for box in boxes)
    assert len({box.get_y() for box in boxes}) > 5
    assert as_array(figure).std() > 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"relevance": torch.ones(2, 3)}, r"\(N, L\) for 2 texts of up to 4 tokens, got \(2, 3\)"),
        ({"relevance": torch.ones(3, 4)}, r"for 2 texts"),
        ({"titles": ["one"]}, "1 titles were given for 2 texts"),
        ({"relevance": RELEVANCE / 0}, "finite"),
        ({"relevance": [1.0]}, "relevance must be a tensor, got list"),
    ],
)
def test_tokens_that_do_not_fit(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_tokens(**{"tokens": TEXTS, "relevance": RELEVANCE, **wrong})


def test_each_series_has_its_channels_and_one_scale() -> None:
    series, relevance = torch.randn(2, 3, 40), torch.zeros(2, 3, 40)
    relevance[1, 2, 10:20] = 4.0
    figure = draw_series(series, relevance, titles=["a", "b"], channels=["x", "y", "z"])
    one, other, _ = figure.axes
    assert [label.get_text() for label in other.get_yticklabels()] == ["x", "y", "z"]
    assert len(one.lines) == len(other.lines) == 3
    assert one.images[0].norm is other.images[0].norm
    heat = other.images[0].get_array()
    assert np.array_equal(np.argwhere(heat)[[0, -1]], [[2, 10], [2, 19]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"relevance": torch.ones(2, 3, 4)}, r"\(N, C, L\) and of one shape, got \(2, 3, 5\) and \(2, 3, 4\)"),
        ({"titles": ["one"]}, "1 titles were given for 2 series"),
        ({"channels": ["one"]}, "1 names were given for 3 channels"),
        ({"relevance": torch.full((2, 3, 5), torch.nan)}, "finite"),
    ],
)
def test_series_that_do_not_fit(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_series(**{"series": torch.ones(2, 3, 5), "relevance": torch.ones(2, 3, 5), **wrong})
