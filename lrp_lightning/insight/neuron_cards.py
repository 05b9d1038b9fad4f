"""Neuron cards: for each of many neurons the patches that activate it, those in which it is relevant, and its classes.

Patches that activate a neuron most follow Zeiler & Fergus (2014). Patches in which it is most *relevant* follow the
relevance maximisation of concept relevance propagation (Achtibat et al. 2023). The two often differ: what a neuron responds
to need not be what the network uses it for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import networkx as nx
import torch
from torch import Tensor, nn

from lrp_lightning.attribution import SelectiveLRP
from lrp_lightning.checks import check_batches, is_whole, labelled
from lrp_lightning.compat import in_double
from lrp_lightning.composites import Composite, EpsilonPlus
from lrp_lightning.deconvnet import TopActivations, fields_of, reconstruct_at
from lrp_lightning.engine.gradients import METHODS
from lrp_lightning.errors import InputError, LayerError, RuleError
from lrp_lightning.graphs.paths import by_layer
from lrp_lightning.insight.shares import as_shares
from lrp_lightning.metrics.accuracy import check_outputs
from lrp_lightning.progress import tqdm
from lrp_lightning.rules import Rule

__all__ = ["NeuronCard", "NeuronCards", "neuron_cards"]

_AT_ONCE = 64
"""Samples in one pass."""
_SIMILAR = 3
_NAMES, _LEAST = 3, 0.1
"""The most classes in a card's name, and the least share of one."""
_FEW = 3
"""Up to this number of classes, no even share is required."""
_SHOWN, _SIDE = 6, 44
"""Cards that a notebook shows, and pixels of a patch."""


@dataclass(frozen=True, eq=False)
class NeuronCard:
    """The image patches that activate a neuron, and the classes for which it is relevant.

    Attributes:
        layer: its layer, which may be a residual sum.
        neuron: its number.
        driven: the image patches that activate it most: in each image the place of its largest activation, above 0.
        relevant: the patches in which it has the most relevance, above 0, for the predicted class.
        mistaken: the same among misclassified images; empty without labels or mistakes.
        classes: ``((class, share), ...)``, the classes for which it is relevant: its mean share of its layer's relevance in
            images that are predicted as the class, divided by the sum over all predicted classes; greatest first. Empty if
            it is relevant for no class.
        similar: ``((neuron, correlation), ...)``, neurons of the same layer whose share of the relevance correlates most
            with that of this neuron.
        share: mean share of its layer's ``|relevance|``, signed.
        samples: number of samples that were examined.

    Example:
        >>> import torch
        >>> from lrp_lightning import neuron_cards
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 3)).eval()
        >>> [card] = neuron_cards(model, torch.rand(20, 1, 5, 5).split(8), {"0": [2]}, k=3, progress=False)
        >>> card.driven.fields.shape, card.samples
        (torch.Size([3, 2, 2]), 20)
        >>> card.name(["cat", "dog", "bird"]).split()[0] in ("cat", "dog", "bird")
        True
    """

    layer: str
    neuron: int
    driven: TopActivations
    relevant: TopActivations
    mistaken: TopActivations
    classes: tuple[tuple[int, float], ...]
    similar: tuple[tuple[int, float], ...]
    share: float
    samples: int

    def name(self, class_names: Sequence[str] | None = None) -> str:
        """A name by the classes for which it is most relevant, such as ``"bag .62, coat .21"``.

        It names classes with at least a tenth of its relevance and, if there are many, at least twice an even share.

        Args:
            class_names: names of the classes; without them classes are given by number.
        """
        least = max(_LEAST, 2 / len(self.classes)) if len(self.classes) > _FEW else _LEAST
        named = [(f"class {c}" if class_names is None else class_names[c], of) for c, of in self.classes if of >= least]
        said = ", ".join(f"{name} {share:.2f}".replace(" 0.", " .") for name, share in named[:_NAMES])
        return said or ("many classes" if self.classes else "no class")

    def __repr__(self) -> str:
        like = ", ".join(f"{n} ({r:.2f})" for n, r in self.similar)
        return (
            f"NeuronCard(layer {self.layer!r} neuron {self.neuron}: {self.name()}; {self.share:.1%} of its layer over "
            f"{self.samples} samples; like neurons {like or 'none'})"
        )

    def _repr_html_(self) -> str:
        """For a notebook."""
        return NeuronCards([self])._repr_html_()


