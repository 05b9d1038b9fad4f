"""Strategies: groups of samples of a class that are decided alike, and which of them depend on a small region.

Spectral relevance analysis (SpRAy: Lapuschkin et al. 2019) clusters heatmaps; prototypical concept-based explanations (PCX:
Dreyer et al. 2023) cluster the concepts of one layer. Here the relevance of the neurons of all hidden layers, or heatmaps,
are clustered, and each strategy is tested by transplants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrp_lightning.attribution import SelectiveLRP
from lrp_lightning.checks import check_batches, is_number, is_whole, labelled
from lrp_lightning.composites import Composite, EpsilonPlus
from lrp_lightning.errors import InputError, SelectionError, StoreError, TargetError
from lrp_lightning.insight.clusters import FEWEST, Clusters
from lrp_lightning.insight.shares import as_shares
from lrp_lightning.insight.transplant import Region, Transplant, transplant
from lrp_lightning.masking import masked_forward
from lrp_lightning.progress import tqdm
from lrp_lightning.rules import Rule
from lrp_lightning.store import RelevanceStore, StoredRows
from lrp_lightning.store.identity import described, fingerprint
from lrp_lightning.words import percent

__all__ = ["OddSample", "Strategies", "Strategy", "find_strategies"]

_AT_ONCE = 64
"""Number of samples in one pass."""
_SHOWN = 8
"""Number of prototypes and outliers."""
_NEURONS = 10
"""Number of neurons that distinguish a strategy."""
_HOSTS = 512
"""Number of samples of other classes into which regions are copied."""
_COARSE = 16
"""Resolution at which heatmaps are clustered: places along each side."""
_IN_A_NOTEBOOK, _SIDE = 6, 56
"""Number of strategies that a notebook shows, and pixels of their pictures."""
_Clustered = Literal["neurons", "heatmaps"]


@dataclass(frozen=True, eq=False)
class Strategy:
    """A group of samples of one class that are decided alike: by the same neurons, or by the same places.

    Attributes:
        label: the class.
        samples: ``(n,)``, the samples' numbers in the loader, counted from 0; most typical first.
        share: its share of the examined samples of the class.
        prototypes: the first few of ``samples``.
        outliers: the last few, least typical first.
        neurons: ``((layer, neuron, z), ...)``, the neurons that distinguish it most from the class's other strategies:
            ``z`` is the neuron's mean share of its layer's relevance, minus the mean over the class, in standard deviations
            of the class. If the class has one strategy, the neurons with the most relevance, and their share.
        images: ``(k, ...)``, the prototypes, as the model takes them.
        heatmaps: ``(k, *places)``, the heatmaps of the prototypes: the input's relevance, summed over channels.
        heatmap: ``(*places)``, the mean heatmap of its samples, each as shares of its own ``|relevance|``.
        test: the transplant test of its region; None if inputs are tokens, or there were no samples to copy into.
        threshold: the strategy is a shortcut if the lower bound of that test exceeds this.
        predictions: ``(n,)``, the class that the model predicts for each of ``samples``; None if the loader gives no
            labels, so that ``label`` is the predicted class.

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
    predictions: Tensor | None = None
    prototypes: Tensor = field(init=False)
    outliers: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prototypes", self.samples[:_SHOWN])
        object.__setattr__(self, "outliers", self.samples.flip(0)[:_SHOWN])

    @property
    def right(self) -> float:
        """The share of its samples that the model classifies correctly; NaN without labels."""
        return float("nan") if self.predictions is None else (self.predictions == self.label).double().mean().item()

    def right_first(self, k: int) -> list[int]:
        """The indices of the first ``images`` in display order: those known to be misclassified come last.

        Args:
            k: the most images to show.
        """
        shown = range(min(k, 0 if self.images is None else len(self.images)))
        return sorted(shown, key=lambda i: self.predictions is not None and int(self.predictions[i]) != self.label)

    @property
    def region(self) -> Region | None:
        """``(top, left, height, width)`` in images, ``(start, length)`` in sequences, or the numbers of features."""
        return None if self.test is None else self.test.region

    @property
    def transplant(self) -> float:
        """Share of other classes' samples that become this class when the region is copied into them; NaN if untested."""
        return float("nan") if self.test is None else self.test.flipped

    @property
    def control(self) -> float:
        """The same share for the controls, which copy another window, or the same window of the class's other samples."""
        return float("nan") if self.test is None else self.test.control

    @property
    def shortcut(self) -> bool:
        """Whether the lower bound of ``transplant - control``, at a confidence of .999, exceeds ``threshold``."""
        return self.test is not None and self.test.bound > self.threshold

    @property
    def where(self) -> str:
        """The place of its region in words, such as ``"the upper right corner"``; empty if no region was tested."""
        if self.test is None or self.images is None:
            return ""
        if self.test.moves:
            return "a region that moves"
        region, sides = self.test.region, self.images.shape[2:]
        if len(sides) == 2:
            return _in_words(region, tuple(sides))
        if len(sides) == 1:
            return f"the interval {region[0]} to {region[0] + region[1] - 1}"
        return f"feature{'s' * (len(region) > 1)} {', '.join(map(str, region))}"

    def sentence(self, class_names: Sequence[str] | None = None) -> str:
        """The result of the transplant test, as a sentence without a full stop.

        Args:
            class_names: names of the classes; without them classes are given by number.
        """
        name = f"class {self.label}" if class_names is None else f"class {class_names[self.label]}"
        who = f"{'all' if self.share > 0.995 else percent(self.share)} of {name}"
        if self.test is None:
            return f"{who}: no region was tested"
        found = (
            f"the network decides {who} by {self.where}"
            if self.shortcut
            else f"the relevance of {who} is densest in {self.where}"
        )
        return (
            f"{found}; copied into samples of other classes, this region turns {percent(self.transplant)} of them into "
            f"{name} "
            f"(controls {percent(self.control)})"
        )

    def __repr__(self) -> str:
        about = f"Strategy(class {self.label}, {len(self.samples)} samples, {self.share:.0%} of the class; "
        if self.test is None:
            return about + "no region was tested)"
        where = "a region that moves" if self.test.moves else f"region {self.test.region}"
        said = "a shortcut: " if self.shortcut else ""
        turns, control = percent(self.transplant), percent(self.control)
        return f"{about}{said}{where} turns {turns} of other samples into it (controls {control}))"

    def _repr_html_(self) -> str:
        """For a notebook."""
        return _part(f"Strategy of class {self.label}, {len(self.samples)} samples", [self])


