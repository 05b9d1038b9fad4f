"""Relevance and images as pixels, with one colour scale, centred on zero, for figures, the tab and reports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor

from lrp_lightning.checks import check_tensors
from lrp_lightning.errors import InputError

__all__ = ["COLOURS", "coloured", "displayable", "limit_of", "over_grey", "relevance_as_images", "summed"]

COLOURS = "RdBu_r"
"""Red is positive, blue negative, white zero; colour-blind people can distinguish them."""


def relevance_as_images(
    relevance: Tensor, images: Tensor | None = None, percentile: float = 99.5, shares: bool = False
) -> Tensor:
    """Heatmaps as images without a frame, for ``SummaryWriter.add_images`` and torchvision's ``make_grid``.

    Args:
        relevance: ``(N, C, H, W)``, as ``SelectiveLRP.attribute`` returns it; summed over channels.
        images: ``(N, C, H, W)``; if given, the heatmaps are drawn over them in grey.
        percentile: as in :func:`draw_heatmaps`.
        shares: as in :func:`draw_heatmaps`.

    Returns:
        ``(N, 3, H, W)``, uint8, on the CPU.

    Raises:
        InputError: if shapes do not fit, or relevance is not finite.

    Example:
        >>> import torch
        >>> from lrp_lightning.drawing import relevance_as_images
        >>> pixels = relevance_as_images(torch.tensor([[[[1.0, 0.0, -1.0]]]]))
        >>> pixels[0, :, 0].T.tolist()  # red for, white nothing, blue against
        [[103, 0, 31], [247, 246, 246], [5, 48, 97]]
    """
    heat = summed(relevance, shares)
    limit = limit_of(heat, percentile)
    if images is None:
        pixels = coloured(heat, limit)
    else:
        check_pair(images, relevance)
        pixels = over_grey(heat, limit, displayable(images))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def check_pair(images: Tensor, relevance: Tensor) -> None:
    """Raise an error if the shapes of images and relevance do not match.

    Raises:
        InputError: naming both shapes.
    """
    check_tensors(images=images, relevance=relevance)
    same = images.ndim == relevance.ndim == 4 and len(images) == len(relevance) and images.shape[2:] == relevance.shape[2:]
    if not same or len(images) == 0:
        raise InputError(
            "images and relevance must be (N, C, H, W) with the same N, H and W, got "
            f"{tuple(images.shape)} and {tuple(relevance.shape)}"
        )


def summed(relevance: Tensor, shares: bool) -> np.ndarray:
    """``(..., C, H, W)`` summed over channels: ``(..., H, W)``; with ``shares`` in percent of each map's ``|relevance|``.

    Raises:
        InputError: if it is not finite, or has fewer dimensions.
    """
    check_tensors(relevance=relevance)
    if relevance.ndim < 4 or relevance.numel() == 0:
        raise InputError(f"relevance must be (..., N, C, H, W), not empty, got {tuple(relevance.shape)}")
    heat = relevance.detach().cpu().double().sum(-3).numpy()
    if not np.isfinite(heat).all():
        raise InputError("relevance holds NaN or infinite values")
    if shares:
        total = np.abs(heat).sum((-2, -1), keepdims=True)
        heat = 100 * np.divide(heat, total, out=np.zeros_like(heat), where=total > 0)
    return heat


def limit_of(heat: np.ndarray, percentile: float) -> float:
    """The value at the ends of the colour scale: ``percentile`` percent of the pixels are within it; the rest saturate.

    Raises:
        InputError: if ``percentile`` is not in (0, 100].
    """
    if not 0 < percentile <= 100:
        raise InputError(f"percentile must be in (0, 100], got {percentile}")
    return float(np.percentile(np.abs(heat), percentile)) or float(np.abs(heat).max()) or 1.0


def coloured(heat: np.ndarray, limit: float) -> np.ndarray:
    """``(..., H, W)`` to ``(..., H, W, 3)`` uint8."""
    return colormaps[COLOURS](np.clip(heat / limit, -1, 1) / 2 + 0.5, bytes=True)[..., :3]


def over_grey(heat: np.ndarray, limit: float, images: np.ndarray) -> np.ndarray:
    """Heatmaps over pale grey ``images``, from :func:`displayable`; opaque at large relevance: ``(..., H, W, 3)`` uint8."""
    grey = 0.35 + 0.6 * (images @ np.array([0.299, 0.587, 0.114]))[..., None]
    strength = np.clip(np.abs(heat) / limit, 0, 1)[..., None] ** 0.6
    return np.round(255 * (1 - strength) * grey + strength * coloured(heat, limit)).astype(np.uint8)


def displayable(images: Tensor, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> np.ndarray:
    """``(N, C, H, W)`` to ``(N, H, W, 3)`` in [0, 1]: three channels are colours; other numbers give their mean in grey.

    Args:
        images: as the model takes them.
        mean: with ``std``, the normalisation to undo, one value per channel; values that are then outside [0, 1] are
            clipped. Without it, each image is stretched to its own range.
        std: see ``mean``.

    Raises:
        InputError: if only one of them is given, or they do not fit the channels.
    """
    pixels = images.detach().cpu().double()
    if (mean is None) != (std is None):
        raise InputError("mean and std must be given together")
    if mean is not None and std is not None:
        scale, shift = (torch.as_tensor(v, dtype=torch.float64).reshape(-1, 1, 1) for v in (std, mean))
        if {len(scale), len(shift)} - {1, pixels.shape[1]}:
            raise InputError(
                f"mean and std must have one value for each of {pixels.shape[1]} channels, got {mean} and {std}"
            )
        pixels = (pixels * scale + shift).clamp(0, 1)
    pixels = pixels if pixels.shape[1] == 3 else pixels.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    if mean is None:
        least, most = pixels.amin((1, 2, 3), keepdim=True), pixels.amax((1, 2, 3), keepdim=True)
        pixels = (pixels - least) / torch.where(most > least, most - least, 1)
    return pixels.permute(0, 2, 3, 1).numpy()