class NeuronCards(list[NeuronCard]):
    """A list of cards, which a notebook displays like the report.

    Example:
        >>> from lrp_lightning.insight.neuron_cards import NeuronCards
        >>> NeuronCards([])
        []
    """

    def _repr_html_(self) -> str:
        """For a notebook: the first cards."""
        from lrp_lightning.html import sections
        from lrp_lightning.html.markup import part

        data = sections.neurons(self[:_SHOWN], many=len(self), side=_SIDE)
        return part("Neuron card" if len(self) == 1 else f"{len(self)} neuron cards", ("neurons", data))


def neuron_cards(
    model: nn.Module,
    loader: Iterable[Any],
    neurons: Mapping[str, Sequence[int]] | nx.DiGraph,
    k: int = 6,
    composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
    method: Literal["deconvnet", "guided"] = "guided",
    progress: bool = True,
    on_unsupported: Literal["raise", "gradient"] = "raise",
    thumbnails: Mapping[str, Sequence[int]] | None = None,
) -> NeuronCards:
    """For each of many neurons the patches that activate it, those in which it is relevant, and its classes.

    The loader is read once, with one relevance pass of the predicted class for all neurons together. The reconstructions and
    receptive fields then take a forward and a backward for each image that is shown, at most ``3 k`` per neuron. Only the
    images that are shown are kept in memory.

    Args:
        model: the classifier.
        loader: batches ``(inputs, labels)``, or inputs alone.
        neurons: ``{layer: numbers}``, residual sums (``"layer1.0.add"``) included; or a graph of
            :func:`lrp_lightning.build_graph`, for all of its hidden neurons.
        k: number of patches of each kind.
        composite, on_unsupported: as in :class:`lrp_lightning.SelectiveLRP`.
        method: of the reconstructions, as in :func:`lrp_lightning.reconstruct`.
        progress: whether to show bars.
        thumbnails: ``{layer: numbers}`` of more neurons, each with the one patch that activates it most, without
            reconstruction, its classes and similar neurons: much cheaper than a full card.

    Returns:
        A card for each neuron, in the given order of layers, thumbnails after the other cards of their layer; a list that a
        notebook displays like the report.

    Raises:
        LayerError: if a layer or neuron does not exist, or ``neurons`` is empty.
        InputError: if the loader yields no batches, a batch is neither ``(inputs, labels)`` nor inputs, or ``k`` is out of
            range.
        RuleError: if ``method`` is not one of these.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP, TopK, build_graph, neuron_cards
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 3)).eval()
        >>> x = torch.rand(20, 1, 5, 5)
        >>> graph = build_graph(SelectiveLRP(model, selection=TopK(1)).trace(x[:1], target=0, edges=True))
        >>> [(card.layer, len(card.relevant.values)) for card in neuron_cards(model, [x], graph, progress=False)]
        [('0', 6)]
    """
    if not is_whole(k) or k < 1:
        raise InputError(f"neuron_cards: k must be at least 1, got {k!r}")
    if method not in METHODS:
        raise RuleError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")
    check_batches(loader)
    full = _chosen(neurons)
    chosen = {layer: list(dict.fromkeys([*full.get(layer, ()), *(thumbnails or {}).get(layer, ())]))
              for layer in (*full, *(layer for layer in thumbnails or () if layer not in full))}  # fmt: skip
    lrp = SelectiveLRP(model, composite, on_unsupported=on_unsupported)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    layers = {layer: _OfLayer(of, k, len(full.get(layer, ()))) for layer, of in chosen.items()}
    images: dict[int, Tensor] = {}
    seen = 0
    for batch in tqdm(loader, desc="neuron cards", unit="batch", disable=not progress, leave=False):
        inputs, labels = labelled(batch)
        whose = torch.full((len(inputs),), -1) if labels is None else labels.cpu()
        for x, label in zip(inputs.split(_AT_ONCE), whose.split(_AT_ONCE), strict=True):
            trace = lrp.trace(x.to(device), target=_predicted, by_place=chosen)
            check_outputs(trace.logits)
            about = _About(torch.arange(seen, seen + len(x)), label, trace.logits.argmax(1).cpu())
            for layer, of in layers.items():
                of.see(*trace.by_place[layer], trace.relevance[layer], about)
            images.update(zip(about.samples.tolist(), x.detach().cpu(), strict=True))
            wanted = {n for of in layers.values() for n in of.samples()}
            images = {n: image.clone() if n >= seen else image for n, image in images.items() if n in wanted}
            seen, like = seen + len(x), x[0].detach().cpu()
    if not seen:
        raise InputError("the loader gives no batch")
    found = NeuronCards()
    for layer, of in tqdm(layers.items(), desc="patches", unit="layer", disable=not progress, leave=False):
        found += of.cards(model, layer, images, like, method, device)
    return found


