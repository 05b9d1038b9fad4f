"""Private interfaces of torch and Lightning that this library uses; check them with each new version."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, get_proxy_mode, get_proxy_slot
from torch.nn.modules._functions import BackwardHookFunction
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.parameter import is_lazy
from torch.overrides import _get_current_function_mode_stack as function_modes
from torch.utils import _pytree as pytree

__all__ = [
    "BackwardHookFunction", "base_of", "BatchNorm", "c_functions", "depends_on_inputs", "function_modes", "function_of",
    "in_double", "in_projection", "in_projection_packed", "is_aten", "is_exporting", "is_lazy", "is_recording", "loaders_of",
    "own_modules", "own_parameters", "pytree", "revived", "set_grad_enabled", "share_memory", "uncompiled", "unrecorded",
    "variable_functions",
]  # fmt: skip

set_grad_enabled: Callable = torch._C._set_grad_enabled
"""The function that a function mode sees when ``torch.no_grad`` is entered or left."""

c_functions: Any = torch._C._nn
"""The namespace in which ``F.linear``, ``F.gelu`` and others are implemented."""

variable_functions: Any = torch._C._VariableFunctions
"""The namespace of ``torch``'s own functions, which other libraries may replace by theirs."""

in_projection: Callable = F._in_projection  # type: ignore[attr-defined]
in_projection_packed: Callable = F._in_projection_packed  # type: ignore[attr-defined]
"""How ``F.multi_head_attention_forward`` projects queries, keys and values."""


def _is_exporting() -> bool:
    return torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()


is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", _is_exporting)
"""Whether ``torch.export`` records. Torch 2.6 does not say so; there it is noticed with ``strict=False`` alone."""


def in_double(t: Tensor) -> Tensor:
    """A tensor in double precision, or in single precision on a device without double, such as Apple's MPS."""
    try:
        return t.double()
    except TypeError:
        return t.float()


def share_memory(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors share memory."""
    return torch._C._is_alias_of(one, other)  # type: ignore[attr-defined]


def base_of(t: Tensor) -> Tensor | None:
    """The tensor that ``t`` is a view of, as autograd knows it."""
    return t._base


def revived(t: Tensor) -> Tensor:
    """A tensor that was found by a weak reference: torch may release its Python object and take it back."""
    t._fix_weakref()  # type: ignore[attr-defined]
    return t


def function_of(node: Any) -> type | None:
    """The ``torch.autograd.Function`` of a node of autograd's graph; None for torch's own nodes."""
    return node._forward_cls if isinstance(node, BackwardCFunction) else None  # type: ignore[attr-defined]


class _Paused(threading.local):
    """The modes of ``make_fx`` that :func:`unrecorded` switches off, outermost first."""

    modes: tuple[Any, ...] = ()


_paused = _Paused()


def is_recording() -> bool:
    """Whether ``make_fx`` is recording; also true inside :func:`unrecorded`, where recording is only suspended."""
    return get_proxy_mode() is not None or bool(_paused.modes)


@contextmanager
def unrecorded() -> Iterator[None]:
    """Suspend recording by ``make_fx``, for facts about tensors, which are the same for all inputs. Also a decorator."""
    mode = get_proxy_mode()
    if mode is None:
        yield
        return
    _paused.modes = (*_paused.modes, mode)
    try:
        with disable_proxy_modes_tracing():
            yield
    finally:
        _paused.modes = _paused.modes[:-1]


def depends_on_inputs(t: Tensor) -> bool:
    """Whether a tensor was computed from the inputs of the recording by ``make_fx``."""
    mode = get_proxy_mode() or next(reversed(_paused.modes), None)
    found = None if mode is None else get_proxy_slot(t, mode.tracer, None)
    todo, seen = [] if found is None else [found.proxy.node], set()
    while todo:
        node = todo.pop()
        if node.op == "placeholder":
            return True
        todo += [arg for arg in node.all_input_nodes if arg not in seen]
        seen.update(node.all_input_nodes)
    return False


def is_aten(function: Any) -> bool:
    """Whether a function is one of ATen's operators, as exported programs call them."""
    return isinstance(function, torch._ops.OpOverload)


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """A module's own parameters, without those of its children."""
    return module._parameters


def own_modules(module: nn.Module) -> dict[str, nn.Module | None]:
    """A module's own modules, without those of its children."""
    return module._modules


def uncompiled(model: nn.Module) -> nn.Module:
    """The module behind ``torch.compile``."""
    return getattr(model, "_orig_mod", model)


def loaders_of(loop: Any) -> list[Any]:
    """The loaders of one of Lightning's evaluation loops if they run sequentially; otherwise empty."""
    return pytree.tree_leaves(loop._combined_loader.flattened) if loop._is_sequential else []
