"""Heatmaps of critical paths: the input's relevance that runs through one chain of neurons, all chains in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrp_lightning.composites import Composite, EpsilonPlus, as_composite
from lrp_lightning.engine import propagate
from lrp_lightning.errors import GraphError
from lrp_lightning.graphs.paths import Path
from lrp_lightning.rules import Rule

__all__ = ["path_heatmaps"]


def path_heatmaps(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    paths: Sequence[Path],
    composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
    additional_forward_args: Any = None,
    at: nn.Module | str | None = None,
) -> Any:
    """The relevance of the inputs that runs along each path and nowhere else, by one batched pass.

    Each neuron of a path hands relevance to the next below it alone, so not along a shortcut between two of them either. A
    path's last neuron is the output that is explained. Summed over the input this is exactly what runs along the path;
    ``Path.share`` is an estimate of it, from shares that were summed over space and batch.

    Args:
        model: the classifier.
        inputs: ``(N, ...)``, or a tuple of them.
        paths: ``k`` paths from the input to the output, from :func:`lrp_lightning.k_best_paths`.
        composite: as in :class:`lrp_lightning.SelectiveLRP`; the one that the paths were found with.
        additional_forward_args: given to the model after ``inputs``; tensors of ``N`` samples are repeated for every path.
        at: a layer whose relevance is wanted in place of the input's.

    Returns:
        ``(k, *inputs.shape)``, zero but in the channel that the path starts at; a tuple for a tuple of inputs; or
        ``(k, N, ...)`` shaped like the output of ``at``. The pass takes the memory of one over ``k * N`` samples.

    Raises:
        GraphError: if there are no paths, they are none, or one does not run from the input to the output.
        LayerError: if a path runs through a layer that the model does not have, or there is no layer ``at``.
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
        raise GraphError("there are no paths; of a negative output k_best_paths finds some with signed=True only")
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    samples, k = len(given[0]), len(paths)

    def for_each_path(value: Any) -> Any:
        of_samples = isinstance(value, Tensor) and value.ndim > 0 and len(value) == samples
        return value.repeat(k, *[1] * (value.ndim - 1)) if of_samples else value

    extra = additional_forward_args
    extra = tuple(map(for_each_path, extra)) if isinstance(extra, tuple) else for_each_path(extra)
    target = torch.tensor([path.nodes[-1][1] for path in paths]).repeat_interleave(samples)
    along = [path.nodes for path in paths]
    repeated = tuple(map(for_each_path, given))
    layers = [] if at is None else [at]
    trace, found = propagate(model, repeated, target, extra, as_composite(composite), None, layers=layers, along=along)
    if found:
        return found[0].unflatten(0, (k, samples))  # type: ignore[union-attr]
    heatmaps = tuple(relevance.unflatten(0, (k, samples)) for relevance in trace.inputs)
    return heatmaps if isinstance(inputs, tuple) else heatmaps[0]
