"""Neuron cards: one row per neuron, with the patches that activate it and those in which it is relevant."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from lrp_lightning.drawing.figures import new_figure
from lrp_lightning.errors import InputError
from lrp_lightning.patches import squares

if TYPE_CHECKING:
    from lrp_lightning.deconvnet import TopActivations
    from lrp_lightning.insight.neuron_cards import NeuronCard

__all__ = ["draw_neuron_cards"]

_SIDE, _GAP = 48, 3
"""Pixels of a patch, and between two patches."""
_INCH = 0.62
"""Inches of a patch."""
_TEXT, _LETTER = 2.3, 0.067
"""Inches for the text at the left, and of a letter in the headings."""
_KINDS = {"driven": "drive it most", "relevant": "most relevant", "mistaken": "most relevant among mistakes"}


def draw_neuron_cards(
    cards: Sequence[NeuronCard],
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    k: int = 6,
) -> Figure:
    """One row per neuron: its classes, the patches that activate it, and those in which it is relevant.

    The latter are shown for all images and for misclassified ones. Below each patch is the part of it that activates the
    neuron; the rest is grey.

    Args:
        cards: from :func:`lrp_lightning.neuron_cards`, of images.
        class_names: names of the classes; without them classes are given by number.
        mean: what was subtracted from the images, one value per channel; without it each is stretched to its own range.
        std: what the images were divided by.
        k: number of patches of each kind.

    Returns:
        A matplotlib figure that is not registered with pyplot.

    Raises:
        InputError: if ``cards`` is empty, or not of images ``(N, C, H, W)``.

    Example:
        >>> import torch
        >>> from lrp_lightning import neuron_cards
        >>> from lrp_lightning.drawing import draw_neuron_cards
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 3)).eval()
        >>> cards = neuron_cards(model, [torch.rand(20, 1, 5, 5)], {"0": [2, 3]}, progress=False)
        >>> len(draw_neuron_cards(cards, ["cat", "dog", "bird"]).axes)
        2
    """
    if not cards or any(card.driven.images.ndim != 4 for card in cards):
        raise InputError("cards must be a list of at least one NeuronCard of images (N, C, H, W), from neuron_cards")
    columns = {kind: min(k, max(len(getattr(card, kind).values) for card in cards)) for kind in _KINDS}
    columns = {kind: n for kind, n in columns.items() if n} or {"driven": 1}
    width = sum(columns.values()) + 0.5 * (len(columns) - 1)
    height, head = 2 * _INCH + 0.22, 0.25
    last = list(columns)[-1]
    beyond = max(0.0, _LETTER * len(_KINDS[last]) - _INCH * columns[last])  # the width of the last heading
    inches = _TEXT + _INCH * width + beyond + 0.1, height * len(cards) + head + 0.05
    figure = new_figure(*inches)
    figure.set_layout_engine("none")
    for row, card in enumerate(cards):
        bottom = (inches[1] - head - height * (row + 1) + 0.2) / inches[1]
        axis = figure.add_axes((_TEXT / inches[0], bottom, _INCH * width / inches[0], 2 * _INCH / inches[1]))
        axis.set_axis_off()
        strip = np.concatenate(_between([_sheet(getattr(card, kind), n, mean, std) for kind, n in columns.items()]), 1)
        axis.imshow(strip, interpolation="nearest", aspect="auto")
        lines = [
            textwrap.shorten(f"{card.layer}, neuron {card.neuron}", 44, placeholder=" ..."),
            f"{card.share:.1%} of its layer",
            "like " + ", ".join(str(n) for n, _ in card.similar) if card.similar else "",
        ]
        at = bottom + 2 * _INCH / inches[1]
        said = textwrap.fill(card.name(class_names), 26)
        figure.text(0.1 / inches[0], at, said, fontsize=9, fontweight="bold", va="top", parse_math=False)
        under = at - 0.17 * (1 + said.count("\n")) / inches[1]
        figure.text(
            0.1 / inches[0], under, "\n".join(lines), fontsize=7, va="top", color="0.35", linespacing=1.4, parse_math=False
        )
    left = _TEXT
    for kind, n in columns.items():
        figure.text(left / inches[0], 1 - 0.05 / inches[1], _KINDS[kind], fontsize=8, va="top", color="0.2")
        left += _INCH * (n + 0.5)
    return figure


def _between(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Joined, with half a patch of white between two groups."""
    white = np.ones((parts[0].shape[0], _SIDE // 2, 3))
    return [part for i, one in enumerate(parts) for part in ([white] if i else []) + [one]]


def _sheet(top: TopActivations, n: int, mean: Sequence[float] | None, std: Sequence[float] | None) -> np.ndarray:
    """Patches above the parts that activate the neuron: ``(2 side, n side, 3)`` in [0, 1]."""
    sheet = np.ones((2 * _SIDE, n * _SIDE, 3))
    side = _SIDE - _GAP
    for row, pictures in enumerate(squares(top, side, mean, std)):
        for column, picture in enumerate(pictures[:n]):
            up, left = row * _SIDE, column * _SIDE
            sheet[up : up + side, left : left + side] = picture
    return sheet
