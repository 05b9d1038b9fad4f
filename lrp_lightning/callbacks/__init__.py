"""Callbacks and modules for Lightning's Trainer; imported as ``lrp_lightning.callbacks``."""

from lrp_lightning.callbacks.explainer import Explainer
from lrp_lightning.callbacks.relevance_monitor import RelevanceMonitor
from lrp_lightning.callbacks.relevance_writer import RelevanceWriter

__all__ = ["Explainer", "RelevanceMonitor", "RelevanceWriter"]
