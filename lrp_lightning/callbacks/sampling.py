"""The choice of samples of a validation epoch to measure and to show: the same in every epoch."""

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
    """One process's share of a validation loader.

    Attributes:
        samples: number of samples of the loader in one epoch, over all processes, without repeats; None if unknown.
        unique: size of the data set if a distributed sampler repeats samples to give all processes the same number;
            otherwise None.
    """

    samples: int | None
    unique: int | None = None

    @staticmethod
    def of(loader: Any, batches: float, processes: int) -> LoaderShare:
        """Determine it from a loader that yields ``batches`` batches on each process."""
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
    """Chooses ``most`` samples, spread evenly over an epoch's loaders, or the first ``most`` if the number is unknown.

    Samples are identified by their position in the whole epoch, so that several processes choose the same samples as one
    process, and samples that a distributed sampler repeats are left out.

    Args:
        most: the most samples, over all processes.
        shares: this process's share of each loader.
        processes: number of processes.
        process: number of this process.
    """

    most: int
    shares: list[LoaderShare]
    processes: int = 1
    process: int = 0
    _seen: dict[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int | None:
        """Number of samples in the epoch, over all loaders and processes; None if unknown."""
        known = [share.samples for share in self.shares]
        return None if None in known or not known else sum(n for n in known if n is not None)

    def choose(self, samples: int, loader: int = 0) -> tuple[Tensor, Tensor]:
        """The chosen ones of the next ``samples`` samples of a loader, and their ordinals among all chosen samples.

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
        """Whether no further sample can be chosen."""
        return self.total is None and sum(self._seen.values()) * self.processes >= self.most


def stratified(classes: Tensor, most: int) -> Tensor:
    """Indices of up to ``most`` samples, ascending: the first of each class, then the second of each, and so on.

    Applied to an earlier choice followed by new samples, it chooses the same as from all samples.

    Args:
        classes: ``(N,)``, not negative.
        most: the most samples.
    """
    if len(classes) == 0 or most == 0:
        return torch.zeros(0, dtype=torch.long)
    _, classes = classes.unique(return_inverse=True)
    nth = F.one_hot(classes).cumsum(0).gather(1, classes[:, None]).flatten()
    return nth.argsort(stable=True)[:most].sort().values


def mistakes(logits: Tensor, sets: Tensor) -> Tensor:
    """``(N,)``: the highest logit of a wrong class minus the highest of a true class; positive if the prediction is wrong.

    Args:
        logits: ``(N, classes)``.
        sets: ``(N, classes)`` bool, the true classes. A sample without true classes, or with all, is not a mistake.
    """
    wrong = logits.masked_fill(sets, -torch.inf).amax(1)
    right = logits.masked_fill(~sets, -torch.inf).amax(1)
    return torch.where(sets.any(1), wrong - right, -torch.inf)
