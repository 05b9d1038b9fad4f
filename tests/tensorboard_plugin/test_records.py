"""What is kept of records, and what becomes of those that are broken, or made to break what reads them."""

from __future__ import annotations

import copy
import json
import threading
import tracemalloc
import zlib
from pathlib import Path as FilePath
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary
from tensorboard.compat.proto.types_pb2 import DT_FLOAT
from tensorboard.plugins.base_plugin import TBContext
from tensorboard_log import write_log
from tensorboard_parts import CARD, GRAPH, HEAD, SAMPLES, STRATEGY, logged, written
from torch.utils.tensorboard import SummaryWriter
from werkzeug.test import Client

from lrp_lightning.tensorboard_plugin import records, schema, summary
from lrp_lightning.tensorboard_plugin.plugin import RelevancePlugin
from lrp_lightning.tensorboard_plugin.records import Place, Records

FULL = {
    **HEAD, "samples": SAMPLES, "strategies": [STRATEGY], "cards": [CARD],
    "neurons": [["fc", 3, {"step": 1, "index": 3, "shape": [1, 4, 4], "scale": [1.0], "samples": [1]}, None]],
}  # fmt: skip
HEATMAPS = {"step": 1, "index": 4, "shape": [2, 4, 4], "scale": [1.0, 2.0]}
DRAWN = {**GRAPH, "paths": [[[0, 1], 1.0, HEATMAPS, 2.0]]}
PLACE = Place(None, "", "run")


class Log:
    """A data provider of one run; what is read of it is counted."""

    def __init__(self, steps: dict[int, Any], blobs: dict[int, list[Any]] | None = None) -> None:
        self.data = [
            SimpleNamespace(step=step, wall_time=float(i), numpy=parts) for i, (step, parts) in enumerate(steps.items())
        ]
        self.blobs = blobs or {}
        self.reads = 0

    def list_tensors(self, *_: Any, **__: Any) -> Any:
        last = SimpleNamespace(
            max_step=max(datum.step for datum in self.data), max_wall_time=max(datum.wall_time for datum in self.data)
        )
        return {"run": {schema.RECORD: last}}

    def read_tensors(self, *_: Any, **__: Any) -> Any:
        self.reads += 1
        return {"run": {schema.RECORD: list(self.data)}}

    def read_blob_sequences(self, *_: Any, **__: Any) -> Any:
        blobs = [
            SimpleNamespace(step=step, values=[SimpleNamespace(blob_key=blob) for blob in of])
            for step, of in self.blobs.items()
        ]
        return {"run": {schema.PICTURES: blobs}}

    def read_blob(self, _: Any, *, blob_key: Any) -> Any:
        return blob_key


def graph_with(relevance: float, neurons: int = 2) -> dict[str, Any]:
    return {**GRAPH, "others": [[[], []], [list(range(10, 10 + neurons)), [relevance] * neurons]]}


def client_of(provider: Any) -> Client:
    routes = RelevancePlugin(TBContext(data_provider=provider)).get_plugin_apps()
    return Client(lambda environ, start_response: routes[environ["PATH_INFO"]](environ, start_response))


