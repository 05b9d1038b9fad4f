"""Writes the data of the tab: one record per step, in the format of ``schema``, of bounded size."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import networkx as nx
import numpy as np
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import (
    DATA_CLASS_BLOB_SEQUENCE,
    DATA_CLASS_TENSOR,
    DataClass,
    Summary,
    SummaryMetadata,
)
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING

from lrp_lightning.deconvnet import TopActivations
from lrp_lightning.errors import RecordError
from lrp_lightning.graphs.class_graph import ClassGraph
from lrp_lightning.graphs.paths import Node, Path
from lrp_lightning.insight.neuron_cards import NeuronCard
from lrp_lightning.insight.strategies import Strategy
from lrp_lightning.patches import squares
from lrp_lightning.tensorboard_plugin.schema import (
    MAX_NUMBER,
    PICTURES,
    PLUGIN,
    RECORD,
    VERSION,
    pack,
    pack_graph,
    pack_heatmaps,
    pack_images,
    short,
)

__all__ = ["Record", "RelevanceSummary", "Samples", "shown_part", "write_picture"]

MAX_LOG = 900_000
"""The most bytes of pictures of one step; if they are more, those of the least relevant neurons are left out first."""
_IMAGE_SIDE, _HEATMAP_SIDE, _NEURON_SIDE = 96, 64, 32
"""The most pixels of the longer side; larger pictures are averaged (images) or summed (relevance) over blocks."""
_PROTOTYPES, _PROTOTYPE_SIDE = 6, 64
_PATCHES, _PATCH_SIDE = 4, 24
_NODES, _EDGES = 1200, 48
"""The most neurons of a class, and edges between two layers, that are shown."""


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples that are shown at every step, explained by the model of this step.

    Attributes:
        images: ``(S, C, H, W)``, any range; three channels are shown in colour, others by their mean.
        heatmaps: ``(S, H, W)`` or ``(S, C, H, W)``, the relevance of each sample's predicted class.
        labels: ``(S,)`` integers, -1 without a label.
        predictions: ``(S,)`` integers.
        probabilities: ``(S,)``, that of the prediction.
        errors: ``(S,)``, by which samples are sorted, such as one minus the label's probability.
        all_neurons: the relevance through all neurons, if ``heatmaps`` are those of critical neurons; of the same shape.
        held: ``(S, 2)``, the shares of the explained logit that the two account for.
    """

    images: np.ndarray
    heatmaps: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray
    errors: np.ndarray
    all_neurons: np.ndarray | None = None
    held: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Record:
    """The data of one step for the tab.

    Attributes:
        epoch: counted from 0.
        graphs: one for each class that is shown.
        samples: None without images.
        neuron_heatmaps: ``{(layer, neuron): (S, H, W)}``, the relevance of each sample's predicted class that passes through
            a neuron; for the neurons of :func:`shown_part`; all NaN for a sample without a heatmap.
        reconstructions: ``{(layer, neuron): (S, C, H, W)}``, from :func:`lrp_lightning.reconstruct`.
        strategies: from :func:`lrp_lightning.find_strategies`; those not of images are left out.
        cards: from :func:`lrp_lightning.neuron_cards`; those not of images are left out.
        measures: numbers of this step, such as ``critical_neuron_accuracy``; ``random_...`` is a measure's random control.
        class_names: names of the classes.
        settings: how it was made, such as composite and selection.
        notes: what is missing and why.
        headline: the findings, in sentences.
    """

    epoch: int
    graphs: Sequence[ClassGraph] = ()
    samples: Samples | None = None
    neuron_heatmaps: Mapping[Node, np.ndarray] = field(default_factory=dict)
    reconstructions: Mapping[Node, np.ndarray] = field(default_factory=dict)
    strategies: Sequence[Strategy] = ()
    cards: Sequence[NeuronCard] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    class_names: Sequence[str] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    headline: Sequence[str] = ()


