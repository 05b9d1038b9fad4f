"""An unsharded copy of a module whose parameters are sharded over processes."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

__all__ = ["gathered"]

Module = TypeVar("Module", bound=nn.Module)


def gathered(module: Module) -> Module:
    """A copy of a module as it was before :func:`torch.distributed.fsdp.fully_shard`, in memory of its own.

    All processes must call it together. The copy has all parameters in full, in their own precision and on their module's
    device, which takes the memory of the whole model on each process. Buffers and all other attributes are those of
    ``module``. It has none of the classes and hooks of the sharding.

    Example:
        >>> import torch
        >>> from lrp_lightning.callbacks.gathered import gathered
        >>> linear = torch.nn.Linear(2, 3)
        >>> copy = gathered(torch.nn.Sequential(linear, linear))
        >>> copy[0] is copy[1] and copy[0] is not linear and bool((copy[0].weight == linear.weight).all())
        True
    """
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()  # the owner releases its gathered parameters
    known: dict[int, Any] = {}  # by the identity of what is copied, so that what is shared stays shared
    with torch.no_grad():
        return _copy(module, known)


def _copy(module: Module, known: dict[int, Any]) -> Module:
    if id(module) not in known:
        copy: Module = object.__new__(_class_before(type(module)))
        known[id(module)] = copy
        copy.__dict__.update(module.__dict__)
        copy.__dict__["_parameters"] = {name: _whole(p, known) for name, p in module._parameters.items()}
        copy.__dict__["_buffers"] = dict(module._buffers)
        copy.__dict__["_modules"] = {n: m if m is None else _copy(m, known) for n, m in module._modules.items()}
        for name, value in module.__dict__.items():
            if isinstance(value, dict) and "_hooks" in name:
                copy.__dict__[name] = type(value)((at, hook) for at, hook in value.items() if not _shards(hook))
    return known[id(module)]


def _class_before(sharded: type) -> type:
    """The original class of a sharded module, whose class is derived from ``FSDPModule`` and the original one."""
    order = sharded.__mro__
    return order[order.index(FSDPModule) + 1] if FSDPModule in order else sharded


def _whole(parameter: Tensor | None, known: dict[int, Any]) -> Tensor | None:
    if parameter is None:
        return None
    if id(parameter) not in known:
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter.detach()
        known[id(parameter)] = nn.Parameter(whole.clone(), requires_grad=parameter.requires_grad)
    return known[id(parameter)]


def _shards(hook: Any) -> bool:
    return type(getattr(hook, "__self__", None)).__name__ == "FSDPState"
