"""LRP rules as data: how an affine map redistributes the relevance of its outputs to its inputs.

A rule is a tuple of groups. A group has a share and a tuple of terms. A term names the parts of the input ``a``, the
weight ``w`` and the bias ``b`` that it uses. For each group

    z = sum over its terms of (w' a' + b'),    s = share * R / z,    R_lower = sum over its terms of a' (w'^T s)

and the rule's result is the sum over its groups. The engine has one affine backward that reads these groups; the rest of
the library does not distinguish rules.

Sources: Bach et al. 2015 (epsilon, alpha-beta), Montavon et al. 2017 (z+, zB, w^2), Montavon et al. 2019 (gamma),
Lapuschkin et al. 2019 (flat), Andeol et al. 2021 (gamma for inputs and outputs of both signs).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from lrp_lightning.checks import as_number
from lrp_lightning.errors import RuleError

__all__ = [
    "AlphaBeta",
    "Epsilon",
    "Flat",
    "Gamma",
    "Group",
    "Part",
    "Pass",
    "Rule",
    "Term",
    "WSquare",
    "ZBox",
    "ZPlus",
    "as_rule",
]


@dataclass(frozen=True)
class Part:
    """The part of a tensor that a term uses. ``value`` is gamma's factor or the constant (a number, or one per channel)."""

    kind: str
    value: float | tuple[float, ...] = 0.0

    def __call__(self, t: Tensor) -> Tensor:
        match self.kind:
            case "identity":
                return t
            case "positive":
                return t.clamp(min=0)
            case "negative":
                return t.clamp(max=0)
            case "squared":
                return t.square()
            case "gamma_positive":
                return torch.add(t, t.clamp(min=0), alpha=cast(float, self.value))
            case "gamma_negative":
                return torch.add(t, t.clamp(max=0), alpha=cast(float, self.value))
            case "constant":
                if not isinstance(self.value, tuple):
                    return t.new_full((), self.value).expand(t.shape)
                if t.ndim < 2 or t.shape[1] != len(self.value):
                    raise RuleError(
                        f"{len(self.value)} values, one per channel, were given for an input of shape {tuple(t.shape)}"
                    )
                value = torch.as_tensor(self.value, dtype=t.dtype, device=t.device)
                return value.view(1, -1, *[1] * (t.ndim - 2)).expand(t.shape)
        raise RuleError(f"unknown part {self.kind!r}")

    @property
    def proportional(self) -> bool:
        """Whether the part is zero wherever the tensor is zero."""
        return self.kind != "constant"

    def __repr__(self) -> str:
        return self.kind if self.kind in ("identity", "positive", "negative", "squared") else f"{self.kind}({self.value})"


identity, positive, negative, squared = Part("identity"), Part("positive"), Part("negative"), Part("squared")
zero, one = Part("constant", 0.0), Part("constant", 1.0)


@dataclass(frozen=True)
class Term:
    """One affine map in a rule: the parts of input, weight and bias that it multiplies."""

    input: Part
    weight: Part
    bias: Part


EXCITATION = (Term(positive, positive, positive), Term(negative, negative, zero))


@dataclass(frozen=True)
class Group:
    """Terms with a common denominator, the share of the relevance that they redistribute, and the sign of the outputs."""

    share: float
    terms: tuple[Term, ...]
    outputs: Part = identity

    @cached_property
    def plain(self) -> bool:
        """Whether ``z`` is the output itself."""
        return self.terms == (Term(identity, identity, identity),)

    @cached_property
    def excitation(self) -> bool:
        """Whether it uses all excitatory terms: then ``z`` is not negative, and it is 0 only where no output is positive."""
        return self.terms == EXCITATION


@dataclass(frozen=True)
class Rule:
    """How an affine map redistributes relevance.

    Args:
        groups: the groups; an empty tuple passes relevance through unchanged.
        eps: stabiliser of the denominator.
        name: what ``repr`` shows.
        relative: whether ``eps`` is relative to the mean of ``|z|`` in a sample.
        box: the least and greatest value that the input may have; None for any.

    Raises:
        RuleError: if ``eps`` is not a number, negative or not finite.

    Example:
        >>> from lrp_lightning import Epsilon, ZPlus
        >>> Epsilon()
        Epsilon(eps=1e-06)
        >>> ZPlus() == ZPlus(eps=1e-6)
        True
    """

    groups: tuple[Group, ...]
    eps: float = 1e-6
    name: str = "Rule"
    relative: bool = True
    box: tuple[Part, Part] | None = None

    def __post_init__(self) -> None:
        if not 0 <= as_number(self.eps) < math.inf:
            raise RuleError(f"{self.name}: eps must be finite and not negative")

    @property
    def passes(self) -> bool:
        """Whether relevance passes through unchanged, value by value."""
        return not self.groups

    def leaves_box(self, a: Tensor) -> Tensor:
        """Whether an input has values outside the box, as a tensor on its device."""
        assert self.box is not None
        low, high = self.box
        return ((a < low(a)) | (a > high(a))).any()

    @cached_property
    def needs_scale(self) -> bool:
        """Whether the scale of the output itself is needed."""
        return self.relative and any(group.plain for group in self.groups)

    @cached_property
    def proportional(self) -> bool:
        """Whether an input of zero gets no relevance, so that ``R / a`` stays finite."""
        return not self.passes and all(t.input.proportional for g in self.groups for t in g.terms)

    def __repr__(self) -> str:
        return self.name