def shown_part(graph: nx.DiGraph, paths: Sequence[Path] = (), neurons_per_layer: int = 12) -> nx.DiGraph:
    """The part of a relevance graph that the tab shows.

    In each layer, the neurons with the most ``|relevance|`` (fewer in networks of more than a hundred layers) and those on
    ``paths``; between each two layers, the 48 edges with the most relevance, and those on ``paths``.

    Raises:
        RecordError: if a path is not in the graph.

    Example:
        >>> import networkx as nx
        >>> from lrp_lightning.tensorboard_plugin.summary import shown_part
        >>> graph = nx.DiGraph()
        >>> for neuron in range(100):
        ...     graph.add_node(("fc", neuron), layer="fc", relevance=1.0 - neuron)
        >>> sorted(shown_part(graph, neurons_per_layer=2))
        [('fc', 98), ('fc', 99)]
    """
    on_paths = {node for path in paths for node in path.nodes}
    path_edges = {edge for path in paths for edge in zip(path.nodes, path.nodes[1:], strict=False)}
    missing = [*(n for n in on_paths if n not in graph), *(edge for edge in path_edges if not graph.has_edge(*edge))]
    if missing:
        raise RecordError(f"a path runs through {missing[0]!r}, which is not in the graph")
    layers: dict[str, list[Node]] = {}
    for node in graph:
        layers.setdefault(node[0], []).append(node)
    most = min(neurons_per_layer, max(3, _NODES // max(1, len(layers))))
    nodes = set(on_paths)
    for members in layers.values():
        nodes.update(sorted(members, key=lambda n: -abs(graph.nodes[n]["relevance"]))[:most])

    part = nx.DiGraph()
    part.add_nodes_from((node, about) for node, about in graph.nodes(data=True) if node in nodes)
    found = [
        (lower, upper, about)
        for lower, above in graph.adjacency()
        if lower in nodes
        for upper, about in above.items()
        if upper in nodes
    ]
    pairs: dict[tuple[str, str], list[tuple[Node, Node, dict[str, Any]]]] = {}
    for edge in found:
        pairs.setdefault((edge[0][0], edge[1][0]), []).append(edge)
    edges = set(path_edges)
    for between in pairs.values():
        strongest = sorted(between, key=lambda edge: -abs(edge[2]["relevance"]))[:_EDGES]
        edges.update((lower, upper) for lower, upper, _ in strongest)
    part.add_edges_from(edge for edge in found if edge[:2] in edges)
    return part


class RelevanceSummary:
    """Writes records to one TensorBoard log.

    It remembers the images that it has written, so that images that do not change are stored once.

    Args:
        writer: a ``torch.utils.tensorboard.SummaryWriter``, which Lightning's ``TensorBoardLogger`` has as ``experiment``.

    Raises:
        RecordError: if the writer has no event file.
    """

    def __init__(self, writer: Any) -> None:
        if not hasattr(writer, "_get_file_writer"):
            raise RecordError(f"a record needs a SummaryWriter of torch.utils.tensorboard, got {type(writer).__name__}")
        self._writer = writer
        self._images: dict[str, tuple[int, int]] = {}

    def write(self, record: Record, step: int) -> int:
        """Write one record.

        Args:
            record: what to write.
            step: the step at which scalars are logged, so that both have the same step.

        Returns:
            The number of bytes written.

        Raises:
            RecordError: if shapes do not fit together, or numbers are not finite; nothing is written then.
        """
        if step < 0:
            raise RecordError(f"step must not be negative, got {step}")
        # if steps restart, TensorBoard drops data from there on, so it must be written again
        self._images = {digest: at for digest, at in self._images.items() if at[0] < step}
        pictures = _Pictures(step, self._images)
        head, parts = _parts(record, pictures)
        head["notes"] = [*map(str, record.notes), *pictures.notes()]
        packed = [pack(head), *(string for part in parts for string in pack_graph(part))]
        values = [_value(RECORD, DATA_CLASS_TENSOR, packed)]
        if pictures.blobs:
            values.append(_value(PICTURES, DATA_CLASS_BLOB_SEQUENCE, pictures.blobs))
        self._writer._get_file_writer().add_summary(Summary(value=values), step)
        self._images = pictures.images
        return sum(map(len, packed)) + pictures.size


def write_picture(writer: Any, name: str, picture: np.ndarray, step: int) -> None:
    """Write a picture for TensorBoard's own tab, like ``writer.add_image``, but with fewer bytes if it has few colours.

    Args:
        writer: as in :class:`RelevanceSummary`.
        name: its tag.
        picture: ``(height, width, 3)`` uint8.
        step: as in :meth:`RelevanceSummary.write`.
    """
    image, file = Image.fromarray(picture), BytesIO()
    colours = image.getcolors(256)
    (image if colours is None else _with_palette(picture, [colour for _, colour in colours])).save(file, "PNG")
    shown = Summary.Image(height=image.height, width=image.width, colorspace=3, encoded_image_string=file.getvalue())
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=shown)]), step)


