"""Strategies: their prototypes, with the region that was tested, and their mean heatmaps."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lrp_lightning.drawing.figures import POSITIVE, new_figure
from lrp_lightning.drawing.pixels import coloured, displayable, limit_of
from lrp_lightning.errors import InputError
from lrp_lightning.words import percent

if TYPE_CHECKING:
    from lrp_lightning.insight.strategies import Strategy

__all__ = ["draw_strategies"]

_PROTOTYPES = 6


def draw_strategies(
    strategies: Sequence[Strategy],
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Figure:
    """A row a strategy: its mean heatmap, then its most typical images; framed, the region that was copied into others.

    Args:
        strategies: from :func:`lrp_lightning.find_strategies`, of images.
        class_names: names of the classes; without them their numbers stand there.
        mean: what was subtracted from the images, one value a channel; without it each is stretched to its own range.
        std: what they were divided by.

    Returns:
        A matplotlib figure that pyplot does not know.

    Raises:
        InputError: if there is no strategy, or these are not of images ``(N, C, H, W)``.

    Example:
        >>> import torch
        >>> from lrp_lightning import find_strategies
        >>> from lrp_lightning.drawing import draw_strategies
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)).eval()
        >>> images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 2
        >>> figure = draw_strategies(find_strategies(model, [(images, labels)], progress=False), ["cat", "dog"])
        >>> len(figure.axes) % 7
        0
    """
    if not strategies or any(s.images is None or s.images.ndim != 4 for s in strategies):
        raise InputError("strategies can be drawn if there is at least one, and of images (N, C, H, W)")
    figure = new_figure(1.25 * (_PROTOTYPES + 1) + 1.6, 1.5 * len(strategies) + 0.1)
    figure.set_layout_engine("constrained", h_pad=0.17)
    grid = figure.subplots(len(strategies), _PROTOTYPES + 1, squeeze=False)
    for axis in grid.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for row, s in zip(grid, strategies, strict=True):
        assert s.images is not None
        assert s.heatmap is not None
        heat = s.heatmap.numpy()
        row[0].imshow(coloured(heat, limit_of(heat, 99.5)), interpolation="nearest")
        for axis, image in zip(row[1:], displayable(s.images[:_PROTOTYPES], mean, std), strict=False):
            axis.imshow(image, interpolation="nearest")
        if s.test is not None and not s.test.moves:
            top, left, height, width = s.test.region
            for axis in row[: 1 + len(s.images)]:
                framed = Rectangle((left - 0.5, top - 0.5), width, height, fill=False, lw=1.2, ec=POSITIVE)
                axis.add_patch(framed)
        name = str(s.label) if class_names is None else str(class_names[s.label])
        row[0].set_ylabel(
            f"{textwrap.fill(name, 18)}\n{s.share:.0%} of the class", fontsize=8, rotation=0, ha="right", va="center",
            parse_math=False,
        )  # fmt: skip
        row[0].yaxis.label.set_fontweight("bold" if s.shortcut else "normal")
        if s.test is not None:
            colour = POSITIVE if s.shortcut else "0.35"
            said = row[1].text(0, 1.05, _said(s), fontsize=7, color=colour, transform=row[1].transAxes)
            said.set_in_layout(False)  # it is wider than its column
    return figure


def _said(s: Strategy) -> str:
    kind = "likely shortcut: " if s.shortcut else ""
    return f"{kind}{s.where} turns {percent(s.transplant)} of other images into it (controls {percent(s.control)})"
