"""Figures: heatmaps by matplotlib, without pyplot and its global state; graphs, paths and curves also by plotly.

Drawing functions take data and run no analysis. ``lrp_lightning.report`` runs the analysis and uses these figures; its
names can also be imported from here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lrp_lightning.drawing.contrast import draw_contrast
from lrp_lightning.drawing.curves import draw_curves
from lrp_lightning.drawing.figures import as_array
from lrp_lightning.drawing.graphs import draw_graph
from lrp_lightning.drawing.heatmaps import draw_contact_sheet, draw_heatmaps
from lrp_lightning.drawing.neuron_cards import draw_neuron_cards
from lrp_lightning.drawing.paths import draw_paths
from lrp_lightning.drawing.reconstructions import draw_top_activations
from lrp_lightning.drawing.sequences import draw_series, draw_tokens
from lrp_lightning.drawing.strategies import draw_strategies
from lrp_lightning.pixels import relevance_as_images

if TYPE_CHECKING:
    from lrp_lightning.report import ClassGraph, Curves, Report, report_of, save_contrast, write_report

__all__ = [
    "ClassGraph", "Curves", "Report", "as_array", "draw_contact_sheet", "draw_contrast", "draw_curves", "draw_graph",
    "draw_heatmaps", "draw_neuron_cards", "draw_paths", "draw_series", "draw_strategies", "draw_tokens",
    "draw_top_activations", "relevance_as_images", "report_of", "save_contrast", "write_report",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """The names of the report, imported on first use (PEP 562), because drawing does not depend on it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("lrp_lightning.report"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