def _with_palette(picture: np.ndarray, colours: Sequence[Any]) -> Image.Image:
    """The picture in palette mode; Pillow's own search for colours takes four times as long."""
    palette = np.array(colours, dtype=np.uint8)
    number = np.zeros(1 << 24, dtype=np.uint8)
    number[_packed(palette)] = np.arange(len(palette))
    image = Image.fromarray(number[_packed(picture)])
    image.putpalette(palette.tobytes())
    return image


def _packed(colours: np.ndarray) -> np.ndarray:
    """Each pixel's colour as one number."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _value(tag: str, data_class: DataClass, strings: Sequence[bytes]) -> Summary.Value:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(strings))])
    return Summary.Value(
        tag=tag,
        metadata=SummaryMetadata(
            plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN, content=str(VERSION).encode()),
            data_class=data_class,
        ),
        tensor=TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=strings),
    )


class _Pictures:
    """The blobs of one step, within a limit of bytes."""

    def __init__(self, step: int, images: dict[str, tuple[int, int]]) -> None:
        self.step, self.images = step, dict(images)
        self.blobs: list[bytes] = []
        self.size = 0
        self.left_out: dict[str, int] = {}

    def add(self, kind: str, packed: tuple[bytes, dict[str, Any]], once: bool = False) -> dict[str, Any] | None:
        """A ref to the picture; None if there is no room for it."""
        blob, fields = packed
        digest = hashlib.sha256(blob + str(fields).encode()).hexdigest() if once else ""
        if digest in self.images:
            step, index = self.images[digest]
            return {"step": step, "index": index, **fields}
        if self.size + len(blob) > MAX_LOG:
            self.left_out[kind] = self.left_out.get(kind, 0) + 1
            return None
        index = len(self.blobs)
        self.blobs.append(blob)
        self.size += len(blob)
        if once:
            self.images[digest] = (self.step, index)
        return {"step": self.step, "index": index, **fields}

    def notes(self) -> list[str]:
        return [
            f"left out {count} pictures ({kind}): a step may take at most {MAX_LOG // 1000} kB of the log"
            for kind, count in self.left_out.items()
        ]


def _parts(record: Record, pictures: _Pictures) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The head, and a part for each class. The most important pictures get room first."""
    labels = [int(graph.label) for graph in record.graphs]
    if len(set(labels)) < len(labels):
        raise RecordError(f"each class must have exactly one graph, got classes {labels}")
    n_samples = None if record.samples is None else len(record.samples.images)
    samples = None if record.samples is None else _samples(record.samples, pictures)
    parts = [_graph(graph, n_samples, pictures) for graph in record.graphs]

    def strength(node: Node) -> float:
        return max((abs(g.graph.nodes[node]["relevance"]) for g in record.graphs if node in g.graph), default=0.0)

    nodes = sorted({*record.neuron_heatmaps, *record.reconstructions}, key=strength, reverse=True)
    strategies = [_strategy(s, pictures) for s in record.strategies if s.images is not None and s.images.ndim == 4]
    cards = [_card(card, pictures) for card in record.cards if card.driven.images.ndim == 4]
    heatmaps = {n: _heatmaps(record.neuron_heatmaps[n], n_samples, "neuron_heatmaps", pictures, _NEURON_SIDE)
                for n in nodes if n in record.neuron_heatmaps}  # fmt: skip
    reconstructions = {n: _reconstructions(record.reconstructions[n], n_samples, pictures)
                       for n in nodes if n in record.reconstructions}  # fmt: skip
    head = {
        "version": VERSION,
        "epoch": int(record.epoch),
        "class_names": None if record.class_names is None else [str(name) for name in record.class_names],
        "settings": {str(name): str(value) for name, value in record.settings.items()},
        "measures": {str(name): _finite_or_none(value) for name, value in record.measures.items()},
        "headline": [str(sentence) for sentence in record.headline],
        "explained": labels,
        "samples": samples,
        "strategies": strategies,
        "cards": cards,
        "neurons": [[str(n[0]), int(n[1]), heatmaps.get(n), reconstructions.get(n)] for n in nodes],
    }
    return head, parts


