"""The number of neurons that a selection keeps, given as a number or as a share."""

from __future__ import annotations

from lrp_lightning.checks import is_number, is_whole
from lrp_lightning.errors import SelectionError

__all__ = ["check_budget", "number_of"]


def check_budget(who: str, keep: int | float) -> int | float:
    """Check that ``keep`` is a number or a share of neurons, and return it as a Python number.

    Raises:
        SelectionError: if it is not; the message names ``who``.
    """
    whole = is_whole(keep)
    if not (keep >= 1 if whole else is_number(keep) and 0 < keep <= 1):
        raise SelectionError(
            f"{who}: keep must be a number of neurons per layer (int >= 1), or a share of them (float in (0, 1], 0.1 for "
            f"10 %), got {keep!r}"
        )
    return int(keep) if whole else float(keep)


def number_of(keep: int | float, neurons: int) -> int:
    """The number of a layer's neurons within a budget: at least one, at most all."""
    return min(int(keep), neurons) if is_whole(keep) else max(1, round(keep * neurons))