def answer(client: Client, route: str, status: int = 200, **query: Any) -> Any:
    """As a browser reads it: NaN and Infinity are no JSON."""

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    response = client.get(route, query_string={"run": "run", **query})
    assert response.status_code == status, response.text
    return json.loads(response.data, parse_constant=refuse)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records whose neurons were read, in order."""
    read: list[int] = []

    def counted(parts: Any, label: int) -> Any:
        read.append(schema.read_head(parts)["epoch"])
        return schema.read_neurons(parts, label)

    monkeypatch.setattr(records, "read_neurons", counted)
    return read


def test_a_record_is_checked_once_and_new_steps_alone(checked: list[int]):
    log = Log({step: logged({**HEAD, "epoch": step}, graph_with(float(step))) for step in range(5)})
    kept = Records(log)
    assert kept.line(PLACE, 1, "fc", 10) == [(step, float(step), 1.0) for step in range(5)]
    assert kept.line(PLACE, 1, "fc", 3) == [(step, 1.0, 1.0) for step in range(5)]
    assert (checked, log.reads) == (list(range(5)), 1)
    log.data += Log({7: logged({**HEAD, "epoch": 7}, graph_with(0.5))}).data
    log.data[-1].wall_time = 99.0
    assert kept.line(PLACE, 1, "fc", 11)[-1] == (7, 0.5, 1.0)
    assert (checked, log.reads) == ([*range(5), 7], 2)


def test_a_run_that_starts_anew_is_read_anew(checked: list[int]):
    log = Log({step: logged({**HEAD, "epoch": step}, graph_with(float(step))) for step in range(3)})
    kept = Records(log)
    kept.line(PLACE, 1, "fc", 10)
    del log.data[1:]
    log.data.append(SimpleNamespace(step=1, wall_time=50.0, numpy=logged({**HEAD, "epoch": 1}, graph_with(8.0))))
    assert kept.line(PLACE, 1, "fc", 10) == [(0, 0.0, 1.0), (1, 8.0, 1.0)]
    assert checked == [0, 1, 2, 1]
    assert json.loads(kept.steps(PLACE)[1][-1])["wall_time"] == 50.0


def test_what_is_kept_is_bounded_and_what_does_not_fit_is_read_again(checked: list[int]):
    rng = np.random.default_rng(0)
    line = rng.normal(size=10).round(3).tolist()
    parts = {
        step: logged({**HEAD, "explained": [1, 2]}, graph_with(value, 500), {**graph_with(value, 500), "class": 2})
        for step, value in enumerate(line)
    }
    whole = 10 * (300 + 4 * 504) + 5000
    log, kept = Log(parts), Records(Log(parts), whole)
    assert Records(log).line(PLACE, 1, "fc", 12) == kept.line(PLACE, 1, "fc", 12)
    del checked[:]
    for label, read in ((1, 0), (2, 10), (2, 0), (1, 10)):  # one class fits, two do not
        assert [value for _, value, _ in kept.line(PLACE, label, "fc", 12)] == line
        assert len(checked) == read
        del checked[:]
        assert kept._kept._size <= whole
    few = Records(log, whole // 2)
    for _ in range(2):
        assert [value for _, value, _ in few.line(PLACE, 1, "fc", 12)] == line
        assert few._kept._size <= whole // 2
    assert 10 < len(checked) < 18  # those that did not fit


def test_many_at_once_see_the_same(checked: list[int]):
    log = Log({step: logged({**HEAD, "epoch": step}, graph_with(float(step))) for step in range(200)})
    client = client_of(log)
    found: list[Any] = []

    def look(neuron: int) -> None:
        for _ in range(3):
            found.append(answer(client, "/series", layer="fc", neuron=10 + neuron % 2, **{"class": 1})["series"])
            answer(client, "/step", step=neuron, **{"class": 1})
            assert len(answer(client, "/steps")["steps"]) == 200

    threads = [threading.Thread(target=look, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[[step, float(step), 1.0] for step in range(200)]] * 24
    assert checked == list(range(200))


@pytest.mark.parametrize("value", [1e-300, 1e-40, 1e30, 1e39, -1e300, 123450, 0])
def test_a_relevance_of_any_size_keeps_its_digits(value: float):
    log = Log({0: logged(HEAD, graph_with(value)), 1: written(HEAD, graph_with(value))})
    assert Records(log).line(PLACE, 1, "fc", 11) == [(0, value, 1.0), (1, value, 1.0)]


# what is broken


def holes(parts: list[Any]) -> list[tuple[Any, ...]]:
    """Ways to every value in them."""
    found: list[tuple[Any, ...]] = []

    def walk(value: Any, way: tuple[Any, ...]) -> None:
        found.append(way)
        inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in inside:
            walk(inner, (*way, key))

    walk(parts, ())
    return found[1:]


RAW = {"deep": b"[" * 300 + b"]" * 300, "deeper": b"[" * 10**5 + b"]" * 10**5, "huge": b"1e999", "long": b"9" * 5000}
"""What Python's JSON does not write."""
WRONG = st.sampled_from(
    [
        10**400, -(10**400), 2**63, -1, 0, 1, 5, 1.5, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), True, None,
        "", "\ud800", "<script>", [], [[]], {}, {"x": []}, [1, 1], [10**6] * 4, *RAW, "x" * 100_000, [0.5] * 2000,
    ]
).map(copy.deepcopy)  # fmt: skip