def _samples(samples: Samples, pictures: _Pictures) -> dict[str, Any]:
    images = _array(samples.images, "samples.images", 4)
    numbers = {
        name: _array(getattr(samples, name), f"samples.{name}", 1)
        for name in ("labels", "predictions", "probabilities", "errors")
    }
    for name, values in numbers.items():
        if len(values) != len(images):
            raise RecordError(f"samples.{name} has {len(values)} values for {len(images)} images")
    return {
        "labels": [int(v) for v in numbers["labels"]],
        "predictions": [int(v) for v in numbers["predictions"]],
        "probabilities": [short(float(v)) for v in numbers["probabilities"]],
        "errors": [short(float(v)) for v in numbers["errors"]],
        "images": pictures.add("images", pack_images(_pixels(images)), once=True),
        "heatmaps": _heatmaps(samples.heatmaps, len(images), "samples.heatmaps", pictures, _HEATMAP_SIDE),
        "all_neurons": samples.all_neurons
        if samples.all_neurons is None
        else _heatmaps(samples.all_neurons, len(images), "samples.all_neurons", pictures, _HEATMAP_SIDE),
        "held": [] if samples.held is None else [[_finite_or_none(part) for part in pair] for pair in samples.held],
    }


def _strategy(strategy: Strategy, pictures: _Pictures) -> dict[str, Any]:
    images, heatmaps, heatmap, test = strategy.images, strategy.heatmaps, strategy.heatmap, strategy.test
    assert images is not None
    assert heatmaps is not None
    assert heatmap is not None
    shown = _array(images[:_PROTOTYPES], "strategies.images", 4)
    heat = [_array(of, "strategies.heatmaps", 3) for of in (heatmaps[:_PROTOTYPES], heatmap[None])]
    return {
        "class": int(strategy.label),
        "share": short(float(strategy.share)),
        "samples": len(strategy.samples),
        "shortcut": strategy.shortcut,
        "moves": test is not None and test.moves,
        "where": strategy.where,
        "region": None if test is None else [int(side) for side in test.region],
        "shape": [int(side) for side in images.shape[2:]],
        **{name: None if test is None else short(float(getattr(test, name))) for name in ("flipped", "control", "bound")},
        "pairs": 0 if test is None else test.pairs,
        "right": _finite_or_none(strategy.right),
        "predictions": [] if strategy.predictions is None else strategy.predictions[: len(shown)].tolist(),
        "images": pictures.add("prototypes", pack_images(_pixels(shown, side=_PROTOTYPE_SIDE))),
        "heatmaps": pictures.add("prototypes", pack_heatmaps(_shrink(heat[0], _NEURON_SIDE)[0])),
        "heatmap": pictures.add("prototypes", pack_heatmaps(_shrink(heat[1], _NEURON_SIDE)[0])),
    }


def _card(card: NeuronCard, pictures: _Pictures) -> dict[str, Any]:
    return {
        "layer": str(card.layer),
        "neuron": int(card.neuron),
        "classes": [[int(c), short(float(share))] for c, share in card.classes],
        "similar": [[int(n), short(float(r))] for n, r in card.similar],
        "share": short(float(card.share)),
        "samples": int(card.samples),
        **{name: _patches(getattr(card, name), pictures) for name in ("driven", "relevant", "mistaken")},
    }


def _patches(top: TopActivations, pictures: _Pictures) -> dict[str, Any]:
    refs: dict[str, Any] = {"images": None, "drives": None}
    k = min(_PATCHES, len(top.values))
    for name, pixels in zip(refs, squares(top, _PATCH_SIDE) if k else (), strict=False):
        channels = pixels[:k] if top.images.shape[1] == 3 else pixels[:k, ..., :1]
        if name == "drives" and not top.reconstructions.any():  # for a thumbnail
            continue
        refs[name] = pictures.add("cards", pack_images(np.rint(channels * 255)))
    labels, predictions = ([-1] * k if of is None else of[:k].tolist() for of in (top.labels, top.predictions))
    return {**refs, "labels": labels, "predictions": predictions}


