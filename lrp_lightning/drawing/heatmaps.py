"""Heatmaps of the input's relevance, beside the images they explain."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from lrp_lightning.drawing.figures import new_figure
from lrp_lightning.errors import InputError

__all__ = ["draw_heatmaps"]


def draw_heatmaps(
    images: Tensor,
    relevance: Tensor,
    titles: Sequence[str] | None = None,
    columns: int = 8,
    percentile: float = 99.5,
    shares: bool = False,
) -> Figure:
    """A grid of images, each above its heatmap: red where relevance speaks for the output, blue where against.

    The colour scale is centred on zero and shared over the grid, so that heatmaps can be compared.

    Args:
        images: ``(N, C, H, W)``; one or three channels are shown as they are, other numbers by their mean. Each image is
            stretched to its own range, so normalised images need no undoing.
        relevance: ``(N, C, H, W)``, as ``SelectiveLRP.attribute`` gives it; summed over channels.
        titles: one a sample.
        columns: samples side by side.
        percentile: the share of pixels, in percent, whose ``|relevance|`` the scale's ends hold; the rest saturate.
        shares: show each pixel's share of all ``|relevance|`` that reached its image, in percent. For relevance under a
            selection, whose sum differs by orders of magnitude from sample to sample.

    Raises:
        InputError: if shapes or the number of titles do not fit, or relevance is not finite.

    Example:
        >>> import torch
        >>> from lrp_lightning.drawing import draw_heatmaps
        >>> figure = draw_heatmaps(torch.rand(3, 1, 8, 8), torch.randn(3, 1, 8, 8), titles=["a", "b", "c"])
        >>> len(figure.axes)  # three images, three heatmaps, the colour bar
        7
    """
    same = images.ndim == relevance.ndim == 4 and len(images) == len(relevance) and images.shape[2:] == relevance.shape[2:]
    if not same or len(images) == 0:
        raise InputError(
            "images and relevance must be (N, C, H, W) with the same N, H and W, got "
            f"{tuple(images.shape)} and {tuple(relevance.shape)}"
        )
    if columns < 1:
        raise InputError(f"columns must be at least 1, got {columns}")
    if titles is not None and len(titles) != len(images):
        raise InputError(f"{len(titles)} titles were given for {len(images)} images")
    heat = relevance.detach().double().cpu().sum(1).numpy()
    if not np.isfinite(heat).all():
        raise InputError("relevance holds NaN or infinite values")
    if shares:
        total = np.abs(heat).sum((1, 2), keepdims=True)
        heat = 100 * np.divide(heat, total, out=np.zeros_like(heat), where=total > 0)
    limit = float(np.percentile(np.abs(heat), percentile)) or float(np.abs(heat).max()) or 1.0
    scale = Normalize(-limit, limit)

    samples = len(images)
    rows = math.ceil(samples / columns)
    columns = math.ceil(samples / rows)  # rows as even as can be
    figure = new_figure(1.25 * columns + 0.9, 2.75 * rows + 0.2)
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    for axis in grid.flat:
        axis.set_axis_off()
    drawn = None
    for i in range(samples):
        row, column = divmod(i, columns)
        above, below = grid[2 * row, column], grid[2 * row + 1, column]
        above.imshow(_displayable(images[i]), cmap="gray", interpolation="nearest")
        drawn = below.imshow(heat[i], cmap="RdBu_r", norm=scale, interpolation="nearest")
        if titles is not None:
            above.set_title(textwrap.fill(titles[i], 18), fontsize=8, parse_math=False)
    assert drawn is not None
    bar = figure.colorbar(drawn, ax=grid, shrink=0.6, fraction=0.04, pad=0.01)
    bar.set_label("% of the image's relevance" if shares else "relevance per pixel (units of the output)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _displayable(image: Tensor) -> np.ndarray:
    """(H, W) or (H, W, 3), in [0, 1]."""
    pixels = image.detach().double().cpu()
    pixels = pixels if pixels.shape[0] == 3 else pixels.mean(0, keepdim=True)
    least, most = pixels.min(), pixels.max()
    pixels = (pixels - least) / (most - least if most > least else 1)
    return pixels.permute(1, 2, 0).squeeze(-1).numpy()
