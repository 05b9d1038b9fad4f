"""A device that is not there: its tensors lie in the host's memory, and in all else they are apart from the host's.

An operator that is given tensors of both raises, numpy and plain lists are had through the host alone, and, as on Apple's
MPS, no tensor is in double precision. Torch knows of the device for as long as the process lives, so it is for scripts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils import backend_registration
from torch.utils._python_dispatch import return_and_correct_aliasing

NAME = "apart"
AVAILABLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
"""Whether this torch lets a device be made in Python."""

_aten = torch.ops.aten
_MIXING = (
    _aten._to_copy.default, _aten.copy_.default, _aten._has_compatible_shallow_copy_type.default,
    _aten._pack_padded_sequence.default, _aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default,
)  # fmt: skip
"""Operators that take tensors of the host beside those of a device: they copy, or read lengths or indices."""


class Apart(Tensor):
    """A tensor of the device, around one of the host."""

    on_host: Tensor

    @staticmethod
    def __new__(cls, t: Tensor) -> Apart:
        if t.dtype in (torch.double, torch.cdouble):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        self = Tensor._make_wrapper_subclass(
            cls, t.shape, strides=t.stride(), storage_offset=t.storage_offset(), dtype=t.dtype, device=f"{NAME}:0"
        )
        self.on_host = t
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(func, *args, **(kwargs or {}))

    def tolist(self) -> Any:  # torch refuses subclasses
        return self.cpu().tolist()

    def new_tensor(self, data: Any) -> Tensor:  # and cannot make one of a list on such a device
        return torch.tensor(data, dtype=self.dtype).to(self.device)

    def __repr__(self, **options: Any) -> str:
        return self.detach().cpu().__repr__(**options)


def _run(func: Any, *args: Any, **kwargs: Any) -> Any:
    """An operator on the tensors within; what it makes is of the device, unless it is asked for on the host."""
    given = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there = [t for t in given if isinstance(t, Apart)]
    written = given[0] if func._schema.is_mutable else None
    if func not in _MIXING and there and (
        any(t.ndim for t in given if not isinstance(t, Apart)) or not (written is None or isinstance(written, Apart))
    ):  # fmt: skip
        raise RuntimeError(f"expected all tensors of {func} to be on the same device")
    to_host = torch.device(kwargs.get("device") or NAME).type == "cpu"
    own = {name: value for name, value in kwargs.items() if name not in ("device", "pin_memory", "non_blocking")}
    own_args, own = pytree.tree_map_only(Apart, lambda t: t.on_host, (args, own))
    made = func(*own_args, **own)
    if written is not None and not isinstance(written, Apart):
        return written
    if to_host:
        return made.clone() if any(made is t.on_host for t in there) else made
    return return_and_correct_aliasing(func, args, kwargs, pytree.tree_map_only(Tensor, Apart, made))


class _Backend(backend_registration._DummyBackendModule if AVAILABLE else object):  # type: ignore[misc]
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


def register() -> None:
    """Make torch know of the device."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Backend())
    _run_here.fallback(_run, "PrivateUse1")  # what is made on it of nothing, or of the host's tensors


_run_here = torch.library.Library("_", "IMPL")
