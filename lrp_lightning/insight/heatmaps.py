"""Heatmaps of single neurons and of critical paths: the relevance through each of them, for many in one pass.

The samples are repeated for each neuron or path, and in each copy relevance is propagated only through that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrp_lightning.attribution import LayerSelectiveLRP, SelectiveLRP
from lrp_lightning.composites import Composite, EpsilonPlus, as_composite
from lrp_lightning.engine import propagate
from lrp_lightning.errors import GraphError, InputError, LayerError
from lrp_lightning.graphs.paths import Node, Path
from lrp_lightning.layers import LayerNames, unwrapped
from lrp_lightning.rules import Rule

__all__ = ["along_own_path", "neuron_heatmaps", "path_heatmaps", "through_own_neuron"]

_ALL = torch.iinfo(torch.long).min
_NONE = _ALL + 1
"""Values that replace a neuron's number: the whole layer, and no neuron."""


def neuron_heatmaps(
    model: nn.Module,
    inputs: Tensor,
    layer: nn.Module | str,
    neurons: Sequence[int] | Tensor,
    target: Any = None,
    composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
    at: nn.Module | str | None = None,
    additional_forward_args: Any = None,
) -> Any:
    """The relevance that passes through each of the chosen neurons of a layer, in one batched pass.

    In that layer only the chosen neuron propagates relevance, as in concept relevance propagation (Achtibat et al. 2023);
    in all other layers every neuron does. Relevance that bypasses the layer, along a shortcut or a parallel branch, is left
    out. The heatmaps of all neurons of the layer sum to that of the output, minus the relevance that bypasses the layer.

    Args:
        model: the classifier.
        inputs: ``(N, ...)``.
        layer: a hidden layer, by name or module, or a residual sum (``"layer1.0.add"``).
        neurons: ``K`` numbers, or ``(N, K)`` for each sample, such as ``trace.relevance[layer].topk(K).indices``.
        target: the output to explain, as in ``SelectiveLRP.trace``.
        composite: as in :class:`lrp_lightning.SelectiveLRP`.
        at: a layer below, whose relevance is returned instead of the input's.
        additional_forward_args: passed to the model after ``inputs``; tensors of ``N`` samples are repeated per neuron.

    Returns:
        ``(K, *inputs.shape)``, or ``(K, N, ...)`` shaped like the output of ``at``. The pass needs the memory of one for
        ``(K + 1) * N`` samples.

    Raises:
        LayerError: if there is no such layer or neuron.
        InputError, TargetError, ModelError, UnsupportedOperatorError: as :class:`lrp_lightning.SelectiveLRP`.

    Example:
        >>> import torch
        >>> from lrp_lightning import neuron_heatmaps
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
        >>> neuron_heatmaps(model, torch.rand(2, 1, 5, 5), "0", neurons=[0, 3], target=1).shape
        torch.Size([2, 2, 1, 5, 5])
    """
    model = unwrapped(model)
    if not isinstance(inputs, Tensor) or inputs.ndim < 2:
        raise InputError(f"inputs must be a tensor, samples first, got {inputs!r:.80}")
    samples = len(inputs)
    chosen = torch.as_tensor(neurons).cpu()
    if chosen.is_floating_point() or chosen.dtype == torch.bool or chosen.numel() == 0:
        raise LayerError(f"neurons must be numbers of neurons, at least one, got {neurons!r}")
    if chosen.ndim not in (1, 2) or (chosen.ndim == 2 and len(chosen) != samples):
        raise LayerError(f"neurons must be (K,) or ({samples}, K), one row per sample, got {tuple(chosen.shape)}")
    chosen = chosen.T if chosen.ndim == 2 else chosen[:, None].expand(-1, samples)  # (K, N)
    k = len(chosen)

    def for_each(value: Any) -> Any:
        if isinstance(value, list) and len(value) == samples:
            return value * (k + 1)
        return _repeated(value, samples, k + 1)

    name = layer if isinstance(layer, str) else _name(model, layer)
    only = {name: torch.cat([chosen.reshape(-1), torch.full((samples,), _NONE)])}
    extra = _in_each(additional_forward_args, for_each)
    found = _through(model, for_each(inputs), only, for_each(target), composite, at, extra).unflatten(0, (k + 1, samples))
    if at is not None and (at if isinstance(at, str) else _name(model, at)) == name:
        return found[:-1]  # the relevance that arrives at the layer itself
    return found[:-1] - found[-1]


