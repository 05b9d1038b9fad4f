"""Selections: which neurons of a layer may propagate relevance, per sample.

A selection chooses *inside* the backward pass, when relevance arrives at a layer, so its choice in a layer depends on its
choices in the layers above. To write your own, implement the method of :class:`Selection` in a frozen dataclass.

==============  ==============================================================================================
``TopK``        the share or number of neurons with the highest relevance
``Coverage``    the fewest neurons that carry a share of the layer's positive relevance
``Threshold``   those with more than a share of the output
``Fixed``       neurons that the caller names
``PerLayer``    a selection for each layer, by name pattern; layers without a selection
``MinError``    sets optimised for the error of the output (``min_error.py``)
``Agreement``   sets of neurons whose activation and relevance agree (``agreement.py``)
==============  ==============================================================================================
"""

from lrp_lightning.selection.by_relevance import Coverage, Threshold, TopK
from lrp_lightning.selection.control import random_masks
from lrp_lightning.selection.fixed import Fixed
from lrp_lightning.selection.per_layer import PerLayer
from lrp_lightning.selection.protocol import Search, Selection

__all__ = ["Coverage", "Fixed", "PerLayer", "Search", "Selection", "Threshold", "TopK", "random_masks"]
