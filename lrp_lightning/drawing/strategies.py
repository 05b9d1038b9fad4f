"""Strategies: their prototypes, with the tested region, and their mean heatmaps."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lrp_lightning.drawing.figures import POSITIVE
from lrp_lightning.drawing.sheets import LINE, Box, compose
from lrp_lightning.errors import InputError
from lrp_lightning.pixels import coloured, displayable, limit_of
from lrp_lightning.words import percent

if TYPE_CHECKING:
    from lrp_lightning.insight.strategies import Strategy
    from lrp_lightning.insight.transplant import Region

__all__ = ["draw_strategies"]

_WIDTH, _NAMES = 1.2, 1.5
"""Inches of a picture, and of the names of classes."""
_LETTERS = 14
"""The number of letters of a name on a picture."""
_UNDER = {"boxstyle": "square,pad=0.15", "facecolor": "#000000b0", "edgecolor": "none"}
"""The box behind text on a picture."""


def draw_strategies(
    strategies: Sequence[Strategy],
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    k: int = 6,
) -> Figure:
    """One row per strategy: its mean heatmap, then its most typical images; a frame shows the region that was copied.

    Misclassified images come after those that are classified correctly, with their predicted class.

    Args:
        strategies: from :func:`lrp_lightning.find_strategies`, of images.
        class_names: names of the classes; without them classes are given by number.
        mean: what was subtracted from the images, one value per channel; without it each image is scaled to its own range.
        std: what the images were divided by, one value per channel.
        k: number of typical images of each strategy.

    Returns:
        A matplotlib figure that is not registered with pyplot.

    Raises:
        InputError: if there is no strategy, or strategies are not of images ``(N, C, H, W)``.

    Example:
        >>> import torch
        >>> from lrp_lightning import find_strategies
        >>> from lrp_lightning.drawing import draw_strategies
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)).eval()
        >>> images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 2
        >>> figure = draw_strategies(find_strategies(model, [(images, labels)], progress=False), ["cat", "dog"])
        >>> any("cat" in text.get_text() for text in figure.texts)
        True
    """
    if not strategies or any(s.images is None or s.images.ndim != 4 for s in strategies):
        raise InputError("strategies must be a list of at least one Strategy of images (N, C, H, W), from find_strategies")
    rows, taken = [], []
    for s in strategies:
        assert s.images is not None
        assert s.heatmap is not None
        heat, order = s.heatmap.numpy(), s.right_first(k)
        rows.append([coloured(heat, limit_of(heat, 99.5)), *displayable(s.images[order], mean, std)])
        taken.append([None if s.predictions is None else int(s.predictions[i]) for i in order])
    figure, place = compose(rows, _WIDTH, [1.5 * LINE] * len(rows), left=_NAMES)
    for n, (s, row) in enumerate(zip(strategies, rows, strict=True)):
        left, bottom, _, height = place(n, 0)
        name = textwrap.fill(_named(s.label, class_names), 18)
        words = [name, f"{percent(s.share)} of the class"]
        words += [] if s.predictions is None else [f"{percent(s.right)} classified correctly"]
        figure.text(
            left, bottom + height / 2, "\n".join(f"{line}  " for line in words), fontsize=8, ha="right", va="center",
            fontweight="bold" if s.shortcut else "normal", parse_math=False,
        )  # fmt: skip
        for column, c in enumerate(taken[n], 1):
            if c not in (None, s.label):
                x, y, *_ = place(n, column)
                said = f"\N{BALLOT X} {_brief(_named(c, class_names))}"
                figure.text(x, y, said, fontsize=7, color="white", va="bottom", parse_math=False, bbox=_UNDER)
        if s.test is None:
            continue
        colour = POSITIVE if s.shortcut else "0.35"
        at = bottom + height + 0.03 / figure.get_figheight()
        figure.text(left, at, _said(s), fontsize=7, color=colour, va="bottom")
        for column in range(len(row)) if not s.test.moves else ():
            figure.add_artist(_frame(place(n, column), s.test.region, row[0].shape[:2]))
    return figure


def _named(c: int, class_names: Sequence[str] | None) -> str:
    return str(c) if class_names is None else str(class_names[c])


def _brief(name: str) -> str:
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"


def _frame(box: Box, region: Region, sides: tuple[int, ...]) -> Rectangle:
    """A frame around a region of a picture of the given size."""
    left, bottom, width, height = box
    (top, start, tall, wide), (rows, columns) = region, sides
    corner = left + start / columns * width, bottom + (1 - (top + tall) / rows) * height
    return Rectangle(corner, wide / columns * width, tall / rows * height, fill=False, lw=1.2, ec=POSITIVE)


def _said(s: Strategy) -> str:
    kind = "likely shortcut: " if s.shortcut else ""
    return f"{kind}{s.where} turns {percent(s.transplant)} of other images into this class (controls {percent(s.control)})"
