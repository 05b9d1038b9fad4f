"""Heatmaps of relevance beside or over the explained images: one per sample, or several per sample."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from lrp_lightning.checks import check_tensors
from lrp_lightning.drawing.sheets import LINE, Box, colour_bar, compose, lines_of
from lrp_lightning.errors import InputError
from lrp_lightning.pixels import check_pair, coloured, displayable, limit_of, over_grey, summed
from lrp_lightning.words import percent

__all__ = ["draw_contact_sheet", "draw_heatmaps"]

_BAR = 1.05
"""Inches of the colour bar and its text."""


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
    logit_shares: Sequence[tuple[float, float]] | None = None,
) -> Figure:
    """A grid of images, each above its heatmap: red pixels raise the output, blue pixels lower it.

    The colour scale is centred on zero and shared over the grid, so that heatmaps can be compared.

    Args:
        images: ``(N, C, H, W)``; three channels are shown in colour, other numbers by their mean in grey. Each image is
            stretched to its own range, unless ``mean`` and ``std`` are given to undo its normalisation.
        relevance: ``(N, C, H, W)``, as ``SelectiveLRP.attribute`` returns it; summed over its channels, whose number may
            differ from the images'.
        titles: one per sample.
        columns: the most samples side by side.
        percentile: the percentage of pixels whose ``|relevance|`` is within the colour scale; the rest saturate.
        shares: show each pixel's share of all ``|relevance|`` that reached its image, in percent. For relevance under a
            selection, whose sum differs by orders of magnitude between samples.
        overlay: draw each heatmap over its image in grey, instead of both separately.
        mean: what was subtracted from the images, one value per channel.
        std: what the images were divided by, one value per channel.
        all_neurons: ``(N, C, H, W)``: if ``relevance`` is that through critical neurons, the relevance through all neurons,
            which is drawn below each heatmap; both then as shares.
        logit_shares: with ``all_neurons``, the share of the explained logit that each of the two heatmaps accounts for, one
            pair per sample.

    Returns:
        A matplotlib figure that is not registered with pyplot; ``as_array`` gives its pixels, as for
        ``SummaryWriter.add_image``.

    Raises:
        InputError: if shapes or the number of titles do not fit, or relevance is not finite.

    Example:
        >>> import torch
        >>> from lrp_lightning.drawing import draw_heatmaps
        >>> figure = draw_heatmaps(torch.rand(3, 1, 8, 8), torch.randn(3, 1, 8, 8), titles=["a", "b", "c"])
        >>> [text.get_text() for text in figure.texts]
        ['a', 'b', 'c']
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
    maps = [over_grey(heat, limit, shown) if overlay else coloured(heat, limit) for heat in heats]
    panels = maps if overlay else [shown, *maps]

    across = math.ceil(len(images) / math.ceil(len(images) / columns))  # rows of equal length, if possible
    width = _width_of(images, across)
    letters = max(10, int(13 * width))
    words = [[""] * len(images) for _ in panels]
    words[0] = [textwrap.fill(title, letters) for title in titles or words[0]]
    if all_neurons is not None:
        for of, k, name in zip(words[-2:], (0, 1), ("critical neurons", "all neurons"), strict=True):
            for i, title in enumerate(of):
                said = name if logit_shares is None else f"{name}, {percent(logit_shares[i][k])}"
                of[i] = f"{title}\n{said}" if title else said

    blocks = [slice(first, first + across) for first in range(0, len(images), across)]
    above = [LINE * lines_of(of[block]) for block in blocks for of in words]
    above[len(panels) :: len(panels)] = [inches + LINE for inches in above[len(panels) :: len(panels)]]  # between blocks
    figure, place = compose([list(panel[block]) for block in blocks for panel in panels], width, above, right=_BAR)
    for i in range(len(images)):
        block, column = divmod(i, across)
        for k, of in enumerate(words):
            _title(figure, place(block * len(panels) + k, column), of[i], 8 if k == 0 else 6.5)
    label = "% of the image's relevance" if shares else "relevance (units of the output)"
    colour_bar(figure, limit, label, _BAR)
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
    """Several heatmaps of each sample: rows are samples, columns are paths, neurons or others.

    Args:
        images: ``(N, C, H, W)``, as in :func:`draw_heatmaps`.
        relevance: ``(K, N, C, H, W)``, from :func:`lrp_lightning.path_heatmaps` or :func:`lrp_lightning.neuron_heatmaps`.
        rows: one title per sample.
        columns: one title for each of the K.
        percentile: as in :func:`draw_heatmaps`.
        shares: show each pixel's share of its own heatmap's ``|relevance|``, so that weak paths are visible.
        overlay: draw heatmaps over their images in grey.
        mean, std: as in :func:`draw_heatmaps`.

    Raises:
        InputError: if shapes or the number of titles do not fit, or relevance is not finite.

    Example:
        >>> import torch
        >>> from lrp_lightning.drawing import draw_contact_sheet
        >>> figure = draw_contact_sheet(torch.rand(2, 1, 8, 8), torch.randn(3, 2, 1, 8, 8), columns=["a", "b", "c"])
        >>> [text.get_text() for text in figure.texts]
        ['a', 'b', 'c']
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
    maps = [over_grey(one, limit, shown) if overlay else coloured(one, limit) for one in heat]

    width = _width_of(images, len(relevance) + 1)
    letters = max(10, int(13 * width))
    heads = ["", *(textwrap.fill(title, letters) for title in columns or [""] * len(maps))]
    tall = max(10, int(13 * width * images.shape[2] / images.shape[3]))
    names = [textwrap.fill(name, tall) for name in rows or ()]
    above = [LINE * lines_of(heads), *[0.0] * (len(images) - 1)]
    pictures = [[shown[n], *(one[n] for one in maps)] for n in range(len(images))]
    figure, place = compose(pictures, width, above, left=LINE * lines_of(names), right=_BAR)
    for column, head in enumerate(heads):
        _title(figure, place(0, column), head, 8)
    for n, name in enumerate(names):
        left, bottom, _, height = place(n, 0)
        figure.text(
            left, bottom + height / 2, f"{name} ", fontsize=8, rotation=90, ha="right", va="center", parse_math=False
        )
    label = "% of the heatmap's relevance" if shares else "relevance (units of the output)"
    colour_bar(figure, limit, label, _BAR)
    return figure


def _title(figure: Figure, box: Box, text: str, size: float) -> None:
    """Text above a picture, centred."""
    left, bottom, width, height = box
    at = bottom + height + 0.03 / figure.get_figheight()
    if text:
        figure.text(left + width / 2, at, text, fontsize=size, ha="center", va="bottom", parse_math=False)


def _width_of(images: Tensor, columns: int) -> float:
    """Inches of one image: larger images get more, if there is room."""
    return min(max(1.25, images.shape[3] / 100), max(1.25, 14 / columns))
