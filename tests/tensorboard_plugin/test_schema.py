"""The format of the log: what is written is read again, what is newer, broken or too large is a message."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path as FilePath

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from tensorboard_parts import CARD, GRAPH, HEAD, SAMPLES, STRATEGY, logged, written

from lrp_lightning.errors import RecordError
from lrp_lightning.tensorboard_plugin import schema

LATER = ("right", "predictions")
"""Of a strategy: what early records of this version do not have."""


def test_a_record_is_read_as_it_was_written():
    head = {**HEAD, "samples": SAMPLES, "strategies": [STRATEGY], "cards": [CARD]}
    parts = np.array([schema.pack(head), schema.pack(GRAPH)], dtype=object)
    assert schema.read_head(parts) == head
    assert schema.read_graph(parts, head, 1) == GRAPH
    now = written(head, GRAPH)
    assert schema.read_head(now) == {**head, "version": schema.VERSION}
    assert schema.read_graph(now, schema.read_head(now), 1) == GRAPH


def random_graph(rng: np.random.Generator, label: int = 1) -> dict:
    """Layers of any size, none too; neurons anywhere; some shown."""
    layers, nodes, others = [], [], []
    for layer in range(int(rng.integers(1, 6))):
        numbers = np.sort(rng.choice(10**6, int(rng.integers(0, 30)), replace=False)).tolist()
        values = [schema.short(v) for v in rng.normal(size=len(numbers)) * 10.0 ** rng.integers(-30, 30)]
        shown = int(rng.integers(0, len(numbers) + 1))
        layers.append([f"layer {layer}", "linear"])
        nodes += [[layer, n, v, 0.5, int(layer == 2)] for n, v in zip(numbers[:shown], values[:shown], strict=True)]
        others.append([numbers[shown:], values[shown:]])
    return {**GRAPH, "class": label, "layers": layers, "nodes": nodes, "edges": [], "paths": [], "others": others}


@pytest.mark.parametrize("seed", range(20))
def test_both_forms_of_a_class_have_the_same_neurons(seed: int):
    rng = np.random.default_rng(seed)
    graphs = [random_graph(rng, label) for label in (4, 0, 1)]
    head = {**HEAD, "explained": [4, 0, 1]}
    before, now = logged(head, *graphs), written(head, *graphs)
    for graph in graphs:
        assert schema.read_graph(now, schema.read_head(now), graph["class"]) == graph
        old, new = (schema.read_neurons(parts, graph["class"]) for parts in (before, now))
        assert (old.layers, old.total) == (new.layers, new.total)
        np.testing.assert_array_equal(old.numbers, new.numbers)
        np.testing.assert_array_equal(old.relevances, new.relevances)
    for parts in (before, now):
        with pytest.raises(RecordError, match=r"class 7 is not in this step; there are \[4, 0, 1\]"):
            schema.read_neurons(parts, 7)


def test_a_neurons_relevance_needs_neither_head_nor_graph():
    parts = written(HEAD, GRAPH)
    parts[:2] = b"not read"
    assert schema.read_neurons(parts, 1).numbers.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("numbers", [[1, 1], [-1, 1], [1, 2**31], [3, 1]])
def test_neurons_that_could_not_be_read_are_not_written(numbers: list[int]):
    with pytest.raises(RecordError, match="different whole numbers from 0 to 2147483647"):  # 3 is shown
        schema.pack_graph({**GRAPH, "others": [[[], []], [numbers, [0.1, 0.2]]]})


INDEX = {"version": 3, "class": 1, "layers": [["input", 1], ["fc", 3]], "bytes": 4, "total": 1.0}


def test_the_index_is_as_documented():
    assert json.loads(written(HEAD, GRAPH)[2]) == INDEX


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0.5}, {"version": True}, {"class": "1"}, {"layers": [["input", 1], ["fc", 4]]},
        {"layers": [["input", -1], ["fc", 5]]}, {"layers": [["input", 1]]}, {"layers": [["fc", 1], ["input", 3]]},
        {"layers": [["input", 1], ["fc", 10**7]]}, {"layers": [["input", 1], ["fc", 3, 4]]}, {"layers": {}}, {"bytes": 2},
        {"bytes": 8}, {"bytes": 4.0}, {"total": 1e301}, {"total": None},
    ],
)  # fmt: skip
def test_an_index_with_something_else_in_it_is_broken(change: dict):
    parts = written(HEAD, GRAPH)
    parts[2] = json.dumps({**INDEX, **change}).encode()
    with pytest.raises(RecordError, match="broken"):
        schema.read_graph(parts, schema.read_head(parts), 1)


@pytest.mark.parametrize(
    ("at", "data"),
    [
        (3, zlib.compress(np.array([0, 1, 0, 1], "<i4").tobytes())),  # twice the same
        (3, zlib.compress(np.array([0, -1, 3, 1], "<i4").tobytes())),
        (3, zlib.compress(np.array([0, 1, 1], "<i4").tobytes())),
        (3, zlib.compress(bytes(10**7))), (3, b"no zlib"), (3, b""),
        (4, np.array([1, np.nan, 0, 0], "<f4").tobytes()), (4, np.array([1, np.inf, 0, 0], "<f4").tobytes()),
        (4, np.array([1.0, 2.0, 3.0], "<f4").tobytes()), (4, b""), (4, b"x" * 17),
    ],
)  # fmt: skip
def test_arrays_with_something_else_in_them_are_broken(at: int, data: bytes):
    parts = written(HEAD, GRAPH)
    parts[at] = data
    with pytest.raises(RecordError, match="broken"):
        schema.read_neurons(parts, 1)
    with pytest.raises(RecordError, match="broken"):
        schema.read_graph(parts, schema.read_head(parts), 1)


def test_an_index_of_a_newer_format_says_what_to_do():
    parts = written(HEAD, GRAPH)
    parts[2] = json.dumps({**INDEX, "version": 4}).encode()
    with pytest.raises(RecordError, match="update lrp-lightning"):
        schema.read_neurons(parts, 1)


def test_unknown_keys_are_ignored():
    assert schema.read_head(logged({**HEAD, "later": 1}, GRAPH))["epoch"] == 0


def test_a_newer_format_says_what_to_do():
    with pytest.raises(RecordError, match=r"format 4, and this plugin reads formats up to 3: update lrp-lightning"):
        schema.read_head(logged({"version": 4}))


def test_a_record_of_the_first_version_has_no_strategies_and_no_cards():
    old = {key: value for key, value in HEAD.items() if key not in ("strategies", "cards")} | {"version": 1}
    old["samples"] = {key: value for key, value in SAMPLES.items() if key not in ("all_neurons", "held")}
    head = schema.read_head(logged(old, GRAPH))
    assert (head["strategies"], head["cards"]) == ([], [])
    assert (head["samples"]["all_neurons"], head["samples"]["held"]) == (None, [])


def test_an_early_record_of_this_version_does_not_say_what_prototypes_are_predicted_as():
    early = {key: value for key, value in STRATEGY.items() if key not in LATER}
    [strategy] = schema.read_head(logged({**HEAD, "strategies": [early]}, GRAPH))["strategies"]
    assert (strategy["right"], strategy["predictions"]) == (None, [])


@pytest.mark.parametrize(("what", "whole"), [("strategies", STRATEGY), ("cards", CARD)])
@pytest.mark.parametrize("value", [{"x": 1}, [[1]], "<script>", 1e400, "absent"])
def test_a_strategy_or_card_with_something_else_in_it_is_broken(what: str, whole: dict, value: object):
    for key in whole:
        if (key in ("layer", "where") and value == "<script>") or (key in LATER and value == "absent"):
            continue
        wrong = {k: v for k, v in whole.items() if k != key} | ({} if value == "absent" else {key: value})
        with pytest.raises(RecordError, match="broken"):
            schema.read_head(logged({**HEAD, what: [wrong]}, GRAPH))


@pytest.mark.parametrize("key", HEAD)
@pytest.mark.parametrize("value", [True, {"x": object}, [[1]], "<script>", "absent"])
def test_a_head_with_something_else_in_it_is_broken(key: str, value: object):
    head = {k: v for k, v in HEAD.items() if k != key}
    if value != "absent":
        head[key] = {"x": [1]} if isinstance(value, dict) else value
    with pytest.raises(RecordError, match="broken"):
        schema.read_head(logged(head, GRAPH))


@pytest.mark.parametrize(
    "change",
    [
        {"labels": [1]},
        {"images": {"step": 0, "index": -1, "shape": [2, 8, 8, 1]}},
        {"images": {"step": 0, "index": 0, "shape": [2, 8, 8, 4]}},
        {"images": {"step": 0, "index": 0, "shape": [2, 10**5, 10**5, 1]}},
        {"heatmaps": {"step": 0, "index": 0, "shape": [2, 8, 8]}},
        {"heatmaps": {"step": 0, "index": 0, "shape": [2, 8, 8], "scale": [1.0]}},
    ],
)
def test_samples_that_do_not_fit_are_broken(change: dict):
    with pytest.raises(RecordError, match="broken"):
        schema.read_head(logged({**HEAD, "samples": {**SAMPLES, **change}}, GRAPH))


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": [[2, 0, 1.0, 0.5, 0], [1, 3, 1.0, 0.5, 1]]},
        {"nodes": [[-1, 0, 1.0, 0.5, 0], [1, 3, 1.0, 0.5, 1]]},
        {"edges": [[0, 2, 1.0, 1.0]]},
        {"edges": [[0, 1, "1", 1.0]]},
        {"paths": [[[0, 9], 1.0, None]]},
        {"others": []},
        {"layers": None},
    ],
)
def test_a_graph_that_names_what_is_not_there_is_broken(change: dict):
    parts = logged(HEAD, {**GRAPH, **change})
    with pytest.raises(RecordError, match="broken"):
        schema.read_graph(parts, schema.read_head(parts), 1)


@pytest.mark.parametrize(
    "parts",
    [
        np.array(1.0), np.zeros(3), np.array([], dtype=object), np.array([b"no zlib"], dtype=object), None,
        np.array([zlib.compress(b"{")], dtype=object), np.array([zlib.compress(b"[]")], dtype=object),
        np.array([zlib.compress(b'{"version": 1}' * 100)[:-4]], dtype=object),
        np.array([zlib.compress(b"[" * 100_000)], dtype=object),
        logged({**HEAD, "explained": [1, 2]}, GRAPH),
    ],
)  # fmt: skip
def test_what_is_no_record_is_a_message(parts: object):
    with pytest.raises(RecordError, match="broken"):
        schema.read_head(parts)


def test_a_class_that_is_not_there():
    with pytest.raises(RecordError, match=r"class 0 is not in this step; there are \[1\]"):
        schema.read_graph(logged(HEAD, GRAPH), HEAD, 0)


def test_small_bytes_that_unpack_to_many_are_refused():
    bomb = zlib.compress(bytes(schema.MAX_PART + 1))
    with pytest.raises(RecordError, match="more than"):
        schema.read_head(np.array([bomb], dtype=object))
    with pytest.raises(RecordError, match="more than"):
        schema.unpack_picture(zlib.compress(bytes(schema.MAX_PICTURE + 1)))
    assert len(schema.unpack_picture(zlib.compress(bytes(schema.MAX_PICTURE)))) == schema.MAX_PICTURE


def test_what_could_not_be_read_is_not_written():
    with pytest.raises(RecordError, match="JSON"):
        schema.pack({"x": float("nan")})
    with pytest.raises(RecordError, match="at most"):
        schema.pack({"x": "y" * schema.MAX_PART})
    with pytest.raises(RecordError, match="at most"):
        schema.pack_graph({**GRAPH, "others": [[[], []], [list(range(4, 1_000_005)), [0.5] * 1_000_001]]})


def test_heatmaps_keep_sign_and_scale():
    heatmaps = np.random.default_rng(0).normal(size=(3, 5, 7)) * np.array([1e-6, 1.0, 1e6])[:, None, None]
    heatmaps[1] = 0
    blob, ref = schema.pack_heatmaps(heatmaps)
    values = np.frombuffer(schema.unpack_picture(blob), np.int8).reshape(ref["shape"])
    restored = values / 127 * np.array(ref["scale"])[:, None, None]
    most = np.abs(heatmaps).max((1, 2))
    assert (np.abs(restored - heatmaps).max((1, 2)) <= most / 254 * 1.01 + 1e-12).all()
    assert not restored[1].any()


def test_reading_needs_neither_torch_nor_networkx():
    heavy = ("torch", "networkx", "lightning")
    code = f"import sys, lrp_lightning.tensorboard_plugin.schema; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_old_logs_stay_readable():
    """A log as version 1 wrote it, kept: what reads logs must go on reading it."""
    events = EventAccumulator(str(FilePath(__file__).with_name("logs")), size_guidance={"tensors": 0}).Reload()
    records, pictures = (
        {event.step: make_ndarray(event.tensor_proto) for event in events.Tensors(tag)}
        for tag in ("relevance/record", "relevance/pictures")
    )
    assert sorted(records) == [10, 20]
    head = schema.read_head(records[20])
    assert (head["epoch"], head["explained"]) == (2, [0, 1])
    assert head["class_names"] == ["ankle boot", "bag", "coat"]
    assert head["settings"] == {"composite": "EpsilonPlus()", "selection": "TopK(0.1)"}
    assert head["measures"] == {
        "critical_neuron_accuracy": 0.95455, "random_accuracy": 0.1, "mse": 0.047619, "conservation_error": 1e-7,
    }  # fmt: skip
    assert head["samples"]["predictions"] == [0, 1, 1, 1]
    for label in (0, 1):
        graph = schema.read_graph(records[20], head, label)
        assert [name for name, _ in graph["layers"]] == ["input", "block.1.conv", "block.2.conv", "head"]
        assert sum(relevance for _, _, relevance, _, output in graph["nodes"] if output) == 6
        hidden = [relevance for layer, _, relevance, *_ in graph["nodes"] if layer == 1] + graph["others"][1][1]
        assert sum(hidden) == pytest.approx(6, rel=1e-3)
        assert len(graph["paths"]) == 3
    refs = [ref for neuron in head["neurons"] for ref in neuron[2:] if ref]
    assert len(refs) > 20
    for ref in (head["samples"]["images"], head["samples"]["heatmaps"], *refs):
        unpacked = schema.unpack_picture(pictures[ref["step"]][ref["index"]])
        assert len(unpacked) == np.prod(ref["shape"])
