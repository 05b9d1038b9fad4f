"""What was found, in sentences."""

from __future__ import annotations

import pytest
import torch

from lrp_lightning import Coverage, Strategies, Strategy, TopK
from lrp_lightning.insight.headline import headline, kept_by
from lrp_lightning.insight.transplant import Transplant
from lrp_lightning.selection import Selection

WON = {"contest_accuracy": 0.9, "random_contest_accuracy": 0.5}


def strategy(label: int, bound: float) -> Strategy:
    test = Transplant((0, 20, 4, 4), moves=False, flipped=0.4, control=0.02, bound=bound, pairs=256)
    return Strategy(label, torch.arange(12), 0.25, images=torch.zeros(3, 1, 24, 24), test=test)


def test_nothing_known_is_nothing_said() -> None:
    assert headline({}, 0, "neurons") == []
    assert headline({"smape": 0.1}, 10, "neurons", Strategies()) == []


def test_a_contest_that_sets_win_by_force_is_qualified() -> None:
    for forced, sentences in ((0.49, 1), (0.5, 2)):
        said = headline(WON | {"runner_up_accuracy": forced}, 1000, "5 neurons of each layer")
        assert len(said) == sentences
        assert said[0] == (
            "With only its own 5 neurons of each layer, the predicted class beats the runner-up in 90% of 1,000 images "
            "(50% with random neurons)."
        )
    assert "make the runner-up win in 50% of the images" in said[1]


def test_shortcuts_are_named_three_at_most_and_none_too() -> None:
    names = ["a", "b", "c", "d", "e"]
    found = Strategies([strategy(label, 0.3) for label in range(4)] + [strategy(4, 0.0)])
    said = headline({}, 0, "", found, names)
    assert [text.split(" by the ")[0] for text in said] == [
        f"Likely shortcut: the network decides 25% of class {name}" for name in "abc"
    ]
    assert headline({}, 0, "", Strategies([strategy(0, 0.0), strategy(0, 0.0), strategy(2, 0.0)])) == [
        "No likely shortcut was found among the 3 strategies of 2 classes."
    ]


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (TopK(0.1), "10% of each layer's neurons"), (TopK(1.0), "100% of each layer's neurons"),
        (TopK(3), "3 neurons of each layer"), (TopK(1), "1 neuron of each layer"), (None, "neurons (all of them)"),
        (Coverage(0.9), "critical neurons (Coverage(share=0.9))"),
    ],
)  # fmt: skip
def test_what_a_selection_keeps(selection: Selection | None, words: str) -> None:
    assert kept_by(selection) == words
