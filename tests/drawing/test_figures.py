"""Figures show themselves: what IPython asks them for, and what becomes of that when they are changed or copied."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import matplotlib
import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure
from PIL import Image

from lrp_lightning.drawing import as_array, draw_curves, draw_heatmaps

PLOTLY = "application/vnd.plotly.v1+json"


def drawn(title: str = "") -> Figure:
    return draw_curves({"critical": [0.4, 0.9]}, title=title, static=True)


def interactive() -> go.Figure:
    return draw_curves({"critical": [0.4, 0.9]})


@pytest.fixture
def shell() -> Any:
    """One in which nothing was set up."""
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    bundles: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def test_a_static_figure_is_a_picture_by_itself(shell: Any) -> None:
    figure, backend = draw_heatmaps(torch.rand(2, 1, 8, 8), torch.randn(2, 1, 8, 8)), matplotlib.get_backend()
    data, _ = shell.display_formatter.format(figure)
    assert sorted(data) == ["image/png", "text/plain"]
    with Image.open(io.BytesIO(data["image/png"])) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), as_array(figure))
    assert matplotlib.get_backend() == backend


def test_what_matplotlib_inline_registers_goes_before_it(shell: Any) -> None:
    shell.display_formatter.formatters["image/png"].for_type(Figure, lambda figure: b"\x89PNG by IPython")
    data, _ = shell.display_formatter.format(drawn())
    assert data["image/png"] == b"\x89PNG by IPython"


def test_its_type_is_matplotlibs_own_and_copies_show_themselves() -> None:
    figure = drawn()
    assert type(figure) is Figure
    for again in (copy.deepcopy(figure), pickle.loads(pickle.dumps(figure))):
        again.suptitle("another")
        assert again._repr_png_() != figure._repr_png_()


def test_an_interactive_figure_has_a_still_beside_it(displayed: list[dict[str, Any]], monkeypatch: Any) -> None:
    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")
    interactive()._ipython_display_()
    [bundle] = displayed
    assert sorted(bundle) == [PLOTLY, "image/png"]
    assert bundle[PLOTLY]["data"][0]["name"] == "critical"


def test_one_that_was_changed_is_shown_as_plotly_does(displayed: list[dict[str, Any]], monkeypatch: Any) -> None:
    """The still would be of what it was."""
    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")
    by_plotly: list[go.Figure] = []
    monkeypatch.setattr(go.Figure, "_ipython_display_", by_plotly.append)
    figure = interactive()
    figure.update_layout(title="mine")
    figure._ipython_display_()
    assert displayed == []
    assert by_plotly == [figure]


def test_the_renderer_that_the_reader_chose_is_used(displayed: list[dict[str, Any]], monkeypatch: Any) -> None:
    by_plotly: list[go.Figure] = []
    monkeypatch.setattr(go.Figure, "_ipython_display_", by_plotly.append)
    for renderer in ("browser", "notebook", "plotly_mimetype+notebook"):
        monkeypatch.setattr(pio.renderers, "default", renderer)
        interactive()._ipython_display_()
    assert displayed == []
    assert len(by_plotly) == 3


def test_an_interactive_figure_is_copied_and_pickled() -> None:
    figure = interactive()
    for again in (copy.deepcopy(figure), pickle.loads(pickle.dumps(figure)), go.Figure(figure)):
        assert type(again) is go.Figure
        assert again == figure
