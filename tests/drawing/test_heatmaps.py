"""Heatmaps of critical neurons beside those of all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sheets import pictures_of, words_of

from lrp_lightning.drawing import draw_heatmaps
from lrp_lightning.errors import InputError
from lrp_lightning.pixels import coloured, limit_of, summed


def test_all_neurons_stand_below_the_critical_ones_each_with_its_part_of_the_logit() -> None:
    images, critical, whole = torch.rand(3, 1, 6, 5), torch.randn(3, 1, 6, 5), torch.randn(3, 1, 6, 5)
    parts = [(0.03, 0.97)] * 3
    rows, figure = pictures_of(draw_heatmaps, images, critical, ["a", "b", "c"], all_neurons=whole, logit_shares=parts)
    assert [len(row) for row in rows] == [3, 3, 3]
    told = [[title, "critical neurons, 3%", "all neurons, 97%"] for title in "abc"]
    assert words_of(figure) == [word for of in told for word in of]
    shares = np.stack([summed(of, shares=True) for of in (critical, whole)])
    for row, heat in zip(rows[1:], shares, strict=True):
        np.testing.assert_array_equal(row, coloured(heat, limit_of(shares, 99.5)))
    rows, figure = pictures_of(draw_heatmaps, images, critical, ["a", "b", "c"], overlay=True, all_neurons=whole)
    assert [len(row) for row in rows] == [3, 3]
    assert words_of(figure)[:2] == ["a\ncritical neurons", "all neurons"]
    with pytest.raises(InputError, match="same N, H and W"):
        draw_heatmaps(images, critical, all_neurons=whole[:2])
