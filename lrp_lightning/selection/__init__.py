"""Selections: which neurons of a layer, per sample, may carry relevance on."""

from lrp_lightning.selection.by_relevance import (
    Coverage,
    Fixed,
    PerLayer,
    Search,
    Selection,
    Threshold,
    TopK,
    random_masks,
)

__all__ = ["Coverage", "Fixed", "PerLayer", "Search", "Selection", "Threshold", "TopK", "random_masks"]
