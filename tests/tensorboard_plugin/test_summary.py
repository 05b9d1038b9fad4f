"""What the callback hands over is in the log, within bounds, and images that stay are there once."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path as FilePath

import networkx as nx
import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import convolutions
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_BLOB_SEQUENCE, DATA_CLASS_TENSOR
from tensorboard.util.tensor_util import make_ndarray
from tensorboard_log import card_of, strategy_of
from torch.utils.tensorboard import SummaryWriter

from lrp_lightning import Path, SelectiveLRP, Strategy, TopK, build_graph, k_best_paths
from lrp_lightning.errors import RecordError
from lrp_lightning.graphs.class_graph import ClassGraph
from lrp_lightning.tensorboard_plugin import schema, summary
from lrp_lightning.tensorboard_plugin.summary import Record, RelevanceSummary, Samples, shown_part, write_picture

S = 3


@pytest.fixture(scope="module")
def graph() -> nx.DiGraph:
    model = convolutions(1, 24, 20, side=8, classes=4)
    torch.nn.init.constant_(model[-1].bias, 3.0)  # paths are those of a positive output
    return build_graph(SelectiveLRP(model, selection=TopK(0.9)).trace(torch.rand(5, 1, 8, 8), target=1, edges=True))


@pytest.fixture
def record(graph: nx.DiGraph) -> Record:
    rng = np.random.default_rng(0)
    paths = k_best_paths(graph, k=2)
    samples = Samples(
        images=rng.normal(size=(S, 1, 8, 8)), heatmaps=rng.normal(size=(S, 1, 8, 8)), labels=np.array([0, 1, 2]),
        predictions=np.array([0, 1, 1]), probabilities=np.array([0.5, 0.9, 0.8]), errors=np.array([0.5, 0.1, 0.9]),
    )  # fmt: skip
    return Record(
        epoch=2,
        graphs=[ClassGraph(1, graph, paths, n_samples=5, path_heatmaps=rng.normal(size=(2, S, 8, 8)))],
        samples=samples,
        neuron_heatmaps={node: rng.normal(size=(S, 8, 8)) for node in shown_part(graph, paths)},
        reconstructions={paths[0].nodes[1]: rng.normal(size=(S, 1, 8, 8))},
        measures={"critical_neuron_accuracy": 0.75, "random_accuracy": float("nan")},
        class_names=["zero", "<script>", "two", "☃"],
        settings={"selection": "TopK(0.1)"},
    )


class Log:
    def __init__(self, folder: FilePath) -> None:
        self.folder = folder
        self.writer = SummaryWriter(str(folder))
        self.summary = RelevanceSummary(self.writer)

    def read(self) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """Records and pictures by step."""
        self.writer.flush()
        self.events = EventAccumulator(str(self.folder), size_guidance={"tensors": 0}).Reload()
        return tuple(
            {
                event.step: make_ndarray(event.tensor_proto)
                for event in (self.events.Tensors(tag) if tag in self.events.Tags()["tensors"] else ())
            }
            for tag in (schema.RECORD, schema.PICTURES)
        )


@pytest.fixture
def log(tmp_path: FilePath) -> Log:
    return Log(tmp_path)


def test_the_log_has_what_was_written(log: Log, record: Record, graph: nx.DiGraph):
    log.summary.write(record, 7)
    records, _ = log.read()
    for tag, data_class in ((schema.RECORD, DATA_CLASS_TENSOR), (schema.PICTURES, DATA_CLASS_BLOB_SEQUENCE)):
        metadata = log.events.SummaryMetadata(tag)
        assert (metadata.plugin_data.plugin_name, metadata.data_class) == ("relevance", data_class)

    head = schema.read_head(records[7])
    assert (head["epoch"], head["explained"], head["notes"]) == (2, [1], [])
    assert head["measures"] == {"critical_neuron_accuracy": 0.75, "random_accuracy": None}
    assert head["class_names"][1] == "<script>"
    assert head["samples"]["predictions"] == [0, 1, 1]

    read = schema.read_graph(records[7], head, 1)
    names = [name for name, _ in read["layers"]]
    assert names == ["input", "0", "2", "5"]
    nodes = [(names[layer], neuron) for layer, neuron, *_ in read["nodes"]]
    for node, (_, _, relevance, activation, output) in zip(nodes, read["nodes"], strict=True):
        assert relevance == pytest.approx(graph.nodes[node]["relevance"], rel=1e-4)
        assert activation == pytest.approx(graph.nodes[node]["activation"], rel=1e-4)
        assert output == (node[0] == "5")
    for lower, upper, relevance, share in read["edges"]:
        edge = graph.edges[nodes[lower], nodes[upper]]
        assert (relevance, share) == pytest.approx((edge["relevance"], edge["share"]), rel=1e-4)
    for (chain, share, _, times), path in zip(read["paths"], record.graphs[0].paths, strict=True):
        assert tuple(nodes[i] for i in chain) == path.nodes
        assert share == pytest.approx(path.share, rel=1e-4)
        assert times == pytest.approx(path.times_median, rel=1e-4)

    # every neuron of the graph is there: shown, or among the others
    others = {(names[i], n): r for i, (ns, rs) in enumerate(read["others"]) for n, r in zip(ns, rs, strict=True)}
    assert set(nodes) | set(others) == set(graph)
    assert not set(nodes) & set(others)
    assert others
    assert all(r == pytest.approx(graph.nodes[n]["relevance"], rel=1e-4) for n, r in others.items())


def values(ref: dict, pictures: dict[int, np.ndarray]) -> np.ndarray:
    data = schema.unpack_picture(pictures[ref["step"]][ref["index"]])
    if "scale" not in ref:
        return np.frombuffer(data, np.uint8).reshape(ref["shape"])
    return np.frombuffer(data, np.int8).reshape(ref["shape"]) / 127 * np.array(ref["scale"])[:, None, None]


def test_pictures_are_found_by_their_refs(log: Log, record: Record):
    log.summary.write(record, 7)
    records, pictures = log.read()
    head = schema.read_head(records[7])
    assert record.samples is not None
    found = values(head["samples"]["heatmaps"], pictures)
    np.testing.assert_allclose(found, record.samples.heatmaps[:, 0], atol=np.abs(found).max() / 200)
    images = values(head["samples"]["images"], pictures)
    assert images.shape == (S, 8, 8, 1)
    assert (images.min(), images.max()) == (0, 255)
    for layer, neuron, ref, reconstruction in head["neurons"]:
        expected = record.neuron_heatmaps[layer, neuron]
        np.testing.assert_allclose(values(ref, pictures), expected, atol=np.abs(expected).max() / 200)
        assert (reconstruction is not None) == ((layer, neuron) in record.reconstructions)
    paths = schema.read_graph(records[7], head, 1)["paths"]
    heatmaps = record.graphs[0].path_heatmaps
    assert heatmaps is not None
    for (_, _, ref, _), expected in zip(paths, heatmaps, strict=True):
        np.testing.assert_allclose(values(ref, pictures), expected, atol=np.abs(expected).max() / 200)


def test_images_that_stay_are_stored_once(log: Log, record: Record):
    first, second = (log.summary.write(record, step) for step in (1, 2))
    assert record.samples is not None
    other = replace(record.samples, images=record.samples.images + np.arange(S)[:, None, None, None] * np.eye(8))
    log.summary.write(replace(record, samples=other), 3)
    records, pictures = log.read()
    at = {step: schema.read_head(records[step])["samples"]["images"]["step"] for step in records}
    assert at == {1: 1, 2: 1, 3: 3}
    assert second < first
    assert len(pictures[2]) == len(pictures[1]) - 1


def test_steps_that_start_anew_have_their_images_again(log: Log, record: Record):
    """TensorBoard drops what was logged at steps that come again."""
    for step in (4, 5, 4):
        log.summary.write(record, step)
    records, _ = log.read()
    assert schema.read_head(records[4])["samples"]["images"]["step"] == 4


def test_a_step_that_could_not_be_written_is_forgotten(log: Log, record: Record):
    with pytest.raises(RecordError):
        log.summary.write(replace(record, measures={"x": 1.0}, neuron_heatmaps={("0", 0): np.zeros((1, 8, 8))}), 1)
    log.summary.write(record, 2)
    records, _ = log.read()
    assert list(records) == [2]
    assert schema.read_head(records[2])["samples"]["images"]["step"] == 2


def test_large_pictures_shrink_and_keep_their_sum(log: Log, record: Record):
    rng = np.random.default_rng(1)
    heatmaps = rng.random((S, 224, 180))
    assert record.samples is not None
    samples = replace(record.samples, images=rng.random((S, 3, 224, 180)), heatmaps=heatmaps)
    record = replace(
        record, samples=samples, neuron_heatmaps={("0", 0): heatmaps},
        graphs=[replace(record.graphs[0], path_heatmaps=None)],
        reconstructions={("0", 0): rng.normal(size=(S, 3, 224, 180))},
    )  # fmt: skip
    log.summary.write(record, 0)
    records, pictures = log.read()
    head = schema.read_head(records[0])
    assert head["samples"]["images"]["shape"] == [S, 96, 77, 3]
    assert head["samples"]["heatmaps"]["shape"] == [S, 64, 51]
    [[_, _, ref, reconstruction]] = head["neurons"]
    assert ref["shape"] == [S, 32, 26]
    assert reconstruction["shape"] == [S, 32, 26, 3]
    np.testing.assert_allclose(values(ref, pictures).sum((1, 2)), heatmaps.sum((1, 2)), rtol=0.01)


def test_a_step_never_takes_more_than_its_room(log: Log, record: Record, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(summary, "MAX_LOG", 4000)
    assert log.summary.write(record, 0) < 4000 + 10_000  # and the record itself, without pictures
    records, pictures = log.read()
    assert sum(map(len, pictures[0])) <= 4000
    head = schema.read_head(records[0])
    kept = [abs(record.graphs[0].graph.nodes[layer, n]["relevance"]) for layer, n, ref, _ in head["neurons"] if ref]
    lost = [abs(record.graphs[0].graph.nodes[layer, n]["relevance"]) for layer, n, ref, _ in head["neurons"] if not ref]
    assert min(kept) >= np.median(lost)
    [note] = [note for note in head["notes"] if "neuron heatmaps" in note]
    assert f"left out {len(lost)} pictures" in note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": None}, "without samples"),
        ({"neuron_heatmaps": {("0", 0): np.zeros((S, 8))}}, r"neuron_heatmaps must have 3 dimensions.*\(3, 8\)"),
        ({"neuron_heatmaps": {("0", 0): np.full((S, 8, 8), np.inf)}}, "neuron_heatmaps must be finite"),
        ({"neuron_heatmaps": {("0", 0): np.zeros((S + 1, 8, 8))}}, "4 heatmaps for 3 samples"),
        ({"reconstructions": {("0", 0): np.zeros((1, 1, 8, 8))}}, "1 pictures for 3 samples"),
    ],
)
def test_what_does_not_fit_is_refused(log: Log, record: Record, change: dict, message: str):
    with pytest.raises(RecordError, match=message):
        log.summary.write(replace(record, **change), 0)


def test_graphs_that_do_not_fit_are_refused(log: Log, record: Record, graph: nx.DiGraph):
    [of_class] = record.graphs
    with pytest.raises(RecordError, match="2 paths and 1 heatmaps"):
        log.summary.write(replace(record, graphs=[replace(of_class, path_heatmaps=np.zeros((1, S, 8, 8)))]), 0)
    with pytest.raises(RecordError, match="each class must have exactly one graph"):
        log.summary.write(replace(record, graphs=[of_class, of_class]), 0)
    stray = replace(of_class, paths=[Path((("nowhere", 0),), 1.0)], path_heatmaps=None)
    with pytest.raises(RecordError, match="nowhere"):
        log.summary.write(replace(record, graphs=[stray]), 0)
    broken = graph.copy()
    broken.nodes["0", next(n for layer, n in graph if layer == "0")]["relevance"] = float("nan")
    with pytest.raises(RecordError, match=r"neuron \d+ of '0' is nan"):
        log.summary.write(replace(record, graphs=[replace(of_class, graph=broken, paths=(), path_heatmaps=None)]), 0)
    with pytest.raises(RecordError, match="negative"):
        log.summary.write(record, -1)
    with pytest.raises(RecordError, match="SummaryWriter"):
        RelevanceSummary(object())


def test_a_run_without_images_has_its_graph(log: Log, record: Record):
    log.summary.write(Record(epoch=0, graphs=[replace(record.graphs[0], path_heatmaps=None)]), 0)
    log.writer.flush()
    events = EventAccumulator(str(log.folder)).Reload()
    assert events.Tags()["tensors"] == [schema.RECORD]


def test_what_is_shown_of_a_graph(graph: nx.DiGraph):
    paths = k_best_paths(graph, k=3)
    part = shown_part(graph, paths, neurons_per_layer=4)
    for layer in ("0", "2"):
        ranked = sorted((n for n in graph if n[0] == layer), key=lambda n: -abs(graph.nodes[n]["relevance"]))
        shown = {n for n in part if n[0] == layer}
        assert set(ranked[:4]) <= shown <= set(ranked[:4]) | {n for path in paths for n in path.nodes}
    for path in paths:
        assert nx.is_path(part, path.nodes)
    assert all(part.edges[e] == graph.edges[e] for e in part.edges)


def test_names_are_text_whatever_they_are(log: Log):
    graph = nx.DiGraph()
    name = "<script>alert(1)</script>\"'\ud800☃" + "x" * 10_000
    about = {"relevance": 1.0, "activation": 0.0, "layer": name, "neuron": 0, "kind": "linear", "order": 0, "output": True}
    graph.add_node((name, 0), **about)
    log.summary.write(Record(epoch=0, graphs=[ClassGraph(0, graph)], class_names=[name], settings={name: name}), 0)
    records, _ = log.read()
    head = schema.read_head(records[0])
    assert head["class_names"] == [name.replace("\ud800", "?")]
    assert json.loads(zlib.decompress(records[0][1]))["layers"] == [[name.replace("\ud800", "?"), "linear"]]


def test_strategies_and_cards_are_in_the_head_with_their_pictures(log: Log, record: Record) -> None:
    strategies, cards = [strategy_of(1, 1, 0)], [card_of("0", 4, 0)]
    log.summary.write(replace(record, strategies=strategies, cards=cards), 3)
    records, pictures = log.read()
    head = schema.read_head(records[3])
    [strategy], [card] = head["strategies"], head["cards"]
    assert strategy["shortcut"] is True
    assert (strategy["class"], strategy["region"], strategy["shape"]) == (1, [0, 0, 4, 4], [12, 12])
    assert (strategy["flipped"], strategy["control"], strategy["pairs"]) == (0.31, 0.02, 256)
    assert (strategy["right"], strategy["predictions"]) == (0.91667, [1, 2, 1, 1, 1, 1])
    assert strategy["images"]["shape"] == [6, 12, 12, 1]
    assert strategy["heatmap"]["shape"] == [1, 12, 12]
    assert (card["layer"], card["neuron"], card["classes"]) == ("0", 4, [[1, 0.62], [0, 0.38]])
    assert card["driven"]["images"]["shape"] == [3, 24, 24, 1]
    assert card["driven"]["labels"] == [0, 1, 1]
    assert card["mistaken"] == {"images": None, "drives": None, "labels": [], "predictions": []}
    for ref in (strategy["images"], strategy["heatmaps"], card["driven"]["drives"], card["relevant"]["images"]):
        assert len(schema.unpack_picture(pictures[ref["step"]][ref["index"]])) == np.prod(ref["shape"])
    patch = np.frombuffer(schema.unpack_picture(pictures[3][card["driven"]["images"]["index"]]), np.uint8)
    image = cards[0].driven.images[0, 0].numpy()
    seen = (image - image.min()) / (image.max() - image.min())
    assert patch.reshape(3, 24, 24)[0, 0, 0] == pytest.approx(255 * seen[1, 2], abs=1)


def test_what_is_no_image_has_no_strategy_in_the_tab(log: Log, record: Record) -> None:
    features = Strategy(0, torch.arange(12), 1.0, images=torch.rand(6, 4), heatmaps=torch.rand(6, 4), heatmap=torch.rand(4))
    log.summary.write(replace(record, strategies=[features]), 3)
    assert schema.read_head(log.read()[0][3])["strategies"] == []


@pytest.mark.parametrize("colours", [1, 256, 400])
def test_a_picture_is_written_as_it_is(colours: int, tmp_path: FilePath) -> None:
    """Of few colours as one with a palette, and every pixel is what it was."""
    draw = np.random.default_rng(0)
    picture = draw.integers(0, 256, (colours, 3), dtype=np.uint8)[draw.integers(0, colours, (60, 90))]
    with SummaryWriter(str(tmp_path)) as writer:
        write_picture(writer, "picture", picture, 3)
    log = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    [found] = log.Images("picture")
    image = Image.open(BytesIO(found.encoded_image_string))
    assert image.mode == ("P" if colours <= 256 else "RGB")
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), picture)
