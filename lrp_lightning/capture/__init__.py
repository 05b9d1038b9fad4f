"""A pass as a program of plain tensor operators, for ``torch.compile``, ``torch.export`` and ONNX.

| | |
| --- | --- |
| ``program.py`` | records a pass: the module :class:`Captured` and its result, :class:`Explanation` |
| ``any_batch.py`` | one program for any number of samples, from recordings of several numbers |
| ``folding.py`` | removes unused operators, and precomputes values that depend only on weights |
| ``decompositions.py`` | backward operators in terms of forward operators, for formats without backward operators |
| ``export.py`` | files that run without this library |
"""

from lrp_lightning.capture.export import export, save_compiled, save_exported, save_onnx
from lrp_lightning.capture.program import Captured, Explanation

__all__ = ["Captured", "Explanation", "export", "save_compiled", "save_exported", "save_onnx"]
