"""What a picture of strategies shows: names, shares, the region where it is, and which is a shortcut."""

from __future__ import annotations

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
    rows = [figure.axes[7 * n : 7 * n + 7] for n in range(3)]
    assert [row[0].get_ylabel() for row in rows] == [f"{name}\n40% of the class" for name in ("cat", "$dog", "$dog")]
    assert [row[1].texts[0].get_text().split(":")[0] for row in rows] == [
        "likely shortcut", "a region that moves turns 31% of other images into it (controls 2%)", "likely shortcut",
    ]  # fmt: skip
    assert [[len(axis.patches) for axis in row] for row in rows] == [[1] * 7, [0] * 7, [1] * 4 + [0] * 3]
    frame = rows[0][1].patches[0]
    assert (frame.get_xy(), frame.get_width(), frame.get_height()) == ((2.5, 1.5), 5, 4)
    assert to_hex(frame.get_edgecolor()) == "#b2182b"
    assert as_array(figure).std() > 0


@pytest.mark.parametrize("given", [[], [Strategy(0, torch.arange(12), 1.0)]])
def test_without_images_there_is_nothing_to_draw(given: list[Strategy]) -> None:
    with pytest.raises(InputError, match="strategies can be drawn if there is at least one, and of images"):
        draw_strategies(given)