@st.composite
def broken_records(draw: st.DrawFn) -> Any:
    """Parts of a record with values exchanged, lists doubled, text or bytes changed; as TensorBoard gives them."""
    parts, arrays = copy.deepcopy([FULL, DRAWN]), []
    newest = draw(st.booleans())
    if newest:
        strings = schema.pack_graph(DRAWN)
        parts = [{**parts[0], "version": schema.VERSION}, json.loads(zlib.decompress(strings[0])), json.loads(strings[1])]
        arrays = [zlib.decompress(strings[2]), strings[3]]
    how = draw(st.sampled_from(["values"] * 7 + ["text", "bytes", "shape", *["arrays"] * 3 * newest]))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3])) if how == "values" else 0):
        *way, last = draw(st.sampled_from(holes(parts)))
        at: Any = parts
        for key in way:
            at = at[key]
        change = draw(st.sampled_from(["exchange", "exchange", "remove", "double", "beside"]))
        if change == "remove":
            del at[last]
        elif change == "double" and isinstance(at[last], list):
            at[last] = at[last] * 2
        elif change == "beside" and isinstance(at[last], dict):
            at[last]["unknown"] = draw(WRONG)
        else:
            at[last] = draw(WRONG)
    texts = [bytearray(json.dumps(part).encode()) for part in parts]
    for text in texts:
        for name, raw in RAW.items():
            text[:] = text.replace(f'"{name}"'.encode(), raw)
        for _ in range(draw(st.integers(0, 3)) if how == "text" else 0):
            text[draw(st.integers(0, len(text) - 1))] = draw(st.sampled_from(b'[]{},:"0919eE-+. \xff'))
    for i in range(2) if how == "arrays" else ():
        number = st.one_of(st.integers(-3, 3), st.sampled_from([2**31 - 1, -(2**31)])) if i == 0 else st.floats(width=32)
        size = draw(st.sampled_from([4, 4, 4, 0, 3, 5, 8]))
        arrays[i] = np.array(draw(st.lists(number, min_size=size, max_size=size)), "<i4" if i == 0 else "<f4").tobytes()
    packed = [bytearray(zlib.compress(bytes(text))) for text in texts[:2]]
    if newest:
        packed += [*texts[2:3], bytearray(zlib.compress(arrays[0])), bytearray(arrays[1])]
    if how == "bytes":
        blob = draw(st.sampled_from(packed))
        blob[draw(st.integers(0, len(blob) - 1))] = draw(st.integers(0, 255))
        del blob[draw(st.integers(1, len(blob))) :]
    whole: list[Any] = [bytes(blob) for blob in packed]
    if how == "shape":
        whole = draw(st.sampled_from([[], whole * 2, [whole], [1.0], ["x", "y"], whole[::-1], whole[:-1], [whole[0], None]]))
    return np.array(whole, dtype=object)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(broken_records(), st.binary(max_size=30), st.integers(-2, 3))
def test_whatever_a_record_holds_is_told_and_good_steps_stay(parts: Any, blob: bytes, index: int):
    log = Log({0: logged(FULL, DRAWN), 1: parts, 2: written(FULL, DRAWN)}, {1: [blob, zlib.compress(blob), None]})
    client = client_of(log)
    assert answer(client, "/runs")["runs"][0]["last_step"] == 2
    told = answer(client, "/steps")
    assert [step["step"] for step in told["steps"]] == [0, 1, 2]
    assert [step.get("classes") for step in told["steps"]][::2] == [[1], [1]]
    assert told["class_names"] == HEAD["class_names"]
    for step in (0, 2):
        found = answer(client, "/step", step=step, **{"class": 1})
        assert (found["head"], found["graph"]) == ({**FULL, "version": 2 if step == 0 else schema.VERSION}, DRAWN)
    found = answer(client, "/step", step=1, **{"class": 1})
    assert set(found) in ({"problem"}, {"head", "graph"})
    answer(client, "/step", step=1)
    series = answer(client, "/series", layer="fc", neuron=1, **{"class": 1})["series"]
    assert [point for point in series if point[0] != 1] == [[0, 0.1, 1.0], [2, 0.1, 1.0]]
    assert client.get("/picture", query_string={"run": "run", "step": 1, "index": index}).status_code in (200, 404)


