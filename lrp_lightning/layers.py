"""The layers of a model and their names, and the state of the model while it is explained."""

from __future__ import annotations

import sys
import threading
import weakref
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lrp_lightning.checks import got, meant
from lrp_lightning.compat import base_of, is_aten, is_lazy, own_modules, own_parameters, uncompiled
from lrp_lightning.errors import LayerError, LRPError, ModelError
from lrp_lightning.rules import Rule, rule_on

__all__ = [
    "LayerNames",
    "explained",
    "modules_of",
    "neuron_dim",
    "numbered",
    "unknown_layer",
    "unwrapped",
    "without_compilation",
]


def unwrapped(model: nn.Module) -> nn.Module:
    """The module behind ``torch.compile``.

    Raises:
        ModelError: if ``model`` is not a module.
    """
    if not isinstance(model, nn.Module):
        swapped = "; the model is the first argument, the inputs are the second" if isinstance(model, Tensor) else ""
        raise ModelError(f"model must be a torch.nn.Module, got {got(model)}{swapped}")
    return uncompiled(model)


def modules_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Like ``model.named_modules()``, but several times faster, because every pass needs it."""
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    todo: list[tuple[str, nn.Module]] = [("", model)]
    while todo:
        name, module = todo.pop()
        if id(module) in seen:
            continue
        if type(module).named_modules is not nn.Module.named_modules:  # it names its children itself
            named = [(inner, m) for inner, m in module.named_modules(prefix=name) if id(m) not in seen]
            seen.update(id(m) for _, m in named)
            found += named
            continue
        seen.add(id(module))
        found.append((name, module))
        prefix = f"{name}." if name else ""
        children = reversed(own_modules(module).items())
        todo += [(prefix + child_name, child) for child_name, child in children if child is not None]
    return found


def check_shows_operators(model: nn.Module) -> None:
    """Raise an error for a model that hides its operators.

    Raises:
        ModelError: naming the module, and what to explain instead.
    """
    for name, module in modules_of(model):
        where = f"module {name!r}" if name else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(
                f"{where} is scripted or traced, which hides its operators; explain the model that it was made from"
            )
        if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")):
            raise ModelError(
                f"{where} is quantised, and its integers have no gradient; explain the model that it was made from"
            )
        if isinstance(module, torch.fx.GraphModule) and any(is_aten(node.target) for node in module.graph.nodes):
            raise ModelError(
                f"{where} was exported, and calls ATen's operators, not torch's; explain the model that it was made from"
            )


def without_compilation(name: str) -> str:
    """A module's name without the parts that ``torch.compile`` adds."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod") if "_orig_mod" in name else name


class LayerNames:
    """Names of layers, found by the identity of their parameters and modules, without hooks."""

    def __init__(self, model: nn.Module) -> None:
        self.of_parameter: dict[int, str] = {}
        self.of_module: dict[int, str] = {}
        self.modules: dict[str, nn.Module] = {}
        self._rules: dict[str, Rule | None] = {}
        for name, module in modules_of(model):
            name = without_compilation(name)
            self.of_module.setdefault(id(module), name)
            self.modules[name] = module
            for owned, parameter in own_parameters(module).items():  # as named_parameters does, but faster
                if parameter is not None:
                    if is_lazy(parameter):
                        raise ModelError(
                            f"parameter {owned!r} of module {name!r} has no size yet; run the model once on a batch first"
                        )
                    full = f"{name}.{owned}" if name else owned
                    self.of_parameter.setdefault(id(parameter), full.removesuffix(".weight"))

    def name_of(self, layer: nn.Module | str) -> str:
        """The name of a layer that is given by name or as a module.

        Raises:
            LayerError: if the module is not part of the model.
        """
        if isinstance(layer, str):
            return layer
        if not isinstance(layer, nn.Module) or id(layer) not in self.of_module:
            raise LayerError(f"{type(layer).__name__} is neither a module of the model nor a layer's name")
        return self.of_module[id(layer)]

    def of_weight(self, weight: Tensor | None, kind: str) -> str:
        """Name of the layer that owns a weight; for a tensor that is not a parameter, the running module or its kind."""
        named = self.of_parameter.get(id(weight))
        if named is None and weight is not None:  # it may be a view of a parameter, such as its T
            named = self.of_parameter.get(id(base_of(weight)))
        return named or self.executing() or kind

    def rule_of(self, layer: str) -> Rule | None:
        """The rule that the caller set on the module of a layer, as ``module.rule``.

        Raises:
            RuleError: as :func:`lrp_lightning.rules.rule_on`.
        """
        if layer not in self._rules:
            self._rules[layer] = rule_on(self.modules.get(layer))
        return self._rules[layer]

    def here(self, what: str) -> str:
        """A name for an operator without parameters in the running module."""
        return f"{self.executing()}.{what}".removeprefix(".")

    def note(self, error: RuntimeError) -> None:
        """Add to torch's error message the module in which an operator failed."""
        known = isinstance(error, LRPError) or getattr(error, "__notes__", None)
        if not known and hasattr(error, "add_note"):
            name = self.executing()
            channels, features = (getattr(self.modules.get(name), of, None) for of in ("in_channels", "in_features"))
            reads = f" It reads {channels} channels, in dimension 1" if channels else ""
            reads = f" It reads {features} features, in the last dimension" if features else reads
            error.add_note(f"in module {name!r} of the model; does the input fit it?{reads}")

    def executing(self) -> str:
        """Name of the innermost module whose code is on the call stack, found without hooks."""
        frame = sys._getframe(1)
        while frame is not None:
            name = self.of_module.get(id(frame.f_locals.get("self")))
            if name is not None:
                return name
            frame = frame.f_back  # type: ignore[assignment]
        return ""


