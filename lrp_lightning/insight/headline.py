"""The findings about a network in a few sentences, for a reader who does not know the measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lrp_lightning.insight.strategies import Strategies
from lrp_lightning.selection import Selection, TopK
from lrp_lightning.words import percent

__all__ = ["headline", "kept_by"]

_FORCES = 0.5
"""If the runner-up's own neurons make it win in at least this share of images, neurons are said to force their class."""
_SHORTCUTS = 3
"""The most shortcuts that get a sentence each."""


def headline(
    measures: Mapping[str, float],
    samples: int,
    kept: str,
    strategies: Strategies | None = None,
    class_names: Sequence[str] | None = None,
) -> list[str]:
    """The result of the contest of critical neurons, whether to trust it, and which strategies are likely shortcuts.

    Args:
        measures: ``contest_accuracy``, ``random_contest_accuracy`` and ``runner_up_accuracy``, as far as measured.
        samples: number of images that were measured.
        kept: which neurons are critical, from :func:`kept_by`.
        strategies: from :func:`lrp_lightning.find_strategies`; None if they were not searched for.
        class_names: names of the classes.

    Returns:
        Sentences, the first about the network as a whole; an empty list if nothing was measured.

    Example:
        >>> import textwrap
        >>> from lrp_lightning import TopK
        >>> from lrp_lightning.insight.headline import headline, kept_by
        >>> measured = {"contest_accuracy": 0.97, "random_contest_accuracy": 0.51}
        >>> print(textwrap.fill(*headline(measured, 256, kept_by(TopK(0.1))), width=110))
        With only its own 10% of each layer's neurons, the predicted class beats the runner-up in 97% of 256 images
        (51% with random neurons).
    """
    said = []
    won, chance, forced = (
        measures.get(name) for name in ("contest_accuracy", "random_contest_accuracy", "runner_up_accuracy")
    )
    if won is not None:
        control = "" if chance is None else f" ({percent(chance)} with random neurons)"
        said.append(
            f"With only its own {kept}, the predicted class beats the runner-up in {percent(won)} of {samples:,} images"
            f"{control}."
        )
    if forced is not None and forced >= _FORCES:
        said.append(
            "But neurons force their class here, whatever the image shows: the runner-up's own neurons make the runner-up "
            "win "
            f"in {percent(forced)} of the images, so the first figure proves little."
        )
    if strategies:
        said += [f"Likely shortcut: {strategy.sentence(class_names)}." for strategy in strategies.shortcuts[:_SHORTCUTS]]
        if not strategies.shortcuts:
            of = len({strategy.label for strategy in strategies})
            said.append(f"No likely shortcut was found among the {len(strategies)} strategies of {of} classes.")
    return said


def kept_by(selection: Selection | None) -> str:
    """The neurons that a selection keeps, in words.

    Example:
        >>> from lrp_lightning import TopK
        >>> from lrp_lightning.insight.headline import kept_by
        >>> kept_by(TopK(0.1)), kept_by(TopK(5))
        ("10% of each layer's neurons", '5 neurons of each layer')
    """
    if isinstance(selection, TopK):
        keep = selection.keep
        if isinstance(keep, float):
            return f"{percent(keep)} of each layer's neurons"
        return f"{keep} neuron{'s' * (keep != 1)} of each layer"
    return "neurons (all of them)" if selection is None else f"critical neurons ({selection!r})"
