"""Strategies: groups of samples of a class that are decided by the same neurons, and which of them hang on a small region.

Relevance is clustered as in spectral relevance analysis (SpRAy: Lapuschkin et al. 2019) and in prototypical concept-based
explanations (PCX: Dreyer et al. 2023), which cluster heatmaps, and concepts of one layer; here it is what runs through the
neurons of all hidden layers, and each strategy is put to the transplant test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold
from torch import Tensor, nn
from tqdm.auto import tqdm

from lrp_lightning.attribution import SelectiveLRP
from lrp_lightning.checks import check_batches, is_number, is_whole, labelled
from lrp_lightning.composites import Composite, EpsilonPlus
from lrp_lightning.errors import InputError, SelectionError, TargetError
from lrp_lightning.insight.shares import as_shares
from lrp_lightning.insight.transplant import Region, Transplant, transplant
from lrp_lightning.masking import masked_forward
from lrp_lightning.rules import Rule

__all__ = ["Strategy", "find_strategies"]

_AT_ONCE = 64
"""Samples in one pass."""
_COMPONENTS = 8
"""Principal components that are clustered."""
_FEWEST = 10
"""Samples of a class, and of a strategy, below which nothing is said."""
_SHOWN = 8
"""Prototypes and outliers."""
_NEURONS = 10
"""Neurons that tell a strategy from the class's others."""
_HOSTS = 512
"""Samples of other classes that regions are copied into."""


@dataclass(frozen=True, eq=False)
class Strategy:
    """A group of samples of one class that are decided by the same neurons.

    Attributes:
        label: the class.
        samples: ``(n,)``, which samples of the loader these are, counted from 0 in its order; most typical first.
        share: of the class's samples that were looked at.
        prototypes: the first few of ``samples``.
        outliers: the last few, least typical first.
        neurons: ``((layer, neuron, z), ...)``, those that tell it from the class's other strategies most: by how many of the
            class's standard deviations the mean share of a layer's relevance that runs through the neuron is above the
            class's; for a class of one strategy, the neurons with most relevance, and their share.
        images: ``(k, ...)``, the prototypes, as the model takes them.
        heatmaps: ``(k, *places)``, of the prototypes: the input's relevance, summed over channels.
        heatmap: ``(*places)``, mean over its samples of the input's relevance, summed over channels, as shares of each
            sample's own ``|relevance|``.
        test: the transplant test of its region; None where inputs are tokens, or there was nothing to copy into.
        threshold: what the bound of that test must exceed for a shortcut.

    Example:
        >>> import torch
        >>> from lrp_lightning import Strategy
        >>> Strategy(label=3, samples=torch.arange(12), share=0.25)
        Strategy(class 3, 12 samples, 25% of the class; no region was tested)
    """

    label: int
    samples: Tensor
    share: float
    neurons: tuple[tuple[str, int, float], ...] = ()
    images: Tensor | None = None
    heatmaps: Tensor | None = None
    heatmap: Tensor | None = None
    test: Transplant | None = None
    threshold: float = 0.05
    prototypes: Tensor = field(init=False)
    outliers: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prototypes", self.samples[:_SHOWN])
        object.__setattr__(self, "outliers", self.samples.flip(0)[:_SHOWN])

    @property
    def region(self) -> Region | None:
        """``(top, left, height, width)`` of its region; ``(start, length)`` in sequences, numbers of features."""
        return None if self.test is None else self.test.region

    @property
    def transplant(self) -> float:
        """Share of samples of other classes that become this class when the region is copied into them; NaN untested."""
        return float("nan") if self.test is None else self.test.flipped

    @property
    def control(self) -> float:
        """The same of other windows, and of the class's other samples."""
        return float("nan") if self.test is None else self.test.control

    @property
    def shortcut(self) -> bool:
        """Whether the region alone changes the class of others, more than the controls by the threshold, beyond doubt."""
        return self.test is not None and self.test.bound > self.threshold

    def __repr__(self) -> str:
        about = f"Strategy(class {self.label}, {len(self.samples)} samples, {self.share:.0%} of the class; "
        if self.test is None:
            return about + "no region was tested)"
        where = "a region that moves" if self.test.moves else f"region {self.test.region}"
        said = "a shortcut: " if self.shortcut else ""
        return (
            f"{about}{said}{where} turns {self.transplant:.0%} of other samples into it, against {self.control:.0%} of "
            "controls)"
        )