def _predicted(logits: Tensor) -> Tensor:
    return logits.argmax(1)


def _chosen(neurons: object) -> dict[str, list[int]]:
    """The requested neurons, layer by layer.

    Raises:
        LayerError: if there are none.
    """
    if isinstance(neurons, nx.DiGraph):
        hidden = (node for node, about in neurons.nodes(data=True) if about["kind"] != "input" and not about["output"])
        chosen = by_layer(hidden)
    elif isinstance(neurons, Mapping):
        chosen = {layer: list(of) for layer, of in neurons.items() if len(of)}
    else:
        raise LayerError(f"neurons must be {{layer: numbers}} or a graph of build_graph, got {type(neurons).__name__}")
    if not chosen:
        raise LayerError("neuron_cards: neurons is empty; name at least one, such as {'features.28': [3, 17]}")
    return {layer: list(dict.fromkeys(of)) for layer, of in chosen.items()}


@dataclass
class _About:
    """The samples of one pass, ``(N,)`` each: their numbers, labels and predictions."""

    samples: Tensor
    labels: Tensor
    predictions: Tensor


@dataclass
class _Best:
    """The ``k`` greatest values of each of ``n`` neurons so far, one per sample; each tensor is ``(k, n)``."""

    k: int
    values: Tensor | None = None
    facts: Tensor = field(default_factory=lambda: torch.empty(0))
    """``(4, k, n)``: place, sample, label, prediction."""

    def see(self, by_place: Tensor, about: _About, which: Tensor | None = None) -> None:
        """Add the values of the next samples, ``(N, n, places)``; ``which`` says which samples count, ``(N,) bool``."""
        values, places = by_place.max(2)
        values = in_double(values).cpu()
        if which is not None:
            values = values.masked_fill(~which[:, None], 0)
        one_each = [t[:, None].expand_as(values) for t in (about.samples, about.labels, about.predictions)]
        facts = torch.stack([places.cpu(), *one_each])
        if self.values is not None:
            values, facts = torch.cat([self.values, values]), torch.cat([self.facts, facts], 1)
        # of equal values the earlier ones, so that the result does not depend on batches
        best, order = (t[: self.k] for t in values.sort(dim=0, descending=True, stable=True))
        self.values, self.facts = best, facts.gather(1, order.expand(4, -1, -1))

    def of(self, neuron: int) -> tuple[Tensor, Tensor]:
        """The valid entries of one neuron, ``(values, facts)``, ``(m,)`` and ``(4, m)``."""
        assert self.values is not None
        counts = self.values[:, neuron] > 0
        return self.values[counts, neuron], self.facts[:, counts, neuron]


