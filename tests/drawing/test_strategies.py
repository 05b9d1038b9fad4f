"""What a picture of strategies shows: names, shares, the region where it is, and which is a shortcut."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from matplotlib.colors import to_hex

from lrp_lightning import Strategy
from lrp_lightning.drawing import as_array, draw_strategies
from lrp_lightning.errors import InputError
from lrp_lightning.insight.transplant import Transplant


def strategy(label: int, moves: bool = False, bound: float = 0.2, images: int = 8) -> Strategy:
    return Strategy(
        label, torch.arange(20), 0.4, images=torch.rand(images, 3, 12, 10), heatmaps=torch.rand(images, 12, 10),
        heatmap=torch.randn(12, 10), test=Transplant((2, 3, 4, 5), moves, 0.31, 0.02, bound, 256),
    )  # fmt: skip


def test_each_row_names_its_class_and_frames_its_region() -> None:
    figure = draw_strategies([strategy(0), strategy(1, moves=True, bound=-0.1), strategy(1, images=3)], ["cat", "$dog"])
    words = [text.get_text() for text in figure.texts]
    assert words[::2] == [f"{name}  \n40% of the class  " for name in ("cat", "$dog", "$dog")]
    assert [said.split(":")[0] for said in words[1::2]] == [
        "likely shortcut", "a region that moves turns 31% of other images into this class (controls 2%)", "likely shortcut",
    ]  # fmt: skip
    assert len(figure.artists) == 7 + 4  # one a picture; of what moves none
    frame, sheet = figure.artists[1], figure.axes[0].get_position()
    pixels = figure.axes[0].images[0].get_array().shape
    assert frame.get_width() / sheet.width * pixels[1] == pytest.approx(5)
    assert frame.get_height() / sheet.height * pixels[0] == pytest.approx(4)
    assert to_hex(frame.get_edgecolor()) == "#b2182b"
    assert as_array(figure).std() > 0


def test_images_that_are_classified_wrongly_come_last_and_say_as_what() -> None:
    given = replace(strategy(1), predictions=torch.tensor([1, 0, 1, 2, 1, 1, *[1] * 14]))
    figure = draw_strategies([given], ["cat", "dog", "a long-haired dachshund"])
    words = {text.get_text(): text.get_position()[0] for text in figure.texts}
    assert "dog  \n40% of the class  \n90% classified correctly  " in words
    wrong = sorted((x, text) for text, x in words.items() if text.startswith("✗"))
    assert [text for _, text in wrong] == ["✗ cat", "✗ a long-haired…"]
    [(left, _), (right, _)] = wrong
    step = right - left
    assert right + step == pytest.approx(figure.axes[0].get_position().x1 + 0.08 / figure.get_figwidth(), abs=0.01)


@pytest.mark.parametrize("given", [[], [Strategy(0, torch.arange(12), 1.0)]])
def test_without_images_there_is_nothing_to_draw(given: list[Strategy]) -> None:
    with pytest.raises(InputError, match="at least one Strategy of images"):
        draw_strategies(given)
