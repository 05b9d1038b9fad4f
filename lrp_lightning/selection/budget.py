"""How many neurons a selection keeps: a number of them, or a share."""

from __future__ import annotations

from lrp_lightning.checks import is_number, is_whole
from lrp_lightning.errors import SelectionError

__all__ = ["check_budget", "number_of"]


def check_budget(who: str, keep: int | float) -> int | float:
    """Refuse what is neither a number of neurons nor a share of them; give it as Python's own number.

    Raises:
        SelectionError: naming ``who`` asked.
    """
    whole = is_whole(keep)
    if not (keep >= 1 if whole else is_number(keep) and 0 < keep <= 1):
        raise SelectionError(
            f"{who}: keep must be a number of neurons per layer (int >= 1), or a share of them (float in (0, 1], 0.1 for "
            f"10 %), got {keep!r}"
        )
    return int(keep) if whole else float(keep)


def number_of(keep: int | float, neurons: int) -> int:
    """How many of a layer's neurons a budget is: at least one, and no more than there are."""
    return min(int(keep), neurons) if is_whole(keep) else max(1, round(keep * neurons))