def through_own_neuron(
    model: nn.Module,
    inputs: Tensor,
    nodes: Sequence[Node],
    target: Tensor,
    composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
) -> Tensor:
    """The relevance of each sample that passes through its own neuron, of any layer, in one pass.

    A second pass is made for layers that relevance can bypass, such as those of a residual block.

    Args:
        model, composite: as in :func:`neuron_heatmaps`.
        inputs: ``(N, ...)``.
        nodes: ``N`` pairs ``(layer, neuron)``.
        target: ``(N,)``, the class to explain in each sample.

    Returns:
        Shaped like ``inputs``.

    Raises:
        LayerError, InputError, TargetError, ModelError, UnsupportedOperatorError: as :func:`neuron_heatmaps`.
    """
    first = {layer: n for n, (layer, _) in reversed(list(enumerate(nodes)))}
    rows = torch.tensor([*range(len(nodes)), *first.values()])
    samples = rows.to(inputs.device)
    only = _each_own([*nodes, *((layer, _NONE) for layer in first)])
    heat, around = _through(model, inputs[samples], only, target[samples], composite).split([len(nodes), len(first)])
    passed_by = {layer for layer, one in zip(first, around, strict=True) if one.any()}
    at = [n for n, (layer, _) in enumerate(nodes) if layer in passed_by]
    if at:
        some = torch.tensor(at, device=inputs.device)
        none = _each_own([(nodes[n][0], _NONE) for n in at])
        heat = heat.index_add(0, some, _through(model, inputs[some], none, target[some], composite), alpha=-1)
    return heat


def _each_own(nodes: Sequence[Node]) -> dict[str, Tensor]:
    """For each layer, the neuron of each sample; all neurons for samples whose neuron is in another layer."""
    only = {layer: torch.full((len(nodes),), _ALL) for layer, _ in nodes}
    for n, (layer, neuron) in enumerate(nodes):
        only[layer][n] = neuron
    return only


def _through(
    model: nn.Module,
    inputs: Tensor,
    only: Mapping[str, Tensor],
    target: Any,
    composite: Composite | Rule | str,
    at: nn.Module | str | None = None,
    additional_forward_args: Any = None,
) -> Tensor:
    """Relevance of the inputs, or at a layer, if given layers propagate only that of each sample's own neurons."""
    if at is None:
        return SelectiveLRP(model, composite, _OneEach(only)).attribute(inputs, target, additional_forward_args)
    return LayerSelectiveLRP(model, at, composite, _OneEach(only)).attribute(inputs, target, additional_forward_args)


def path_heatmaps(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    paths: Sequence[Path],
    composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
    additional_forward_args: Any = None,
    at: nn.Module | str | None = None,
) -> Any:
    """The relevance of the inputs that passes along each path and nowhere else, in one batched pass.

    Each neuron of a path propagates relevance only to the next one below it, so not along a shortcut between two of them.
    The lowest neuron propagates it to everything that it reads. A path's last neuron is the explained output. The sum over
    the input is exactly the relevance along the path, minus what biases and stabilisers below its lowest neuron absorb. The
    path's share in the graph, a product of shares of edges that were summed over space and batch, only estimates it.

    Args:
        model: the classifier.
        inputs: ``(N, ...)``, or a tuple of them.
        paths: ``k`` paths that end at the output, from :func:`lrp_lightning.k_best_paths`.
        composite: as in :class:`lrp_lightning.SelectiveLRP`; use the one with which the paths were found.
        additional_forward_args: passed to the model after ``inputs``; tensors of ``N`` samples are repeated per path.
        at: a layer whose relevance is returned instead of the input's.

    Returns:
        ``(k, *inputs.shape)``, a tuple for a tuple of inputs; or ``(k, N, ...)`` shaped like the output of ``at``. The pass
        needs the memory of one for ``k * N`` samples.

    Raises:
        GraphError: if there are no paths, something given is not a path, or a path does not end at the output.
        LayerError: if a path contains a layer that the model does not have, or the layer ``at`` does not exist.
        InputError, ModelError, UnsupportedOperatorError: as :class:`lrp_lightning.SelectiveLRP`.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, build_graph, k_best_paths, path_heatmaps
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> x = torch.rand(5, 4)
        >>> paths = k_best_paths(build_graph(SelectiveLRP(model).trace(x, target=1, edges=True)), k=2)
        >>> path_heatmaps(model, x, paths).shape
        torch.Size([2, 5, 4])
    """
    if not isinstance(paths, Sequence) or not all(isinstance(path, Path) for path in paths):
        raise GraphError(f"paths must be a list of Path, from k_best_paths, got {type(paths).__name__}: {paths!r:.80}")
    if not paths:
        raise GraphError("there are no paths; for a negative output, k_best_paths needs signed=True to find some")
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    samples, k = len(given[0]), len(paths)

    def for_each(value: Any) -> Any:
        return _repeated(value, samples, k)

    extra = _in_each(additional_forward_args, for_each)
    heatmaps = tuple(
        relevance.unflatten(0, (k, samples))
        for relevance in _along(model, tuple(map(for_each, given)), paths, composite, extra, at)
    )
    return heatmaps if isinstance(inputs, tuple) and at is None else heatmaps[0]


