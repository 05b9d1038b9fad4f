"""Numbers in words, for people."""

from __future__ import annotations

__all__ = ["percent"]


def percent(share: float) -> str:
    """A share in whole per cent, with two digits if it would round to 0 or 1 %: ``38%``, ``0.04%``, ``<0.01%``."""
    if 0 < abs(share) < 1e-4:
        return "<0.01%" if share > 0 else ">-0.01%"
    return f"{100 * share:.2g}%" if 0 < abs(share) < 0.0095 else f"{share:.0%}"
