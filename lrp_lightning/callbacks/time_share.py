"""The share of a fit's time that the monitor may take: the number of samples to measure, and the epochs with pictures."""

from __future__ import annotations

import math
import time
from typing import Any

from lightning.pytorch import Trainer

__all__ = ["LEAST", "TimeShare", "fewest", "is_last_look"]

LEAST = 16
"""The least number of samples that are measured in an epoch, regardless of time."""
_AS_MEASURES = 3
"""Rough time of strategies and cards per sample, as a multiple of that of measures."""
_FEWEST = 256
"""The least number of samples for strategies and cards, regardless of time."""
_MINUTE, _TIMES = 60.0, 3
"""An epoch shorter than the first number of seconds counts as that long, but at most as this multiple of itself."""


class TimeShare:
    """The time budget of a fit: what a look may take of the time since the last one, and what earlier looks have saved.

    Half of it is for measures. The number of samples is chosen once, in steps of a quarter, so that epochs can be compared
    and noise in timings seldom matters. Pictures may take what measures leave; the rest is saved for later looks. A look
    that takes more, as the first does, does not reduce the time of later ones.

    Args:
        max_share: the share of the time; for less than a minute three times that, up to the share of a minute; None for no
            limit.
        max_samples: the most samples to measure.
    """

    def __init__(self, max_share: float | None, max_samples: int) -> None:
        self.max_share, self.max_samples = max_share, max_samples
        self.samples: int | None = None
        self.seconds_per_sample: float | None = None
        self.seconds_of_pictures: float | None = None
        self.insight_seconds_per_sample: float | None = None
        """The time of one sample, in seconds."""
        self.spent = 0.0
        self.saved = 0.0
        self._trained = 0.0
        self._began: tuple[float, float] | None = None  # the clock's start, and the seconds spent before
        self._at_last_look: float | None = None

    def start(self) -> None:
        """Start the clock; a resumed fit continues with the budget that it saved."""
        self._trained, self._began = self.trained, (time.perf_counter(), self.spent)

    def stop(self) -> None:
        """Stop the clock."""
        self._trained, self._began = self.trained, None

    @property
    def trained(self) -> float:
        """Seconds of the fit, without those that the monitor took."""
        if self._began is None:
            return self._trained
        since, spent = self._began
        return self._trained + (time.perf_counter() - since) - (self.spent - spent)

    def _allowed(self, seconds: float) -> float:
        """The seconds that a look may take if it comes this many seconds of training after the last one."""
        return math.inf if self.max_share is None else self.max_share * min(_TIMES * seconds, max(seconds, _MINUTE))

    @property
    def _between(self) -> float:
        """Seconds since the last look, including those of the current one."""
        return self.trained - (self._at_last_look or 0.0)

    def choose_samples(self, every_n_epochs: int = 1, there: int | None = None) -> int | None:
        """The number of samples to measure in each look, in half of its time; None until a sample's time is known.

        Args:
            every_n_epochs: epochs from one look to the next. The first comes after one epoch.
            there: the number of samples in the validation data, if that is known.
        """
        if self.samples is None and self.seconds_per_sample is not None and self.max_share is not None:
            between = self._between * (every_n_epochs if self._at_last_look is None else 1)
            allowed = self._allowed(between) / 2 / self.seconds_per_sample
            samples = self.max_samples
            while samples > fewest(samples) and min(samples, there or samples) > allowed:
                samples //= 4
            self.samples = samples
        return self.samples

    @property
    def most(self) -> int:
        """The most samples that the next look measures; the fewest possible until :meth:`choose_samples` has decided."""
        return self.max_samples if self.max_share is None else self.samples or fewest(self.max_samples)

    def allows_pictures(self, now: float) -> bool:
        """Whether there is time for pictures; the first are always drawn.

        Args:
            now: seconds that this look has taken so far.
        """
        return self.seconds_of_pictures is None or self._allows(self.seconds_of_pictures, now)

    def allows_best(self) -> bool:
        """Whether half the time of pictures is saved, which is enough to draw a new best checkpoint."""
        return self.seconds_of_pictures is not None and (
            self.max_share is None or 2 * self.saved >= self.seconds_of_pictures
        )

    def spend(self, seconds: float) -> None:
        """Count seconds between two looks."""
        self.spent += seconds
        self.saved = max(0.0, self.saved - seconds)

    def allows_insights(self, now: float, samples: int) -> bool:
        """Whether there is time for strategies and cards.

        Args:
            now: as in :meth:`allows_pictures`, including the time of pictures if they were drawn.
            samples: number of samples that they use.
        """
        return self._allows(self.seconds_of_insights(samples), now)

    def seconds_of_insights(self, samples: int) -> float:
        """An estimate of the seconds that strategies and cards of this many samples take; infinite if nothing is known."""
        if self.insight_seconds_per_sample is not None:
            return self.insight_seconds_per_sample * samples
        return math.inf if self.seconds_per_sample is None else _AS_MEASURES * self.seconds_per_sample * samples

    def samples_for_insights(self, samples: int) -> int:
        """The number of samples that strategies and cards use: all, a half, a quarter, by the share of the whole fit."""
        allowed = math.inf if self.max_share is None else max(self.saved, self.max_share * self.trained)
        while samples // 2 >= _FEWEST and self.seconds_of_insights(samples) > allowed:
            samples //= 2
        return samples

    def _allows(self, needed: float, now: float) -> bool:
        return self.saved + self._allowed(self._between - now) - now >= needed

    def end_look(self, seconds: float) -> None:
        """Count a look's seconds, and save the time that it did not use."""
        self.spent += seconds
        if self.max_share is not None:
            self.saved = max(0.0, self.saved + self._allowed(self._between) - seconds)
        self._at_last_look = self.trained

    def state_dict(self) -> dict[str, Any]:
        """The budget, so that a resumed fit continues with it."""
        return {
            "samples": self.samples,
            "seconds_per_sample": self.seconds_per_sample,
            "seconds_of_pictures": self.seconds_of_pictures,
            "insight_seconds_per_sample": self.insight_seconds_per_sample,
            "spent": self.spent,
            "saved": self.saved,
            "trained": self.trained,
            "at_last_look": self._at_last_look,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`; missing entries, as in checkpoints of 0.1, are taken as unknown.

        Raises:
            TypeError: if an entry is not a number.
        """
        known = {name: state[name] for name in self.state_dict() if state.get(name) is not None}
        for name, value in known.items():
            if not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, got {value!r}")
        self.samples = known.get("samples")
        self.seconds_per_sample, self.seconds_of_pictures = known.get("seconds_per_sample"), known.get("seconds_of_pictures")
        self.insight_seconds_per_sample, self._at_last_look = (
            known.get("insight_seconds_per_sample"),
            known.get("at_last_look"),
        )
        self.spent, self.saved = known.get("spent", 0.0), known.get("saved", 0.0)
        self._trained, self._began = known.get("trained", 0.0), None


def fewest(max_samples: int) -> int:
    """The smallest of ``max_samples``, a quarter of it, a quarter of that, and so on, that is at least :data:`LEAST`."""
    while max_samples // 4 >= LEAST:
        max_samples //= 4
    return max_samples


def is_looked_at(trainer: Trainer, epoch: int, every_n_epochs: int) -> bool:
    """Whether the monitor runs in an epoch's validation: the first validation of every ``every_n_epochs`` epochs."""
    before = epoch - (trainer.check_val_every_n_epoch or 1)  # None where batches are counted through epochs
    return epoch // every_n_epochs != before // every_n_epochs


def is_last_look(trainer: Trainer, every_n_epochs: int) -> bool:
    """Whether the monitor runs in no later validation of this fit, as far as can be known: not with early stopping."""
    if trainer.should_stop:
        return True
    between = trainer.val_check_batch or math.inf  # batches; not known of a stream, or by the clock
    steps, left = between / trainer.accumulate_grad_batches, trainer.max_steps - trainer.global_step
    if trainer.max_steps != -1 and (left <= 0 or left < steps < math.inf):
        return True
    epochs = trainer.max_epochs
    if epochs is None or epochs == -1:
        return False
    if trainer.fit_loop.epoch_loop.batch_progress.current.ready + between <= trainer.num_training_batches:
        return False  # another one in this epoch
    later = range(trainer.current_epoch + 1, epochs)
    check = trainer.check_val_every_n_epoch or 1
    return not any(is_looked_at(trainer, epoch, every_n_epochs) and (epoch + 1) % check == 0 for epoch in later)
