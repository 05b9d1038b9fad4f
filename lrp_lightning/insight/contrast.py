"""Why one class and not another: the relevance of both, and of the difference of their outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lrp_lightning.attribution import SelectiveLRP
from lrp_lightning.checks import got, is_whole
from lrp_lightning.composites import Composite, EpsilonPlus
from lrp_lightning.errors import InputError, TargetError
from lrp_lightning.insight.shares import as_shares
from lrp_lightning.masking import masked_forward
from lrp_lightning.metrics.accuracy import check_outputs
from lrp_lightning.rules import Rule
from lrp_lightning.selection import Selection, TopK
from lrp_lightning.words import percent

__all__ = ["Contrast", "contrast"]

_NEURONS = 10
_SHOWN, _SIDE = 2, 96
"""Samples in a notebook, and pixels of their heatmaps."""


@dataclass(frozen=True, eq=False)
class Contrast:
    """Why one class rather than another: relevance for both, and for the difference of their logits.

    Attributes:
        a: ``(N,)``, the class in question.
        b: ``(N,)``, the class that it is compared with.
        logits: ``(N, classes)``, of the whole network.
        inputs: ``(N, ...)``, the inputs that were explained.
        heatmaps: ``(3, N, ...)``, the inputs' relevance for ``a``, for ``b``, and for the difference of their logits,
            through the critical neurons of each.
        all_neurons: ``(3, N, ...)``, the same through all neurons. Rules such as z+, which distribute relevance over all
            active neurons, then give nearly the same picture for all classes.
        neurons_for: ``((layer, neuron, share), ...)``, the neurons that raise the difference most, strongest first; each
            with its share of its layer's ``|relevance|``, mean over samples.
        neurons_against: the same for the neurons that lower it most; shares are negative.
        own_logits: ``(N, 2)``, the logit of ``a`` with its own critical neurons alone, and that of ``b`` with its own.

    Example:
        >>> import torch
        >>> from lrp_lightning import contrast
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> why = contrast(model, torch.rand(5, 4), a=2, b=0)
        >>> why.heatmaps.shape, why.margin.shape
        (torch.Size([3, 5, 4]), torch.Size([5]))
    """

    a: Tensor
    b: Tensor
    logits: Tensor
    inputs: Tensor
    heatmaps: Tensor
    all_neurons: Tensor
    neurons_for: tuple[tuple[str, int, float], ...]
    neurons_against: tuple[tuple[str, int, float], ...]
    own_logits: Tensor

    @property
    def margin(self) -> Tensor:
        """``(N,)``, the logit of ``a`` minus that of ``b``."""
        return self.explained[2]

    @property
    def explained(self) -> Tensor:
        """``(3, N)``: the explained values: the logit of ``a``, that of ``b``, and their difference."""
        of_a, of_b = (self.logits.gather(1, of[:, None])[:, 0] for of in (self.a, self.b))
        return torch.stack([of_a, of_b, of_a - of_b])

    def logit_shares(self, heatmaps: Tensor) -> Tensor:
        """``(3, N)``: the share of each logit, and of their difference, that heatmaps account for.

        Args:
            heatmaps: ``(3, N, ...)``, ``heatmaps`` or ``all_neurons``.
        """
        return heatmaps.flatten(2).sum(2) / self.explained

    @property
    def same_class_ahead(self) -> Tensor:
        """``(N,)`` bool, whether the same class is ahead if each logit is computed with its own critical neurons alone."""
        return (self.own_logits[:, 0] > self.own_logits[:, 1]) == (self.margin > 0)

    def __repr__(self) -> str:
        layer, neuron, share = self.neurons_for[0] if self.neurons_for else ("", 0, 0.0)
        most = f"most relevant: layer {layer!r} neuron {neuron}, {share:.1%} of its layer; " if layer else ""
        return (
            f"Contrast({len(self.a)} samples, mean margin {self.margin.float().mean():.3g}; {most}with critical neurons "
            "alone "
            f"the same class is ahead in {self.same_class_ahead.float().mean():.0%})"
        )

    def _repr_html_(self) -> str:
        """For a notebook: heatmaps of the first samples, if they are images, and the neurons that decide."""
        from lrp_lightning.html import sections
        from lrp_lightning.html.markup import part

        samples = len(self.a)
        ahead = percent(float(self.same_class_ahead.float().mean())) if samples else "none"
        margin = sections.number(float(self.margin.float().mean())) if samples else "none"
        return part(
            f"Contrast of two classes, {samples:,} sample{'s' * (samples != 1)}",
            ("figures", [("mean margin", margin), ("same class ahead with critical neurons alone", ahead)]),
            ("contrast", sections.contrast(self, most=_SHOWN, side=_SIDE)),
        )


def contrast(
    model: nn.Module,
    inputs: Tensor,
    a: int | Tensor | None = None,
    b: int | Tensor | None = None,
    composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
    selection: Selection = TopK(0.2),  # noqa: B008  (a frozen value)
    additional_forward_args: Any = None,
    on_unsupported: Literal["raise", "gradient"] = "raise",
) -> Contrast:
    """Explain two classes and the difference of their logits: why ``a`` and not ``b``.

    It takes six passes, and a masked forward for each of the two classes.

    Args:
        model: the classifier.
        inputs: ``(N, ...)``.
        a: the class in question, one for all samples or ``(N,)``; None for the predicted class.
        b: the class that it is compared with; None for the other class with the highest logit.
        composite, on_unsupported: as in :class:`lrp_lightning.SelectiveLRP`.
        selection: which neurons are critical, for each class and for the difference.
        additional_forward_args: passed to the model after ``inputs``.

    Raises:
        InputError: if ``inputs`` is not a tensor, or there are fewer than two classes.
        TargetError: if ``a`` or ``b`` is not a class of the model, or they are equal.

    Example:
        >>> import torch
        >>> from lrp_lightning import contrast
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> why = contrast(model, torch.rand(5, 4))  # the predicted class against the runner-up
        >>> bool((why.margin > 0).all())
        True
    """
    if not isinstance(inputs, Tensor):
        raise InputError(f"contrast: inputs must be one tensor, samples first, got {got(inputs)}")
    logits = masked_forward(model, inputs, {}, additional_forward_args=additional_forward_args)
    check_outputs(logits)
    of_a = logits.argmax(1) if a is None else _classes("a", a, logits)
    of_b = _highest_but(of_a, logits) if b is None else _classes("b", b, logits)
    same = (of_a == of_b).nonzero().flatten()
    if len(same):
        raise TargetError(
            f"contrast: a and b must be different classes, both are class {int(of_a[same[0]])} for sample {int(same[0])}"
        )
    whole = SelectiveLRP(model, composite, on_unsupported=on_unsupported)
    critical = SelectiveLRP(model, composite, selection, on_unsupported)

    def difference(output: Tensor) -> Tensor:
        return output.gather(1, of_a[:, None])[:, 0] - output.gather(1, of_b[:, None])[:, 0]

    explained = of_a, of_b, difference
    through_all = [whole.trace(inputs, target, additional_forward_args) for target in explained]
    through_critical = [critical.trace(inputs, target, additional_forward_args) for target in explained]
    own = []
    for of, trace in zip((of_a, of_b), through_critical, strict=False):
        alone = masked_forward(model, inputs, trace.masks, additional_forward_args=additional_forward_args)
        own.append(alone.gather(1, of[:, None]))
    hidden = through_critical[2].masks
    shares = {layer: as_shares(through_all[2].relevance[layer]).mean(0).cpu() for layer in hidden}
    return Contrast(
        of_a, of_b, logits, inputs, torch.stack([trace.inputs for trace in through_critical]),  # type: ignore[misc]
        torch.stack([trace.inputs for trace in through_all]),  # type: ignore[misc]
        _most(shares, 1), _most(shares, -1), torch.cat(own, 1),
    )  # fmt: skip


def _highest_but(of: Tensor, logits: Tensor) -> Tensor:
    return logits.scatter(1, of[:, None], -torch.inf).argmax(1)


def _classes(name: str, given: object, logits: Tensor) -> Tensor:
    classes = logits.shape[1]
    if is_whole(given):
        given = torch.full((len(logits),), int(given))  # type: ignore[call-overload]
    if not isinstance(given, Tensor) or given.is_floating_point() or given.shape != logits.shape[:1]:
        raise TargetError(f"contrast: {name} must be a class, or one for each of {len(logits)} samples, got {given!r:.80}")
    if not bool(((given >= 0) & (given < classes)).all()):
        raise TargetError(f"contrast: {name} must be classes 0 to {classes - 1}, got {given.tolist()!r:.80}")
    return given.long().to(logits.device)


def _most(shares: dict[str, Tensor], sign: int) -> tuple[tuple[str, int, float], ...]:
    found = []
    for layer, of in shares.items():
        best = (sign * of).topk(min(_NEURONS, len(of)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        found += [(layer, n, sign * value) for value, n in pairs if value > 0]
    return tuple(sorted(found, key=lambda neuron: -abs(neuron[2]))[:_NEURONS])
