"""Samples of a validation epoch that are kept for strategies and neuron cards, which need more samples than measures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lrp_lightning.callbacks.batches import Samples
from lrp_lightning.callbacks.sampling import stratified

__all__ = ["Kept"]

_OF_A_CLASS, _CLASSES = 128, 20
"""The most samples of a class, and the most classes."""
_BYTES = 2**28
_AT_ONCE = 64
"""Number of samples in a batch."""


class Kept:
    """The first samples of each class, on the CPU: one input tensor each, all of the same shape as the first.

    Args:
        most: the most samples to return, balanced over classes as far as possible; kept samples take at most 256 MB.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._inputs: list[Tensor] = []
        self._classes: list[int] = []
        self._of: dict[int, int] = {}

    def see(self, groups: Sequence[Samples]) -> None:
        """Keep samples of a batch that are needed."""
        for group in groups:
            x = group.inputs[0]
            if len(group.inputs) > 1 or (self._inputs and x.shape[1:] != self._inputs[0].shape):
                continue
            classes = _classes(group)
            room = max(1, min(_OF_A_CLASS, _BYTES // (_CLASSES * x[0].numel() * x.element_size())))
            wanted = []
            for n, c in enumerate(classes.tolist()):
                if c < -1 or (c not in self._of and len(self._of) == _CLASSES):
                    continue
                if self._of.get(c, 0) < (room if c >= 0 else min(self.most, room * _CLASSES)):
                    self._of[c] = self._of.get(c, 0) + 1
                    wanted.append(n)
            if wanted:
                x = x.detach()[torch.tensor(wanted, device=x.device)].cpu()  # indexing copies
                finite = x.flatten(1).isfinite().all(1)
                self._inputs += list(x[finite])
                self._classes += classes[wanted][finite].tolist()

    def __len__(self) -> int:
        return min(self.most, len(self._inputs))

    def batches(self) -> list[tuple[Tensor, Tensor] | tuple[Tensor]]:
        """Batches ``(inputs, labels)``, or inputs alone if some lack a label; empty if nothing was kept."""
        if not self._inputs:
            return []
        classes = torch.tensor(self._classes)
        chosen = stratified(classes + 1, self.most)  # -1 is a class of its own
        batches = []
        for at in chosen.split(_AT_ONCE):
            x = torch.stack([self._inputs[n] for n in at.tolist()])
            batches.append((x, classes[at]) if (classes >= 0).all() else (x,))
        return batches


def _classes(samples: Samples) -> Tensor:
    """``(N,)``: the label if it is the number of one class, -1 for labels of another kind, -2 without a label."""
    labels, n = samples.labels, len(samples)
    if labels is None or labels.is_floating_point() or labels.shape not in ((n,), (n, 1)):
        return torch.full((n,), -1)
    labels = labels.reshape(n).long().cpu()
    return labels.where(labels >= 0, -2)
