"""One forward and one backward that hand relevance from the output to the input.

``affine.py``     affine maps, and the one backward through them by any rule
``recording.py``  what a pass writes down: layers, relevance, masks, edges, what was absorbed
``mode.py``       the mode that watches the forward of an untouched model
``operators.py``  the table: operator -> what its backward is
``propagate.py``  the pass itself
"""

from lrp_lightning.engine.propagate import propagate

__all__ = ["propagate"]
