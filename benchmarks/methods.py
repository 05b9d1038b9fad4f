"""The methods that are measured, of this library and of peers, each as a user would call it for a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from models import Subject, gradient_x_input
from peers import AUTOLRP, ZENNIT, autolrp, captum, lxt, zennit
from torch import Tensor, nn

from lrp_lightning import (
    Epsilon,
    EpsilonAlpha2Beta1,
    EpsilonGammaBox,
    EpsilonPlus,
    SelectiveLRP,
    TopK,
)
from lrp_lightning.composites import Composite
from lrp_lightning.rules import Rule
from lrp_lightning.selection import Selection

Explain = Callable[[nn.Module, Tensor, Tensor], Any]


@dataclass(frozen=True)
class Method:
    """A way to explain a batch.

    Attributes:
        explain: a function of model, images and classes; returns relevance of the images, or a trace.
        rule: the oracle's rule; None if it has no such rule.
        package: the package of the method.
        over: the method that its time is compared with.
    """

    name: str
    explain: Explain
    rule: str | None = None
    package: str = "lrp_lightning"
    over: str = "gradient x input"

    def work(self, subject: Subject) -> Callable[[], Any]:
        return lambda: self.explain(subject.model, subject.x, subject.target)

    def explains(self, model: str) -> bool:
        """Whether the method supports the model: lxt patches the modules of transformers."""
        return self.package != "lxt" or model.startswith("vit")


def _ours(composite: Composite | Rule, selection: Selection | None = None, edges: bool = False) -> Explain:
    if edges:
        return lambda model, x, target: SelectiveLRP(model, composite, selection).trace(x, target, edges=True)
    return lambda model, x, target: SelectiveLRP(model, composite, selection).attribute(x, target=target)


_PLUS, _BOX = EpsilonPlus(), EpsilonGammaBox(0.0, 1.0)
OURS = (
    Method("epsilon", _ours(Epsilon()), "epsilon"),
    Method("EpsilonPlus", _ours(_PLUS), "EpsilonPlus"),
    Method("EpsilonGammaBox", _ours(_BOX), "EpsilonGammaBox"),
    Method("EpsilonAlpha2Beta1", _ours(EpsilonAlpha2Beta1()), "EpsilonAlpha2Beta1"),
    Method("EpsilonPlus, TopK(0.1)", _ours(_PLUS, TopK(0.1))),
    Method("epsilon, all edges", _ours(Epsilon(), None, edges=True)),
    Method("EpsilonPlus, all edges", _ours(_PLUS, None, edges=True)),
    Method("EpsilonPlus, TopK(0.1), all edges", _ours(_PLUS, TopK(0.1), edges=True)),
)
SELECTING = Method("TopK(0.1), over the same without", _ours(_PLUS, TopK(0.1)), over="EpsilonPlus")
PEERS = (
    Method("Captum, epsilon", captum, "epsilon", "captum"),
    *(Method(f"zennit, {rule}", partial(zennit, rule), rule, "zennit") for rule in ZENNIT),
    *(Method(f"autolrp, {rule}", partial(autolrp, rule), rule, "autolrp") for rule in AUTOLRP),
    Method("lxt, epsilon", lxt, "epsilon", "lxt"),
)
METHODS = {method.name: method for method in (*OURS, SELECTING, *PEERS)}
GRADIENT = Method("gradient x input", gradient_x_input)