class _OfLayer:
    """Accumulates data about some neurons of one layer: full cards for the first ones, thumbnails for the others."""

    def __init__(self, neurons: Sequence[int], k: int, full: int) -> None:
        self.neurons, self.full = list(neurons), full
        self.kinds = {"driven": _Best(k), "relevant": _Best(k), "mistaken": _Best(k)}
        self.by_class: dict[int, tuple[int, Tensor]] = {}
        self.count = 0
        self.moments: list[Tensor | float] = [0.0, 0.0, 0.0]

    def see(self, activation: Tensor, relevance: Tensor, whole: Tensor, about: _About) -> None:
        """Add samples: activation and relevance by place, ``(N, n, places)``, and the layer's relevance, ``(N, C)``."""
        wrong = (about.labels >= 0) & (about.labels != about.predictions)
        self.kinds["driven"].see(activation, about)
        self.kinds["relevant"].see(relevance, about)
        self.kinds["mistaken"].see(relevance, about, wrong)
        of_all = as_shares(whole).cpu()
        shares = of_all[:, self.neurons]
        for c in about.predictions.unique().tolist():
            of = shares[about.predictions == c]
            samples, before = self.by_class.get(c, (0, torch.zeros(len(self.neurons), dtype=shares.dtype)))
            self.by_class[c] = samples + len(of), before + of.clamp(min=0).sum(0)
        self.count += len(shares)
        now = of_all.sum(0), (of_all**2).sum(0), shares.T @ of_all
        self.moments = [before + more for before, more in zip(self.moments, now, strict=True)]

    def samples(self) -> set[int]:
        """The numbers of all samples that may be shown."""
        found = set[int]()
        for kind, best in self.kinds.items():
            if best.values is not None:
                counts = best.values > 0
                counts[kind == "driven" :, self.full :] = False  # a thumbnail has only the patch that activates it most
                found.update(best.facts[1][counts].tolist())
        return found

    def shown(self, kind: str, place: int) -> tuple[Tensor, Tensor]:
        """``(values, facts)`` of the patches of one kind that a neuron's card shows."""
        values, facts = self.kinds[kind].of(place)
        few = len(values) if place < self.full else int(kind == "driven")
        return values[:few], facts[:, :few]

    def similar(self) -> list[tuple[tuple[int, float], ...]]:
        """For each neuron, those of its layer whose share of the relevance correlates most with its own."""
        total, squares, products = (torch.as_tensor(m) for m in self.moments)
        mean = total / self.count
        deviation = (squares / self.count - mean**2).clamp(min=0).sqrt()
        covariance = products / self.count - mean[self.neurons, None] * mean
        scale = deviation[self.neurons, None] * deviation
        # constant neurons have no correlation, but rounding leaves them a small variance
        known = scale > 1e-12 * (squares / self.count).amax().clamp(min=torch.finfo(scale.dtype).tiny)
        correlation = torch.where(known, covariance / torch.where(known, scale, 1), 0)
        correlation[torch.arange(len(self.neurons)), self.neurons] = 0
        best = correlation.topk(min(_SIMILAR, correlation.shape[1]), dim=1)
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [tuple((n, r) for n, r in zip(*row, strict=True) if r > 0) for row in rows]

    def classes(self, place: int) -> tuple[tuple[int, float], ...]:
        """The classes for which a neuron is relevant."""
        means = {c: (total[place] / samples).item() for c, (samples, total) in self.by_class.items()}
        whole = sum(means.values())
        ordered = sorted(means.items(), key=lambda of: (-of[1], of[0]))
        return tuple((c, mean / whole) for c, mean in ordered) if whole > 0 else ()

    def cards(
        self, model: nn.Module, layer: str, images: Mapping[int, Tensor], like: Tensor, method: Any, device: torch.device
    ) -> list[NeuronCard]:
        """All cards; the reconstructions of this layer's neurons are computed together."""
        shown = {(kind, place): self.shown(kind, place) for kind in self.kinds for place in range(len(self.neurons))}
        neurons = [self.neurons[place] for (_, place), (values, _) in shown.items() for _ in values]
        places, samples = (torch.cat([facts[i] for _, facts in shown.values()]) for i in (0, 1))
        # a neuron may have its largest activation and its largest relevance at the same place
        pairs = list(zip(samples.tolist(), neurons, places.tolist(), strict=True))
        at = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
        x = torch.stack([images[sample] for sample, _, _ in at]) if at else like[None][:0]
        which = torch.tensor([[neuron, place] for _, neuron, place in at], device=device).view(-1, 2)
        fields = fields_of(model, x.to(device), layer, which[:, 0], which[:, 1]).cpu()
        whole = torch.tensor([neuron in self.neurons[: self.full] for _, neuron, _ in at], dtype=torch.bool)
        made, which = torch.zeros_like(x), which[whole.to(device)]
        made[whole] = reconstruct_at(model, x[whole].to(device), layer, which[:, 0], which[:, 1], method).cpu()
        numbers = iter([at[pair] for pair in pairs])
        patches: dict[tuple[str, int], TopActivations] = {}
        for (kind, place), (values, (_, samples, labels, predictions)) in shown.items():
            mine = torch.tensor([next(numbers) for _ in values], dtype=torch.long)
            patches[kind, place] = TopActivations(
                layer, self.neurons[place], values, samples, x[mine], made[mine], fields[mine],
                labels if (labels >= 0).all() else None, predictions,
            )  # fmt: skip
        share = torch.as_tensor(self.moments[0])[self.neurons] / self.count
        return [
            NeuronCard(
                layer, neuron, patches["driven", place], patches["relevant", place], patches["mistaken", place],
                self.classes(place), similar, share[place].item(), self.count,
            )
            for place, (neuron, similar) in enumerate(zip(self.neurons, self.similar(), strict=True))
        ]  # fmt: skip
