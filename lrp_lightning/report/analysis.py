"""The contents of a report, and those computed from a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn

from lrp_lightning.attribution import SelectiveLRP
from lrp_lightning.compat import in_double
from lrp_lightning.composites import Composite, EpsilonPlus, as_composite
from lrp_lightning.deconvnet import TopActivations, reconstruct_top_activations
from lrp_lightning.errors import InputError
from lrp_lightning.graphs.build import build_graph
from lrp_lightning.graphs.class_graph import ClassGraph
from lrp_lightning.graphs.layout import lay_out
from lrp_lightning.graphs.paths import Node, Path, by_layer, k_best_paths
from lrp_lightning.insight.contest import Contest, contest
from lrp_lightning.insight.contrast import Contrast
from lrp_lightning.insight.headline import headline, kept_by
from lrp_lightning.insight.heatmaps import neuron_heatmaps, path_heatmaps
from lrp_lightning.insight.neuron_cards import NeuronCard
from lrp_lightning.insight.strategies import Strategy
from lrp_lightning.masking import masked_forward
from lrp_lightning.progress import tqdm
from lrp_lightning.rules import Rule
from lrp_lightning.selection import TopK, random_masks
from lrp_lightning.trace import Trace

__all__ = ["Curves", "Report", "captions", "report_of"]

_AT_ONCE = 32
"""Number of samples in one pass, which limits memory."""
_BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_HEADLINE = 0.2
_BUDGET_SAMPLES = 32
_FAINT = 1e-4
"""Edges with a smaller share are too faint to see."""
_FEW = 6
"""Number of samples whose paths and neurons are shown."""


@dataclass(frozen=True)
class Curves:
    """Measures over a common axis, such as epochs or budgets; drawn by :func:`draw_curves`.

    Attributes:
        title: above the curves.
        curves: ``{name: values}``, all of one length.
        x: the positions of the values; None for 0, 1, 2, ...
        xlabel: what ``x`` is, with its unit.
        ylabel: what the values are, with their unit.

    Example:
        >>> from lrp_lightning.drawing import Curves
        >>> Curves("While it trained", {"critical": [0.4, 0.9]}, xlabel="epoch").ylabel
        ''
    """

    title: str
    curves: Mapping[str, Sequence[float] | Tensor]
    x: Sequence[float] | Tensor | None = None
    xlabel: str = ""
    ylabel: str = ""


@dataclass(frozen=True, eq=False)
class Report:
    """The contents of a report, in this order; sections that are empty or None are left out.

    ``write_report(trace, path, images=images)`` computes it from a trace. You can also fill it yourself, as
    :class:`lrp_lightning.callbacks.RelevanceMonitor` does: ``write_report(Report(images=..., ...), path)``. All text is
    escaped: it is data, never markup.

    Attributes:
        title: of the page and the browser's window.
        headline: the findings, in sentences, at the top.
        measures: ``{name: value}``, summary figures such as ``{"contest won": 0.91}``.
        images: ``(N, C, H, W)``, as the model takes them.
        relevance: ``(N, C, H, W)``, of the images; or ``(N, L)``, of the tokens.
        all_neurons: if ``relevance`` is that through critical neurons, the same through all neurons.
        logit_shares: the shares of the explained logit that these two account for, one pair per sample.
        tokens: of texts, as strings, such as ``tokenizer.convert_ids_to_tokens`` returns.
        titles: one line per sample, such as the predicted and the true class.
        mean: what was subtracted from the images, one value per channel; without it each is stretched to its own range.
        std: what the images were divided by.
        graph: from :func:`lrp_lightning.build_graph`.
        paths: from :func:`lrp_lightning.k_best_paths`, of that graph.
        path_heatmaps: ``(len(paths), N, C, H, W)``, from :func:`lrp_lightning.path_heatmaps`, of the images.
        neuron_heatmaps: ``{(layer, neuron): (N, C, H, W)}``, shown when that neuron of the graph is clicked.
        graphs: of single classes, in addition to ``graph`` or instead of it, with ``path_heatmaps`` of the images; at most
            four are drawn, others are named.
        strategies: from :func:`lrp_lightning.find_strategies`, of images.
        cards: from :func:`lrp_lightning.neuron_cards`, of images.
        contrast: from :func:`lrp_lightning.contrast`, of images.
        reconstructions: of neurons, from :func:`lrp_lightning.reconstruct_top_activations`.
        curves: measures over epochs, budgets or others.
        trace: for the tables of conservation and of layers.
        class_names: names of the graph's output neurons.
        settings: ``{name: value}``, how it was made: model, composite, selection, data, versions.

    Example:
        >>> import tempfile
        >>> from lrp_lightning.drawing import Curves, Report, write_report
        >>> curves = Curves("While it trained", {"critical": [0.4, 0.9]}, xlabel="epoch")
        >>> report = Report(title="Digits", measures={"contest won": 0.91}, curves=[curves])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_report(report, f"{folder}/report.html").name
        'report.html'
    """

    title: str = "Relevance report"
    headline: Sequence[str] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    images: Tensor | None = None
    relevance: Tensor | None = None
    all_neurons: Tensor | None = None
    logit_shares: Sequence[tuple[float, float]] = ()
    tokens: Sequence[Sequence[str]] = ()
    titles: Sequence[str] = ()
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    graph: nx.DiGraph | None = None
    paths: Sequence[Path] = ()
    path_heatmaps: Tensor | None = None
    neuron_heatmaps: Mapping[Node, Tensor] = field(default_factory=dict)
    graphs: Sequence[ClassGraph] = ()
    strategies: Sequence[Strategy] = ()
    cards: Sequence[NeuronCard] = ()
    contrast: Contrast | None = None
    reconstructions: Sequence[TopActivations] = ()
    curves: Sequence[Curves] = ()
    trace: Trace | None = None
    class_names: Sequence[str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def report_of(
    trace: Trace,
    images: Tensor | None = None,
    model: nn.Module | None = None,
    composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
    k: int = 5,
    class_names: Sequence[str] | None = None,
    curves: Sequence[Curves] = (),
    **about: Any,
) -> Report:
    """The contents of a report about a trace.

    From the trace alone: conservation, layers and, if it was made with ``edges=True``, graph and paths. With the images:
    heatmaps. With ``tokens=``: coloured texts. With the model: heatmaps of the paths and their neurons, the image patches
    that activate the most critical neurons of three layers, and for the first 32 images how often the predicted class beats
    the runner-up at several budgets (:func:`lrp_lightning.contest`, with ``TopK``).

    Args:
        trace: of one batch.
        images: the traced images, ``(N, C, H, W)``.
        model: the traced model.
        composite: as in :class:`lrp_lightning.SelectiveLRP`; use that of the trace.
        k: number of paths.
        class_names: names of the output's neurons.
        curves: further measures, such as those over epochs; shown above the curve over budgets.
        about: other fields of :class:`Report`, which override the computed ones.

    Returns:
        The report, to be written by :func:`write_report`.

    Raises:
        InputError: if the images are not those of the trace.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP
        >>> from lrp_lightning.drawing import report_of
        >>> from torch import nn
        >>> _ = torch.manual_seed(1)
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
        >>> images = torch.rand(2, 1, 5, 5)
        >>> report = report_of(SelectiveLRP(model).trace(images, target=1, edges=True), images, k=2, title="Two images")
        >>> len(report.paths), report.title
        (2, 'Two images')
    """
    if images is not None and (not isinstance(trace.inputs, Tensor) or images.shape != trace.inputs.shape):
        shapes = [tuple(r.shape) for r in (trace.inputs if isinstance(trace.inputs, tuple) else (trace.inputs,))]
        raise InputError(
            f"images must be those that were traced: their shape is {tuple(images.shape)}, that of the trace's inputs "
            f"{shapes}"
        )
    pictures = images if images is not None and images.ndim == 4 else None
    graph = build_graph(trace, min_share=_FAINT) if trace.edges else None
    paths = k_best_paths(graph, k) if graph is not None else []
    report = Report(
        measures={"samples": len(trace.output), "largest conservation error": float(trace.conservation_error.max())},
        images=pictures,
        relevance=trace.inputs if pictures is not None or about.get("tokens") else None,  # type: ignore[arg-type]
        titles=captions(trace, class_names) if trace.output.ndim == 2 else (),
        graph=graph,
        paths=paths,
        trace=trace,
        class_names=class_names,
        curves=curves,
        settings={"torch": torch.__version__},
    )
    if model is not None and images is not None:
        composite = as_composite(composite)
        contests = {}
        if trace.output.ndim == 2 and trace.output.shape[1] > 1:
            contests = _contests(model, images[:_BUDGET_SAMPLES], composite)
        report = replace(
            report,
            headline=_headline(contests, len(images[:_BUDGET_SAMPLES])),
            measures={**report.measures, **_of_contest(contests), **_survival(model, images, trace)},
            curves=[*curves, *([_over_budgets(contests, len(images[:_BUDGET_SAMPLES]))] if contests else [])],
            settings={"model": type(model).__name__, "composite": composite, **report.settings},
        )
        if pictures is not None and trace.masks and trace.output.ndim == 2:
            report = replace(report, **_through_all(model, pictures, trace, composite))
        if pictures is not None:
            few = pictures[:_FEW]
            target = _classes(trace)[:_FEW]
            report = replace(
                report,
                path_heatmaps=path_heatmaps(model, few, paths, composite) if paths else None,
                neuron_heatmaps=_of_neurons(model, few, target, trace, report, composite),
                reconstructions=_of_critical(model, pictures, trace),
            )
    return replace(report, **about)


def _through_all(model: nn.Module, images: Tensor, trace: Trace, composite: Composite) -> dict[str, Any]:
    """The relevance through all neurons, to compare with that of a trace with a selection."""
    lrp, parts = SelectiveLRP(model, composite), zip(images.split(_AT_ONCE), _classes(trace).split(_AT_ONCE), strict=True)
    through_all = torch.cat([lrp.attribute(x, target) for x, target in parts])
    shares = [of.flatten(1).sum(1) / trace.explained for of in (trace.inputs, through_all)]  # type: ignore[union-attr]
    return {"all_neurons": through_all, "logit_shares": list(zip(*(part.tolist() for part in shares), strict=True))}


def captions(trace: Trace, class_names: Sequence[str] | None = None) -> list[str]:
    """The predicted class of each sample, and the explained class if it differs, one line per sample.

    Args:
        trace: a trace with an output ``(N, classes)``.
        class_names: names of all classes; None for numbers.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP
        >>> from lrp_lightning.report.analysis import captions
        >>> trace = SelectiveLRP(torch.nn.Linear(2, 2, bias=False)).trace(torch.zeros(1, 2), target=0)
        >>> captions(trace, ["cat", "dog"])
        ['cat (50%)']
    """

    def said(number: int, share: float, *more: str) -> str:
        name = f"class {number}" if class_names is None else class_names[number]
        return f"{name} ({', '.join([f'{share:.0%}' if share >= 0.005 else '<1%', *more])})"

    shares, predicted = trace.logits.softmax(1).max(1)
    classes, logits = _classes(trace), trace.explained
    explained = (logits - trace.logits.logsumexp(1)).exp()
    return [
        said(best, share) if best == number
        else f"predicted {said(best, share)}, explained {said(number, other, f'logit {logit:.3g}')}"
        for best, share, number, other, logit in zip(
            *(values.tolist() for values in (predicted, shares, classes, explained, logits)), strict=True
        )
    ]  # fmt: skip


def _classes(trace: Trace) -> Tensor:
    """``(N,)``, the explained classes; of several with the same logit the first."""
    return (trace.logits == trace.explained[:, None]).int().argmax(1)


def _survives(model: nn.Module, images: Tensor, masks: dict[str, Tensor], output: Tensor) -> float:
    """The share of predictions that survive with these neurons alone."""
    kept = [
        masked_forward(model, x, {layer: mask[at : at + _AT_ONCE] for layer, mask in masks.items()})
        for at, x in zip(range(0, len(images), _AT_ONCE), images.split(_AT_ONCE), strict=True)
    ]
    return float(in_double(torch.cat(kept).argmax(1) == output.argmax(1)).mean())


def _headline(contests: Mapping[float, Contest], samples: int) -> list[str]:
    if not contests:
        return []
    held = contests[_HEADLINE]
    won = {"contest_accuracy": held.accuracy, "random_contest_accuracy": held.control_accuracy}
    return headline(won | {"runner_up_accuracy": held.runner_up_accuracy}, samples, kept_by(TopK(_HEADLINE)))


def _of_contest(contests: Mapping[float, Contest]) -> dict[str, float]:
    if not contests:
        return {}
    held, said = contests[_HEADLINE], f"{_HEADLINE:.0%} of the neurons"
    return {
        f"contest won with {said}": held.accuracy,
        "contest won with random neurons": held.control_accuracy,
        "runner-up wins with its own neurons": held.runner_up_accuracy,
    }


def _survival(model: nn.Module, images: Tensor, trace: Trace) -> dict[str, float]:
    if not trace.masks or trace.output.ndim != 2 or not bool((_classes(trace) == trace.output.argmax(1)).any()):
        return {}  # neurons that are critical for another class may lose the prediction
    control = random_masks(trace.masks, torch.Generator().manual_seed(0))
    return {
        "predictions kept with critical neurons alone": _survives(model, images, trace.masks, trace.output),
        "predictions kept with random neurons": _survives(model, images, control, trace.output),
    }


def _contests(model: nn.Module, images: Tensor, composite: Composite) -> dict[float, Contest]:
    """``{share of each layer's neurons: result of the contest}``, on a few images."""
    found = {}
    for budget in tqdm(_BUDGETS, desc="budgets", leave=False, disable=None):
        found[budget] = contest(SelectiveLRP(model, composite, TopK(budget)), images)
    return found


def _over_budgets(contests: Mapping[float, Contest], samples: int) -> Curves:
    return Curves(
        title=f"Contest with few neurons, {samples} samples",
        curves={
            "predicted class beats the runner-up, each with its own neurons": [held.accuracy for held in contests.values()],
            "the same with random neurons": [held.control_accuracy for held in contests.values()],
            "runner-up wins with its own neurons": [held.runner_up_accuracy for held in contests.values()],
        },
        x=list(contests),
        xlabel="share of each layer's neurons kept",
        ylabel="share of samples",
    )


def _of_neurons(
    model: nn.Module, images: Tensor, target: Tensor, trace: Trace, report: Report, composite: Composite
) -> dict[Node, Tensor]:
    """Heatmaps of the neurons on the drawn paths, layer by layer."""
    if report.graph is None or not report.paths:
        return {}
    drawn = lay_out(report.graph, 1, report.paths).layers
    on_paths = by_layer(
        (layer, neuron)
        for layer, neuron in dict.fromkeys(node for path in report.paths for node in path.nodes[:-1])
        if layer in drawn and trace.kinds[layer] in ("convolution", "linear")
    )
    return {
        (layer, neuron): heat
        for layer, neurons in tqdm(on_paths.items(), desc="neurons", leave=False, disable=None)
        for neuron, heat in zip(neurons, neuron_heatmaps(model, images, layer, neurons, target, composite), strict=True)
    }


def _of_critical(model: nn.Module, images: Tensor, trace: Trace) -> list[TopActivations]:
    """The patches that activate the two most critical neurons of three convolutions: a low, a middle and a high one."""
    layers = [layer for layer, kind in trace.kinds.items() if kind == "convolution"]
    chosen = dict.fromkeys(layers[round(at * (len(layers) - 1))] for at in (0.25, 0.6, 1.0)) if layers else {}
    return [
        reconstruct_top_activations(model, images.split(_AT_ONCE), layer, neuron, k=4, method="guided", progress=False)
        for layer in chosen
        for neuron in trace.relevance[layer].sum(0).topk(min(2, trace.relevance[layer].shape[1])).indices.tolist()
    ]
