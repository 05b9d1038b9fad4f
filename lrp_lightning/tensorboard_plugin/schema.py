"""The data of one step of a run in the log, version 3. ``summary`` writes it, the plugin reads it.

A step is one event with two summaries of the plugin ``"relevance"``.

``relevance/record``, a tensor of strings (``DATA_CLASS_TENSOR``): the head, then four strings for each class of the head's
``explained``, in its order: its graph, its index, its neurons and their relevances. Head and graph are zlib-compressed JSON.
A class can be read without the others, and a neuron's relevance without head and graph, so that its line over a thousand
steps takes a fraction of a second.

The head::

    {"version": 3, "epoch": 3,
     "class_names": ["shirt", ...] | null,
     "settings": {name: text},                   # composite, selection, ...
     "measures": {name: number | null},          # null: not finite
     "explained": [class, ...],
     "samples": null | {"labels": [int, ...], "predictions": [...], "probabilities": [...], "errors": [...],
                        "images": ref, "heatmaps": ref,          # through critical neurons
                        "all_neurons": ref | null,               # the same through all neurons
                        "held": [[number | null, number | null], ...]},    # parts of the logit that the two are; or empty
     "neurons": [[layer, neuron, heatmaps: ref | null, reconstructions: ref | null], ...],
     "strategies": [{"class": 3, "share": 0.38, "samples": 40, "shortcut": true, "moves": false,
                     "where": "the upper right corner",                # its region, in words; "" without one
                     "region": [top, left, height, width] | null, "shape": [height, width],   # of the images
                     "flipped": number | null, "control": number | null, "bound": number | null, "pairs": 256,
                     "right": number | null,                           # share of its samples that are classified rightly
                     "predictions": [class, ...],                      # of its prototypes; or empty
                     "images": ref | null, "heatmaps": ref | null,     # of its prototypes
                     "heatmap": ref | null}, ...],                     # its mean, of one sample
     "cards": [{"layer": name, "neuron": 12, "classes": [[class, share], ...], "similar": [[neuron, correlation], ...],
                "share": number, "samples": 40,
                "driven": patches, "relevant": patches, "mistaken": patches}, ...],
     "headline": [text, ...],                    # what was found, in sentences
     "notes": [text, ...]}                       # what was left out, and why

Patches of a card are ``{"images": ref | null, "drives": ref | null, "labels": [class | -1, ...], "predictions": [class,
...]}``: what the neuron sees, what in it drives the neuron, each a square.

A class's graph::

    {"class": 3, "samples": 32,                  # how many samples the graph sums over
     "layers": [[name, kind], ...],              # in the order of the forward pass
     "nodes": [[layer, neuron, relevance, activation, output], ...],   # those shown; layer: index into layers, output: 0 | 1
     "edges": [[lower, upper, relevance, share], ...],                 # those shown; indices into nodes
     "paths": [[[node, ...], share, heatmaps: ref | null, times the median path | null], ...]}  # best first

Its index, JSON, not compressed::

    {"version": 3, "class": 3,
     "layers": [[name, neurons], ...],           # how many neurons the graph has in each layer, shown or not
     "bytes": 4 | 8,                             # of a relevance: 8 where 4 cannot express all of them
     "total": number}                            # the output's relevance

Its neurons: for each layer, in order, the number of its first neuron, then how much each number exceeds the one before, as
int32, zlib-compressed. Their relevances: float32 or float64, in the same order, not compressed, because noise does not
compress. Both are little-endian.

``relevance/pictures``, a sequence of blobs (``DATA_CLASS_BLOB_SEQUENCE``), so that each can be fetched separately:
zlib-compressed arrays in C order. A ref gives the place and form of one::

    {"step": 200, "index": 0, "shape": [samples, height, width], "scale": [number for each sample]}   # heatmaps, int8
    {"step": 0, "index": 4, "shape": [samples, height, width, 1 | 3]}                                  # images, uint8

A heatmap's relevance is ``value / 127 * scale``. A ref may point to an earlier step: images that do not change are stored
once. A ref to heatmaps of only some of the record's samples names these, ``"samples": [number, ...]``, in order.

The magnitude of numbers is at most 1e300, of integers less than 2^53, and a part has at most a million values, so that
their sums are finite, and a small log takes little memory.

Version 1 had no strategies, cards, headline and heatmaps of all neurons; a reader treats them as absent. Early records of
version 2 lack the predictions of a strategy's samples; a reader treats them as unknown. Up to version 2 a class was one
string, its graph, with ``"others": [[neurons, relevances], ...]`` for the neurons of each layer that are not shown.
:func:`read_graph` returns graphs of all versions in this form.

A reader refuses a greater version and ignores unknown keys. The meaning of a key never changes within a version.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np

from lrp_lightning.errors import RecordError

__all__ = [
    "MAX_NUMBER",
    "MAX_PART",
    "MAX_PICTURE",
    "PICTURES",
    "PLUGIN",
    "RECORD",
    "VERSION",
    "Neurons",
    "pack",
    "pack_graph",
    "pack_heatmaps",
    "pack_images",
    "read_graph",
    "read_head",
    "read_neurons",
    "unpack_picture",
]

PLUGIN = "relevance"
VERSION = 3
RECORD, PICTURES = "relevance/record", "relevance/pictures"
"""Tags of the two summaries."""

MAX_PART = 8 * 2**20
"""The most bytes of a part's JSON that a reader accepts."""
MAX_NUMBER = 1e300
"""The greatest number that a reader accepts. The sum of a million of them is finite."""
_MAX_WHOLE = 2**53 - 1
"""The greatest integer, up to which JavaScript represents integers exactly."""
_MAX_NEURON = 2**31 - 1
"""The greatest number of a neuron."""
MAX_PICTURE = 4 * 2**20
"""The most bytes of an unpacked picture that a reader accepts."""
_MAX_LISTS, _MAX_VALUES = 250_000, 1_000_000
"""The most lists and objects of a part, and values in them: in Python they take up to seventy times their JSON's memory."""


