"""Layer-wise relevance propagation with neuron selection inside the backward pass."""

from __future__ import annotations

import lazy_loader

__version__ = "0.2.0"

# The public names are listed in __init__.pyi. Each is imported on first use, so that ``import lrp_lightning`` is cheap
_resolve, _public = lazy_loader.attach_stub(__name__, __file__)[::2]
__all__ = [*_public, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _public:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _resolve(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"annotations", "lazy_loader"})