def _graph(of_class: ClassGraph, n_samples: int | None, pictures: _Pictures) -> dict[str, Any]:
    graph, paths = of_class.graph, of_class.paths
    for node, relevance in graph.nodes(data="relevance"):
        if not abs(relevance) <= MAX_NUMBER:
            raise RecordError(
                f"the relevance of neuron {node[1]} of {node[0]!r} is {relevance}: the model's output is not finite"
            )
    if of_class.path_heatmaps is not None and len(of_class.path_heatmaps) != len(paths):
        raise RecordError(
            f"class {of_class.label} has {len(paths)} paths and {len(of_class.path_heatmaps)} heatmaps of paths"
        )

    part = shown_part(graph, paths)
    about = {data["layer"]: data for _, data in graph.nodes(data=True)}
    layers = {layer: i for i, layer in enumerate(sorted(about, key=lambda layer: about[layer]["order"]))}
    place = {node: i for i, node in enumerate(part)}
    others: list[tuple[list[int], list[float]]] = [([], []) for _ in layers]
    for node, data in graph.nodes(data=True):
        if node not in place:
            neurons, relevance = others[layers[data["layer"]]]
            neurons.append(int(node[1]))
            relevance.append(short(float(data["relevance"])))
    refs = (
        [None] * len(paths)
        if of_class.path_heatmaps is None
        else [_heatmaps(h, n_samples, "path_heatmaps", pictures, _NEURON_SIDE) for h in of_class.path_heatmaps]
    )
    return {
        "class": int(of_class.label),
        "samples": int(of_class.n_samples),
        "layers": [[str(layer), str(about[layer]["kind"])] for layer in layers],
        "nodes": [
            [layers[d["layer"]], int(n[1]), short(float(d["relevance"])), short(float(d["activation"])), int(d["output"])]
            for n, d in part.nodes(data=True)
        ],
        "edges": [
            [place[lower], place[upper], short(float(d["relevance"])), short(float(d["share"]))]
            for lower, upper, d in part.edges(data=True)
        ],
        "paths": [
            [
                [place[node] for node in path.nodes],
                short(float(path.share)),
                ref,
                path.times_median and short(float(path.times_median)),
            ]
            for path, ref in zip(paths, refs, strict=True)
        ],
        "others": others,
    }


def _heatmaps(
    heatmaps: np.ndarray, n_samples: int | None, what: str, pictures: _Pictures, side: int
) -> dict[str, Any] | None:
    heatmaps = np.asarray(heatmaps)
    heatmaps = heatmaps.sum(1) if heatmaps.ndim == 4 else heatmaps
    if n_samples is None:
        raise RecordError(f"{what} are given without samples")
    if len(heatmaps) != n_samples:
        raise RecordError(f"{what} has {len(heatmaps)} heatmaps for {n_samples} samples")
    there = np.flatnonzero(~np.isnan(heatmaps).reshape(n_samples, -1).all(1))
    if not len(there):
        return None
    blob, fields = pack_heatmaps(_shrink(_array(heatmaps[there], what, 3), side)[0])
    which = {} if len(there) == n_samples else {"samples": there.tolist()}
    return pictures.add(what.removeprefix("samples.").replace("_", " "), (blob, fields | which))


def _reconstructions(images: np.ndarray, n_samples: int | None, pictures: _Pictures) -> dict[str, Any] | None:
    images = _array(images, "reconstructions", 4)
    if len(images) != n_samples:
        raise RecordError(f"reconstructions has {len(images)} pictures for {n_samples} samples")
    return pictures.add("reconstructions", pack_images(_pixels(images, side=_NEURON_SIDE, around_zero=True)))


def _array(values: Any, what: str, dimensions: int) -> np.ndarray:
    """Checked values in float32 or wider, so that sums of half precision do not overflow."""
    array = np.asarray(values)
    if array.ndim != dimensions or not all(array.shape):
        raise RecordError(f"{what} must have {dimensions} dimensions, all non-empty, got shape {array.shape}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise RecordError(f"{what} must be finite")
    return array


def _shrink(pictures: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """``(..., H, W)`` summed over blocks so that the longer side has at most ``side`` pixels, and the blocks' sizes."""
    height, width = pictures.shape[-2:]
    sizes = np.ones(())
    for axis, length in ((-2, height), (-1, width)):
        kept = max(1, round(length * min(1.0, side / max(height, width))))
        starts = np.arange(kept) * length // kept
        pictures = np.add.reduceat(pictures, starts, axis=axis)
        block = np.diff(np.append(starts, length))
        sizes = block[:, None] if axis == -2 else sizes * block
    return pictures, sizes


def _pixels(images: np.ndarray, side: int = _IMAGE_SIDE, around_zero: bool = False) -> np.ndarray:
    """``(S, C, H, W)`` to ``(S, H, W, 1 | 3)`` uint8, each image over its own range."""
    images = images if images.shape[1] == 3 else images.mean(1, keepdims=True)
    images, sizes = _shrink(images, side)
    images = images / sizes
    axes = (1, 2, 3)
    most = np.abs(images).max(axes, keepdims=True) if around_zero else images.max(axes, keepdims=True)
    least = -most if around_zero else images.min(axes, keepdims=True)
    span = np.where(most > least, most - least, 1)
    return np.rint((images - least) / span * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def _finite_or_none(value: Any) -> float | None:
    number = float(value)
    return short(number) if abs(number) <= MAX_NUMBER else None
