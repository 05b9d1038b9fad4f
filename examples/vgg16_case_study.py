"""VGG16, step by step: the method of "Neural network interpretability with layer-wise relevance propagation: novel
techniques for neuron selection and visualization" (Bhati et al. 2024, arXiv 2412.05686) on a network trained here.

``python examples/vgg16_case_study.py --out case_study`` trains VGG16 with batch norm on Fashion-MNIST (Debian package
dataset-fashion-mnist; scikit-learn's digits if it is missing), takes every step in the paper's order, and writes a page
with the results. ``--weights DEFAULT --data FOLDER`` uses torchvision's weights, trained on ImageNet, and a folder of
images by class.
"""

from __future__ import annotations

import argparse
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import fashion_mnist
import networkx as nx
import small_vgg
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.models import get_model, get_model_weights
from torchvision.models._meta import _IMAGENET_CATEGORIES
from tqdm.auto import tqdm

from lrp_lightning import (
    Composite,
    Contest,
    Epsilon,
    EpsilonPlus,
    MinError,
    SelectiveLRP,
    TopK,
    build_graph,
    class_graph,
    contest,
    k_best_paths,
    masked_forward,
    path_heatmaps,
    reconstruct_top_activations,
)
from lrp_lightning.drawing import draw_contact_sheet, draw_curves, draw_graph, draw_top_activations
from lrp_lightning.masking import activations
from lrp_lightning.metrics import mse, prediction_survives, smape
from lrp_lightning.selection import Selection, random_masks

SELECTING: Composite = Composite(Epsilon())  # finds the neurons that decide best: benchmarks/selection.md
SHOWING: Composite = EpsilonPlus()  # gives the calmer heatmaps
OPTIMISED_BUDGETS = (0.1, 0.2, 0.3)
BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)
CONTESTED_BUDGETS = (0.1, 0.2)
Masks = dict[str, Tensor]


@dataclass(frozen=True)
class Options:
    """The subject of the study; every field is an option of the command line."""

    width: str = field(default="narrow", metadata={"choices": ("narrow", "full"), "help": "of the network trained here"})
    epochs: int = field(default=2, metadata={"help": "of that training"})
    images: int = field(default=60_000, metadata={"help": "to train on"})
    seed: int = field(default=0, metadata={"help": "of that training and of random neurons"})
    samples: int = field(default=50, metadata={"help": "images explained"})
    passes: int = field(default=25, metadata={"help": "of the optimised selection"})
    target: str = field(default="", metadata={"help": "class whose paths are shown; default: the most frequent prediction"})
    checkpoint: str = field(
        default="", metadata={"help": "file that stores the trained network, and from which later runs load it"}
    )
    architecture: str = field(default="vgg16_bn", metadata={"choices": ("vgg16", "vgg16_bn"), "help": "torchvision's"})
    weights: str = field(default="", metadata={"help": "of it: DEFAULT, or a file with its state"})
    data: str = field(default="", metadata={"help": "folder of images by class, for such a network"})

    @property
    def command(self) -> str:
        """The command that repeats this study."""
        always = ("weights", "data") if self.weights else ("width", "epochs", "seed")
        chosen = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "checkpoint"}
        given = (f" --{name} {value}" for name, value in chosen.items() if name in always or value != getattr(Options, name))
        return "python examples/vgg16_case_study.py" + "".join(given)


def predicted(logits: Tensor) -> Tensor:
    """The class with the highest logit."""
    return logits.argmax(1)


