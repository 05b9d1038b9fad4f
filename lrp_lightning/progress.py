"""Progress bars: widgets in notebooks that can show them, otherwise text."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("ipywidgets") is not None:
    from tqdm.auto import tqdm
else:  # tqdm.auto would warn in every notebook without widgets
    from tqdm import tqdm

__all__ = ["tqdm"]