def Epsilon(eps: float = 1e-6) -> Rule:
    """LRP-epsilon (Bach et al. 2015, eq. 58): in proportion to the contributions, with a stabiliser relative to ``z``.

    In a network of ReLUs it equals gradient x input.

    Args:
        eps: stabiliser, relative to the scale of ``z``.

    Raises:
        RuleError: if ``eps`` is negative or not finite, as for every rule.

    Example:
        >>> import torch
        >>> from lrp_lightning import Epsilon, SelectiveLRP
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False))
        >>> _ = torch.nn.init.constant_(model[0].weight, 2.0)
        >>> SelectiveLRP(model, Epsilon(0)).attribute(torch.tensor([[3.0, -1.0]]))
        tensor([[ 6., -2.]])
    """
    return Rule((Group(1.0, (Term(identity, identity, identity),)),), eps, f"Epsilon(eps={eps})")


def _excitation(share: float) -> Group:
    return Group(share, EXCITATION)


def _inhibition(share: float) -> Group:
    return Group(share, (Term(positive, negative, negative), Term(negative, positive, zero)))


def ZPlus(eps: float = 1e-6) -> Rule:
    """z+ (Montavon et al. 2017, eq. 14): only positive contributions, for inputs of both signs.

    Args:
        eps: stabiliser, relative to the scale of ``z``.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, ZPlus
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False))
        >>> _ = torch.nn.init.constant_(model[0].weight, 2.0)
        >>> SelectiveLRP(model, ZPlus(0)).attribute(torch.tensor([[3.0, -1.0]])).long()
        tensor([[4, 0]])
    """
    return Rule((_excitation(1.0),), eps, f"ZPlus(eps={eps})")


def AlphaBeta(alpha: float = 2, beta: float = 1, eps: float = 1e-6) -> Rule:
    """Alpha-beta (Bach et al. 2015, eq. 60): alpha times the positive minus beta times the negative contributions.

    Args:
        alpha: weight of the positive contributions.
        beta: weight of the negative contributions.
        eps: stabiliser, relative to the scale of ``z``.

    Raises:
        RuleError: unless ``alpha - beta == 1`` and ``beta >= 0``, without which relevance is not conserved.

    Example:
        >>> import torch
        >>> from lrp_lightning import AlphaBeta, SelectiveLRP
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False))
        >>> _ = torch.nn.init.constant_(model[0].weight, 2.0)
        >>> SelectiveLRP(model, AlphaBeta(2, 1, eps=0)).attribute(torch.tensor([[3.0, -1.0]]))
        tensor([[ 8., -4.]])
    """
    if not (as_number(beta) >= 0 and math.isclose(as_number(alpha) - beta, 1)):
        raise RuleError(f"AlphaBeta: alpha - beta must be 1 and beta at least 0, got alpha={alpha}, beta={beta}")
    groups = (_excitation(alpha),) if beta == 0 else (_excitation(alpha), _inhibition(-beta))
    return Rule(groups, eps, f"AlphaBeta(alpha={alpha}, beta={beta}, eps={eps})")


def Gamma(gamma: float = 0.25, eps: float = 1e-6) -> Rule:
    """Gamma (Montavon et al. 2019, eq. 10.6; Andeol et al. 2021 for both signs): favours contributions of the output's sign.

    Args:
        gamma: how much they are favoured; 0 gives epsilon, infinity z+.
        eps: stabiliser, relative to the scale of ``z``.

    Raises:
        RuleError: if ``gamma`` is negative or not finite.

    Example:
        >>> import torch
        >>> from lrp_lightning import Gamma, SelectiveLRP
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False))
        >>> _ = torch.nn.init.constant_(model[0].weight, 2.0)
        >>> SelectiveLRP(model, Gamma(1.0, eps=0)).attribute(torch.tensor([[3.0, -1.0]])).sum()
        tensor(4.)
    """
    if not 0 <= as_number(gamma) < math.inf:
        raise RuleError(f"Gamma: gamma must be finite and not negative, got {gamma}")
    up, down = Part("gamma_positive", float(gamma)), Part("gamma_negative", float(gamma))
    groups = (
        Group(1.0, (Term(positive, up, up), Term(negative, down, zero)), outputs=positive),
        Group(1.0, (Term(positive, down, down), Term(negative, up, zero)), outputs=negative),
    )
    return Rule(groups, eps, f"Gamma(gamma={gamma}, eps={eps})")