@dataclass(frozen=True, eq=False)
class Study:
    """A network and its images, ``x`` to explain and ``test`` to measure on; labels are -1 if unknown."""

    options: Options
    model: nn.Module
    name: str
    class_names: list[str]
    x: Tensor
    labels: Tensor
    test: tuple[Tensor, Tensor]
    batch: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    about: str

    def logits(self, x: Tensor, masks: Masks | None = None, keep: bool = True) -> Tensor:
        """Logits of the whole network, or of the neurons that masks keep; without masks all neurons are kept."""
        parts = x.split(self.batch)
        cut = [{name: m.split(self.batch)[i] for name, m in (masks or {}).items()} for i in range(len(parts))]
        return torch.cat([masked_forward(self.model, part, c, keep) for part, c in zip(parts, cut, strict=True)])

    def critical(self, x: Tensor, selection: Selection, of: Callable[[Tensor], Tensor] = predicted) -> Masks:
        """``{layer: (N, C) bool}``, for the predicted classes or others, batch by batch."""
        lrp = SelectiveLRP(self.model, SELECTING, selection)
        parts = tqdm(x.split(self.batch), desc=f"{selection!r}", unit="batch", leave=False)
        found = [lrp.trace(part, target=of).masks for part in parts]
        return {name: torch.cat([masks[name] for masks in found]) for name in found[0]}

    @cached_property
    def target(self) -> int:
        """The class whose paths are shown."""
        if self.options.target in self.class_names:
            return self.class_names.index(self.options.target)
        if self.options.target:
            raise SystemExit(
                f"--target {self.options.target!r} is not one of the classes {', '.join(self.class_names[:20])} ..."
            )
        return int(predicted(self.logits(self.test[0])).mode().values)

    @cached_property
    def of_target(self) -> Tensor:
        """Images that are predicted as that class; at most the number of explained images."""
        x, _ = self.test
        return x[predicted(self.logits(x)) == self.target][: len(self.x)]


@dataclass(frozen=True, eq=False)
class Step:
    """The result of a step: a table, a figure, and numbers for the comparison at the end."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    figure: Figure
    caption: str
    found: dict[str, str] = field(default_factory=dict)

    @property
    def table(self) -> str:
        """In Markdown."""
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def share(of: Tensor) -> float:
    """Of True."""
    return of.double().mean().item()


def trained_here(options: Options) -> Study:
    """VGG16-BN for small images, trained on Fashion-MNIST."""
    torch.manual_seed(options.seed)
    data = fashion_mnist.load(options.images, 20 * options.samples, side=32)
    model = small_vgg.small_vgg16(small_vgg.FULL if options.width == "full" else small_vgg.NARROW)
    kept = Path(options.checkpoint) if options.checkpoint else None
    if kept is not None and kept.exists():
        model.load_state_dict(torch.load(kept)["state"])
    else:
        small_vgg.train(model, *data.train, epochs=options.epochs, seed=options.seed)
        if kept is not None:
            torch.save({"state": model.state_dict()}, kept)
    images, labels = data.test
    of_each = torch.cat([(labels == c).nonzero()[: max(1, options.samples // 10), 0] for c in labels.unique()])
    widths = {
        "full": "The thirteen convolutions have VGG16's number and width; `--width narrow` has fewer channels and trains in "
        "minutes on one core.",
        "narrow": "The narrow network has VGG16's thirteen convolutions with fewer channels each, and trains in minutes on "
        "one core; `--width full` has VGG16's width.",
    }
    about = widths[options.width] + " Images are padded to 32 x 32 pixels, and one linear layer replaces VGG16's three."
    name = f"VGG16-BN, {options.width} ({'-'.join(str(c.out_channels) for c in last_convolutions(model).values())} channels)"
    return Study(
        options, model.eval(), name, data.class_names, images[of_each], labels[of_each], data.test, 50, (0.0,), (1.0,), about
    )


def of_torchvision(options: Options) -> Study:
    """torchvision's VGG16, with its own weights or those of a file, and images by class.

    The class is given by the folder's name, if that is one of ImageNet's class names, or by the folder's position, if the
    number of folders is that of classes; otherwise labels are unknown.
    """
    if not (options.weights and options.data):
        raise SystemExit("--weights and --data belong together: a network's weights, and a folder of images by class")
    if options.weights == "DEFAULT":
        model = get_model(options.architecture, weights="DEFAULT")
    else:
        state = torch.load(options.weights)
        model = get_model(options.architecture, num_classes=len(state["classifier.6.bias"]))
        model.load_state_dict(state)
    prepared = get_model_weights(options.architecture).DEFAULT.transforms()
    folder = ImageFolder(options.data, prepared)
    outputs = model.classifier[-1].out_features
    class_names = list(_IMAGENET_CATEGORIES) if outputs == len(_IMAGENET_CATEGORIES) else folder.classes
    if len(class_names) != outputs:
        class_names = [str(c) for c in range(outputs)]
    of_folder = [class_names.index(name) if name in class_names else -1 for name in folder.classes]
    if len(folder.classes) == outputs:
        of_folder = list(range(outputs))
    taken = torch.linspace(0, len(folder) - 1, min(options.samples, len(folder))).round().int().unique().tolist()
    loaded = [folder[i] for i in tqdm(taken, desc="images", leave=False)]
    x, labels = torch.stack([image for image, _ in loaded]), torch.tensor([of_folder[c] for _, c in loaded])
    name = f"torchvision's {options.architecture}, weights {Path(options.weights).name}"
    mean, std = tuple(prepared.mean), tuple(prepared.std)
    about = "The images are spread evenly over the folder; all measures use all of them."
    return Study(options, model.eval(), name, class_names, x, labels, (x, labels), 4, mean, std, about)


def last_convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """The last convolution of each of VGG16's five blocks, by name."""
    last: dict[str, nn.Conv2d] = {}
    name = ""
    for place, module in model.get_submodule("features").named_children():
        if isinstance(module, nn.Conv2d):
            name, convolution = f"features.{place}", module
        elif isinstance(module, nn.MaxPool2d):
            last[name] = convolution
    return last


