"""What the pictures of an epoch are called, and that they can be read on a card of TensorBoard."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tensorboard_log import record_of

from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.pictures import Look, _drawn, draw
from lrp_lightning.insight.strategies import Strategies


def look(names: list[str] | None, classes: int | None) -> Look:
    """Graphs, strategies and cards of two classes, as a record has them."""
    record = record_of(10)
    monitor = RelevanceMonitor(class_names=names, log=["critical_paths", "strategies", "cards"])
    return Look(
        0, monitor.settings, [], graphs=list(record.graphs), classes=classes, strategies=Strategies(record.strategies),
        cards=list(record.cards),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("names", "classes", "tags"),
    [
        (["ankle boot", "T-shirt/top", "../../x"], 3, ["0_ankle_boot", "1_T-shirt_top"]),
        (["a" * 1000, "Schuh & Größe", "c"], 100, ["00_" + "a" * 40, "01_Schuh_Größe"]),
        (None, 12, ["class_00", "class_01"]),
        (None, None, ["class_0", "class_1"]),
    ],
)
def test_each_class_has_a_picture_of_its_own(names: list[str] | None, classes: int | None, tags: list[str]) -> None:
    found = draw(look(names, classes))
    assert not found.record.notes or "could not draw" not in str(found.record.notes)  # type: ignore[union-attr]
    pictures = set(found.pictures)
    assert pictures == {"cards", *(f"{kind}/{tag}" for kind in ("critical_paths", "strategies") for tag in tags)}
    assert sorted(tags) == tags, "by class"


def test_pictures_of_strategies_and_cards_are_as_narrow_as_a_card_of_tensorboard_allows() -> None:
    """Words of 7 points, 11 pixels, keep half of that on a card of 400 pixels."""
    pictures = draw(look(None, 3)).pictures
    assert max(pictures[name].shape[1] for name in pictures if "critical_paths" not in name) <= 800
    assert all(isinstance(picture, np.ndarray) and picture.std() > 0 for picture in pictures.values())


@pytest.mark.parametrize(("samples", "said"), [(1, "1 sample"), (4, "4 samples")])
def test_a_graph_says_of_how_many_samples_it_is(samples: int, said: str) -> None:
    shown = look(None, 3)
    figure = _drawn(replace(shown.graphs[0], n_samples=samples), shown.settings, epoch=2)
    titles = [axis.get_title(loc="left") for axis in figure.axes] + [text.get_text() for text in figure.texts]
    assert any(title.endswith(f"epoch 2, {said}") for title in titles)