def ZBox(low: float | tuple[float, ...], high: float | tuple[float, ...], eps: float = 1e-6) -> Rule:
    """zB (Montavon et al. 2017, eq. 16), for inputs in a box, such as pixels.

    Args:
        low: the least value an input can have, one number or one per channel.
        high: the greatest, likewise.
        eps: stabiliser, relative to the scale of ``z``.

    If a layer that reads the model's input has this rule, values outside the box cause a warning after the pass.

    Raises:
        RuleError: if ``low`` is not below ``high``, or their lengths differ.

    Example:
        >>> from lrp_lightning import Composite, Epsilon, ZBox
        >>> Composite(Epsilon(), first=ZBox(0.0, 1.0))  # for images with values in [0, 1]
        Composite(default=Epsilon(eps=1e-06), first=ZBox(low=0.0, high=1.0))
    """
    lows, highs = (tuple(map(as_number, v)) if isinstance(v, tuple | list) else (as_number(v),) for v in (low, high))
    if len(lows) != len(highs) or not all(a < b for a, b in zip(lows, highs, strict=True)):
        raise RuleError(
            "ZBox: low must be below high, value by value, each one number or a tuple of one per channel, got "
            f"low={low}, high={high}"
        )

    def part(values: Iterable[float]) -> Part:
        one, *more = values
        return Part("constant", (one, *more) if more else one)

    less_low, less_high = part(-v for v in lows), part(-v for v in highs)
    terms = (Term(identity, identity, zero), Term(less_low, positive, zero), Term(less_high, negative, zero))
    about = [(a, b, 1e-2 * (b - a)) for a, b in zip(lows, highs, strict=True)]  # allows for half precision
    box = part(a - margin for a, _, margin in about), part(b + margin for _, b, margin in about)
    return Rule((Group(1.0, terms),), eps, f"ZBox(low={low}, high={high})", box=box)


def WSquare() -> Rule:
    """w^2 (Montavon et al. 2017, eq. 12): in proportion to the squared weights, independent of the input.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, WSquare
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False))
        >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0, 3.0]]))
        >>> SelectiveLRP(model, WSquare()).attribute(torch.tensor([[7.0, 1.0]])).round()  # 1 to 9
        tensor([[1., 9.]])
    """
    return Rule((Group(1.0, (Term(one, squared, zero),)),), name="WSquare()")


def Flat() -> Rule:
    """Flat (Lapuschkin et al. 2019): evenly to all inputs of a neuron.

    Example:
        >>> import torch
        >>> from lrp_lightning import Flat, SelectiveLRP
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False))
        >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0, 3.0]]))
        >>> SelectiveLRP(model, Flat()).attribute(torch.tensor([[7.0, 1.0]])).round()
        tensor([[5., 5.]])
    """
    return Rule((Group(1.0, (Term(one, one, zero),)),), name="Flat()")


def Pass() -> Rule:
    """Unchanged, value by value; only for maps whose input and output have the same shape.

    Raises:
        RuleError: in the pass, if the shapes differ.

    Example:
        >>> import torch
        >>> from lrp_lightning import Composite, Epsilon, Pass, SelectiveLRP
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> trace = SelectiveLRP(model, Composite(Epsilon(), layers={"0": Pass()})).trace(torch.rand(2, 4), target=1)
        >>> torch.allclose(trace.inputs, trace.relevance["0"])
        True
    """
    return Rule((), name="Pass()")


def rule_on(module: object) -> Rule | None:
    """The rule that the caller set as ``module.rule``; None if it is missing or something else.

    Raises:
        RuleError: if it is the name of a rule, a rule function that was not called, or an unknown rule of Captum.
    """
    given = getattr(module, "__dict__", {}).get("rule")
    if given is None and hasattr(type(module), "rule"):  # getattr for a missing attribute of a module is slow
        given = getattr(module, "rule", None)
    if isinstance(given, Rule) or type(given).__module__.startswith("captum."):
        return as_rule(given)
    if (getattr(given, "__module__", None) or "").startswith((__name__, "captum.")) or _is_name(given):
        raise RuleError(f"{type(module).__name__}.rule must be a rule, such as Epsilon(), got {given!r}")
    return None  # an attribute with another meaning in the model


def _is_name(given: object) -> bool:
    return isinstance(given, str) and given.lower().replace("_", "") in {name.lower() for name in __all__}


def as_rule(given: object) -> Rule:
    """Convert an argument to a rule; Captum's rule objects mean the same with an absolute stabiliser.

    Raises:
        RuleError: if it is neither.
    """
    if isinstance(given, Rule):
        return given
    kind, eps = type(given).__name__, getattr(given, "STABILITY_FACTOR", 0.0)
    bias = zero if getattr(given, "set_bias_to_zero", False) else identity
    name = f"captum's {kind}"
    if not type(given).__module__.startswith("captum."):
        raise RuleError(f"a rule must be a rule of lrp_lightning or Captum, such as Epsilon(), got {given!r}")
    if kind == "IdentityRule":
        return Rule((), name=name)
    weights = {
        "EpsilonRule": identity,
        "GammaRule": Part("gamma_positive", float(getattr(given, "gamma", 0.0))),
        "Alpha1_Beta0_Rule": positive,
    }
    if kind not in weights:
        raise RuleError(f"Captum's {kind} is not supported; use a rule of lrp_lightning")
    return Rule((Group(1.0, (Term(identity, weights[kind], bias),)),), eps, name, relative=False)
