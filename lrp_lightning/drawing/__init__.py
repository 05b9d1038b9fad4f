"""Pictures: heatmaps and graphs as matplotlib figures, made without pyplot and its global state."""

from lrp_lightning.drawing.figures import as_array
from lrp_lightning.drawing.graphs import draw_graph
from lrp_lightning.drawing.heatmaps import draw_heatmaps

__all__ = ["as_array", "draw_graph", "draw_heatmaps"]