def find_strategies(
    model: nn.Module,
    loader: Iterable[Any],
    classes: Sequence[int] | None = None,
    composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
    samples_per_class: int = 256,
    max_strategies: int = 5,
    threshold: float = 0.05,
    seed: int = 0,
    progress: bool = True,
    on_unsupported: Literal["raise", "gradient"] = "raise",
) -> list[Strategy]:
    """Group the samples of each class by the neurons that decide them, and test which groups hang on a small region.

    Of each class at most ``samples_per_class`` are looked at, drawn evenly from the whole loader, which is read once; these
    are held in memory. Of each the relevance of the class's output is divided, layer by layer, by the sum of its size,
    joined over hidden layers and reduced to eight principal components. A mixture of Gaussians clusters them; how many, the
    likelihood of held-out samples says, over five folds: the fewest within one standard error of the best.

    The transplant test then takes the window in which a strategy's heatmaps are densest, of four sizes, the same one for all
    samples or each sample's own, copies it from samples of the strategy into samples of other classes that are not
    classified as this one, and counts those that then are; less the same by the densest window elsewhere, or by the same
    window of the class's other strategies. The smallest window that does three quarters of what the best does with 64 pairs
    is judged with 256 others. A strategy is a *shortcut* if the lower bound of that difference, at a confidence of .999, is
    above ``threshold``.

    Args:
        model: the classifier.
        loader: batches ``(inputs, labels)``, or inputs alone, for which the predicted class stands.
        classes: which classes; None for all.
        composite, on_unsupported: as in :class:`lrp_lightning.SelectiveLRP`.
        samples_per_class: how many of a class are looked at.
        max_strategies: the most that a class has.
        threshold: in [0, 1).
        seed: of which samples are drawn, of the clustering and of pairs.
        progress: whether to show a bar.

    Returns:
        The strategies, class by class, the largest of a class first. Classes with fewer than ten samples have none.

    Raises:
        InputError: if the loader gives no batches, or a batch is neither.
        SelectionError: if a number is out of range.
        TargetError: if the model does not have one of ``classes``.

    Example:
        >>> import torch
        >>> from lrp_lightning import find_strategies
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2)).eval()
        >>> loader = [(x, (x[:, 0] > 0).long()) for x in torch.randn(5, 40, 8)]
        >>> strategies = find_strategies(model, loader, progress=False)
        >>> sorted({strategy.label for strategy in strategies})
        [0, 1]
    """
    for name, value, least in (("samples_per_class", samples_per_class, _FEWEST), ("max_strategies", max_strategies, 1)):
        if not is_whole(value) or value < least:
            raise SelectionError(f"find_strategies: {name} must be a whole number >= {least}, got {value!r}")
    if not is_number(threshold) or not 0 <= threshold < 1:
        raise SelectionError(f"find_strategies: threshold must be in [0, 1), got {threshold!r}")
    check_batches(loader)
    lrp = SelectiveLRP(model, composite, on_unsupported=on_unsupported)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def predicted(x: Tensor) -> Tensor:
        return torch.cat([masked_forward(model, part.to(device), {}).argmax(1).cpu() for part in x.split(_AT_ONCE)])

    drawn = _draw(loader, predicted, samples_per_class, seed, progress)
    outputs = masked_forward(model, next(iter(drawn.values())).inputs[:1].to(device), {}).shape[1]
    for c in classes or ():
        if not is_whole(c) or not 0 <= c < outputs:
            raise TargetError(f"find_strategies: there is no class {c!r}; the model has classes 0 to {outputs - 1}")
    chosen = sorted(c for c in drawn if classes is None or c in classes)
    said = {c: predicted(of.inputs) for c, of in drawn.items()}
    found: list[Strategy] = []
    for c in tqdm(chosen, desc="strategies", unit="class", disable=not progress, leave=False):
        if len(drawn[c].inputs) >= _FEWEST:
            others = [(of.inputs, said[label] != c) for label, of in drawn.items() if label != c]
            hosts = _some([inputs[free] for inputs, free in others], seed)
            found += _of_class(lrp, c, drawn[c], hosts, predicted, device, max_strategies, threshold, seed)
    return found


@dataclass
class _Drawn:
    """Samples of a class, and which of the loader's they are."""

    inputs: Tensor
    places: Tensor


def _draw(
    loader: Iterable[Any], predicted: Callable[[Tensor], Tensor], most: int, seed: int, progress: bool
) -> dict[int, _Drawn]:
    """``{class: at most so many of its samples}``, each as likely as any other of the class (Vitter 1985, algorithm R)."""
    generator, count = torch.Generator().manual_seed(seed), 0
    kept: dict[int, list[tuple[int, Tensor]]] = {}
    seen: dict[int, int] = {}
    for batch in tqdm(loader, desc="samples", unit="batch", disable=not progress, leave=False):
        x, labels = labelled(batch)
        labels = predicted(x) if labels is None else labels
        for n, c in enumerate(labels.tolist()):
            of, seen[c] = kept.setdefault(c, []), seen.get(c, 0) + 1
            at = len(of) if len(of) < most else int(torch.randint(seen[c], (1,), generator=generator))
            if at < most:
                of[at : at + 1] = [(count + n, x[n].detach().cpu().clone())]
        count += len(x)
    if not kept:
        raise InputError("find_strategies: the loader gives no samples")
    return {
        c: _Drawn(torch.stack([x for _, x in sorted(of, key=lambda pair: pair[0])]), torch.tensor(sorted(n for n, _ in of)))
        for c, of in kept.items()
    }


