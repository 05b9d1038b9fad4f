"""What was found of a network, in a few sentences for somebody who does not know the measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lrp_lightning.insight.strategies import Strategies
from lrp_lightning.selection import Selection, TopK
from lrp_lightning.words import percent

__all__ = ["headline", "kept_by"]

_FORCES = 0.5
"""Share of images that the runner-up's neurons turn into the runner-up, from which on they are said to force their class."""
_SHORTCUTS = 3
"""Of which there is a sentence each."""


def headline(
    measures: Mapping[str, float],
    samples: int,
    kept: str,
    strategies: Strategies | None = None,
    class_names: Sequence[str] | None = None,
) -> list[str]:
    """What the contest of critical neurons says, whether to trust it, and which strategies are likely shortcuts.

    Args:
        measures: ``contest_accuracy``, ``random_contest_accuracy`` and ``runner_up_accuracy``, those that are known.
        samples: how many images these are of.
        kept: which neurons are critical, from :func:`kept_by`.
        strategies: from :func:`lrp_lightning.find_strategies`; None where nobody has looked for some.
        class_names: names of the classes.

    Returns:
        Sentences, the first about the network as a whole; none where nothing is known.

    Example:
        >>> from lrp_lightning import TopK
        >>> from lrp_lightning.insight.headline import headline, kept_by
        >>> measured = {"contest_accuracy": 0.97, "random_contest_accuracy": 0.51}
        >>> print(*headline(measured, 256, kept_by(TopK(0.1))))
        With its own 10% of each layer's neurons the predicted class wins in 97% of 256 images, with random ones in 51%.
    """
    said = []
    won, chance, forced = (
        measures.get(name) for name in ("contest_accuracy", "random_contest_accuracy", "runner_up_accuracy")
    )
    if won is not None:
        against = "" if chance is None else f", with random ones in {percent(chance)}"
        said.append(f"With its own {kept} the predicted class wins in {percent(won)} of {samples:,} images{against}.")
    if forced is not None and forced >= _FORCES:
        said.append(
            f"But neurons force their class here: the runner-up's turn {percent(forced)} of images into the runner-up, so "
            "that says little."
        )
    if strategies:
        said += [f"Likely shortcut: {strategy.sentence(class_names)}." for strategy in strategies.shortcuts[:_SHORTCUTS]]
        if not strategies.shortcuts:
            of = len({strategy.label for strategy in strategies})
            said.append(f"No shortcut among the {len(strategies)} strategies of {of} classes.")
    return said


def kept_by(selection: Selection | None) -> str:
    """Which neurons a selection keeps, in words.

    Example:
        >>> from lrp_lightning import TopK
        >>> from lrp_lightning.insight.headline import kept_by
        >>> kept_by(TopK(0.1)), kept_by(TopK(5))
        ("10% of each layer's neurons", "5 of each layer's neurons")
    """
    if isinstance(selection, TopK):
        keep = selection.keep
        return f"{percent(keep) if isinstance(keep, float) else keep} of each layer's neurons"
    return "neurons, all of them," if selection is None else f"critical neurons, {selection!r},"
