"""Whether a class keeps its critical neurons from one state of the network to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lrp_lightning.checks import check_tensors
from lrp_lightning.compat import in_double
from lrp_lightning.errors import InputError
from lrp_lightning.metrics.mean_over_samples import Drawn

__all__ = ["SelectionStability", "class_frequencies", "jaccard"]


def class_frequencies(masks: Mapping[str, Tensor], labels: Tensor, num_classes: int) -> dict[str, Tensor]:
    """The number of samples of each class for which a neuron is critical.

    Args:
        masks: ``{layer: (N, C) bool}``, as in ``Trace.masks``.
        labels: ``(N,)``, integers in [0, num_classes).
        num_classes: number of classes.

    Returns:
        ``{layer: (num_classes, C)}``, counts.

    Raises:
        InputError: if labels and masks do not match.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import class_frequencies
        >>> masks = {"conv": torch.tensor([[True, False], [True, True]])}
        >>> class_frequencies(masks, labels=torch.tensor([1, 1]), num_classes=2)["conv"].tolist()
        [[0.0, 0.0], [2.0, 1.0]]
    """
    check_tensors(labels=labels)
    check_tensors(**masks)
    if labels.ndim != 1 or labels.is_floating_point() or any(len(m) != len(labels) for m in masks.values()):
        raise InputError(f"labels must be integers, one for each mask's sample, got {labels.dtype} {tuple(labels.shape)}")
    if len(labels) and not bool(((labels >= 0) & (labels < num_classes)).all()):
        raise InputError(f"labels must be in 0 to {num_classes - 1}, got {int(labels.min())} to {int(labels.max())}")
    member = in_double(torch.nn.functional.one_hot(labels.long(), num_classes))
    return {layer: member.T @ in_double(mask.flatten(1)) for layer, mask in masks.items()}


def jaccard(one: Tensor, other: Tensor) -> Tensor:
    """Jaccard index of fuzzy sets: ``sum of min / sum of max`` of their degrees of membership; 1 for two empty sets.

    With degrees 0 and 1 it is the ordinary index, the size of the intersection over that of the union.

    Args:
        one: ``(..., C)``, degrees in [0, 1].
        other: the same for the other set.

    Returns:
        ``(...)``, in [0, 1]. NaN where a degree is NaN.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import jaccard
        >>> jaccard(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 1.0]))
        tensor(0.3333)
    """
    check_tensors(one=one, other=other)
    together, either = torch.minimum(one, other).sum(-1), torch.maximum(one, other).sum(-1)
    return torch.where(either == 0, 1, together / torch.where(either == 0, 1, either))


class SelectionStability(Drawn):
    """Jaccard index of each class's critical neurons between two states of a network, such as two epochs.

    A neuron belongs to a class to the degree of the share of the class's samples for which it is critical
    (:func:`jaccard`). The current state is compared with that at the last :meth:`advance`.

    Args:
        num_classes: number of classes.
        neurons: ``{layer: C}``, the number of neurons of each layer to compare.

    Raises:
        InputError: if there are no classes or no layers.

    Example:
        >>> import torch
        >>> from lrp_lightning.metrics import SelectionStability
        >>> metric = SelectionStability(num_classes=2, neurons={"conv": 3})
        >>> metric.update({"conv": torch.tensor([[True, True, False]])}, torch.tensor([0]))
        >>> metric.advance()
        >>> metric.update({"conv": torch.tensor([[True, False, False]])}, torch.tensor([0]))
        >>> metric.compute()
        tensor([0.5000,    nan])
    """

    is_differentiable: bool = False
    higher_is_better: bool = True
    full_state_update: bool = False
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    counts: Tensor
    samples: Tensor
    reference: Tensor

    def __init__(self, num_classes: int, neurons: Mapping[str, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_classes < 1 or not neurons:
            raise InputError(f"SelectionStability needs classes and layers, got {num_classes} and {dict(neurons)}")
        self.num_classes: int = num_classes
        self.neurons: dict[str, int] = dict(neurons)
        shape = num_classes, sum(self.neurons.values())
        self.add_state("counts", torch.zeros(shape, dtype=torch.double), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros(num_classes, dtype=torch.double), dist_reduce_fx="sum")
        unknown = torch.full(shape, torch.nan, dtype=torch.double)
        self.add_state("reference", unknown, dist_reduce_fx=_first)  # equal on all processes since the last advance

    def update(self, masks: Mapping[str, Tensor], labels: Tensor) -> None:
        """Count the samples of one batch; see :func:`class_frequencies`.

        Raises:
            InputError: if the layers of the masks differ from those given, or labels do not fit.
        """
        check_tensors(**masks)
        given = {layer: mask.flatten(1).shape[1] for layer, mask in masks.items()}
        if given != self.neurons:
            raise InputError(f"masks must be of the layers and neurons {self.neurons}, got {given}")
        frequencies = class_frequencies(masks, labels, self.num_classes)
        self.counts += torch.cat([frequencies[layer] for layer in self.neurons], 1).to(self.counts)
        self.samples += torch.nn.functional.one_hot(labels.long(), self.num_classes).sum(0).to(self.samples)

    def compute(self) -> Tensor:
        """``(num_classes,)``, the mean over layers; NaN for classes that lack samples in one of the states."""
        widths = list(self.neurons.values())
        pairs = zip(self._degrees().split(widths, 1), self.reference.split(widths, 1), strict=True)
        return torch.stack([jaccard(now, then) for now, then in pairs]).mean(0).float()

    def advance(self) -> None:
        """Make the current state the reference for the next one, over all processes, and reset the counts."""
        available = self.distributed_available_fn
        with self.sync_context(self.dist_sync_fn, should_sync=self.sync_on_compute, distributed_available=available):
            reference = self._degrees().clone()
        self.reset()
        self.reference = reference

    def _degrees(self) -> Tensor:
        samples = self.samples[:, None]
        return torch.where(samples == 0, torch.nan, self.counts / torch.where(samples == 0, 1, samples))


def _first(gathered: Tensor) -> Tensor:
    return gathered[0]
