"""Composites: which rule each layer gets."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Literal

from lrp_lightning.checks import got
from lrp_lightning.errors import RuleError
from lrp_lightning.rules import AlphaBeta, Epsilon, Gamma, Rule, ZBox, ZPlus

__all__ = ["Composite", "EpsilonAlpha2Beta1", "EpsilonGammaBox", "EpsilonPlus", "Kind", "as_composite"]

Kind = Literal["convolution", "linear", "normalisation"]


@dataclass(frozen=True, repr=False)
class Composite:
    """A mixture of rules.

    The first of these that applies decides: a name pattern in ``layers``, ``first``, the layer's kind, ``default``.

    Args:
        default: for every layer without a rule of its own.
        convolution: for convolutions, of any dimension.
        linear: for linear layers.
        first: for convolutions and linear layers that read the input through data movement and normalisation only.
        layers: ``{pattern: rule}``, shell patterns on layer names such as ``"features.*"``; the first match decides.
        attention: ``"values"`` treats the attention weights as constants, so only values get relevance (Ali et al. 2022);
            ``"attnlrp"`` also propagates it to queries and keys (Achtibat et al. 2024).

    Raises:
        RuleError: if something given as a rule is not one, or ``attention`` is not one of these.

    Example:
        >>> from lrp_lightning import Composite, Epsilon, Gamma, ZBox
        >>> mixture = Composite(Epsilon(), convolution=Gamma(0.25), first=ZBox(0.0, 1.0), layers={"head.*": Epsilon(1e-3)})
        >>> mixture.rule_for("features.3", "convolution", first=False)
        Gamma(gamma=0.25, eps=1e-06)
    """

    default: Rule
    convolution: Rule | None = None
    linear: Rule | None = None
    first: Rule | None = None
    layers: Mapping[str, Rule] = field(default_factory=dict, hash=False)
    attention: Literal["values", "attnlrp"] = "values"

    def __post_init__(self) -> None:
        if self.attention not in ("values", "attnlrp"):
            raise RuleError(f"Composite: attention must be 'values' or 'attnlrp', got {self.attention!r}")
        if self.default is None:
            raise RuleError("Composite: default must be a rule such as Epsilon(), got None")
        for name, rule in self._named_rules():
            if not isinstance(rule, Rule):
                raise RuleError(f"Composite: {name} must be a rule such as Epsilon(), got {rule!r}")

    def __repr__(self) -> str:
        given = [
            f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) not in (None, {}, "values")
        ]
        return f"Composite({', '.join(given)})"

    def _named_rules(self) -> Iterator[tuple[str, Rule]]:
        for name in ("default", "convolution", "linear", "first"):
            if getattr(self, name) is not None:
                yield name, getattr(self, name)
        yield from self.layers.items()

    def pattern_for(self, name: str) -> str | None:
        """The first pattern in ``layers`` that matches a layer, or None.

        Args:
            name: the layer's, as in ``Trace.relevance``.
        """
        return next((pattern for pattern in self.layers if fnmatchcase(name, pattern)), None)

    def rule_for(self, name: str, kind: Kind, first: bool) -> Rule:
        """The rule of one layer.

        Args:
            name: the layer's, as in ``Trace.relevance``.
            kind: ``"convolution"``, ``"linear"`` or ``"normalisation"``.
            first: whether it reads the input through data movement and normalisation only.
        """
        pattern = self.pattern_for(name)
        if pattern is not None:
            return self.layers[pattern]
        by_kind = {"convolution": self.convolution, "linear": self.linear}.get(kind)
        of_first = self.first if first and kind != "normalisation" else None
        return of_first or by_kind or self.default

    @cached_property
    def proportional(self) -> bool:
        """Whether no rule above the first layer gives relevance to an activation of zero."""
        return all(rule.proportional for name, rule in self._named_rules() if name != "first")

    def proportional_below(self, first: bool) -> bool:
        """Whether an activation of zero gets no relevance.

        Args:
            first: whether the layer that propagates it may be a first layer.
        """
        return self.proportional and not (first and self.first is not None and not self.first.proportional)


def EpsilonPlus(eps: float = 1e-6) -> Composite:
    """z+ in convolutions, epsilon elsewhere (the composite of Kohlbrenner et al. 2020, "LRP-CMP", with z+).

    Args:
        eps: stabiliser, relative to the scale of ``z``.

    Example:
        >>> from lrp_lightning import EpsilonPlus
        >>> EpsilonPlus().rule_for("features.3", "convolution", first=False)
        ZPlus(eps=1e-06)
    """
    return Composite(Epsilon(eps), convolution=ZPlus(eps))


def EpsilonGammaBox(
    low: float | tuple[float, ...], high: float | tuple[float, ...], gamma: float = 0.25, eps: float = 1e-6
) -> Composite:
    """zB on the input, gamma in convolutions, epsilon elsewhere (Montavon et al. 2019).

    Args:
        low: the least value an input can have, one number or one per channel.
        high: the greatest, likewise.
        gamma: how much positive weights are favoured.
        eps: stabiliser, relative to the scale of ``z``.

    Raises:
        RuleError: as :func:`lrp_lightning.ZBox` and :func:`lrp_lightning.Gamma`.

    Example:
        >>> from lrp_lightning import EpsilonGammaBox
        >>> EpsilonGammaBox(0.0, 1.0).rule_for("features.0", "convolution", first=True)
        ZBox(low=0.0, high=1.0)
    """
    return Composite(Epsilon(eps), convolution=Gamma(gamma, eps), first=ZBox(low, high, eps))


def EpsilonAlpha2Beta1(eps: float = 1e-6) -> Composite:
    """Alpha-beta with 2 and 1 in convolutions, epsilon elsewhere (Bach et al. 2015).

    Args:
        eps: stabiliser, relative to the scale of ``z``.

    Example:
        >>> from lrp_lightning import EpsilonAlpha2Beta1
        >>> EpsilonAlpha2Beta1().rule_for("features.3", "convolution", first=False)
        AlphaBeta(alpha=2, beta=1, eps=1e-06)
    """
    return Composite(Epsilon(eps), convolution=AlphaBeta(2, 1, eps))


_BY_NAME = {"epsilon": lambda: Composite(Epsilon()), "epsilon_plus": EpsilonPlus, "epsilon_alpha2_beta1": EpsilonAlpha2Beta1}


def named(composite: Composite) -> str:
    """The name by which :func:`as_composite` returns it, otherwise its ``repr``."""
    return next((name for name, make in _BY_NAME.items() if make() == composite), repr(composite))


def as_composite(composite: Composite | Rule | str) -> Composite:
    """Convert an argument to a composite: it may be a composite, a rule for every layer, or a name.

    Raises:
        RuleError: if it is not one of these.
    """
    if isinstance(composite, Composite):
        return composite
    if isinstance(composite, Rule):
        return Composite(composite)
    if isinstance(composite, str) and composite in _BY_NAME:
        return _BY_NAME[composite]()
    names = ", ".join(map(repr, sorted(_BY_NAME)))
    given = repr(composite)
    if isinstance(composite, type) or inspect.isroutine(composite):
        given = got(composite)
    elif hasattr(composite, "select") or hasattr(composite, "search"):
        given += "; that is a selection, give it as selection="
    raise RuleError(f"composite must be a composite, a rule such as Epsilon(), or one of the names {names}; got {given}")