def _some(parts: Sequence[Tensor], seed: int) -> Tensor:
    """Samples of all parts in turn, each part in an order of its own, as many as regions are copied into."""
    generator = torch.Generator().manual_seed(seed)
    mixed = [part[torch.randperm(len(part), generator=generator)] for part in parts]
    turns = sorted((i, n) for n, part in enumerate(mixed) for i in range(len(part)))[:_HOSTS]
    return torch.stack([mixed[n][i] for i, n in turns]) if turns else torch.empty(0)


def _of_class(
    lrp: SelectiveLRP,
    c: int,
    drawn: _Drawn,
    hosts: Tensor,
    predicted: Callable[[Tensor], Tensor],
    device: torch.device,
    most: int,
    threshold: float,
    seed: int,
) -> list[Strategy]:
    traces = [lrp.trace(part.to(device), target=c) for part in drawn.inputs.split(_AT_ONCE)]
    layers = [layer for layer in traces[0].relevance if traces[0].kinds[layer] != "input"][:-1]
    shares = {layer: as_shares(torch.cat([t.relevance[layer].cpu() for t in traces])) for layer in layers}
    heat = torch.cat([_of_places(t.inputs[0] if isinstance(t.inputs, tuple) else t.inputs).cpu() for t in traces])
    joined = torch.cat(list(shares.values()), 1) / max(len(shares), 1) ** 0.5
    groups, typical = _clustered(joined.numpy(), most, seed)
    pictured = drawn.inputs.is_floating_point() and 2 <= drawn.inputs.ndim <= 4

    def flips(x: Tensor) -> Tensor:
        return predicted(x) == c

    found = []
    for group in groups:
        order, rest = (torch.from_numpy(typical[inside[typical]]) for inside in (group, ~group))
        test = None
        if pictured:
            members, others = ((drawn.inputs[at], heat[at]) for at in (order, rest))
            test = transplant(flips, members, others, hosts, threshold)
        found.append(
            Strategy(
                c, drawn.places[order], len(order) / len(joined), _telling(shares, group),
                drawn.inputs[order[:_SHOWN]], heat[order[:_SHOWN]], as_shares(heat[order]).mean(0), test, threshold,
            )
        )  # fmt: skip
    return sorted(found, key=lambda strategy: -len(strategy.samples))


def _of_places(relevance: Tensor) -> Tensor:
    """Summed over channels, where there are some."""
    return relevance.sum(1) if relevance.ndim > 2 else relevance


def _clustered(features: np.ndarray, most: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Members of each cluster, ``(N,) bool``, those of too few left out; and all samples, most typical first."""
    n = len(features)
    reduced = PCA(min(_COMPONENTS, n - 1, features.shape[1]), random_state=seed).fit_transform(features)
    reduced = reduced / max(reduced[:, 0].std(), 1e-12)

    def mixture(k: int, starts: int = 1) -> GaussianMixture:
        return GaussianMixture(k, covariance_type="diag", reg_covar=1e-4, n_init=starts, random_state=seed)

    folds = list(KFold(5, shuffle=True, random_state=seed).split(reduced))
    tried = [k for k in range(1, most + 1) if n >= 2 * _FEWEST * k or k == 1]
    scores = np.array([[mixture(k).fit(reduced[a]).score(reduced[b]) for a, b in folds] for k in tried])
    best = scores.mean(1).argmax()
    enough = scores[best].mean() - scores[best].std(ddof=1) / len(folds) ** 0.5
    k = tried[int(np.argmax(scores.mean(1) >= enough))]
    fitted = mixture(k, starts=4).fit(reduced)
    of, typical = fitted.predict(reduced), np.argsort(-fitted.score_samples(reduced), kind="stable")
    groups = [of == cluster for cluster in range(k)]
    return [group for group in groups if group.sum() >= min(_FEWEST, n)], typical


def _telling(shares: dict[str, Tensor], group: np.ndarray) -> tuple[tuple[str, int, float], ...]:
    """The neurons that tell a group from the other samples of its class."""
    inside = torch.from_numpy(group)
    scores: list[tuple[str, int, float]] = []
    for layer, of in shares.items():
        mean, spread = of.mean(0), of.std(0)
        score = of[inside].mean(0)
        if not bool(inside.all()):
            score = torch.where(spread > 0, (score - mean) / torch.where(spread > 0, spread, 1), 0)
        best = score.topk(min(_NEURONS, len(score)))
        scores += [(layer, n, z) for z, n in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
    return tuple(sorted(scores, key=lambda found: -found[2])[:_NEURONS])