_state = threading.Lock()
_explained: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()
"""Modules that were in train mode before they are explained in eval mode, and the number of passes that use them."""


@contextmanager
def explained(model: nn.Module, device: torch.device) -> Iterator[None]:
    """The state in which a model is explained: eval mode, with gradients, without autocast; undone at the end.

    Several threads may explain one model at the same time; the last one to finish restores train mode.
    """
    with _state:
        training = [module for _, module in modules_of(model) if module.training or module in _explained]
        for module in training:
            _explained[module] = _explained.get(module, 0) + 1
            module.training = False
    try:
        with (
            _without_compilation(),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            yield
    finally:
        with _state:
            for module in training:
                _explained[module] -= 1
                if not _explained[module]:
                    del _explained[module]
                    module.training = True


_compilation = threading.Lock()
_uncompiled = 0
_stance: Any = None


@contextmanager
def _without_compilation() -> Iterator[None]:
    """Run compiled code eagerly, so that its operators are visible. Threads share this stance; the last one restores it."""
    global _uncompiled, _stance
    if "torch._dynamo" not in sys.modules:  # then nothing has been compiled
        yield
        return
    with _compilation:
        _uncompiled += 1
        if _uncompiled == 1:
            _stance = torch.compiler.set_stance("force_eager")
            _stance.__enter__()
    try:
        yield
    finally:
        with _compilation:
            _uncompiled -= 1
            if _uncompiled == 0:
                _stance.__exit__(None, None, None)
                _stance = None


def neuron_dim(t: Tensor, kind: str) -> int:
    """The dimension that holds a layer's neurons: the last for linear layers, 1 for all others."""
    return t.ndim - 1 if kind == "linear" else 1


_READ_LAST = (nn.Linear, nn.RNNBase, nn.RNNCellBase, nn.LayerNorm, nn.MultiheadAttention)
_READ_FIRST = (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d)


def input_neuron_dim(model: nn.Module, x: Tensor) -> int:
    """The dimension of an input that holds its neurons.

    The model may set it as ``input_neurons``. Otherwise it is dimension 1, except for inputs ``(N, L, C)``, which the
    first module with parameters distinguishes from ``(N, C, L)``.

    Raises:
        ModelError: if the input has no such dimension.
    """
    asked = getattr(model, "input_neurons", None)
    if asked is None:
        if x.ndim != 3:
            return 1
        first = next((m for m in model.modules() if isinstance(m, _READ_LAST + _READ_FIRST)), None)
        return 2 if isinstance(first, _READ_LAST) else 1
    if not isinstance(asked, int) or not 1 <= asked < x.ndim:
        raise ModelError(
            f"input_neurons of {type(model).__name__} is {asked!r}, but an input has shape {tuple(x.shape)}; it must be the "
            f"dimension that holds the input's neurons, 1 to {x.ndim - 1}"
        )
    return asked


def numbered(names: list[str]) -> list[str]:
    """Names made unique: a name that occurs more than once is numbered, ``conv#1``, ``conv#2``."""
    times, seen = Counter(names), Counter[str]()
    result = []
    for name in names:
        seen[name] += 1
        result.append(f"{name}#{seen[name]}" if times[name] > 1 else name)
    return result


def unknown_layer(name: str, known: Collection[str]) -> LayerError:
    """An error that names the unknown layer and similar layers that exist."""
    return LayerError(f"no layer {name!r} carries relevance in this model; {meant(name, known)}")
