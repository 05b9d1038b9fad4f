"""A test of the best paths: predictions with their neurons alone, and without them, over the number of paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lrp_lightning.attribution import SelectiveLRP
from lrp_lightning.checks import is_whole
from lrp_lightning.errors import GraphError, TargetError
from lrp_lightning.graphs.paths import Path
from lrp_lightning.masking import check_replacement, masked_forward, means_of
from lrp_lightning.metrics.accuracy import check_outputs, label_predicted
from lrp_lightning.metrics.contest import contest_won, own_logits_of
from lrp_lightning.rules import Epsilon
from lrp_lightning.selection.by_relevance import TopK
from lrp_lightning.words import percent

__all__ = ["PathCurve", "path_curve"]

_SHOWN = 24
"""The most rows that a notebook shows."""


@dataclass(frozen=True, eq=False)
class PathCurve:
    """The result of keeping, and of removing, the neurons of the best paths. Rows are numbers of paths.

    Attributes:
        counts: numbers of paths per class.
        neurons: ``(k, classes)``, number of neurons on these paths.
        kept: ``(k, classes)``, share of a class's images whose prediction survives with these neurons alone; NaN for classes
            without paths or images.
        without: ``(k, classes)``, the same with all neurons except these.
        contest: ``(k,)``, share of images whose predicted class beats the runner-up, each logit from its own class's paths;
            NaN where no image has paths for both.

    Example:
        >>> from lrp_lightning import PathCurve
        >>> import torch
        >>> curve = PathCurve([1, 5], torch.ones(2, 1), torch.tensor([[0.5], [1.0]]), torch.zeros(2, 1), torch.ones(2))
        >>> curve.sufficient(0.9)
        {0: 5}
    """

    counts: Sequence[int]
    neurons: Tensor
    kept: Tensor
    without: Tensor
    contest: Tensor

    def sufficient(self, share: float = 0.9) -> dict[int, int | None]:
        """For each class, the fewest paths whose neurons keep the prediction in this share of its images.

        Args:
            share: of the class's images, in [0, 1].

        Returns:
            ``{class: paths}``, for classes with images and paths; None if even the largest number is not enough.
        """
        found: dict[int, int | None] = {}
        for c, kept in enumerate(self.kept.T.tolist()):
            if kept[0] == kept[0]:  # not NaN
                found[c] = next((k for k, reached in zip(self.counts, kept, strict=True) if reached >= share), None)
        return found

    def __repr__(self) -> str:
        rows = [
            f"{k} path{'s' * (k > 1)}: kept {self.kept[i].nanmean():.3f}, without them {self.without[i].nanmean():.3f}, "
            f"contest {self.contest[i]:.3f}"
            for i, k in enumerate(self.counts)
        ]
        return f"PathCurve({'; '.join(rows)})"

    def _repr_html_(self) -> str:
        """For a notebook: a row for each number of paths, mean over classes."""
        from lrp_lightning.html import sections
        from lrp_lightning.html.markup import part

        def mean(of: Tensor) -> str:
            return percent(float(of.nanmean()))

        rows = [
            [str(k), f"{self.neurons[i].nanmean():.1f}", mean(self.kept[i]), mean(self.without[i]), mean(self.contest[i])]
            for i, k in enumerate(self.counts[:_SHOWN])
        ]
        heads = ["paths", "neurons", "kept with them", "kept without them", "contest won"]
        said = (
            "For the neurons on each class's best paths: their mean number; the share of the class's images whose "
            "prediction "
            "stays with them alone, and with all neurons except them; and the share in which the predicted class beats the "
            "runner-up, each with its own."
        )
        return part(
            "Predictions with the best paths alone", ("numbers", sections.numbers(heads, rows, len(self.counts), said))
        )


def path_curve(
    model: nn.Module,
    paths: Mapping[int, Sequence[Path]],
    inputs: Tensor,
    counts: Sequence[int] | None = None,
    replacement: Literal["zero", "mean"] = "mean",
) -> PathCurve:
    """Measure predictions with the neurons of each class's best paths alone, and with all neurons except these.

    Each number of paths takes one forward of all images per class, and one more of each class's own images. In a layer
    without neurons on the paths, no neuron is kept.

    Args:
        model: the classifier.
        paths: ``{class: its paths, best first}``, from :func:`lrp_lightning.k_best_paths` on the graph of the class.
        inputs: ``(N, ...)``, images of the classes that the paths were not found on.
        counts: numbers of paths; None for 1, 2, 5, 10, 20, 50 and so on, up to the most that a class has.
        replacement: the output of a neuron that is off: ``"zero"``, or its ``"mean"`` over these images, value by value.

    Raises:
        GraphError: if ``paths`` is empty, or ``counts`` are not whole numbers >= 1.
        TargetError: if there are paths of a class that the model does not have.
        SelectionError: if ``replacement`` is neither.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, build_graph, k_best_paths, path_curve
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2)).eval()
        >>> lrp, paths = SelectiveLRP(model), {}
        >>> for c in range(2):
        ...     x = torch.randn(200, 4)
        ...     graph = build_graph(lrp.trace(x[model(x).argmax(1) == c], target=c, edges=True))
        ...     paths[c] = k_best_paths(graph, k=64)
        >>> curve = path_curve(model, paths, torch.randn(300, 4), counts=[1, 64])
        >>> bool(curve.kept[1, 0] > 0.8), bool(curve.neurons[1, 0] > curve.neurons[0, 0])
        (True, True)
    """
    most = max(map(len, paths.values()), default=0)
    if not most:
        raise GraphError("path_curve: paths is empty for every class; find the paths of a graph with k_best_paths")
    if counts is None:
        counts = [k for power in range(len(str(most))) for k in (10**power, 2 * 10**power, 5 * 10**power) if k <= most]
    if not counts or not all(is_whole(k) and k >= 1 for k in counts):
        raise GraphError(f"path_curve: counts must be whole numbers >= 1, got {counts!r}")
    check_replacement(replacement)
    whole = masked_forward(model, inputs, {})
    check_outputs(whole)
    for c in paths:
        if not 0 <= c < whole.shape[1]:
            raise TargetError(f"there is no class {c}; the model has classes 0 to {whole.shape[1] - 1}")
    layers = SelectiveLRP(model, Epsilon(), TopK(1.0)).trace(inputs[:1], lambda logits: logits.argmax(1)).masks
    instead: Literal["zero"] | dict[str, Tensor] = means_of(model, inputs, layers) if replacement == "mean" else "zero"
    ranked = whole.topk(2, dim=1).indices
    shape = len(counts), whole.shape[1]
    neurons, kept, without = (torch.full(shape, torch.nan) for _ in range(3))
    won = torch.full((len(counts),), torch.nan)
    for i, k in enumerate(counts):
        own = torch.full_like(whole, torch.nan)
        for c, of_class in paths.items():
            masks = _on_paths(of_class[:k], layers)
            alone = masked_forward(model, inputs, masks, replacement=instead)
            own[:, c] = alone[:, c]
            neurons[i, c] = sum(int(mask.sum()) for mask in masks.values())
            here = ranked[:, 0] == c
            if of_class and bool(here.any()):
                kept[i, c] = label_predicted(alone[here], ranked[here, 0]).float().mean()
                others = masked_forward(model, inputs[here], masks, keep=False, replacement=instead)
                without[i, c] = label_predicted(others, ranked[here, 0]).float().mean()
        both = own.gather(1, ranked).isfinite().all(1)
        if bool(both.any()):
            of_two = own_logits_of([(of, own) for of in ranked.T])
            won[i] = contest_won(of_two[both], whole[both]).float().mean()
    return PathCurve(list(counts), neurons, kept, without, won)


def _on_paths(paths: Sequence[Path], layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``{layer: (C,) bool}``, the neurons of hidden layers that lie on the paths."""
    masks = {layer: torch.zeros(mask.shape[1], dtype=torch.bool, device=mask.device) for layer, mask in layers.items()}
    for path in paths:
        for layer, neuron in path.nodes:
            if layer in masks:
                masks[layer][neuron] = True
    return masks
