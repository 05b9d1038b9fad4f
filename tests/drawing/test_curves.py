"""Curves: what is drawn is what was given, in both forms."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from matplotlib.colors import to_hex

from lrp_lightning.drawing import as_array, draw_curves
from lrp_lightning.errors import InputError

CURVES = {"critical": [0.5, 0.9, 1.0], "random": torch.tensor([0.1, 0.2, 0.4])}


def test_interactive() -> None:
    figure = draw_curves(CURVES, [0.1, 0.2, 0.5], "share of neurons", "share of predictions", "Budgets")
    assert isinstance(figure, go.Figure)
    assert [line.name for line in figure.data] == list(CURVES)
    for line, values in zip(figure.data, CURVES.values(), strict=True):
        assert list(line.x) == [0.1, 0.2, 0.5]
        assert list(line.y) == pytest.approx([float(v) for v in values])
    assert len({line.line.color for line in figure.data}) == len({line.marker.symbol for line in figure.data}) == 2
    assert figure.layout.title.text == "Budgets"
    assert figure.layout.xaxis.title.text == "share of neurons"
    assert list(figure.layout.yaxis.range) == [-0.02, 1.03]


def test_static() -> None:
    figure = draw_curves(CURVES, xlabel="epoch", ylabel="share", title="$x_$", static=True)
    [axis] = figure.axes
    assert [line.get_label() for line in axis.lines] == list(CURVES)
    assert [list(line.get_xdata()) for line in axis.lines] == [[0, 1, 2]] * 2
    assert list(axis.lines[0].get_ydata()) == [0.5, 0.9, 1.0]
    assert len({to_hex(line.get_color()) for line in axis.lines}) == 2
    pixels = as_array(figure)
    assert (pixels != 255).any(2).mean() > 0.01
    assert plt.get_fignums() == []


def test_values_beyond_one_are_not_cut_off() -> None:
    curves = {"smape": [2.0, 1.4], "below": [-0.5, 0.1]}
    assert draw_curves(curves).layout.yaxis.range is None
    low, high = draw_curves(curves, static=True).axes[0].get_ylim()
    assert low < -0.5
    assert high > 2


def test_gaps_and_many_curves() -> None:
    figure = draw_curves({"gap": [0.1, math.nan, 0.3]})
    assert np.isnan(figure.data[0].y[1])
    many = {f"_{i}": [i, i + 1] for i in range(12)}
    assert len(draw_curves(many).data) == 12
    legend = draw_curves(many, static=True).axes[0].get_legend()
    assert len(legend.get_texts()) == 12


@pytest.mark.parametrize("text", ["<b>bold</b>", "$\\frac$", "a & b"])
def test_text_is_never_markup(text: str) -> None:
    figure = draw_curves({text: [1.0]}, xlabel=text, ylabel=text, title=text)
    for shown in (figure.data[0].name, figure.layout.title.text, figure.layout.xaxis.title.text):
        assert "<" not in shown
        assert "$" not in shown
    as_array(draw_curves({text: [1.0]}, xlabel=text, ylabel=text, title=text, static=True))


@pytest.mark.parametrize(
    ("curves", "x", "message"),
    [
        ({}, None, "curves is empty"),
        ({"a": [1, 2], "b": [1]}, None, "'b' has 1 values for 2"),
        ({"a": [1]}, [1, 2], "for 2 places"),
        ({"a": []}, None, "0 values"),
    ],
)
def test_curves_that_cannot_be_drawn(curves: dict, x: list | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_curves(curves, x)
