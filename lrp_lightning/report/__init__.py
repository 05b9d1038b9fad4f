"""The report: an analysis of a trace, written as a single HTML file.

============  =====================================================================
``analysis``  the contents of a report, and the passes that compute them from a trace
``page``      the HTML file, from the templates ``page.html.jinja`` and those in ``html/``; it computes nothing
``contrast``  a contrast as one folder, with a report
============  =====================================================================
"""

from lrp_lightning.graphs.class_graph import ClassGraph
from lrp_lightning.report.analysis import Curves, Report, report_of
from lrp_lightning.report.contrast import save_contrast
from lrp_lightning.report.page import write_report

__all__ = ["ClassGraph", "Curves", "Report", "report_of", "save_contrast", "write_report"]
