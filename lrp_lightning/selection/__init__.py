"""Selections: which neurons of a layer, per sample, may carry relevance on.

A selection decides *inside* the backward pass, as the relevance arrives at a layer, so what it keeps below depends on
what it kept above. One's own is a frozen dataclass with the method of :class:`Selection`.

==============  ==============================================================================================
``TopK``        the share or number of neurons with the highest relevance
``Coverage``    the fewest neurons that carry a share of the layer's positive relevance
``Threshold``   those with more than a share of the output
``Fixed``       those that the caller names
``PerLayer``    another selection in each layer, by name pattern; layers left whole
``MinError``    sets optimised against the error of the output (``min_error.py``)
``Agreement``   sets where activation and relevance agree (``agreement.py``)
==============  ==============================================================================================
"""

from lrp_lightning.selection.by_relevance import Coverage, Threshold, TopK
from lrp_lightning.selection.control import random_masks
from lrp_lightning.selection.fixed import Fixed
from lrp_lightning.selection.per_layer import PerLayer
from lrp_lightning.selection.protocol import Search, Selection

__all__ = ["Coverage", "Fixed", "PerLayer", "Search", "Selection", "Threshold", "TopK", "random_masks"]
