"""Image patches that activate neurons, and their reconstructions, as in the figures of Zeiler & Fergus (2014)."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from lrp_lightning.drawing.figures import new_figure
from lrp_lightning.errors import InputError
from lrp_lightning.patches import patches

if TYPE_CHECKING:
    from lrp_lightning.deconvnet import TopActivations

__all__ = ["draw_top_activations"]


def draw_top_activations(
    top: TopActivations | Sequence[TopActivations],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Figure:
    """For each neuron the image patches that activate it most, above the part of each that it responds to, on grey.

    Args:
        top: from :func:`lrp_lightning.reconstruct_top_activations`, for one neuron or several.
        mean: what was subtracted from the images, one value per channel; without it each is stretched to its own range.
        std: what the images were divided by.

    Returns:
        A matplotlib figure that is not registered with pyplot, two rows per neuron.

    Raises:
        InputError: if ``top`` is empty, or not of images.

    Example:
        >>> import torch
        >>> from lrp_lightning import reconstruct_top_activations
        >>> from lrp_lightning.drawing import draw_top_activations
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 8, 3))
        >>> top = reconstruct_top_activations(model, [torch.rand(5, 1, 9, 9)], "2", neuron=5, k=3)
        >>> len(draw_top_activations(top).axes)
        6
    """
    neurons = list(top) if isinstance(top, Iterable) else [top]
    if not neurons or any(t.images.ndim != 4 for t in neurons):
        raise InputError("give at least one reconstruction of images (k, C, H, W), from reconstruct_top_activations")
    columns = max(len(t.values) for t in neurons)
    side = 1.0 if max(neurons[0].images.shape[2:]) <= 64 else 1.6
    figure = new_figure(side * columns + 0.7, 2.05 * side * len(neurons) + 0.1)
    grid = figure.subplots(2 * len(neurons), columns, squeeze=False)
    for axis in grid.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for row, t in enumerate(neurons):
        for column, (seen, back) in enumerate(patches(t, mean, std)):
            grid[2 * row, column].imshow(seen, interpolation="nearest")
            grid[2 * row + 1, column].imshow(back, interpolation="nearest")
        grid[2 * row, 0].set_ylabel(textwrap.fill(t.layer, 16), fontsize=7, parse_math=False)
        grid[2 * row + 1, 0].set_ylabel(f"neuron {t.neuron}", fontsize=7)
    return figure