@pytest.mark.parametrize(
    ("head", "graph"),
    [
        ({"measures": {"mse": 10**400}}, {}),
        ({"measures": {"mse": 1e301}}, {}),
        ({"epoch": 2**60}, {}),
        ({"explained": [1, 1]}, {}),
        ({"explained": [2]}, {}),
        ({"samples": {**SAMPLES, "heatmaps": {**HEATMAPS, "samples": [0, 2]}}}, {}),
        ({"samples": {**SAMPLES, "heatmaps": {**HEATMAPS, "samples": [1, 1]}}}, {}),
        ({"samples": {**SAMPLES, "heatmaps": {**HEATMAPS, "samples": [-1, 1]}}}, {}),
        ({"samples": {**SAMPLES, "heatmaps": {**HEATMAPS, "samples": [1]}}}, {}),
        ({"samples": {**SAMPLES, "images": {"step": 0, "index": 0, "shape": [3, 8, 8, 1]}}}, {}),
        ({"neurons": [["fc", 3, {**HEATMAPS, "samples": [0, 5]}, None]]}, {}),
        ({"neurons": [["fc", 3, None, {"step": 0, "index": 0, "shape": [1, 8, 8, 1]}]]}, {}),
        ({}, {"class": 2}),
        ({}, {"others": [[[], []], [[1, 2], [0.1]]]}),
        ({}, {"others": [[[], []], [[1, 2], [0.1, True]]]}),
        ({}, {"nodes": [[0, 0, 1e308, 0.5, 1], [1, 3, 1e308, 0.5, 1]]}),
        ({}, {"paths": [[[0, 1], 1.0, {**HEATMAPS, "samples": [0, 7]}]]}),
        ({}, {"paths": [[[0, 1], 1.0, None, "often"]]}),
        ({"samples": None, "neurons": []}, {"paths": [[[0, 1], 1.0, HEATMAPS]]}),
    ],
)
def test_what_does_not_fit_together_is_broken(head: dict, graph: dict):
    client = client_of(Log({0: logged({**FULL, **head}, {**DRAWN, **graph}), 1: logged(FULL, DRAWN)}))
    assert "broken" in answer(client, "/step", step=0, **{"class": (head.get("explained") or [1])[0]})["problem"]
    listed = answer(client, "/steps")["steps"]
    assert "problem" not in listed[1]
    assert "problem" not in listed[0] or not graph
    assert len(answer(client, "/series", layer="fc", neuron=1, **{"class": 1})["series"]) == 1


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_an_unknown_key_is_answered_as_json_or_told(raw: bytes):
    head = zlib.compress(json.dumps({**HEAD, "later": "raw"}).encode().replace(b'"raw"', raw))
    client = client_of(Log({0: np.array([head, schema.pack(GRAPH)], dtype=object), 1: logged(HEAD, GRAPH)}))
    found = answer(client, "/step", step=0, **{"class": 1})
    assert "broken" in found["problem"] if raw != RAW["deep"] else found["graph"] == GRAPH
    assert len(answer(client, "/series", layer="fc", neuron=1, **{"class": 1})["series"]) >= 1
    assert "problem" not in answer(client, "/steps")["steps"][1]


