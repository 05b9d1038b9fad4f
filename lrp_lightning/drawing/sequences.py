"""Relevance of sequences: tokens of a text, and time series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.patheffects import withStroke
from torch import Tensor

from lrp_lightning.checks import check_tensors
from lrp_lightning.drawing.figures import new_figure
from lrp_lightning.errors import InputError
from lrp_lightning.pixels import COLOURS, limit_of

__all__ = ["draw_series", "draw_tokens"]

_POINTS = 10.0
_LETTER, _LINE = 0.602 * _POINTS / 72, 2.1 * _POINTS / 72  # inches: a letter of DejaVu Sans Mono is 0.602 of its size wide


def draw_tokens(
    tokens: Sequence[Sequence[str]], relevance: Tensor, titles: Sequence[str] | None = None, width: float = 9.0
) -> Figure:
    """Texts whose tokens are coloured by their relevance: red tokens raise the output, blue tokens lower it.

    Each text has its own colour scale, centred on zero, because logits differ between texts. Tokens without relevance, such
    as padding, are grey.

    Args:
        tokens: the tokens of each text, as strings, as ``tokenizer.convert_ids_to_tokens`` returns them.
        relevance: ``(N, L)``, as ``SelectiveLRP.attribute`` returns it for token numbers; a text may have fewer than ``L``
            tokens, then the rest is padding.
        titles: one per text.
        width: of the figure, in inches; lines wrap there.

    Returns:
        A matplotlib figure that is not registered with pyplot.

    Raises:
        InputError: if shapes or the number of titles do not fit, or relevance is not finite.

    Example:
        >>> import torch
        >>> from lrp_lightning.drawing import draw_tokens
        >>> figure = draw_tokens([["a", "fine", "film"], ["dull"]], torch.randn(2, 3), titles=["good", "bad"])
        >>> len(figure.axes)  # the texts, the colour bar
        2
    """
    shown, shares = of_tokens(tokens, relevance, titles)
    placed, line = [], 0.0  # (text, token, left in inches, line)
    heads: list[float] = []
    for i, text in enumerate(shown):
        heads.append(line)
        line, left = line + (1 if titles is not None else 0), 0.1
        for j, token in enumerate(text):
            wide = (len(token) + 1.2) * _LETTER
            if left + wide > width - 0.1 and left > 0.1:
                line, left = line + 1, 0.1
            placed.append((i, j, left, line, wide))
            left += wide + 0.04
        line += 1.4
    height = line * _LINE + 0.7
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    axis = figure.add_axes((0, 0.62 / height, 1, 1 - 0.62 / height))
    axis.set(xlim=(0, width), ylim=(line, -0.2))
    axis.axis("off")
    colours = colormaps[COLOURS]
    for i, j, left, at, wide in placed:
        share = shares[i, j]
        colour = colours(0.5 + 0.5 * share) if share else (0.93, 0.93, 0.93, 1.0)
        box = FancyBboxPatch((left, at + 0.12), wide, 0.76, boxstyle="round,pad=0,rounding_size=0.06", color=colour, lw=0)
        axis.add_patch(box)
        ink = "#999999" if not share else "white" if abs(share) > 0.6 else "black"
        place = left + wide / 2, at + 0.52
        axis.text(*place, shown[i][j], ha="center", va="center", size=_POINTS, family="monospace", color=ink)
    for i, title in enumerate(titles or ()):
        axis.text(0.1, heads[i] + 0.55, title, va="center", size=_POINTS, weight="bold")
    bar = figure.add_axes((0.3, 0.34 / height, 0.4, 0.1 / height))
    figure.colorbar(ScalarMappable(Normalize(-1, 1), COLOURS), cax=bar, orientation="horizontal", ticks=[-1, 0, 1])
    bar.set_xticks([-1, 0, 1], ["against", "0", "for"], size=8)
    return figure


def of_tokens(
    tokens: Sequence[Sequence[str]], relevance: Tensor, titles: Sequence[str] | None
) -> tuple[list[list[str]], np.ndarray]:
    """Displayed tokens, and their relevance, ``(N, L)``, divided by the greatest of the text; checks titles.

    Raises:
        InputError: as :func:`draw_tokens`.
    """
    check_tensors(relevance=relevance)
    if relevance.ndim != 2 or len(tokens) != len(relevance) or any(len(text) > relevance.shape[1] for text in tokens):
        longest = max(map(len, tokens), default=0)
        raise InputError(
            f"relevance must be (N, L) for {len(tokens)} texts of up to {longest} tokens, got {tuple(relevance.shape)}"
        )
    if titles is not None and len(titles) != len(tokens):
        raise InputError(f"{len(titles)} titles were given for {len(tokens)} texts")
    values = relevance.detach().cpu().double().numpy()
    if not np.isfinite(values).all():
        raise InputError("relevance must be finite")
    shown = [[" ".join(token.replace("Ġ", " ").replace("▁", " ").split()) or "·" for token in text] for text in tokens]
    return shown, values / np.maximum(np.abs(values).max(1, keepdims=True), np.finfo(float).tiny)


def draw_series(
    series: Tensor,
    relevance: Tensor,
    titles: Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
    percentile: float = 99.5,
) -> Figure:
    """Series over time, each channel as a line over the colours of its relevance: red raises the output, blue lowers it.

    Args:
        series: ``(N, C, L)``; each line is stretched to its own range.
        relevance: ``(N, C, L)``, as ``SelectiveLRP.attribute`` returns it; for series ``(N, L, C)``, transpose both.
        titles: one per series.
        channels: names of the channels.
        percentile: the percentage of values whose ``|relevance|`` is within the colour scale; the rest saturate.

    Returns:
        A matplotlib figure that is not registered with pyplot.

    Raises:
        InputError: if shapes, titles or channels do not fit, or relevance is not finite.

    Example:
        >>> import torch
        >>> from lrp_lightning.drawing import draw_series
        >>> figure = draw_series(torch.randn(2, 3, 50), torch.randn(2, 3, 50), channels=["x", "y", "z"])
        >>> len(figure.axes)  # two series, the colour bar
        3
    """
    check_tensors(series=series, relevance=relevance)
    if series.ndim != 3 or series.shape != relevance.shape:
        raise InputError(
            "series and relevance must be (N, C, L) and of one shape, got "
            f"{tuple(series.shape)} and {tuple(relevance.shape)}"
        )
    samples, many, length = series.shape
    if titles is not None and len(titles) != samples:
        raise InputError(f"{len(titles)} titles were given for {samples} series")
    if channels is not None and len(channels) != many:
        raise InputError(f"{len(channels)} names were given for {many} channels")
    heat, lines = relevance.detach().cpu().double().numpy(), series.detach().cpu().double().numpy()
    if not (np.isfinite(heat).all() and np.isfinite(lines).all()):
        raise InputError("series and relevance must be finite")
    limit = limit_of(heat, percentile)
    scale = Normalize(-limit, limit)
    figure = new_figure(9, (0.42 * many + 0.5) * samples + 0.3)
    halo = [withStroke(linewidth=2.2, foreground="white", alpha=0.7)]
    axes = figure.subplots(samples, 1, squeeze=False, sharex=True)[:, 0]
    for i, axis in enumerate(axes):
        axis.imshow(heat[i], cmap=COLOURS, norm=scale, aspect="auto", extent=(-0.5, length - 0.5, many, 0))
        for c in range(many):
            low, high = lines[i, c].min(), lines[i, c].max()
            stretched = (lines[i, c] - low) / max(high - low, np.finfo(float).tiny)
            axis.plot(np.arange(length), c + 0.9 - 0.8 * stretched, color="black", lw=0.9, path_effects=halo)
        axis.set_yticks(np.arange(many) + 0.5, channels or [str(c) for c in range(many)], size=8)
        axis.tick_params(length=0, labelsize=8)
        axis.spines[:].set_visible(False)
        if titles is not None:
            axis.set_title(titles[i], size=9, loc="left")
    axes[-1].set_xlabel("time", size=9)
    bar = figure.colorbar(ScalarMappable(scale, COLOURS), ax=list(axes), fraction=0.03, pad=0.01)
    bar.set_label("relevance", size=8)
    bar.ax.tick_params(labelsize=7)
    return figure