@dataclass(frozen=True, eq=False)
class OddSample:
    """A sample that fits no strategy of its class; it may fit one of another class.

    Attributes:
        sample: its number in the loader, counted from 0.
        label: its class.
        matching_strategy: if the model predicts another class, the strategy of that class that the sample fits, by its
            relevance for that class; None if the model predicts its label but it fits no strategy of the label.
        margin: the highest logit of another class, minus the label's logit.

    Example:
        >>> from lrp_lightning import OddSample
        >>> OddSample(sample=17, label=3, matching_strategy=None, margin=-0.5)
        OddSample(sample 17 of class 3: fits no strategy; margin -0.5)
    """

    sample: int
    label: int
    matching_strategy: Strategy | None
    margin: float

    def __repr__(self) -> str:
        fits = "no strategy" if self.matching_strategy is None else f"a strategy of class {self.matching_strategy.label}"
        return f"OddSample(sample {self.sample} of class {self.label}: fits {fits}; margin {self.margin:.3g})"


class Strategies(list[Strategy]):
    """A list of the strategies of a model's classes, class by class, and the samples that fit no strategy of their class.

    Attributes:
        strategies: the list itself.
        odd: those samples, by margin, largest first. Mislabelled and hard samples are among the first. The order resembles
            that of the loss; ``matching_strategy`` adds the strategy that a sample fits.

    Example:
        >>> from lrp_lightning import Strategies
        >>> Strategies([], odd=())
        Strategies(0 strategies, 0 shortcuts, 0 odd samples)
    """

    def __init__(self, strategies: Iterable[Strategy] = (), odd: Iterable[OddSample] = ()) -> None:
        super().__init__(strategies)
        self.odd: tuple[OddSample, ...] = tuple(odd)

    @property
    def shortcuts(self) -> list[Strategy]:
        """The strategies that are likely shortcuts."""
        return [strategy for strategy in self if strategy.shortcut]

    def __repr__(self) -> str:
        counts = f"{len(self)} strategies, {len(self.shortcuts)} shortcuts, {len(self.odd)} odd samples"
        return "\n  ".join([f"Strategies({counts}", *map(repr, self)]) + ")"

    def _repr_html_(self) -> str:
        """For a notebook: the first strategies, shortcuts before others."""
        counts = f"{len(self)} strategies, {len(self.shortcuts)} shortcuts, {len(self.odd)} odd samples"
        return _part(counts, sorted(self, key=lambda strategy: not strategy.shortcut), self.odd)


