"""Progress bars: widgets in a notebook that can show them, else text."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("ipywidgets") is not None:
    from tqdm.auto import tqdm
else:  # where tqdm.auto warns in every notebook that it cannot show widgets
    from tqdm import tqdm

__all__ = ["tqdm"]
