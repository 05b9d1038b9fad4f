"""Why one class and not another: heatmaps for both and for the difference, of critical neurons beside all neurons."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from lrp_lightning.drawing.figures import new_figure
from lrp_lightning.errors import InputError
from lrp_lightning.pixels import coloured, displayable, limit_of, summed
from lrp_lightning.words import percent

if TYPE_CHECKING:
    from lrp_lightning.insight.contrast import Contrast

__all__ = ["draw_contrast"]

_WIDTH = 1.6
_HEAD = 0.5
"""Inches of a heatmap, and of the text above it."""


def draw_contrast(
    why: Contrast,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    percentile: float = 99.5,
) -> Figure:
    """For each image, heatmaps for one class, for the other, and for the difference; red raises it, blue lowers it.

    The upper row of an image is relevance through critical neurons, the lower row through all neurons. Each heatmap shows
    shares of its own ``|relevance|``; its title gives the share of the logit that it accounts for.

    Args:
        why: from :func:`lrp_lightning.contrast`, of images.
        class_names: names of the classes; without them classes are given by number.
        mean: what was subtracted from the images, one value per channel; without it each is stretched to its own range.
        std: what the images were divided by.
        percentile: as in :func:`draw_heatmaps`.

    Returns:
        A matplotlib figure that is not registered with pyplot.

    Raises:
        InputError: if the explained inputs are not images ``(N, C, H, W)``.

    Example:
        >>> import torch
        >>> from lrp_lightning import contrast
        >>> from lrp_lightning.drawing import draw_contrast
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 3)).eval()
        >>> figure = draw_contrast(contrast(model, torch.rand(2, 1, 5, 5)), ["cat", "dog", "bird"])
        >>> len(figure.axes)  # an image and three heatmaps, twice
        16
    """
    if why.inputs.ndim != 4:
        raise InputError(f"draw_contrast needs a contrast of images (N, C, H, W), got inputs {tuple(why.inputs.shape)}")
    samples, tall = len(why.inputs), why.inputs.shape[2] / why.inputs.shape[3]
    height = _WIDTH * tall
    size = 4 * _WIDTH + 0.5, 2 * samples * (height + _HEAD) + 0.1
    figure = new_figure(*size)
    figure.set_layout_engine("none")
    images = displayable(why.inputs, mean, std)
    logits = why.explained.cpu().numpy()

    def panel(row: int, column: int, pixels: np.ndarray, title: str) -> None:
        left, bottom = 0.4 + column * _WIDTH, size[1] - (row + 1) * (height + _HEAD)
        axis = figure.add_axes((left / size[0], bottom / size[1], 0.96 * _WIDTH / size[0], 0.96 * height / size[1]))
        axis.set_axis_off()
        axis.imshow(pixels, interpolation="nearest")
        axis.set_title(title, fontsize=7.5, parse_math=False)

    for kind, (what, maps) in enumerate({"critical neurons": why.heatmaps, "all neurons": why.all_neurons}.items()):
        heat = summed(maps.flatten(0, 1), shares=True).reshape(3, samples, *why.inputs.shape[2:])
        held = why.logit_shares(maps).cpu().numpy()
        limit = limit_of(heat, percentile)
        for i in range(samples):
            a, b = (str(c) if class_names is None else str(class_names[c]) for c in (int(why.a[i]), int(why.b[i])))
            row = 2 * i + kind
            panel(row, 0, images[i], what)
            for column, name in enumerate((f"for {a}", f"for {b}", f"{a}, not {b}")):
                head = textwrap.shorten(name, 26, placeholder="...")
                logit = f"{'margin' if column == 2 else 'logit'} {logits[column, i]:.3g}"
                words = f"{head}\n{logit}, holds {percent(float(held[column, i]))}"
                panel(row, column + 1, coloured(heat[column, i], limit), words)
    return figure
