"""Selections and composites as text."""

from __future__ import annotations

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lrp_lightning import Agreement, Composite, Coverage, Epsilon, Fixed, Gamma, MinError, PerLayer, Threshold, TopK, ZBox
from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks.text import read


@pytest.mark.parametrize(
    "expected",
    [
        TopK(0.1),
        TopK(3, by="relevance"),
        Coverage(0.9),
        Threshold(0.01),
        MinError("mse", keep=TopK(3), max_passes=4),
        MinError().smallest(0.2),
        Agreement("mse", 0.2, rules=(Epsilon(), Gamma(0.1))),
        Epsilon(1e-3),
        ZBox(-1.5, 2.0),
        Composite(Epsilon(), convolution=Gamma(0.1), layers={"head.*": Epsilon(0.1)}),
    ],
)
def test_what_is_shown_is_read_again(expected: object):
    assert read(repr(expected)) == expected


def test_what_holds_other_things():
    assert read("PerLayer(None, layers={'a.*': TopK(3)}, exclude=['b'])") == PerLayer(None, {"a.*": TopK(3)}, ("b",))
    assert repr(read(' Fixed({"conv": [1, 2]}) ')) == repr(Fixed({"conv": (1, 2)}))
    monitor = RelevanceMonitor("Composite(Gamma(0.1))", "Threshold(0.01)")
    assert (monitor.settings.composite, monitor.settings.selection) == (Composite(Gamma(0.1)), Threshold(0.01))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top_k(0.1)", "'top_k' must be one of"),
        ("TopK(", "'TopK\\(' must be written as"),
        ("TopK()", "missing"),
        ("TopK(2.0)", "share"),
        ("__import__('os').system('true')", "malformed"),
        ("TopK(keep=open('x'))", "'open' must be one of"),
        ("TopK(**{'keep': 1})", "missing"),
        ("", "must be written as"),
    ],
)
def test_text_that_is_something_else(text: str, message: str):
    with pytest.raises(MisconfigurationException, match=message):
        RelevanceMonitor(selection=text)