def _part(title: str, of: Sequence[Strategy], odd: Sequence[OddSample] = ()) -> str:
    from lrp_lightning.html import sections
    from lrp_lightning.html.markup import part

    return part(title, ("strategies", sections.strategies(of, odd=odd, most=_IN_A_NOTEBOOK, side=_SIDE)))


def find_strategies(
    model: nn.Module,
    loader: Iterable[Any] | RelevanceStore,
    classes: Sequence[int] | None = None,
    composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
    samples_per_class: int = 256,
    max_strategies: int = 5,
    threshold: float = 0.05,
    seed: int = 0,
    progress: bool = True,
    on_unsupported: Literal["raise", "gradient"] = "raise",
) -> Strategies:
    """Group the samples of each class by what decides them, and test which groups depend on a small region.

    At most ``samples_per_class`` samples of each class are examined, drawn evenly from the whole loader, which is read once;
    these are held in memory. For each, the relevance of the class's output is normalised in each layer by its sum of
    magnitudes, joined over hidden layers and reduced to eight principal components. A mixture of Gaussians clusters them;
    the number of clusters is the smallest whose held-out likelihood, over five folds, is within one standard error of the
    best. If inputs are images, sequences or features, their heatmaps are clustered in the same way: clusters by neurons find
    a mark at any place, clusters by heatmaps one that few samples have, always at the same place. The clusters with the
    clearest shortcut are returned; without a shortcut, those by neurons.

    The transplant test takes the window in which a strategy's heatmaps are densest, in four sizes, either the same for
    all samples or each sample's own. It copies the window from samples of the strategy into samples of other classes
    that are not classified as this one, and counts those that then are; minus the same count for a control: the densest
    window elsewhere, or the same window of the class's other strategies. If 32 pairs show an effect of the largest
    window, the smallest window with three quarters of the best effect in 64 pairs is tested on 256 other pairs. A
    strategy is a *shortcut* if the lower bound of that difference, at a confidence of .999, is above ``threshold``.

    Args:
        model: the classifier.
        loader: batches ``(inputs, labels)``, or inputs alone, which are grouped by the predicted class. Or a store of this
            model's relevance, with ``keep_inputs=True`` and without a selection: relevance is read, not computed, and a
            sample's number is that in the data set. If the store explains another class of a sample than is needed, such as
            the predicted class of a misclassified sample, a pass is made.
        classes: which classes; None for all.
        composite, on_unsupported: as in :class:`lrp_lightning.SelectiveLRP`.
        samples_per_class: the most samples of a class to examine.
        max_strategies: the most strategies of a class.
        threshold: in [0, 1).
        seed: for drawing samples, clustering and pairing.
        progress: whether to show a progress bar.

    Returns:
        The strategies, class by class, the largest of a class first, for classes with at least ten samples. Their ``odd``
        lists the samples that fit no strategy of their class.

    Raises:
        InputError: if the loader yields no batches, or a batch is neither ``(inputs, labels)`` nor inputs.
        SelectionError: if a number is out of range.
        StoreError: if a store is of another model or composite, has a selection, or lacks inputs or their relevance.
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
    for name, value, least in (("samples_per_class", samples_per_class, FEWEST), ("max_strategies", max_strategies, 1)):
        if not is_whole(value) or value < least:
            raise SelectionError(f"find_strategies: {name} must be a whole number >= {least}, got {value!r}")
    if not is_number(threshold) or not 0 <= threshold < 1:
        raise SelectionError(f"find_strategies: threshold must be in [0, 1), got {threshold!r}")
    lrp = SelectiveLRP(model, composite, on_unsupported=on_unsupported)
    store = loader if isinstance(loader, RelevanceStore) else None
    if store is not None:
        _check_store(store, lrp)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    explained = _Explained(lrp, device, store)

    def logits_of(x: Tensor) -> Tensor:
        return torch.cat([masked_forward(model, part.to(device), {}).cpu() for part in x.split(_AT_ONCE)])

    if isinstance(loader, RelevanceStore):
        drawn = _draw_stored(loader, samples_per_class, seed)
    else:
        check_batches(loader)
        drawn = _draw(loader, logits_of, samples_per_class, seed, progress)
    logits = {c: logits_of(of.inputs) for c, of in drawn.items()}
    outputs = next(iter(logits.values())).shape[1]
    for c in classes or ():
        if not is_whole(c) or not 0 <= c < outputs:
            raise TargetError(f"find_strategies: there is no class {c!r}; the model has classes 0 to {outputs - 1}")
    chosen = sorted(c for c in drawn if (classes is None or c in classes) and len(drawn[c].inputs) >= FEWEST)
    found: dict[int, _Grouped] = {}
    for c in tqdm(chosen, desc="strategies", unit="class", disable=not progress, leave=False):
        others = [(of.inputs, logits[label].argmax(1) != c) for label, of in drawn.items() if label != c]
        hosts = _some([inputs[free] for inputs, free in others], seed)

        def flips(x: Tensor, c: int = c) -> Tensor:
            return logits_of(x).argmax(1) == c

        relevance = explained.relevance(drawn[c], torch.arange(len(drawn[c].inputs)), c)
        predictions = logits[c].argmax(1) if drawn[c].labelled else None
        grouped = [_Grouped(c, drawn[c], predictions, relevance, "neurons", max_strategies, seed)]
        if drawn[c].pictured:
            by_heatmaps = _Grouped(c, drawn[c], predictions, relevance, "heatmaps", max_strategies, seed)
            grouped += [] if by_heatmaps.clusters.alike(grouped[0].clusters) else [by_heatmaps]
        found[c] = max(grouped, key=lambda of: of.test(flips, hosts, threshold))
    odd = [sample for c in chosen for sample in _odd(explained, c, drawn[c], logits[c], found)]
    strategies = [s for c in chosen for s in sorted(found[c].strategies, key=lambda strategy: -len(strategy.samples))]
    return Strategies(strategies, sorted(odd, key=lambda sample: -sample.margin))


@dataclass
class _Drawn:
    """Samples of a class, their numbers in the loader, and, for a store, their rows."""

    inputs: Tensor
    places: Tensor
    labelled: bool
    rows: Tensor | None = None

    @property
    def pictured(self) -> bool:
        """Whether regions of the inputs can be copied."""
        return self.inputs.is_floating_point() and 2 <= self.inputs.ndim <= 4


class _Reservoir:
    """A bounded random sample of each class, uniform over the class (Vitter 1985, algorithm R)."""

    def __init__(self, most: int, seed: int) -> None:
        self.most, self.generator = most, torch.Generator().manual_seed(seed)
        self.kept: dict[int, list[tuple[int, Tensor]]] = {}
        self.seen: dict[int, int] = {}

    def offer(self, c: int, number: int, x: Tensor | None = None) -> None:
        """Offer a sample of a class; it is copied if it is kept."""
        of, self.seen[c] = self.kept.setdefault(c, []), self.seen.get(c, 0) + 1
        at = len(of) if len(of) < self.most else int(torch.randint(self.seen[c], (1,), generator=self.generator))
        if at < self.most:
            of[at : at + 1] = [(number, torch.empty(0) if x is None else x.detach().cpu().clone())]

    def drawn(self) -> dict[int, list[tuple[int, Tensor]]]:
        """``{class: its samples}``, ordered by their numbers.

        Raises:
            InputError: if there are no samples.
        """
        if not self.kept:
            raise InputError("find_strategies: the loader gives no samples")
        return {c: sorted(of, key=lambda pair: pair[0]) for c, of in self.kept.items()}


def _draw(
    loader: Iterable[Any], logits_of: Callable[[Tensor], Tensor], most: int, seed: int, progress: bool
) -> dict[int, _Drawn]:
    reservoir, count = _Reservoir(most, seed), 0
    unlabelled: set[int] = set()
    for batch in tqdm(loader, desc="samples", unit="batch", disable=not progress, leave=False):
        x, labels = labelled(batch)
        if labels is None:
            labels = logits_of(x).argmax(1)
            unlabelled.update(labels.tolist())
        for n, c in enumerate(labels.tolist()):
            reservoir.offer(c, count + n, x[n])
        count += len(x)
    return {
        c: _Drawn(torch.stack([x for _, x in of]), torch.tensor([n for n, _ in of]), c not in unlabelled)
        for c, of in reservoir.drawn().items()
    }


def _draw_stored(store: RelevanceStore, most: int, seed: int) -> dict[int, _Drawn]:
    """The samples that would be drawn from a loader; only their inputs are read."""
    assert isinstance(store.kept_inputs, StoredRows)
    reservoir = _Reservoir(most, seed)
    for row, c in enumerate((store.predicted if store.labels is None else store.labels).tolist()):
        reservoir.offer(c, row)
    found = {}
    for c, of in reservoir.drawn().items():
        rows = torch.tensor([row for row, _ in of])
        found[c] = _Drawn(store.kept_inputs[rows], store.indices[rows], store.labels is not None, rows)
    return found


def _check_store(store: RelevanceStore, lrp: SelectiveLRP) -> None:
    """Raise an error for a store that cannot replace passes.

    Raises:
        StoreError: naming what is missing or different.
    """
    about, where = store.about, f"find_strategies: the store {str(store.path)!r}"
    if not len(store):
        raise StoreError(f"{where} has no samples yet")
    if not isinstance(store.kept_inputs, StoredRows) or not isinstance(store.inputs, StoredRows):
        raise StoreError(
            f"{where} must hold one input and its relevance, since regions of samples are copied and shown; write it with "
            "RelevanceWriter(..., keep_inputs=True), input_relevance 'values' or 'places', or give the loader"
        )
    if about["selection"] != "None":
        raise StoreError(
            f"{where} was written with {about['selection']}; strategies need the relevance of all neurons, Explainer(model)"
        )
    if about["composite"] != described(lrp.composite):
        raise StoreError(f"{where} is of composite {about['composite']}, not of {described(lrp.composite)}; give composite=")
    if about["weights"] != fingerprint(lrp.model):
        raise StoreError(f"{where} is of another model, {about['model']}, or of other weights or precision of it")


def _some(parts: Sequence[Tensor], seed: int) -> Tensor:
    """Samples into which regions are copied: taken from all parts in turn, in random order within each part."""
    generator = torch.Generator().manual_seed(seed)
    mixed = [part[torch.randperm(len(part), generator=generator)] for part in parts]
    turns = sorted((i, n) for n, part in enumerate(mixed) for i in range(len(part)))[:_HOSTS]
    return torch.stack([mixed[n][i] for i, n in turns]) if turns else torch.empty(0)


@dataclass
class _Relevance:
    """Relevance of samples, as shares: by layer and neuron, ``(N, C)``, and of the input, ``(N, *places)``."""

    shares: dict[str, Tensor]
    heat: Tensor

    def of(self, which: Tensor) -> _Relevance:
        """The part for some of the samples."""
        return _Relevance({layer: shares[which] for layer, shares in self.shares.items()}, self.heat[which])

    def features(self, of: _Clustered) -> np.ndarray:
        """``(N, F)``, the features to cluster: neurons of all layers, with equal weight per layer; or a coarse heatmap."""
        if of == "neurons":
            return torch.cat(list(self.shares.values()), 1).numpy()
        heat = as_shares(self.heat)
        if heat.ndim == 3:
            heat = F.adaptive_avg_pool2d(heat, (min(heat.shape[1], _COARSE), min(heat.shape[2], _COARSE)))
        return heat.flatten(1).numpy()


def relevance_of(lrp: SelectiveLRP, inputs: Tensor, c: int, device: torch.device) -> _Relevance:
    traces = [lrp.trace(part.to(device), target=c) for part in inputs.split(_AT_ONCE)]
    shares = {layer: as_shares(torch.cat([t.relevance[layer].cpu() for t in traces])) for layer in _hidden(traces[0].kinds)}
    heat = [_of_places(t.inputs[0] if isinstance(t.inputs, tuple) else t.inputs).cpu() for t in traces]
    return _Relevance(shares, torch.cat(heat))


def _stored_relevance(store: RelevanceStore, rows: Tensor) -> _Relevance:
    assert isinstance(store.inputs, StoredRows)
    of_inputs = store.inputs[rows]
    heat = of_inputs if store.about["input_relevance"] == "places" else _of_places(of_inputs)
    return _Relevance({layer: as_shares(store.relevance[layer][rows]) for layer in _hidden(store.kinds)}, heat)


def _hidden(kinds: dict[str, str]) -> list[str]:
    """The layers between the input and the output."""
    return [layer for layer, kind in kinds.items() if kind != "input"][:-1]


@dataclass
class _Explained:
    """The relevance of samples: read from a store if it contains it, otherwise computed by passes."""

    lrp: SelectiveLRP
    device: torch.device
    store: RelevanceStore | None

    def relevance(self, drawn: _Drawn, at: Tensor, c: int) -> _Relevance:
        """The relevance for class ``c`` of some of a class's samples; ``(n,)`` indices."""
        if self.store is None or drawn.rows is None:
            return relevance_of(self.lrp, drawn.inputs[at], c, self.device)
        rows = drawn.rows[at]
        there = self.store.explained_class[rows] == c
        parts = [_stored_relevance(self.store, rows[there])] if bool(there.any()) else []
        if not bool(there.all()):
            parts.append(relevance_of(self.lrp, drawn.inputs[at[~there]], c, self.device))
        order = torch.cat([there.nonzero().flatten(), (~there).nonzero().flatten()]).argsort()
        shares = {layer: torch.cat([part.shares[layer] for part in parts]) for layer in parts[0].shares}
        return _Relevance(shares, torch.cat([part.heat for part in parts])).of(order)


