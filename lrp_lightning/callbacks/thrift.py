"""What of a fit's time the monitor may take: on how many samples it measures, and in which epochs it draws."""

from __future__ import annotations

import math
import time
from typing import Any

from lightning.pytorch import Trainer

__all__ = ["LEAST", "Thrift", "fewest", "is_last_look"]

LEAST = 16
"""Samples that are measured in every epoch, whatever they cost."""
_AS_MEASURES = 3
"""What strategies and cards of a sample take, in what its measures do, roughly."""
_FEWEST = 256
"""Samples that strategies and cards come of, if there are as many, whatever they cost."""
_MINUTE, _TIMES = 60.0, 3
"""Epochs that are shorter count as such, but at most as so many times themselves."""


class Thrift:
    """The account of a fit: what a look may take of the time since the one before, and what earlier looks have saved.

    Half of it is for measures. On how many samples is settled once, in steps of a quarter, so that epochs can be compared
    and a clock's noise seldom decides. What they leave pays for pictures, and what these leave is saved up. There are no
    debts: a look that takes more, as the first does, is not paid back by those that follow.

    Args:
        max_share: the share of the time, three times that of less than a minute, up to what a minute gives; None if nothing
            is to be saved.
        max_samples: how many samples to measure on at most.
    """

    def __init__(self, max_share: float | None, max_samples: int) -> None:
        self.max_share, self.max_samples = max_share, max_samples
        self.samples: int | None = None
        self.price_of_sample: float | None = None
        self.price_of_pictures: float | None = None
        self.price_of_insights: float | None = None
        """Of one sample, in seconds."""
        self.spent = 0.0
        self.saved = 0.0
        self._trained = 0.0
        self._began: tuple[float, float] | None = None  # by the clock, and what was spent until then
        self._at_last_look: float | None = None

    def start(self) -> None:
        """Start the clock; a resumed fit goes on with the account that it saved."""
        self._trained, self._began = self.trained, (time.perf_counter(), self.spent)

    def stop(self) -> None:
        """Stop the clock."""
        self._trained, self._began = self.trained, None

    @property
    def trained(self) -> float:
        """Seconds of the fit, those spent here not counted."""
        if self._began is None:
            return self._trained
        since, spent = self._began
        return self._trained + (time.perf_counter() - since) - (self.spent - spent)

    def _allowed(self, seconds: float) -> float:
        """What a look may take that comes so many seconds of training after the one before."""
        return math.inf if self.max_share is None else self.max_share * min(_TIMES * seconds, max(seconds, _MINUTE))

    @property
    def _between(self) -> float:
        """Seconds of training since the last look, those of the one that is going on included."""
        return self.trained - (self._at_last_look or 0.0)

    def settle(self, every_n_epochs: int = 1, there: int | None = None) -> int | None:
        """How many samples half of the share pays for in each look; None as long as their price is not known.

        Args:
            every_n_epochs: epochs from one look to the next. The first comes after one.
            there: how many samples there are to be looked at, where that is known.
        """
        if self.samples is None and self.price_of_sample is not None and self.max_share is not None:
            between = self._between * (every_n_epochs if self._at_last_look is None else 1)
            allowed = self._allowed(between) / 2 / self.price_of_sample
            samples = self.max_samples
            while samples > fewest(samples) and min(samples, there or samples) > allowed:
                samples //= 4
            self.samples = samples
        return self.samples

    @property
    def most(self) -> int:
        """How many samples the next look may take; as few as can be before that is settled."""
        return self.max_samples if self.max_share is None else self.samples or fewest(self.max_samples)

    def pays_for_pictures(self, now: float) -> bool:
        """Whether there is enough for them; the first are for nothing.

        Args:
            now: seconds that this look has taken, which are not counted yet.
        """
        return self.price_of_pictures is None or self._pays(self.price_of_pictures, now)

    def pays_for_best(self) -> bool:
        """Whether half of what pictures take is saved, which is enough for those of a new best checkpoint."""
        return self.price_of_pictures is not None and (self.max_share is None or 2 * self.saved >= self.price_of_pictures)

    def pay(self, seconds: float) -> None:
        """Count seconds between two looks."""
        self.spent += seconds
        self.saved = max(0.0, self.saved - seconds)

    def pays_for_insights(self, now: float, samples: int) -> bool:
        """Whether there is enough for strategies and cards of so many samples.

        Args:
            now: as in :meth:`pays_for_pictures`; with the pictures, if there are some.
            samples: how many there are.
        """
        return self._pays(self.insights_take(samples), now)

    def insights_take(self, samples: int) -> float:
        """How many seconds strategies and cards of so many samples may take; infinitely many if nothing is known."""
        if self.price_of_insights is not None:
            return self.price_of_insights * samples
        return math.inf if self.price_of_sample is None else _AS_MEASURES * self.price_of_sample * samples

    def insights_of(self, samples: int) -> int:
        """Of how many of these strategies and cards come: all, a half, a quarter, as the share of the whole fit pays for."""
        allowed = math.inf if self.max_share is None else max(self.saved, self.max_share * self.trained)
        while samples // 2 >= _FEWEST and self.insights_take(samples) > allowed:
            samples //= 2
        return samples

    def _pays(self, price: float, now: float) -> bool:
        return self.saved + self._allowed(self._between - now) - now >= price

    def end_look(self, seconds: float) -> None:
        """Count a look's seconds, and save what it leaves."""
        self.spent += seconds
        if self.max_share is not None:
            self.saved = max(0.0, self.saved + self._allowed(self._between) - seconds)
        self._at_last_look = self.trained

    def state_dict(self) -> dict[str, Any]:
        """The account, so that a resumed fit goes on with it."""
        return {
            "samples": self.samples,
            "price_of_sample": self.price_of_sample,
            "price_of_pictures": self.price_of_pictures,
            "price_of_insights": self.price_of_insights,
            "spent": self.spent,
            "saved": self.saved,
            "trained": self.trained,
            "at_last_look": self._at_last_look,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`; what is not there, as of 0.1, is not known, and nothing saved.

        Raises:
            TypeError: if something there is no number.
        """
        known = {name: state[name] for name in self.state_dict() if state.get(name) is not None}
        for name, value in known.items():
            if not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, got {value!r}")
        self.samples = known.get("samples")
        self.price_of_sample, self.price_of_pictures = known.get("price_of_sample"), known.get("price_of_pictures")
        self.price_of_insights, self._at_last_look = known.get("price_of_insights"), known.get("at_last_look")
        self.spent, self.saved = known.get("spent", 0.0), known.get("saved", 0.0)
        self._trained, self._began = known.get("trained", 0.0), None


def fewest(max_samples: int) -> int:
    """The fewest of ``max_samples``, a quarter, a quarter of that, and so on, that are no fewer than :data:`LEAST`."""
    while max_samples // 4 >= LEAST:
        max_samples //= 4
    return max_samples


def is_looked_at(trainer: Trainer, epoch: int, every_n_epochs: int) -> bool:
    """Whether the validations of an epoch of a fit are looked at: the first that each ``every_n_epochs`` epochs have."""
    before = epoch - (trainer.check_val_every_n_epoch or 1)  # None where batches are counted through epochs
    return epoch // every_n_epochs != before // every_n_epochs


def is_last_look(trainer: Trainer, every_n_epochs: int) -> bool:
    """Whether no later validation of this fit is looked at, as far as can be known in one: early stopping cannot."""
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
