"""Heatmaps of relevance beside or over the images they explain: one a sample, or a sheet of several a sample."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from lrp_lightning.checks import check_tensors
from lrp_lightning.drawing.figures import new_figure
from lrp_lightning.drawing.pixels import COLOURS, check_pair, displayable, limit_of, over_grey, summed
from lrp_lightning.errors import InputError
from lrp_lightning.words import percent

__all__ = ["draw_contact_sheet", "draw_heatmaps"]


def draw_heatmaps(
    images: Tensor,
    relevance: Tensor,
    titles: Sequence[str] | None = None,
    columns: int = 8,
    percentile: float = 99.5,
    shares: bool = False,
    overlay: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    all_neurons: Tensor | None = None,
    held: Sequence[tuple[float, float]] | None = None,
) -> Figure:
    """A grid of images, each above its heatmap: red where relevance speaks for the output, blue where against.

    The colour scale is centred on zero and shared over the grid, so that heatmaps can be compared.

    Args:
        images: ``(N, C, H, W)``; three channels are shown in colour, other numbers by their mean in grey. Each image is
            stretched to its own range, unless ``mean`` and ``std`` say how to undo its normalisation.
        relevance: ``(N, C, H, W)``, as ``SelectiveLRP.attribute`` gives it; summed over channels, which may be other ones.
        titles: one a sample.
        columns: samples side by side.
        percentile: the share of pixels, in percent, whose ``|relevance|`` the scale's ends hold; the rest saturate.
        shares: show each pixel's share of all ``|relevance|`` that reached its image, in percent. For relevance under a
            selection, whose sum differs by orders of magnitude from sample to sample.
        overlay: lay each heatmap over its image in grey, in place of the two.
        mean: what was subtracted from the images, one value a channel.
        std: what they were divided by.
        all_neurons: ``(N, C, H, W)``, where ``relevance`` is that through critical neurons: the relevance through all of
            them, which then stands below each heatmap, as shares whatever ``shares`` says.
        held: with it, which parts of the explained logit the two heatmaps hold, one pair a sample.

    Returns:
        A matplotlib figure that pyplot does not know; ``as_array`` gives its pixels for ``SummaryWriter.add_image``.

    Raises:
        InputError: if shapes or the number of titles do not fit, or relevance is not finite.

    Example:
        >>> import torch
        >>> from lrp_lightning.drawing import draw_heatmaps
        >>> figure = draw_heatmaps(torch.rand(3, 1, 8, 8), torch.randn(3, 1, 8, 8), titles=["a", "b", "c"])
        >>> len(figure.axes)  # three images, three heatmaps, the colour bar
        7
    """
    check_pair(images, relevance)
    if columns < 1:
        raise InputError(f"columns must be at least 1, got {columns}")
    if titles is not None and len(titles) != len(images):
        raise InputError(f"{len(titles)} titles were given for {len(images)} images")
    if all_neurons is not None:
        check_pair(images, all_neurons)
    shares = shares or all_neurons is not None
    shown = displayable(images, mean, std)
    heats = [summed(of, shares) for of in (relevance, all_neurons) if of is not None]
    limit = limit_of(np.concatenate(heats), percentile)
    scale = Normalize(-limit, limit)

    samples, panels = len(images), len(heats) + (not overlay)
    rows = math.ceil(samples / columns)
    columns = math.ceil(samples / rows)  # rows as even as can be
    tall = images.shape[2] / images.shape[3]
    width = _width_of(images, columns)
    words = (0.3 if titles is not None else 0.1) + (0.4 if all_neurons is not None else 0)
    figure = new_figure(width * columns + 0.9, (width * tall * panels + words) * rows + 0.15)
    grid = figure.subplots(panels * rows, columns, squeeze=False)
    for axis in grid.flat:
        axis.set_axis_off()
    for i in range(samples):
        row, column = divmod(i, columns)
        above, *below = grid[panels * row : panels * (row + 1), column]
        if not overlay:
            above.imshow(shown[i], interpolation="nearest")
        for k, (axis, heat) in enumerate(zip([above, *below] if overlay else below, heats, strict=True)):
            if overlay:
                axis.imshow(over_grey(heat[i], limit, shown[i]), interpolation="nearest")
            else:
                axis.imshow(heat[i], cmap=COLOURS, norm=scale, interpolation="nearest")
            if all_neurons is not None and axis is not above:
                part = "" if held is None else f", {percent(held[i][k])}"
                axis.set_title(("critical neurons", "all neurons")[k] + part, fontsize=6, pad=2, parse_math=False)
        if titles is not None:
            above.set_title(textwrap.fill(titles[i], max(10, int(13 * width))), fontsize=8, parse_math=False)
    _colour_bar(figure, grid, scale, "% of the image's relevance" if shares else "relevance per pixel (units of the output)")
    return figure


def draw_contact_sheet(
    images: Tensor,
    relevance: Tensor,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    percentile: float = 99.5,
    shares: bool = True,
    overlay: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Figure:
    """Several heatmaps of each sample: rows are samples, columns paths, neurons, or what else they are of.

    Args:
        images: ``(N, C, H, W)``, as in :func:`draw_heatmaps`.
        relevance: ``(K, N, C, H, W)``, from :func:`lrp_lightning.path_heatmaps` or :func:`lrp_lightning.neuron_heatmaps`.
        rows: one title a sample.
        columns: one title for each of the K.
        percentile: as in :func:`draw_heatmaps`.
        shares: show each pixel's share of its own heatmap's ``|relevance|``, so that weak paths are seen beside strong ones.
        overlay: lay heatmaps over their images in grey.
        mean, std: as in :func:`draw_heatmaps`.

    Raises:
        InputError: if shapes or the number of titles do not fit, or relevance is not finite.

    Example:
        >>> import torch
        >>> from lrp_lightning.drawing import draw_contact_sheet
        >>> figure = draw_contact_sheet(torch.rand(2, 1, 8, 8), torch.randn(3, 2, 1, 8, 8), columns=["a", "b", "c"])
        >>> len(figure.axes)  # two images, six heatmaps, the colour bar
        9
    """
    check_tensors(images=images, relevance=relevance)
    if relevance.ndim != 5 or len(relevance) == 0:
        raise InputError(f"relevance must be (K, N, C, H, W), got {tuple(relevance.shape)}")
    check_pair(images, relevance[0])
    for what, titles, count in (("rows", rows, len(images)), ("columns", columns, len(relevance))):
        if titles is not None and len(titles) != count:
            raise InputError(f"{len(titles)} titles of {what} were given for {count}")
    heat, shown = summed(relevance, shares), displayable(images, mean, std)
    limit = limit_of(heat, percentile)
    scale = Normalize(-limit, limit)

    width = _width_of(images, len(relevance) + 1)
    tall = images.shape[2] / images.shape[3]
    figure = new_figure(
        width * (len(relevance) + 1) + 0.9 + (0.25 if rows is not None else 0),
        width * tall * len(images) + (0.45 if columns is not None else 0.1) + 0.15,
    )
    grid = figure.subplots(len(images), len(relevance) + 1, squeeze=False)
    for axis in grid.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for n, line in enumerate(grid):
        line[0].imshow(shown[n], interpolation="nearest")
        if rows is not None:
            label = textwrap.fill(rows[n], max(10, int(13 * width * tall)))
            line[0].set_ylabel(label, fontsize=8, parse_math=False)
        for k, axis in enumerate(line[1:]):
            if overlay:
                axis.imshow(over_grey(heat[k, n], limit, shown[n]), interpolation="nearest")
            else:
                axis.imshow(heat[k, n], cmap=COLOURS, norm=scale, interpolation="nearest")
    if columns is not None:
        for axis, title in zip(grid[0, 1:], columns, strict=True):
            axis.set_title(textwrap.fill(title, max(10, int(13 * width))), fontsize=8, parse_math=False)
    _colour_bar(
        figure, grid, scale, "% of the heatmap's relevance" if shares else "relevance per pixel (units of the output)"
    )
    return figure


def _width_of(images: Tensor, columns: int) -> float:
    """Inches of one image: more for those with more to see, where there is room."""
    return min(max(1.25, images.shape[3] / 100), max(1.25, 14 / columns))


def _colour_bar(figure: Figure, grid: np.ndarray, scale: Normalize, label: str) -> None:
    height = figure.get_figheight()
    bar = figure.colorbar(
        ScalarMappable(scale, COLOURS), ax=grid, shrink=0.6 if height > 3 else 0.9, fraction=0.04, pad=0.01, aspect=25
    )
    bar.set_label(textwrap.fill(label, max(12, int(11 * height))), fontsize=8)
    bar.ax.tick_params(labelsize=7)