class _Grouped:
    """The strategies of one class by one kind of features, and the membership of samples."""

    def __init__(
        self, c: int, drawn: _Drawn, predictions: Tensor | None, relevance: _Relevance, by: _Clustered, most: int, seed: int
    ) -> None:
        self.label, self.drawn, self.predictions, self.relevance, self.by = c, drawn, predictions, relevance, by
        self.clusters = Clusters(relevance.features(by), most, seed)
        self.strategies: list[Strategy] = []

    def test(self, flips: Callable[[Tensor], Tensor], hosts: Tensor, threshold: float) -> float:
        """Test each strategy by transplants, if regions can be copied; return the bound of the best shortcut."""
        drawn, heat, typical = self.drawn, self.relevance.heat, self.clusters.typical
        for group in self.clusters.groups:
            order, rest = (torch.from_numpy(typical[inside[typical]]) for inside in (group, ~group))
            test = None
            if drawn.pictured:
                members, others = ((drawn.inputs[at], heat[at]) for at in (order, rest))
                test = transplant(flips, members, others, hosts, threshold)
            self.strategies.append(
                Strategy(
                    self.label, drawn.places[order], len(order) / len(heat), _telling(self.relevance.shares, group),
                    drawn.inputs[order[:_SHOWN]], heat[order[:_SHOWN]], as_shares(heat[order]).mean(0), test, threshold,
                    None if self.predictions is None else self.predictions[order],
                )
            )  # fmt: skip
        return max((s.test.bound for s in self.strategies if s.test is not None and s.shortcut), default=0.0)

    def claim(self, relevance: _Relevance) -> list[Strategy | None]:
        """The strategy that contains each of some samples."""
        return [None if at < 0 else self.strategies[at] for at in self.clusters.claim(relevance.features(self.by)).tolist()]