def pack(part: dict[str, Any]) -> bytes:
    """A part of a record in its logged form.

    Raises:
        RecordError: if it has numbers that are not finite, or is too large.
    """
    return zlib.compress(_json(part), 6)


def _json(part: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(part, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
    except (TypeError, ValueError) as error:
        raise RecordError(f"the record cannot be written as JSON: {error}") from error
    if len(text) > MAX_PART:
        raise RecordError(f"a part of the record has {len(text)} bytes, at most {MAX_PART} can be read again")
    if _has_too_many(text):
        raise RecordError(f"a part of the record has more than {_MAX_LISTS} lists or {_MAX_VALUES} values")
    return text


class Neurons(NamedTuple):
    """The relevance of all neurons of a class's graph."""

    layers: list[tuple[str, int]]
    """Layers, each with the number of neurons up to its end."""
    numbers: np.ndarray
    """The numbers of all neurons, int64, sorted within each layer."""
    relevances: np.ndarray
    """Their relevance in the same order, float32, or float64 if float32 cannot express all values."""
    total: float
    """The output's relevance."""


def pack_graph(graph: dict[str, Any]) -> list[bytes]:
    """The strings of a class in their logged form.

    Args:
        graph: as :func:`read_graph` returns it.

    Raises:
        RecordError: as :func:`pack`, or if the neurons of a layer are not different integers from 0 to 2^31 - 1.
    """
    layers, numbers, relevances, total = _neurons_of(graph)
    if len(numbers) > _MAX_VALUES:
        raise RecordError(f"class {graph['class']} has {len(numbers)} neurons, at most {_MAX_VALUES} can be read again")
    starts = [0, *(end for _, end in layers)]
    steps = np.concatenate([np.diff(numbers[a:b], prepend=0) for a, b in pairwise(starts)] or [numbers])
    if not _are_steps(steps, starts) or numbers.max(initial=0) > _MAX_NEURON:
        raise RecordError(f"neurons of a layer must be different whole numbers from 0 to {_MAX_NEURON}")
    index = {
        "version": VERSION,
        "class": graph["class"],
        "layers": [[name, b - a] for (name, _), (a, b) in zip(layers, pairwise(starts), strict=True)],
        "bytes": relevances.itemsize,
        "total": total,
    }
    return [
        pack({key: value for key, value in graph.items() if key != "others"}),
        _json(index),
        zlib.compress(steps.astype("<i4").tobytes(), 6),
        relevances.astype(f"<f{relevances.itemsize}").tobytes(),
    ]


def pack_heatmaps(heatmaps: np.ndarray) -> tuple[bytes, dict[str, Any]]:
    """Relevance ``(samples, height, width)`` as int8, each sample with its own scale; the bytes, and the ref's fields."""
    scale = np.abs(heatmaps).reshape(len(heatmaps), -1).max(1, initial=0.0)
    values = np.rint(heatmaps / np.where(scale == 0, 1, scale)[:, None, None] * 127).astype(np.int8)
    return zlib.compress(values.tobytes(), 9), {"shape": list(values.shape), "scale": [short(s) for s in scale.tolist()]}


def pack_images(images: np.ndarray) -> tuple[bytes, dict[str, Any]]:
    """Pixels ``(samples, height, width, 1 | 3)`` uint8; the bytes, and the ref's fields."""
    return zlib.compress(np.ascontiguousarray(images, np.uint8).tobytes(), 9), {"shape": list(images.shape)}


def short(number: float) -> float:
    """A number rounded to five significant digits, which are enough to show and take a third of the JSON's size."""
    return float(f"{number:.5g}")


def unpack_picture(blob: Any) -> bytes:
    """The bytes of a picture's array.

    Raises:
        RecordError: if it is broken or too large.
    """
    return _unpack(blob, MAX_PICTURE, "the picture")


def read_head(parts: Any) -> dict[str, Any]:
    """The head of a record, checked.

    Args:
        parts: the tensor of ``relevance/record`` as TensorBoard's data provider gives it.

    Raises:
        RecordError: if it is of a newer version or broken, with a message for users.
    """
    head = _part(parts, 0, "the head")
    version: Any = head.get("version")
    if not _whole(version) or version < 1:
        raise RecordError("this step's record is broken: it has no version")
    _check_version(version)
    if version < 2:
        head |= {"strategies": [], "cards": [], "headline": []}
        if isinstance(head.get("samples"), dict):
            head["samples"] |= {"all_neurons": None, "held": []}
    _check(head, "the head", _HEAD)
    samples = head["samples"]
    if samples is not None:
        _check(samples, "samples", _SAMPLES)
        lengths = {len(samples[key]) for key in ("labels", "predictions", "probabilities", "errors")}
        if len(lengths) > 1 or len(samples["held"]) not in {0, *lengths}:
            raise RecordError("this step's record is broken: samples have fields of different lengths")
        _check_samples(head, "samples", (samples[key] for key in ("images", "heatmaps", "all_neurons")))
    _check_samples(head, "neurons", (ref for neuron in head["neurons"] for ref in neuron[2:4]))
    for i, strategy in enumerate(head["strategies"]):
        strategy.setdefault("right", None)
        strategy.setdefault("predictions", [])
        _check(strategy, f"strategy {i}", _STRATEGY)
    for i, card in enumerate(head["cards"]):
        _check(card, f"card {i}", _CARD)
    if len(set(head["explained"])) < len(head["explained"]):
        raise RecordError("this step's record is broken: it has a class twice")
    if len(parts) != 1 + _strings(version) * len(head["explained"]):
        raise RecordError(f"this step's record is broken: {len(head['explained'])} classes in {len(parts) - 1} strings")
    return head


def read_graph(parts: Any, head: dict[str, Any], label: int) -> dict[str, Any]:
    """The part of one class, checked.

    Args:
        parts: as in :func:`read_head`.
        head: from :func:`read_head`.
        label: one of ``head["explained"]``.

    Raises:
        RecordError: if the class does not exist or its part is broken.
    """
    if label not in head["explained"]:
        there = ", ".join(map(str, head["explained"][:100]))
        raise RecordError(f"class {label} is not in this step; there are [{there}]")
    at = 1 + _strings(head["version"]) * head["explained"].index(label)
    graph = _part(parts, at, f"class {label}")
    _check(graph, f"class {label}", _GRAPH)
    if head["version"] > 2:
        graph["others"] = _others(_neurons(parts, at + 1, _index(parts, at + 1)), graph)
    else:
        _check(graph, f"class {label}", {"others": _OTHERS})
    layers, nodes = len(graph["layers"]), len(graph["nodes"])
    inside = (
        graph["class"] == label
        and all(0 <= node[0] < layers for node in graph["nodes"])
        and all(0 <= end < nodes for edge in graph["edges"] for end in edge[:2])
        and all(0 <= node < nodes for path in graph["paths"] for node in path[0])
        and len(graph["others"]) == layers
        and all(len(others[0]) == len(others[1]) for others in graph["others"])
    )
    if not inside:
        raise RecordError(f"this step's record is broken: class {label} names layers or nodes that are not there")
    _check_samples(head, f"class {label}", (path[2] for path in graph["paths"]))
    return graph


def read_neurons(parts: Any, label: int) -> Neurons:
    """The relevance of all neurons of a class's graph, checked.

    Args:
        parts: as in :func:`read_head`.
        label: the class.

    Raises:
        RecordError: if the class does not exist or its strings are broken.
    """
    _check_strings(parts)
    for at in range(2, len(parts) - 2, _strings(VERSION)):
        if not parts[at].startswith(b"{"):  # compressed in earlier versions
            break
        index = _index(parts, at)
        if index["class"] == label:
            return _neurons(parts, at, index)
    return _neurons_of(read_graph(parts, read_head(parts), label))


def _strings(version: int) -> int:
    """The neurons of a class."""
    return 4 if version > 2 else 1


def _index(parts: Any, at: int) -> dict[str, Any]:
    index = _parsed(parts[at], "an index") if len(parts[at]) <= MAX_PART else {}
    _check(index, "an index", _INDEX)
    _check_version(index["version"])
    if sum(size for _, size in index["layers"]) > _MAX_VALUES:
        raise RecordError("this step's record is broken: an index has more neurons than a record has")
    return index


def _neurons(parts: Any, at: int, index: dict[str, Any]) -> Neurons:
    """Neurons and relevances from the two strings that follow the index."""
    sizes = [size for _, size in index["layers"]]
    ends = list(accumulate(sizes))
    count = sum(sizes)
    steps = _numbers_in(_unpack(parts[at + 1], max(1, 4 * count), "an array of neurons"), "<i4", count)
    relevances = _numbers_in(parts[at + 2], f"<f{index['bytes']}", count)
    if not _are_steps(steps, [0, *ends]):
        raise RecordError("this step's record is broken: the neurons of a layer are not sorted")
    if not float(np.abs(relevances).max(initial=0)) <= MAX_NUMBER:
        raise RecordError("this step's record is broken: a relevance is not finite")
    sums = np.cumsum(steps, dtype=np.int64)
    before = np.concatenate([np.zeros(1, np.int64), sums])[[0, *ends[:-1]]] if ends else sums
    return Neurons([(name, end) for (name, _), end in zip(index["layers"], ends, strict=True)],
                   sums - np.repeat(before, sizes), relevances, float(index["total"]))  # fmt: skip


def _numbers_in(data: bytes, of: str, count: int) -> np.ndarray:
    if len(data) != count * np.dtype(of).itemsize:
        raise RecordError(f"this step's record is broken: an array does not have {count} numbers")
    return np.frombuffer(data, of)


def _are_steps(steps: np.ndarray, starts: list[int]) -> bool:
    """Whether differences are positive within each layer; the first neuron of a layer may be 0."""
    firsts = [start for start in starts if start < len(steps)]
    return bool((steps >= 0).all()) and np.count_nonzero(steps == 0) == np.count_nonzero(steps[firsts] == 0)


def _neurons_of(graph: dict[str, Any]) -> Neurons:
    """The neurons of a graph, as :func:`read_graph` returns it."""
    members: list[tuple[list[int], list[float]]] = [(list(of[0]), list(of[1])) for of in graph["others"]]
    for layer, neuron, relevance, *_ in graph["nodes"]:
        members[layer][0].append(neuron)
        members[layer][1].append(relevance)
    numbers, relevances, layers, end = [np.zeros(0, np.int64)], [np.zeros(0)], [], 0
    for (name, *_), (of_layer, of_neurons) in zip(graph["layers"], members, strict=True):
        found = np.array(of_layer, np.int64)
        order = np.argsort(found, kind="stable")
        numbers.append(found[order])
        relevances.append(np.array(of_neurons, np.float64)[order])
        end += len(found)
        layers.append((name, end))
    whole = np.concatenate(relevances)
    with np.errstate(over="ignore", under="ignore"):
        single = whole.astype(np.float32)
    fits = np.allclose(single, whole, rtol=1e-6, atol=0)
    total = float(sum(node[2] for node in graph["nodes"] if node[4]))
    return Neurons(layers, np.concatenate(numbers), single if fits else whole, total)


def _others(neurons: Neurons, graph: dict[str, Any]) -> list[Any]:
    """The neurons of each layer that are not shown, and their relevances."""
    if [name for name, _ in neurons.layers] != [name for name, *_ in graph["layers"]]:
        raise RecordError("this step's record is broken: an index has other layers than its graph")
    shown: list[set[int]] = [set() for _ in neurons.layers]
    for layer, neuron, *_ in graph["nodes"]:
        if 0 <= layer < len(shown):
            shown[layer].add(neuron)
    others, start = [], 0
    for (_, end), of_layer in zip(neurons.layers, shown, strict=True):
        numbers, relevances = neurons.numbers[start:end].tolist(), neurons.relevances[start:end].tolist()
        some = [(n, short(r)) for n, r in zip(numbers, relevances, strict=True) if n not in of_layer]
        others.append([[n for n, _ in some], [r for _, r in some]])
        start = end
    return others


def _part(parts: Any, index: int, what: str) -> dict[str, Any]:
    """Unpack a part."""
    _check_strings(parts)
    if len(parts) <= index:
        raise RecordError(f"this step's record is broken: {what} is missing")
    return _parsed(_unpack(parts[index], MAX_PART, what), what)


def _check_strings(parts: Any) -> None:
    if getattr(parts, "ndim", None) != 1 or not all(isinstance(part, bytes) for part in parts):
        raise RecordError("this step's record is broken: it is not a list of strings")


def _check_version(version: int) -> None:
    if version > VERSION:
        raise RecordError(
            f"this step was written in format {version}, and this plugin reads formats up to {VERSION}: "
            "update lrp-lightning where TensorBoard runs"
        )


def _parsed(text: bytes, what: str) -> dict[str, Any]:
    if _has_too_many(text):
        raise RecordError(f"this step's record is broken: {what} has more lists or values than a record has")
    try:
        part = json.loads(text, parse_constant=_not_finite)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"this step's record is broken: {what} is not JSON") from error
    if not isinstance(part, dict):
        raise RecordError(f"this step's record is broken: {what} is not an object")
    return part


def _unpack(blob: Any, most: int, what: str) -> bytes:
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(blob, most)
    except (zlib.error, TypeError, ValueError) as error:
        raise RecordError(f"this step's record is broken: {what} cannot be unpacked") from error
    if not stream.eof:  # too long, or truncated
        raise RecordError(f"this step's record is broken: {what} is cut off, or has more than {most} bytes")
    return data


def _has_too_many(text: bytes) -> bool:
    return text.count(b"[") + text.count(b"{") > _MAX_LISTS or text.count(b",") > _MAX_VALUES


def _not_finite(token: str) -> None:
    raise ValueError(f"{token} is not JSON")


def _check_samples(head: dict[str, Any], what: str, refs: Iterable[dict[str, Any] | None]) -> None:
    """Check that pictures refer to samples of the record."""
    count = 0 if head["samples"] is None else len(head["samples"]["labels"])
    for ref in refs:
        if ref is not None and (max(ref["samples"]) >= count if "samples" in ref else ref["shape"][0] != count):
            raise RecordError(f"this step's record is broken: {what} has pictures of samples that are not there")


# the form of a part: for each key, a test of its value

_Test = Callable[[Any], bool]


def _check(part: dict[str, Any], what: str, tests: dict[str, _Test]) -> None:
    for key, test in tests.items():
        if key not in part or not test(part[key]):
            raise RecordError(f"this step's record is broken: {key!r} of {what} is missing or not what it should be")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_MAX_WHOLE <= value <= _MAX_WHOLE


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -MAX_NUMBER <= value <= MAX_NUMBER


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _list_of_four(value: Any) -> bool:
    return _wholes(value) and len(value) == 4


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _or_none(test: _Test) -> _Test:
    return lambda value: value is None or test(value)


def _list_of(test: _Test) -> _Test:
    return lambda value: isinstance(value, list) and all(map(test, value))


def _list_of_numbers(types: set[type], most: float) -> _Test:
    """Optimised for speed, because a list may have a number for each neuron of a layer."""
    return lambda value: (
        isinstance(value, list)
        and set(map(type, value)) <= types
        and (not value or (-most <= min(value) and max(value) <= most))
    )


_wholes, _numbers = _list_of_numbers({int}, _MAX_WHOLE), _list_of_numbers({int, float}, MAX_NUMBER)


def _row(*tests: _Test) -> _Test:
    return lambda value: (
        isinstance(value, list) and len(value) >= len(tests) and all(t(v) for t, v in zip(tests, value, strict=False))
    )


def _map_to(test: _Test) -> _Test:
    return lambda value: isinstance(value, dict) and all(map(test, value.values()))


def _different(samples: Any, shape: list[int]) -> bool:
    return _wholes(samples) and min(samples, default=-1) >= 0 and [len(set(samples)), len(samples)] == shape[:1] * 2


def _path(value: Any) -> bool:
    return _row(_wholes, _number, _or_none(_ref))(value) and _or_none(_number)(value[3] if len(value) > 3 else None)


def _ref(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _whole(value.get("step"))
        and _whole(value.get("index"))
        and value["index"] >= 0
        and _wholes(value.get("shape"))
        and all(side > 0 for side in value["shape"])
        and ("samples" not in value or _different(value["samples"], value["shape"]))
        and (
            (len(value["shape"]) == 4 and value["shape"][3] in (1, 3))
            or (len(value["shape"]) == 3 and _numbers(value.get("scale")) and len(value["scale"]) == value["shape"][0])
        )
        and math.prod(value["shape"]) <= MAX_PICTURE
    )


_HEAD: dict[str, _Test] = {
    "epoch": _whole,
    "class_names": _or_none(_list_of(_text)),
    "settings": _map_to(_text),
    "measures": _map_to(_or_none(_number)),
    "explained": _wholes,
    "samples": _or_none(lambda value: isinstance(value, dict)),
    "neurons": _list_of(_row(_text, _whole, _or_none(_ref), _or_none(_ref))),
    "notes": _list_of(_text),
    "headline": _list_of(_text),
    "strategies": _list_of(lambda value: isinstance(value, dict)),
    "cards": _list_of(lambda value: isinstance(value, dict)),
}
_STRATEGY: dict[str, _Test] = {
    "class": _whole,
    "share": _number,
    "samples": _whole,
    "shortcut": _truth,
    "moves": _truth,
    "where": _text,
    "region": _or_none(_list_of_four),
    "shape": lambda value: _wholes(value) and len(value) == 2 and min(value) > 0,
    "flipped": _or_none(_number),
    "control": _or_none(_number),
    "bound": _or_none(_number),
    "pairs": _whole,
    "right": _or_none(_number),
    "predictions": _wholes,
    "images": _or_none(_ref),
    "heatmaps": _or_none(_ref),
    "heatmap": _or_none(_ref),
}
_PATCHES: dict[str, _Test] = {
    "images": _or_none(_ref),
    "drives": _or_none(_ref),
    "labels": _wholes,
    "predictions": _wholes,
}


def _patches(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(key in value and test(value[key]) for key, test in _PATCHES.items())
        and len(value["labels"]) == len(value["predictions"])
    )


_CARD: dict[str, _Test] = {
    "layer": _text,
    "neuron": _whole,
    "classes": _list_of(_row(_whole, _number)),
    "similar": _list_of(_row(_whole, _number)),
    "share": _number,
    "samples": _whole,
    "driven": _patches,
    "relevant": _patches,
    "mistaken": _patches,
}
_SAMPLES: dict[str, _Test] = {
    "labels": _wholes,
    "predictions": _wholes,
    "probabilities": _numbers,
    "errors": _numbers,
    "images": _or_none(_ref),
    "heatmaps": _or_none(_ref),
    "all_neurons": _or_none(_ref),
    "held": _list_of(_row(_or_none(_number), _or_none(_number))),
}
_GRAPH: dict[str, _Test] = {
    "class": _whole,
    "samples": _whole,
    "layers": _list_of(_row(_text, _text)),
    "nodes": _list_of(_row(_whole, _whole, _number, _number, _whole)),
    "edges": _list_of(_row(_whole, _whole, _number, _number)),
    "paths": _list_of(_path),
}
_OTHERS = _list_of(_row(_wholes, _numbers))
_INDEX: dict[str, _Test] = {
    "version": _whole,
    "class": _whole,
    "layers": _list_of(lambda value: _row(_text, _whole)(value) and len(value) == 2 and 0 <= value[1] <= _MAX_VALUES),
    "bytes": lambda value: _whole(value) and value in (4, 8),
    "total": _number,
}
