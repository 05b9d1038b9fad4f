"""The mean relevance graph of a class over a loader, batch by batch, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import networkx as nx
import torch
from torch import Tensor, nn

from lrp_lightning.attribution import SelectiveLRP
from lrp_lightning.checks import check_batches, is_whole, labelled
from lrp_lightning.compat import in_double
from lrp_lightning.composites import Composite, EpsilonPlus
from lrp_lightning.errors import GraphError, TargetError
from lrp_lightning.graphs.build import build_graph
from lrp_lightning.progress import tqdm
from lrp_lightning.rules import Rule
from lrp_lightning.selection import Selection
from lrp_lightning.trace import Trace

__all__ = ["class_graph"]


def class_graph(
    model: nn.Module,
    loader: Iterable[Any],
    target: int,
    composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
    selection: Selection | None = None,
    min_share: float = 0.0,
    classes: Sequence[str] | None = None,
    max_samples: int | None = None,
    progress: bool = True,
    on_unsupported: Literal["raise", "gradient"] = "raise",
) -> nx.DiGraph:
    """The relevance graph of a class: the mean over the loader's samples of that class.

    Of batches ``(inputs, labels)``, the samples with label ``target`` are used; of inputs alone, all samples. Batches are
    moved to the model's device. Memory does not grow with the number of samples.

    Args:
        model: the classifier.
        loader: yields the batches, such as a ``DataLoader``.
        target: the class whose output is explained.
        composite, selection, on_unsupported: as in :class:`lrp_lightning.SelectiveLRP`. The graph contains the neurons that
            are critical in any sample.
        min_share, classes: as in :func:`lrp_lightning.build_graph`.
        max_samples: stop after this many samples of the class; None for all.
        progress: whether to show a progress bar.

    Returns:
        As :func:`lrp_lightning.build_graph`, with relevance per sample. ``graph.graph`` holds ``target`` and ``samples``,
        the number of samples.

    Raises:
        GraphError: if the loader has no sample of the class.
        InputError: if the loader yields no batches, or a batch is neither ``(inputs, labels)`` nor inputs.
        TargetError: if ``target`` is not the number of a class.

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from lrp_lightning import TopK, class_graph
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> data = TensorDataset(torch.randn(20, 4), torch.arange(20) % 3)
        >>> graph = class_graph(model, DataLoader(data, batch_size=8), target=1, selection=TopK(2), progress=False)
        >>> graph.graph
        {'target': 1, 'samples': 7}
    """
    if max_samples is not None and not (is_whole(max_samples) and max_samples >= 1):
        raise GraphError(f"max_samples must be at least 1, got {max_samples!r}")
    if not is_whole(target):
        raise TargetError(f"target must be the number of one class, an int, got {type(target).__name__}: {target!r:.80}")
    target = int(target)
    check_batches(loader)
    lrp = SelectiveLRP(model, composite, selection, on_unsupported)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    mean: _Sum | None = None
    with tqdm(loader, desc=f"graph of class {target}", disable=not progress, leave=False) as batches:
        for batch in batches:
            inputs, labels = labelled(batch)
            inputs = inputs if labels is None else inputs[(labels == target).to(inputs.device)]
            if max_samples is not None:
                inputs = inputs[: max_samples - (mean.samples if mean else 0)]
            if len(inputs):
                trace = lrp.trace(inputs.to(device), target=target, edges=True)
                mean = _Sum.of(trace) if mean is None else mean.plus(_Sum.of(trace))
            if mean is not None and mean.samples == max_samples:
                break
    if mean is None:
        raise GraphError(f"the loader has no sample of class {target}")
    graph = build_graph(mean.trace(), min_share, classes)
    graph.graph.update(target=target, samples=mean.samples)
    return graph


class _Sum:
    """Traces summed over their samples."""

    def __init__(
        self, samples: int, kinds: dict[str, str], places: dict[str, int], notes: dict[str, dict[Any, Tensor]]
    ) -> None:
        self.samples, self.kinds, self.places, self.notes = samples, kinds, places, notes

    @staticmethod
    def of(trace: Trace) -> _Sum:
        return _Sum(
            len(trace.explained),
            trace.kinds,
            trace.places,
            {
                "relevance": {layer: in_double(r).sum(0) for layer, r in trace.relevance.items()},
                "activation": {layer: in_double(a).sum(0) for layer, a in trace.activation.items()},
                "absorbed": {where: in_double(r).sum(0) for where, r in trace.absorbed.items()},
                "edges": {pair: in_double(edges) for pair, edges in trace.edges.items()},
                "masks": {layer: trace.critical(layer).any(0) for layer in trace.masks},
                "output": {"": in_double(trace.output).sum(0)},
                "explained": {"": in_double(trace.explained).sum(0)},
            },
        )

    def plus(self, other: _Sum) -> _Sum:
        def added(name: str, one: dict[Any, Tensor], two: dict[Any, Tensor]) -> dict[Any, Tensor]:
            keys = [*one, *(key for key in two if key not in one)]
            both = {key: [d[key] for d in (one, two) if key in d] for key in keys}
            return {key: v[0] if len(v) == 1 else v[0] | v[1] if name == "masks" else v[0] + v[1] for key, v in both.items()}

        notes = {name: added(name, self.notes[name], other.notes[name]) for name in self.notes}
        kinds, places = {**self.kinds, **other.kinds}, {**self.places, **other.places}
        return _Sum(self.samples + other.samples, kinds, places, notes)

    def trace(self) -> Trace:
        """The trace of the mean sample."""
        mean = {
            name: {key: t[None] if name == "masks" else t / self.samples if name == "edges" else t[None] / self.samples
                   for key, t in notes.items()}
            for name, notes in self.notes.items()
        }  # fmt: skip
        return Trace(
            inputs=mean["relevance"]["input"] if "input" in mean["relevance"] else torch.zeros(1, 0),
            output=mean["output"][""],
            explained=mean["explained"][""],
            relevance=mean["relevance"],
            kinds=self.kinds,
            places=self.places,
            activation=mean["activation"],
            masks=mean["masks"],
            edges=mean["edges"],
            absorbed=mean["absorbed"],
        )
