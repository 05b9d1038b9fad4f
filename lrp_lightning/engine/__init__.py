"""One forward and one backward that propagate relevance from the output to the input.

| | |
| --- | --- |
| reading a call | ``calls.py`` (the operator, in any spelling), ``aliases.py`` (in-place writes) |
| the interpreter | ``interpreter.py`` (read, row, note), ``facts.py``, ``following.py``, ``notes.py`` |
| rows | ``operators/``: the result of each operator, and facts about it |
| visitors | ``visitor.py`` (the interface), ``relevance.py``, ``gradients.py``, ``masked.py`` |
| relevance | ``affine.py`` (the one backward of affine maps), ``functions.py`` (as autograd Functions), ``by_sample.py`` |
| records of a pass | ``layers.py``, ``ledger.py``, ``selecting.py``, ``edges.py``, ``along.py``, ``captures.py`` |
| the pass | ``propagate.py`` |
"""

from lrp_lightning.engine.operators.activations import logits_of
from lrp_lightning.engine.operators.table import register_operator, registered_operator, unregister_operator
from lrp_lightning.engine.propagate import propagate

__all__ = ["logits_of", "propagate", "register_operator", "registered_operator", "unregister_operator"]
