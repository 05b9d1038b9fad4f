"""Lightning callbacks; imported as ``lrp_lightning.callbacks``."""

from lrp_lightning.callbacks.relevance_monitor import RelevanceMonitor

__all__ = ["RelevanceMonitor"]
