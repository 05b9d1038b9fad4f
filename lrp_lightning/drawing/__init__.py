"""Pictures: heatmaps as matplotlib figures, made without pyplot and its global state; graphs and paths by plotly too."""

from lrp_lightning.drawing.curves import draw_curves
from lrp_lightning.drawing.figures import as_array
from lrp_lightning.drawing.graphs import draw_graph
from lrp_lightning.drawing.heatmaps import draw_contact_sheet, draw_heatmaps
from lrp_lightning.drawing.page import write_report
from lrp_lightning.drawing.paths import draw_paths
from lrp_lightning.drawing.pixels import relevance_as_images
from lrp_lightning.drawing.reconstructions import draw_top_activations
from lrp_lightning.drawing.report import Curves, Report, report_of

__all__ = [
    "Curves", "Report", "as_array", "draw_contact_sheet", "draw_curves", "draw_graph", "draw_heatmaps", "draw_paths",
    "draw_top_activations", "relevance_as_images", "report_of", "write_report",
]  # fmt: skip