def _odd(explained: _Explained, c: int, drawn: _Drawn, logits: Tensor, found: dict[int, _Grouped]) -> Iterator[OddSample]:
    """The samples of a class that belong to no strategy of the class."""
    said = logits.argmax(1)
    margin = logits.scatter(1, torch.full_like(said, c)[:, None], -torch.inf).amax(1) - logits[:, c]
    for other in said.unique().tolist():
        if other not in found:
            continue
        at = (said == other).nonzero().flatten()
        relevance = found[c].relevance.of(at) if other == c else explained.relevance(drawn, at, other)
        claimed = found[other].claim(relevance)
        for n, strategy in zip(at.tolist(), claimed, strict=True):
            if (strategy is None) == (other == c):
                yield OddSample(int(drawn.places[n]), c, strategy, float(margin[n]))


def _in_words(region: Region, sides: Sequence[int]) -> str:
    """Where the centre of a region is: in the first quarter, the middle half, or the last quarter of each side."""
    centres = ((start + length / 2) / side for start, length, side in zip(region[:2], region[2:], sides, strict=True))
    quarter = [min(int(4 * centre), 3) for centre in centres]
    row, column = ("upper", "", "", "lower")[quarter[0]], ("left", "", "", "right")[quarter[1]]
    if row and column:
        return f"the {row} {column} corner"
    return f"the {row or column} edge" if row or column else "the middle"


def _of_places(relevance: Tensor) -> Tensor:
    """Summed over channels, if there are any."""
    return relevance.sum(1) if relevance.ndim > 2 else relevance


def _telling(shares: dict[str, Tensor], group: np.ndarray) -> tuple[tuple[str, int, float], ...]:
    """The neurons that distinguish a group from the other samples of its class."""
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
