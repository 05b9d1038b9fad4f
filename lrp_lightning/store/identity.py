"""The identity of a store: the model with its weights, and how it is explained."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from typing import Any

import torch
from torch import nn

__all__ = ["described", "fingerprint"]


def fingerprint(model: nn.Module) -> str:
    """A hash of a model's parameters and buffers: their names, shapes, dtypes and values, independent of the device.

    Example:
        >>> import torch
        >>> from lrp_lightning.store.identity import fingerprint
        >>> one, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
        >>> fingerprint(one) == fingerprint(other), len(fingerprint(one))
        (False, 32)
    """
    found = hashlib.sha256()
    for name, t in sorted(model.state_dict().items()):
        if isinstance(t, torch.Tensor):
            found.update(f"{name} {tuple(t.shape)} {t.dtype}\n".encode())
            found.update(_bytes(t))
        else:  # a module's extra state
            found.update(f"{name} {t!r}\n".encode())
    return found.hexdigest()[:32]


def described(value: Any) -> str:
    """An argument as text that is equal in every run and differs between arguments.

    Example:
        >>> from lrp_lightning import TopK
        >>> from lrp_lightning.store.identity import described
        >>> described(TopK(0.1)), described(described)
        ("TopK(keep=0.1, by='magnitude')", 'lrp_lightning.store.identity.described')
    """
    if isinstance(value, str):
        return value
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    if "..." in text:  # tensors of masks print only some of their values
        written = io.BytesIO()
        try:
            _Pickler(written).dump(value)
        except Exception:  # anything that cannot be pickled is described by its text
            return text
        text += f" {hashlib.sha256(written.getvalue()).hexdigest()[:16]}"
    return text


class _Pickler(pickle.Pickler):
    """Pickle tensors by their values alone; torch also pickles their place in memory."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        return str, (f"{tuple(value.shape)} {value.dtype} {_bytes(value).hex()}",)


def _bytes(t: torch.Tensor) -> bytes:
    return t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
