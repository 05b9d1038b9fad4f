"""The table of operators: function -> its row, which says what its backward is."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lrp_lightning.engine.rows import affine, attention, elementwise, movement, normalisations, products
from lrp_lightning.engine.rows.arguments import Row

__all__ = ["TABLE"]


def _forms(name: str) -> list[Callable]:
    """Every form in which an operator of this name is called.

    ``torch.f`` and ``F.f`` are that form only, where forms differ in the order of their arguments; ``T.__get__`` is reading
    the attribute ``T``.
    """
    owner, _, attribute = name.rpartition(".")
    if attribute == "__get__":
        return [getattr(Tensor, owner).__get__]
    owners = {"torch": (torch,), "F": (F,)}.get(owner, (torch, Tensor, F, torch._C._nn, torch.linalg))
    return [func for owner in owners if callable(func := getattr(owner, attribute, None))]


TABLE: dict[Callable, Row] = {
    func: row
    for rows in (affine, elementwise, movement, products, normalisations, attention)
    for name, row in rows.ROWS.items()
    for func in _forms(name)
}