BOMBS = {
    "spaces": b" " * schema.MAX_PART,
    "lists": b"[" + b"[]," * (schema.MAX_PART // 3 - 1) + b"[]]",
    "objects": b"[" + b'{"":0},' * (schema.MAX_PART // 7 - 1) + b"0]",
    "numbers": b"[" + b"1e9," * (schema.MAX_PART // 4 - 1) + b"0]",
    "depth": b"[" * schema.MAX_PART,
    "measures": b'{"version": 2, "measures": {' + b",".join(b'"%d":1' % i for i in range(700_000)) + b"}}",
    "names": json.dumps({**HEAD, "measures": {"x" * (schema.MAX_PART // 2): 1}}).encode(),
    "settings": json.dumps({**HEAD, "settings": {"x": "é" * (schema.MAX_PART // 6)}}).encode(),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n == "measures" else []) for n in BOMBS])
def test_a_small_log_takes_little_memory(name: str):
    bomb = zlib.compress(BOMBS[name], 9)
    log = Log({step: np.array([bomb, schema.pack(GRAPH)], dtype=object) for step in range(3)} | {99: logged(HEAD, GRAPH)})
    client = client_of(log)
    tracemalloc.start()
    try:
        told = answer(client, "/steps")
        first = tracemalloc.get_traced_memory()[1]
        answer(client, "/step", step=2)
        answer(client, "/series", layer="fc", neuron=1, **{"class": 1})
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [step["step"] for step in told["steps"]] == [*range(3), 99]
    assert told["steps"][-1]["classes"] == [1]
    assert max(first, most) < 200 * 2**20
    assert held < 64 * 2**20


def test_a_small_log_of_the_newest_version_takes_little_memory():
    """A million neurons, in strings of few bytes; of all but relevances, which are not compressed."""
    steps = np.ones(1_000_000, "<i4").tobytes()
    whole = written(HEAD, GRAPH)
    index = {**json.loads(whole[2]), "layers": [["input", 1], ["fc", 10**6 - 1]]}
    most = [*whole[:2], json.dumps(index).encode(), zlib.compress(steps), bytes(4 * 10**6)]
    more = [*whole[:2], json.dumps(index).encode(), zlib.compress(steps * 50), bytes(4 * 10**6)]
    texts = [[*whole[:2], BOMBS[name], *whole[3:]] for name in ("spaces", "lists", "numbers")]
    of_steps = [np.array(of, dtype=object) for of in (most, more, *texts)]
    client = client_of(Log(dict(enumerate(of_steps)) | {99: whole}))
    tracemalloc.start()
    try:
        for step in range(len(of_steps)):
            answer(client, "/step", step=step, **{"class": 1})
        assert [step for step, *_ in answer(client, "/series", layer="fc", neuron=1, **{"class": 1})["series"]] == [0, 99]
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 400 * 2**20
    assert held < 64 * 2**20


def test_a_picture_that_is_none_is_told():
    log = Log({0: logged(HEAD, GRAPH)}, {0: [np.float64(3), None, b"no zlib", zlib.compress(bytes(schema.MAX_PICTURE + 1))]})
    for index in range(4):
        assert "picture" in answer(client_of(log), "/picture", 404, step=0, index=index)["error"]


def test_times_that_are_no_numbers_hide_no_run():
    log = Log({0: logged(HEAD, GRAPH), 1: logged(HEAD, GRAPH)})
    log.data[1].wall_time = float("nan")
    client = client_of(log)
    assert len(answer(client, "/runs")["runs"]) == 1
    assert [step["wall_time"] for step in answer(client, "/steps")["steps"]] == [0.0, 0.0]


def test_more_than_the_data_server_can_say_is_fewer_steps(monkeypatch: pytest.MonkeyPatch):
    log = Log({step: logged(HEAD, GRAPH) for step in range(600)})

    class TooLarge(Exception):
        """As grpc.RpcError is."""

        def code(self) -> Any:
            return SimpleNamespace(name="RESOURCE_EXHAUSTED")

    def read(*_: Any, downsample: int, **__: Any) -> Any:
        if downsample > room:
            raise TooLarge
        return {"run": {schema.RECORD: log.data[-downsample:]}}

    monkeypatch.setattr(log, "read_tensors", read)
    client, room = client_of(log), 300
    assert len(answer(client, "/steps")["steps"]) == 256
    room = 1
    assert "TensorBoard cannot read" in answer(client, "/step", 404, step=599)["error"]


def test_a_tensor_that_tensorboard_cannot_read_is_told(tmp_path: FilePath):
    write_log(tmp_path / "good")
    writer = SummaryWriter(str(tmp_path / "broken"))
    value = summary._value(schema.RECORD, DATA_CLASS_TENSOR, [b"x"] * 3)
    value.tensor.dtype = DT_FLOAT
    writer._get_file_writer().add_summary(Summary(value=[value]), 0)
    writer.close()
    multiplexer = EventMultiplexer(tensor_size_guidance={"relevance": 0}).AddRunsFromDirectory(str(tmp_path)).Reload()
    client = client_of(MultiplexerDataProvider(multiplexer, str(tmp_path)))
    for route in ("/steps", "/step?step=0", "/series?class=0&neuron=1&layer=fc"):
        assert "TensorBoard cannot read" in answer(client, route.partition("?")[0], 404, **dict(
            pair.split("=") for pair in route.partition("?")[2].split("&") if pair
        ), run="broken")["error"]  # fmt: skip
    assert len(answer(client, "/steps", run="good")["steps"]) == 3
