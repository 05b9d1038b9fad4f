"""The report: what is worth showing of a trace, and the one HTML file that shows it.

============  =====================================================================
``analysis``  what a report holds, and the passes that fill it from a trace
``page``      the data of the file, whose markup is in ``page.html.jinja`` and ``html/``; it computes nothing
``contrast``  a contrast as one folder, with a report
============  =====================================================================
"""

from lrp_lightning.graphs.class_graph import ClassGraph
from lrp_lightning.report.analysis import Curves, Report, report_of
from lrp_lightning.report.contrast import save_contrast
from lrp_lightning.report.page import write_report

__all__ = ["ClassGraph", "Curves", "Report", "report_of", "save_contrast", "write_report"]
