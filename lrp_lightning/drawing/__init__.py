"""Pictures: heatmaps as matplotlib figures, made without pyplot and its global state; graphs and paths by plotly too."""

from lrp_lightning.drawing.figures import as_array
from lrp_lightning.drawing.graphs import draw_graph
from lrp_lightning.drawing.heatmaps import draw_heatmaps
from lrp_lightning.drawing.paths import draw_paths

__all__ = ["as_array", "draw_graph", "draw_heatmaps", "draw_paths"]
