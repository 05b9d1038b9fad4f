"""Relevance of whole tensors at layers that the caller names, by hooks that exist for one forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lrp_lightning.compat import BatchNorm, pytree
from lrp_lightning.engine.calls import tensors_in
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.following import assumed
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.layers import Layer
from lrp_lightning.engine.ledger import Ledger
from lrp_lightning.errors import LayerError
from lrp_lightning.layers import unknown_layer

__all__ = ["Captures"]


@dataclass(eq=False)
class _Captured:
    """One tensor at a layer: where its relevance is noted or, for a unit layer, the layer that notes it."""

    value: Tensor
    relevance: Tensor | None = None
    layer: Layer | None = None


class Captures:
    """The relevance noted at the requested layers.

    Args:
        run: the interpreter of the pass.
        ledger: the ledger of the pass.
        model: the explained model.
        layers: modules of it, or names: of modules, of calls (``"conv#2"``) or of junctions (``"layer1.0.add"``).
        of_input: whether to note the relevance of the layers' inputs instead of their outputs.

    Raises:
        LayerError: if a layer is not in the model.
    """

    def __init__(
        self, run: Interpreter, ledger: Ledger, model: nn.Module, layers: Sequence[nn.Module | str], of_input: bool
    ) -> None:
        self.run, self.ledger, self.of_input = run, ledger, of_input
        self.sources: list[Tensor] = []  # outputs of layers whose inputs carry no relevance, such as an embedding's
        by_name, known = run.names.modules, run.names.of_module
        self.modules: list[nn.Module | None] = []
        self.names: list[str] = []
        for layer in layers:
            if isinstance(layer, nn.Module) and id(layer) not in known:
                raise LayerError(f"{type(layer).__name__} is not a module of the model")
            module = by_name.get(layer) if isinstance(layer, str) else layer
            self.modules.append(module)
            self.names.append(layer if isinstance(layer, str) else run.names.of_module[id(layer)])
        self.found: list[list[list[_Captured]]] = [[] for _ in layers]  # the tensors of each call of each layer
        self.single: list[bool] = [True for _ in layers]

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Hooks on the requested modules, which are removed after the forward, even after an error."""
        handles = []
        try:
            for place, module in enumerate(self.modules):
                if module is None:
                    continue
                if self.of_input:
                    handles.append(module.register_forward_pre_hook(partial(self._enter, place), with_kwargs=True))
                else:
                    handles.append(module.register_forward_hook(partial(self._leave, place)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(
        self, place: int, module: nn.Module, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]] | None:
        # a new view, so that other uses of the same tensor are not counted; a batch norm may fold, so it gets the tensor
        # itself
        args, kwargs = pytree.tree_map_only(Tensor, self.run.latest, (args, kwargs))
        tensors = [t for t in tensors_in(args, kwargs) if self.run.known(t)]
        if isinstance(module, BatchNorm):
            self.found[place].append([self._watch(t) for t in tensors])
            return None
        views = {id(t): self.run.dispatch(torch.Tensor.view_as, t, t) for t in tensors}
        self.found[place].append([self._watch(views[id(t)], as_it_is=True) for t in tensors])
        return pytree.tree_map_only(Tensor, lambda t: views.get(id(t), t), (args, kwargs))

    def _leave(self, place: int, module: nn.Module, args: tuple, output: Any) -> Any:
        output = pytree.tree_map_only(Tensor, self.run.latest, output)
        self.single[place] = isinstance(output, Tensor)
        tensors = [t for t in tensors_in((output,)) if t.is_floating_point()]
        if isinstance(output, Tensor) and not self.run.known(output) and output.is_floating_point():
            output = output.detach().requires_grad_()
            first = assumed(self.run, output)
            self.run.facts[output] = Facts(
                first,
                near_input=True,
                lost="" if first is not None else f"layer {self.names[place]!r} has no samples in its first dimension",
            )
            self.sources.append(output)
            tensors = [output]
        self.found[place].append([self._watch(t) for t in tensors if self.run.known(t)])
        return output

    def _watch(self, t: Tensor, as_it_is: bool = False) -> _Captured:
        made_by = self.run.of(t).made_by
        if made_by is not None and not as_it_is:  # a batch norm may still fold into it, and then it gets no gradient itself
            self.ledger.keep_whole(made_by.layer)
            return _Captured(t.detach(), layer=made_by.layer)
        captured, ledger, near_input = _Captured(t.detach()), self.ledger, self.run.of(t).near_input

        def note(g: Tensor) -> None:  # autograd keeps it: a reference to the tensor would be a cycle
            captured.relevance = ledger.attribution(captured.value, g, near_input)

        t.register_hook(note)
        return captured

    def forward_done(self) -> None:
        """Find the requested layers that are not modules, after layers got their names.

        Raises:
            LayerError: if there is no such layer, or a module did not run or ran more than once.
        """
        by_name = {layer.name: layer for layer in self.run.visitor.layers.all}
        for place, (module, name) in enumerate(zip(self.modules, self.names, strict=True)):
            if module is None:
                layer = by_name.get(name)
                if layer is None:
                    raise unknown_layer(name, list(by_name))
                if self.of_input:
                    raise LayerError(
                        f"{name!r} is not a module, so its input is unknown; ask for the relevance of its output"
                    )
                self.ledger.keep_whole(layer)
                self.found[place] = [[_Captured(torch.empty(0), layer=layer)]]
            elif not self.found[place]:
                raise LayerError(f"layer {name!r} does not run in this forward")
            elif len(self.found[place]) > 1:
                raise LayerError(f"layer {name!r} runs {len(self.found[place])} times; name one: {name}#1, {name}#2, ...")

    def results(self) -> list[Tensor | tuple[Tensor, ...]]:
        """The relevance of each layer, shaped like its output or input."""
        return [
            tensors[0] if len(tensors) == 1 and (single or self.of_input) else tensors
            for single, [call] in zip(self.single, self.found, strict=True)
            if (tensors := tuple(self._relevance(c).detach() for c in call)) is not None
        ]

    def _relevance(self, captured: _Captured) -> Tensor:
        r = captured.relevance if captured.layer is None else self.ledger.whole.get(captured.layer)
        return torch.zeros_like(captured.value) if r is None else r