def prepare(options: Options) -> Study:
    """The network and the images of a study."""
    return of_torchvision(options) if options.weights or options.data else trained_here(options)


# The steps


def relevance_with_selection(study: Study) -> Step:
    """## 1. Relevance, with the neurons selected inside the backward pass

    Layer-wise relevance propagation (Bach et al. 2015) redistributes the predicted class's logit, layer by layer, to the
    pixels. In each layer, only the neurons (channels) with the greatest magnitude of relevance propagate it further. The
    choice in a layer therefore depends on the choices in the layers above. The relevance at the pixels, plus the relevance
    that stays in biases and unselected neurons, adds up to the logit. A selection shows which neurons decide. To see
    where the evidence is, use the heatmap through all neurons.
    """
    x = study.x[:: max(1, len(study.x) // 5)][:5]
    ways = {
        "all neurons, ε": SelectiveLRP(study.model, SELECTING),
        "all neurons, z+": SelectiveLRP(study.model, SHOWING),
        "critical 30 %, z+": SelectiveLRP(study.model, SHOWING, TopK(0.3)),
        "critical 10 %, z+": SelectiveLRP(study.model, SHOWING, TopK(0.1)),
    }
    rows, heat = [], []
    for name, lrp in ways.items():
        trace = lrp.trace(x, target=predicted)
        assert isinstance(trace.inputs, Tensor)
        heat.append(trace.inputs)
        neurons = sum(m.shape[1] for m in trace.masks.values()) or sum(
            r.shape[1] for name, r in trace.relevance.items() if name != "input"
        ) - trace.output.shape[1]  # fmt: skip
        critical = sum(int(m[0].sum()) for m in trace.masks.values()) or neurons
        reached = (trace.inputs.flatten(1).sum(1) / trace.explained).mean().item()
        error = trace.conservation_error.max().item()
        rows.append((name, f"{critical:,} of {neurons:,}", f"{reached:.3g}", f"{error:.0e}"))
    titles = [study.class_names[c] for c in predicted(study.logits(x)).tolist()]
    figure = draw_contact_sheet(x, torch.stack(heat), titles, list(ways), mean=study.mean, std=study.std)
    header = ("", "hidden neurons that propagate relevance", "share of the logit at the pixels", "conservation error")
    caption = "Red supports the predicted class, blue opposes it. Each heatmap shows shares of its own relevance."
    return Step(header, rows, figure, caption, {"conservation": max(rows, key=lambda r: float(r[3]))[3]})


def critical_paths(study: Study) -> Step:
    """## 2. The graph of critical paths

    The same backward pass gives the relevance that every neuron propagates to every neuron below it. This is a graph from
    the input to the class, here the mean over the images predicted as one class. Its critical paths are the chains that
    carry the most relevance, found exactly.
    """
    graph = class_graph(study.model, study.of_target.split(study.batch), study.target, SHOWING, TopK(0.1))
    paths = k_best_paths(graph, k=5)
    chains: dict[tuple[str, int], int] = {}  # that end at a node
    for node in nx.topological_sort(graph):
        below = [lower for lower in graph.predecessors(node) if lower[0] != "input"]
        chains[node] = sum(chains[lower] for lower in below) + (len(below) < graph.in_degree(node)) or 1
    target = paths[0].nodes[-1]
    rows = [
        (str(rank), " → ".join(str(n) for _, n in path.nodes[:-1]), f"{path.share:.1e}", f"{path.times_median or 0:.1e}")
        for rank, path in enumerate(paths, 1)
    ]
    title = f"{study.class_names[study.target]}, mean of {graph.graph['samples']} images: critical neurons and paths"
    figure = draw_graph(graph, 6, paths, study.class_names, title, static=True)
    size = f"{len(graph):,} neurons and {graph.number_of_edges():,} edges"
    caption = (
        f"The six strongest neurons of each layer, of {size}. The width of an edge is its relevance; the five best paths "
        "are black."
    )
    found = {
        "graph": size,
        "best path": f"{rows[0][2]} of the logit, {rows[0][3]} times the median of all {chains[target]:.1e} chains",
    }
    header = (
        "path",
        "neurons, from the first convolution up",
        "share of the logit",
        "times the median of all chains",
    )
    return Step(header, rows, figure, caption, found)


def heatmaps_of_paths(study: Study) -> Step:
    """## 3. Heatmaps of the paths

    A path's heatmap shows the relevance at the pixels that passes along this path only. One masked pass gives the heatmaps
    of all paths. A path's share in the graph is an estimate from shares summed over space; the sum of its heatmap is exact.
    """
    x = study.of_target[:4]
    trace = SelectiveLRP(study.model, SHOWING, TopK(0.1)).trace(x, target=study.target, edges=True)
    whole = SelectiveLRP(study.model, SHOWING).attribute(x, target=study.target)
    paths = k_best_paths(build_graph(trace), k=3)
    along = path_heatmaps(study.model, x, paths, SHOWING)
    assert isinstance(trace.inputs, Tensor)
    heads = ["all neurons", "critical 10 %", *(f"path {i}" for i in range(1, len(paths) + 1))]
    titles = [study.class_names[study.target]] * len(x)
    sheet = torch.cat([torch.stack([whole, trace.inputs]), along])
    figure = draw_contact_sheet(x, sheet, titles, heads, mean=study.mean, std=study.std)
    logit = trace.explained.sum()
    rows = [
        (str(i), f"{path.share:.1e}", f"{(heat.sum() / logit).item():.1e}")
        for i, (path, heat) in enumerate(zip(paths, along, strict=True), 1)
    ]
    caption = "Each heatmap shows shares of its own relevance. A path carries little and covers a part of the area."
    return Step(("path of these images", "share of the logit, graph", "share of the logit, pixels"), rows, figure, caption)


def optimised_selection(study: Study) -> Step:
    """## 4. Selection optimised for MSE and SMAPE, compared with the plain one

    A selection is judged by the selected neurons alone: all others output zero, and the logits are compared with the whole
    network's. The *plain* selection takes the neurons of each layer with the greatest magnitude of relevance. The
    *optimised* one exchanges neurons without changing their number, where forward and backward differences of the error
    predict a gain, and keeps the best set that it finds.
    """
    x, whole = study.x, study.logits(study.x)
    layers = list(study.critical(x[:1], TopK(1.0)))
    generator = torch.Generator().manual_seed(study.options.seed)
    passes = study.options.passes
    rows, curves = [], {}
    found = {}
    ways = (
        "random",
        "most active",
        "greatest magnitude, chosen afterwards",
        "plain: inside",
        "optimised, MSE",
        "optimised, SMAPE",
    )
    measured: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    ordinary = [SelectiveLRP(study.model, SELECTING, TopK(1.0)).trace(part, predicted) for part in x.split(study.batch)]
    relevance = {name: torch.cat([trace.relevance[name] for trace in ordinary]) for name in layers}
    active = [activations(study.model, part, layers) for part in x.split(study.batch)]
    for budget in OPTIMISED_BUDGETS:
        plain = TopK(budget)
        inside = study.critical(x, plain)
        masks = {
            "random": random_masks(inside, generator),
            "most active": {
                name: plain.select(torch.cat([a[name] for a in active]), layer=name, output=whole[:, 0]) for name in layers
            },
            "greatest magnitude, chosen afterwards": {
                name: plain.select(relevance[name], layer=name, output=whole[:, 0]) for name in layers
            },
            "plain: inside": inside,
            "optimised, MSE": study.critical(x, MinError("mse", budget, passes)),
            "optimised, SMAPE": study.critical(x, MinError("smape", budget, passes)),
        }
        for way in ways:
            kept = study.logits(x, masks[way])
            errors = smape(kept, whole).mean().item(), mse(kept, whole).mean().item()
            measured[way].append((*errors, share(prediction_survives(kept, whole))))
    for way in ways:
        values = [[format(of[i], how) for of in measured[way]] for i, how in enumerate((".2f", ".3g", ".2f"))]
        rows.append((way, *(" / ".join(each) for each in values)))
        found[way] = f"SMAPE {values[0][1]}, MSE {values[1][1]}, {measured[way][1][2]:.0%} of predictions"
        curves[way] = [of[0] for of in measured[way]]
    figure = draw_curves(
        curves, OPTIMISED_BUDGETS, "share of channels kept in each layer", "SMAPE of the logits", static=True
    )
    figure.axes[0].set_xticks(OPTIMISED_BUDGETS)
    of = f"at {', '.join(f'{budget:.0%}' for budget in OPTIMISED_BUDGETS)}"
    header = ("selection", f"SMAPE {of}", f"MSE {of}", f"predictions kept {of}")
    return Step(header, rows, figure, f"Lower is closer to the whole network; {len(x)} images.", found)


def reconstructions(study: Study) -> Step:
    """## 5. What activates the critical neurons, block by block

    For the last convolution of each of the five blocks, this step takes the neuron that is most relevant for the class. It
    shows the images that activate the neuron most, cropped to its receptive field, and the deconvolutional reconstruction
    of the parts that activate it (Zeiler & Fergus 2014).
    """
    lrp = SelectiveLRP(study.model, SELECTING, TopK(0.1))
    traces = [lrp.trace(part, target=study.target) for part in study.of_target.split(study.batch)]
    rows, tops = [], []
    for block, layer in enumerate(tqdm(last_convolutions(study.model), desc="blocks", leave=False), 1):
        neuron = int(torch.cat([t.relevance[layer] * t.masks[layer] for t in traces]).sum(0).argmax())
        top = reconstruct_top_activations(study.model, study.test[0].split(study.batch), layer, neuron, k=8)
        tops.append(top)
        sees = (top.fields[:, 1] - top.fields[:, 0]).amax(0).tolist()
        critical = share(torch.cat([t.masks[layer] for t in traces])[:, neuron])
        named = Counter(study.class_names[c] for c in predicted(study.logits(top.images)).tolist())
        classes = ", ".join(f"{count} {name}" for name, count in named.most_common(3))
        rows.append((str(block), f"{layer}, {neuron}", f"{critical:.0%}", f"{sees[0]} x {sees[1]}", classes))
    figure = draw_top_activations(tops, study.mean, study.std)
    header = ("block", "layer, neuron", "critical for", "receptive field", "predictions for these images")
    caption = "Above, patches of the eight images that activate the neuron most; below, their reconstructions. Grey is zero."
    sees_at = ", ".join(f"in block {row[0]} {row[3]}" for row in rows)
    return Step(header, rows, figure, caption, {"sees": sees_at})


def accuracy_of_critical_neurons(study: Study) -> Step:
    """## 6. Do the critical neurons decide?

    A prediction that survives with its own critical neurons alone proves little: neurons chosen for their evidence for a
    class make any image look like that class. So two classes compete, the predicted one and the runner-up, which has the
    second highest logit. Each logit is computed with that class's own critical neurons, and the greater one wins. Random
    neurons win about half of such contests. The table also shows how often the runner-up's neurons make the runner-up win,
    whatever the image shows.
    """
    x, labels = (part[: 5 * len(study.x)] for part in study.test)
    whole = study.logits(x)
    ways: dict[str, tuple[Tensor, tuple[float, ...], Callable[[float], Selection]]] = {
        "most relevant": (x, BUDGETS, lambda budget: TopK(budget, by="relevance")),
        "greatest magnitude": (x, BUDGETS, TopK),
        "optimised, SMAPE": (study.x, CONTESTED_BUDGETS, lambda budget: MinError("smape", budget, study.options.passes)),
    }
    rows, curves, found = [], {}, {}
    by_chance: dict[float, float] = {}
    for way, (of, budgets, selection) in ways.items():
        curves[way] = [float("nan")] * len(BUDGETS)
        for budget in budgets:
            lrp = SelectiveLRP(study.model, SELECTING, selection(budget))
            parts = tqdm(of.split(study.batch), desc=f"{way}, {budget:.0%}", unit="batch", leave=False)
            held = Contest.joined(contest(lrp, part, seed=i) for i, part in enumerate(parts))
            kept = share(prediction_survives(held.with_predicted, held.logits))
            by_chance.setdefault(budget, held.control_accuracy)
            curves[way][BUDGETS.index(budget)] = held.accuracy
            values = (held.accuracy, held.control_accuracy, held.runner_up_accuracy, kept)
            rows.append((way, f"{budget:.0%}", *(f"{value:.3f}" for value in values)))
            found[f"{way}, {budget:.0%}"] = f"{held.accuracy:.3f} (forced in {held.runner_up_accuracy:.3f})"
    curves["random neurons"] = [by_chance[budget] for budget in BUDGETS]
    figure = draw_curves(curves, BUDGETS, "share of channels in each layer", "share of contests won", static=True)
    figure.axes[0].set_xticks(BUDGETS)
    header = ("chosen by", "of each layer", "contest won", "by random neurons", "runner-up forced", "survives")
    accuracy = f"{share(predicted(whole) == labels):.3f}" if bool((labels >= 0).all()) else "unknown"
    caption = f"{len(x)} images, {len(study.x)} for the optimised sets; the whole network's accuracy on them is {accuracy}."
    return Step(header, rows, figure, caption, {**found, "accuracy": accuracy})


STEPS = (
    relevance_with_selection, critical_paths, heatmaps_of_paths, optimised_selection, reconstructions,
    accuracy_of_critical_neurons,
)  # fmt: skip


# The page

PUBLIC_TEXT = """## What the paper's public text claims, and what was measured here

The left column quotes the abstract (arXiv 2412.05686). Only the abstract and public summaries of the paper were
available. They name GetOptimizer, forward and backward differences, MSE and SMAPE, but give no formulas. The terms of the
error and the way in which neurons are exchanged are our reading (see the docstrings of `MinError` and `SelectionError`).
No figure of the paper is reproduced, and none here is comparable with its figures: network, images and formulas differ.
"""

CREDITS = """## Where the parts come from

Relevance propagation is from Bach et al. 2015. The rules and their assignment to layers are from Montavon et al. 2019 and
Kohlbrenner et al. 2020. Propagation from chosen neurons only is older than this paper: pruned LRP does it (PLRP, arXiv
2404.14271), and so do the conditions of concept relevance propagation, for neurons that a person names (Achtibat et al.
2023, zennit-crp). NeuronMCT and NeuronIntGrad find critical pathways by contribution (Khakzar et al. 2021). Graphs of the
relevance between neurons, their paths and their pruning are known from attribution graphs of language models (Ameisen et
al. 2025). Deconvolution is from Zeiler & Fergus 2014, pruning by relevance from Yeom et al. 2021.
"""


def compared(found: dict[str, str], passes: int) -> str:
    """Claims beside measurements, as a table in Markdown."""
    rows = (
        (
            "“improves the parsing of selected neurons during LRP backward propagation”",
            f"At 20 % of the channels: chosen inside the pass, {found['plain: inside']}; chosen afterwards from an ordinary "
            f"pass, {found['greatest magnitude, chosen afterwards']}; most active, {found['most active']}; "
            f"random, {found['random']}.",
        ),
        (
            "“creates neural network graphs to highlight critical paths”",
            f"A graph of {found['graph']}. The best path carries {found['best path']}. "
            "So paths show where most relevance flows, but a few of them are not the decision.",
        ),
        (
            "“visualizes these paths with heatmaps”",
            "Done, in one batched pass for all paths. Whether they help a person to understand the network was not studied.",
        ),
        (
            "“optimizing neuron selection through accuracy metrics like Mean Squared Error (MSE) and Symmetric Mean "
            "Absolute Percentage Error (SMAPE)”",
            f"At 20 %: plain, {found['plain: inside']}; optimised for MSE, {found['optimised, MSE']}; for SMAPE, "
            f"{found['optimised, SMAPE']}. Optimised sets are fitted to each image's own logits by a search of {passes} "
            "passes. They show how few neurons suffice, rather than which neurons the network used.",
        ),
        (
            "“we utilize a deconvolutional visualization technique to reconstruct feature maps”",
            f"Done for the critical neurons of each block. Receptive fields in pixels: {found['sees']}.",
        ),
        (
            "“Extensive experiments demonstrate that our approach enhances interpretability”",
            "Nothing here measures interpretability. The contest measures whether critical neurons distinguish classes: the "
            "share of images in which the predicted class beats the runner-up, each with its own 20 % of the channels, and "
            "in brackets the share in which the runner-up's neurons force the runner-up. Most relevant neurons: "
            f"{found['most relevant, 20%']}. Greatest magnitude: {found['greatest magnitude, 20%']}. Optimised sets: "
            f"{found['optimised, SMAPE, 20%']}. This is one network; `benchmarks/selection.md` measures more networks, also "
            "of other kinds.",
        ),
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in (("the paper's abstract", "measured here"), ("---", "---"), *rows))


def png(figure: Figure) -> bytes:
    """The figure as PNG with a palette of only the colours that it needs."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    Image.open(drawn).convert("RGB").quantize(256).save(small, format="png", optimize=True)
    return small.getvalue()


def write(study: Study, folder: Path) -> None:
    """Do all steps, and write their page and pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, str] = {}
    sections = []
    for number, step in enumerate(STEPS, 1):
        print(f"step {number} of {len(STEPS)}: {step.__name__.replace('_', ' ')}", flush=True)
        done = step(study)
        found.update(done.found)
        (folder / f"{step.__name__}.png").write_bytes(png(done.figure))
        text = "\n".join(line.strip() for line in (step.__doc__ or "").strip().splitlines())
        sections += [text, f"![{done.caption}]({step.__name__}.png)\n*{done.caption}*", done.table]
    head = [
        "# VGG16, step by step",
        f"{study.name}. The study explains {len(study.x)} images; accuracy on the images of step 6 is {found['accuracy']}. "
        "This page was written by",
        f"```sh\n{study.options.command} --out {folder}\n```",
        f"with PyTorch {torch.__version__.partition('+')[0]}; on another machine, last digits may differ. {study.about}",
    ]
    page = [*head, *sections, PUBLIC_TEXT.strip(), compared(found, study.options.passes), CREDITS.strip()]
    (folder / "README.md").write_text("\n\n".join(page) + "\n")
    print(f"written to {folder / 'README.md'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for option in fields(Options):
        parser.add_argument(f"--{option.name}", type=type(option.default), default=option.default, **option.metadata)
    parser.add_argument("--out", type=Path, default=Path("case_study"), help="folder of the page and its pictures")
    chosen = vars(parser.parse_args())
    folder = chosen.pop("out")
    torch.manual_seed(chosen["seed"])
    write(prepare(Options(**chosen)), folder)


if __name__ == "__main__":
    main()
