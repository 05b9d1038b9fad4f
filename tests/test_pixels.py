"""Relevance as pixels: the scale, what lies over what, and beside Captum's own pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import visualization
from matplotlib.figure import Figure
from sheets import pictures_of, words_of
from torch import Tensor
from torchvision.utils import make_grid

from lrp_lightning.drawing import as_array, draw_contact_sheet, draw_heatmaps, relevance_as_images
from lrp_lightning.errors import InputError
from lrp_lightning.pixels import coloured, displayable, limit_of, over_grey, summed


def batch(samples: int = 2, channels: int = 3, side: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = samples, channels, side, side
    return torch.rand(shape, generator=generator), torch.randn(shape, generator=generator)


# The scale


def test_white_is_nothing_and_the_scale_is_symmetric() -> None:
    pixels = coloured(np.array([[-2.0, -1.0, 0.0, 1.0, 2.0]]), 1.0).astype(int)[0]
    assert pixels[2].min() > 240
    assert np.array_equal(pixels[0], pixels[1])  # saturates
    assert np.array_equal(pixels[3], pixels[4])
    assert pixels[3][0] - pixels[3][2] > 60  # red for
    assert pixels[1][2] - pixels[1][0] > 60  # blue against
    lightness = coloured(np.array([[-0.5, 0.5]]), 1.0) @ np.array([0.299, 0.587, 0.114])
    assert abs(lightness[0, 0] - lightness[0, 1]) < 25  # neither sign stands out by lightness


def test_red_and_blue_differ_for_the_colour_blind() -> None:
    """Through the eyes of a deuteranope (Machado et al. 2009, severity 1)."""
    deuteranope = np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    )
    ends = coloured(np.array([[-0.8, 0.8]]), 1.0)[0] / 255
    against, for_ = (ends**2.2) @ deuteranope.T
    assert np.abs(against - for_).max() > 0.2


def test_robust_limits() -> None:
    heat = np.zeros((10, 10))
    heat[0, 0], heat[1] = 1e6, 0.5
    assert limit_of(heat, 98) == pytest.approx(0.5)
    assert limit_of(heat, 100) == 1e6
    assert limit_of(np.zeros((2, 2)), 99) == 1.0
    for wrong in (0, 101, -1):
        with pytest.raises(InputError, match="percentile"):
            limit_of(heat, wrong)


def test_shares_are_percent_of_each_map() -> None:
    _, relevance = batch()
    relevance[1] *= 1e-9
    shares = summed(relevance, shares=True)
    np.testing.assert_allclose(np.abs(shares).sum((1, 2)), 100)
    assert summed(torch.zeros(1, 1, 2, 2), shares=True).sum() == 0


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_as_captum_draws_it(channels: int) -> None:
    """Where the same is asked: sum over channels, zero in the middle, the largest at the end, one picture."""
    _, relevance = batch(1, channels)
    by_channel = relevance[0].permute(1, 2, 0).numpy()
    figure = Figure()
    theirs = visualization.visualize_image_attr(
        by_channel, sign="all", outlier_perc=0, cmap="RdBu_r", plt_fig_axis=(figure, figure.subplots()), use_pyplot=False
    )[1].images[0]
    drawn = theirs.to_rgba(theirs.get_array(), bytes=True)[..., :3].astype(int)
    ours = relevance_as_images(relevance, percentile=100)[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(ours - drawn).max() <= 2


# Images


def test_normalisation_is_undone() -> None:
    images, _ = batch()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    as_given = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    np.testing.assert_allclose(displayable(as_given, mean, std), images.permute(0, 2, 3, 1), atol=1e-6)
    np.testing.assert_allclose(displayable(images * 2 - 1, [0.5], [0.5]), images.permute(0, 2, 3, 1), atol=1e-6)
    for wrong in ((mean, None), (None, std), (mean[:2], std), ([0.5, 0.5], [0.5, 0.5])):
        with pytest.raises(InputError, match="mean and std"):
            displayable(as_given, *wrong)


def test_a_dark_image_stays_dark_where_its_range_is_known() -> None:
    dark = torch.full((1, 1, 4, 4), 0.1)
    dark[..., 0] = 0.2
    assert displayable(dark, [0.0], [1.0]).max() == pytest.approx(0.2)
    assert displayable(dark).max() == 1


def test_heat_over_grey() -> None:
    images, _ = batch(1)
    heat = np.zeros((1, 6, 6))
    heat[0, 0, 0], heat[0, 1, 1] = 1.0, 0.2
    pixels = over_grey(heat, 1.0, displayable(images)).astype(int)[0]
    assert np.array_equal(pixels[0, 0], coloured(heat, 1.0)[0, 0, 0])  # opaque where it is strongest
    others = pixels[2:]
    assert np.abs(others - others.mean(-1, keepdims=True)).max() <= 1  # grey where there is none
    assert pixels[1, 1, 0] > pixels[1, 1, 2]  # and something in between


# Tensors for loggers


def test_tensors_for_add_images() -> None:
    images, relevance = batch(4)
    for pixels in (relevance_as_images(relevance), relevance_as_images(relevance, images)):
        assert pixels.shape == (4, 3, 6, 6)
        assert pixels.dtype == torch.uint8
        assert make_grid(pixels).shape[0] == 3
    assert not torch.equal(relevance_as_images(relevance), relevance_as_images(relevance, images))
    with pytest.raises(InputError, match="same N"):
        relevance_as_images(relevance, images[:2])
    with pytest.raises(InputError, match="NaN"):
        relevance_as_images(relevance * torch.nan)
    with pytest.raises(InputError, match=r"\(\.\.\., N, C, H, W\)"):
        relevance_as_images(relevance[0, 0])


# Overlays and sheets


def test_overlay_takes_the_place_of_the_two() -> None:
    images, relevance = batch(3)
    assert [len(row) for row in pictures_of(draw_heatmaps, images, relevance)[0]] == [3, 3]
    assert [len(row) for row in pictures_of(draw_heatmaps, images, relevance, overlay=True)[0]] == [3]
    [shown], _ = pictures_of(draw_heatmaps, images, relevance, overlay=True, mean=[0.0], std=[1.0], percentile=90)
    heat = summed(relevance, False)
    np.testing.assert_array_equal(shown, over_grey(heat, limit_of(heat, 90), displayable(images, [0.0], [1.0])))


def test_images_and_relevance_may_differ_in_channels() -> None:
    images, _ = batch(2, 3)
    _, relevance = batch(2, 1)
    assert as_array(draw_heatmaps(images, relevance)).std() > 0


def test_a_sheet_has_samples_as_rows_and_heatmaps_as_columns() -> None:
    images, relevance = batch(2, 1)
    many = torch.stack([relevance, -relevance, torch.zeros_like(relevance)])
    rows, figure = pictures_of(draw_contact_sheet, images, many, rows=["a", "<b>$"], columns=["one", "two", "three"])
    assert [len(row) for row in rows] == [4, 4]
    heat = summed(many, True)
    for n, (image, *heatmaps) in enumerate(rows):
        np.testing.assert_allclose(image, displayable(images)[n])
        np.testing.assert_array_equal(heatmaps, coloured(heat[:, n], limit_of(heat, 99.5)))
    assert words_of(figure) == ["one", "two", "three", "a ", "<b>$ "]
    low, high = figure.axes[-1].get_ylim()
    assert high == -low == pytest.approx(limit_of(heat, 99.5))
    rows, _ = pictures_of(draw_contact_sheet, images, many, overlay=True)
    np.testing.assert_array_equal(rows[0][1], over_grey(heat[0], limit_of(heat, 99.5), displayable(images))[0])
    assert as_array(figure).std() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"relevance": torch.zeros(2, 1, 6, 6)}, r"\(K, N, C, H, W\)"),
        ({"relevance": torch.zeros(2, 3, 1, 6, 6)}, "same N"),
        ({"rows": ["one"]}, "1 titles of rows were given for 2"),
        ({"columns": ["one"]}, "1 titles of columns were given for 3"),
    ],
)
def test_sheets_that_cannot_be_drawn(arguments: dict, message: str) -> None:
    given = {"images": torch.zeros(2, 1, 6, 6), "relevance": torch.zeros(3, 2, 1, 6, 6)} | arguments
    with pytest.raises(InputError, match=message):
        draw_contact_sheet(**given)
