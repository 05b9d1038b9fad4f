"""Heatmaps of critical neurons beside those of all."""

from __future__ import annotations

import pytest
import torch

from lrp_lightning.drawing import draw_heatmaps
from lrp_lightning.errors import InputError


def test_all_neurons_stand_below_the_critical_ones_each_with_its_part_of_the_logit() -> None:
    images, critical, whole = torch.rand(3, 1, 6, 5), torch.randn(3, 1, 6, 5), torch.randn(3, 1, 6, 5)
    figure = draw_heatmaps(images, critical, ["a", "b", "c"], all_neurons=whole, held=[(0.03, 0.97)] * 3)
    assert len(figure.axes) == 3 * 3 + 1
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:3] == ["a", "b", "c"]
    assert titles[3:6] == ["critical neurons, 3%"] * 3
    assert titles[6:9] == ["all neurons, 97%"] * 3
    shares = [100 * of / of.abs().sum((1, 2, 3), keepdim=True) for of in (critical, whole)]
    for k, of in enumerate(shares):
        drawn = figure.axes[3 * (k + 1)].images[0].get_array()
        torch.testing.assert_close(torch.from_numpy(drawn.data).float(), of[0, 0])
    assert len(draw_heatmaps(images, critical, overlay=True, all_neurons=whole).axes) == 2 * 3 + 1
    with pytest.raises(InputError, match="same N, H and W"):
        draw_heatmaps(images, critical, all_neurons=whole[:2])
