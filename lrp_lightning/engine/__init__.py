"""One forward and one backward that hand relevance from the output to the input.

``affine.py``     affine maps, and the one backward through them by any rule
``recording.py``  what a pass writes down: layers, relevance, masks, edges, what was absorbed
``mode.py``       the mode that watches the forward of an untouched model
``dimensions.py`` where samples and neurons are in an operator's result
``rows/``         what the backward of each operator is
``operators.py``  the table of them, and how to add to it
``captures.py``   whole tensors of relevance at layers that the caller names
``propagate.py``  the pass itself
``gradients.py``  the mode of reconstruction: every operator's own gradient, but rectifiers'
"""

from lrp_lightning.engine.operators import register_operator
from lrp_lightning.engine.propagate import propagate

__all__ = ["propagate", "register_operator"]
