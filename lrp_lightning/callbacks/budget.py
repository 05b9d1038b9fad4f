"""The monitor's budget: seconds per epoch, and the number of samples in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error

from lrp_lightning.callbacks.batches import Samples

__all__ = ["Budget"]


class Budget:
    """Counts seconds and splits work into micro-batches.

    Args:
        max_seconds: the most seconds that an epoch may take; None for no limit. One micro-batch is always processed.
        micro_batch: number of samples in one pass; halved permanently when memory runs out.
    """

    def __init__(self, max_seconds: float | None, micro_batch: int = 32) -> None:
        self.max_seconds = max_seconds
        self.micro_batch = micro_batch
        self.start_epoch()

    def start_epoch(self) -> None:
        """Count from zero."""
        self.seconds = 0.0
        self._worked = False
        self._since: float | None = None

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time inside this context."""
        self._since = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    @property
    def now(self) -> float:
        """The seconds used so far."""
        return self.seconds + (0.0 if self._since is None else time.perf_counter() - self._since)

    @property
    def spent(self) -> bool:
        """Whether the seconds are used up and something was processed."""
        return self._worked and self.max_seconds is not None and self.now >= self.max_seconds

    def in_micro_batches(self, samples: Samples, work: Callable[[Samples], None]) -> int:
        """Process a few samples at a time, as long as seconds are left.

        Args:
            samples: of one shape.
            work: a function of some of the samples, without side effects if it raises.

        Returns:
            The number of samples that were processed.
        """
        done = 0
        while done < len(samples) and not self.spent:
            part = samples[done : done + self.micro_batch]
            try:
                work(part)
            except RuntimeError as error:
                no_room = isinstance(error, torch.OutOfMemoryError) or is_oom_error(error)
                if not no_room or len(part) == 1:
                    raise
            else:
                done += len(part)
                self._worked = True
                continue
            # outside the handler, where the traceback no longer keeps tensors in memory
            self.micro_batch = len(part) // 2
            garbage_collection_cuda()
        return done
