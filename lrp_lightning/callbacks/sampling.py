"""Which samples of a validation epoch are looked at, and which of these are shown: the same in every epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

__all__ = ["LoaderShare", "Sampling", "mistakes", "stratified"]


@dataclass(frozen=True)
class LoaderShare:
    """What one process sees of a validation loader.

    Attributes:
        samples: how many samples the loader gives over all processes in one epoch, repeats not counted; None if not known.
        unique: how many different ones the dataset has where a distributed sampler repeats some to even out processes; else
            None.
    """

    samples: int | None
    unique: int | None = None

    @staticmethod
    def of(loader: Any, batches: float, processes: int) -> LoaderShare:
        """Read it off a loader of which ``batches`` batches will come on each process."""
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            return LoaderShare(None)
        sampler = loader.sampler
        inner = getattr(loader.batch_sampler, "sampler", sampler)
        unique = None
        if isinstance(inner, DistributedSampler):
            sampler = inner
            unique = None if inner.drop_last else len(inner.dataset)  # type: ignore[arg-type]
        size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
        if not isinstance(size, int) or batches == float("inf"):
            return LoaderShare(None, unique)
        try:
            here = min(len(sampler), int(batches) * size)  # type: ignore[arg-type]
        except TypeError:  # a sampler without a length
            return LoaderShare(None, unique)
        everywhere = here * processes
        return LoaderShare(everywhere if unique is None else min(unique, everywhere), unique)


@dataclass
class Sampling:
    """Chooses ``most`` samples spread evenly over the loaders of an epoch; the first ``most`` where their number is unknown.

    Samples are told by their place in the whole epoch, so that several processes choose those that one would, and samples
    that a distributed sampler repeats are left out.

    Args:
        most: how many, over all processes.
        shares: what this process sees of each loader, in their order.
        processes: how many there are.
        process: which this is.
    """

    most: int
    shares: list[LoaderShare]
    processes: int = 1
    process: int = 0
    _seen: dict[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int | None:
        """Samples in the epoch, over all loaders and processes; None if not known."""
        known = [share.samples for share in self.shares]
        return None if None in known or not known else sum(n for n in known if n is not None)

    def choose(self, samples: int, loader: int = 0) -> tuple[Tensor, Tensor]:
        """Which of the next ``samples`` of a loader are looked at, and their ordinals among all that are.

        Returns:
            Indices into these samples and ordinals in ``[0, most)``, both ``(chosen,)``.
        """
        count = self._seen.get(loader, 0)
        self._seen[loader] = count + samples
        place = (count + torch.arange(samples)) * self.processes + self.process
        unique = self.shares[loader].unique if loader < len(self.shares) else None
        real = torch.ones(samples, dtype=torch.bool) if unique is None else place < unique
        total = self.total
        if total is None:
            place = place + self.processes * sum(n for other, n in self._seen.items() if other != loader)
        else:
            place = place + sum(share.samples or 0 for share in self.shares[:loader])
        if total is None or total <= self.most:
            chosen, ordinal = place < self.most, place
        else:
            ordinal = place * self.most // total
            chosen = (place + 1) * self.most // total > ordinal
        at = (chosen & real).nonzero().flatten()
        return at, ordinal[at]

    @property
    def done(self) -> bool:
        """Whether nothing that may come can be chosen."""
        return self.total is None and sum(self._seen.values()) * self.processes >= self.most


def stratified(classes: Tensor, most: int) -> Tensor:
    """Indices of up to ``most`` samples, in their order: the first of each class, then the second of each, and so on.

    Applied to what it chose before and new samples after it, it chooses as from all at once.

    Args:
        classes: ``(N,)``, not negative.
        most: how many.
    """
    if len(classes) == 0 or most == 0:
        return torch.zeros(0, dtype=torch.long)
    _, classes = classes.unique(return_inverse=True)
    nth = F.one_hot(classes).cumsum(0).gather(1, classes[:, None]).flatten()
    return nth.argsort(stable=True)[:most].sort().values


def mistakes(logits: Tensor, sets: Tensor) -> Tensor:
    """``(N,)``: by how much the best wrong class is ahead of the best right one; above 0 where the prediction is wrong.

    Args:
        logits: ``(N, classes)``.
        sets: ``(N, classes)`` bool, the classes that are right. Without any, or with all, a sample is no mistake.
    """
    wrong = logits.masked_fill(sets, -torch.inf).amax(1)
    right = logits.masked_fill(~sets, -torch.inf).amax(1)
    return torch.where(sets.any(1), wrong - right, -torch.inf)