def along_own_path(
    model: nn.Module,
    inputs: Tensor,
    paths: Sequence[Path],
    composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
) -> Tensor:
    """The relevance of each sample that passes along its own path, in one pass.

    Args:
        model, composite: as in :func:`path_heatmaps`.
        inputs: ``(N, ...)``.
        paths: ``N`` paths.

    Returns:
        Shaped like ``inputs``.

    Raises:
        GraphError, LayerError, InputError, ModelError, UnsupportedOperatorError: as :func:`path_heatmaps`.
    """
    [relevance] = _along(model, (inputs,), paths, composite)
    return relevance


def _along(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    paths: Sequence[Path],
    composite: Composite | Rule | str,
    extra: Any = None,
    at: nn.Module | str | None = None,
) -> tuple[Tensor, ...]:
    """The relevance of each input, or at a layer; the batch has the same number of samples for each path, path by path."""
    target = torch.tensor([path.nodes[-1][1] for path in paths]).repeat_interleave(len(inputs[0]) // len(paths))
    along, layers = [path.nodes for path in paths], [] if at is None else [at]
    trace, found = propagate(
        model, inputs, target, extra, as_composite(composite), None, layers=layers, along=along, accounts=False
    )
    return (found[0],) if found else trace.inputs  # type: ignore[return-value]


def _repeated(value: Any, samples: int, times: int) -> Any:
    """A tensor of all samples, repeated; anything else unchanged."""
    if isinstance(value, Tensor) and value.ndim and len(value) == samples:
        return value.repeat(times, *[1] * (value.ndim - 1))
    return value


def _in_each(extra: Any, change: Callable[[Any], Any]) -> Any:
    """Additional arguments of a forward, one value or a tuple, each mapped."""
    return tuple(map(change, extra)) if isinstance(extra, tuple) else change(extra)


def _name(model: nn.Module, layer: nn.Module) -> str:
    names = LayerNames(model).of_module
    if id(layer) not in names:
        raise LayerError(f"{type(layer).__name__} is not a module of the model")
    return names[id(layer)]


@dataclass(frozen=True, eq=False)
class _OneEach:
    """Selects, in some layers, one neuron or all neurons for each sample of the batch; other layers keep all neurons."""

    neurons: Mapping[str, Tensor]

    @property
    def patterns(self) -> Iterator[str]:
        """The layers that must exist."""
        yield from self.neurons

    def select(self, relevance: Tensor, *, layer: str, output: Tensor) -> Tensor | None:
        if layer not in self.neurons:
            return None
        neurons = self.neurons[layer]
        wrong = neurons[(neurons > _NONE) & ((neurons < 0) | (neurons >= relevance.shape[1]))]
        if len(wrong):
            raise LayerError(
                f"layer {layer!r} has {relevance.shape[1]} neurons, 0 to {relevance.shape[1] - 1}, got {int(wrong[0])}"
            )
        neurons = neurons.to(relevance.device)[:, None]
        return (torch.arange(relevance.shape[1], device=relevance.device) == neurons) | (neurons == _ALL)
