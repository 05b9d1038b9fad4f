"""The plugin's routes, with each kind of data provider: what they answer, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
from tensorboard import default, program
from tensorboard.backend import application
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary
from tensorboard.plugins.base_plugin import TBContext
from tensorboard_log import SAMPLES, SIDE, graph_of, record_of, write_log
from torch.utils.tensorboard import SummaryWriter
from werkzeug.test import Client

from lrp_lightning.tensorboard_plugin import schema, summary
from lrp_lightning.tensorboard_plugin.plugin import RelevanceLoader, RelevancePlugin

STATIC = FilePath(schema.__file__).parent / "static"
NASTY = ["<script>alert(1)</script>", "\"'&<>`${1}", "Ω☃é😀" * 20, "x" * 200]


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> FilePath:
    folder = tmp_path_factory.mktemp("logs")
    write_log(folder / "first")
    write_log(folder / "second" / "deep", seed=1)
    write_log(folder / "many", range(0, 600, 10), graphs=record_of(0).graphs)
    for i, name in enumerate(NASTY):
        write_log(folder / name.replace("/", "_"), [1], seed=i, class_names=[name * 50] * 3, settings={name: name * 50})
    writer = SummaryWriter(str(folder / "scalars only"))
    writer.add_scalar("loss", 1.0, 0)
    for step, value in ((0, 0.5), (3, 0.75), (5, float("nan"))):
        writer.add_scalar("relevance/contest_accuracy", value, step)
    writer.add_scalar("relevance_2/mse", 1.0, 0)
    broken = [b"no zlib", schema.pack({"version": 3}), schema.pack({"version": 1})]
    for step, head in enumerate(broken):
        value = summary._value(schema.RECORD, DATA_CLASS_TENSOR, [head])
        writer._get_file_writer().add_summary(Summary(value=[value]), step)
    writer.close()
    return folder


def local(logdir: FilePath) -> Any:
    multiplexer = EventMultiplexer(tensor_size_guidance={"relevance": 0})
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    return MultiplexerDataProvider(multiplexer, str(logdir))


@pytest.fixture(scope="module", params=["local", "load_fast"])
def client(request: pytest.FixtureRequest, logdir: FilePath) -> Iterator[Client]:
    """The plugin alone, on TensorBoard's own provider, and on its data server."""
    if request.param == "local":
        provider = local(logdir)
    else:
        server = pytest.importorskip("tensorboard.data.server_ingester")
        try:
            binary = server.get_server_binary()
        except server.NoDataServerError as error:
            pytest.skip(str(error))
        from tensorboard.util.grpc_util import ChannelCredsType

        ingester = server.SubprocessServerDataIngester(
            binary, str(logdir), reload_interval=0, channel_creds_type=ChannelCredsType.LOCAL,
            samples_per_plugin={"relevance": 1000},
        )  # fmt: skip
        ingester.start()
        provider = ingester.data_provider
    plugin = RelevanceLoader().load(TBContext(data_provider=provider))
    assert plugin is not None
    routes = plugin.get_plugin_apps()

    def app(environ: dict, start_response: Any) -> Any:
        return routes[environ["PATH_INFO"]](environ, start_response)

    client = Client(app)
    runs: list = []
    for _ in range(200):  # the data server loads in the background
        runs = client.get("/runs").json["runs"]
        if len(runs) == 4 + len(NASTY) and {r["last_step"] for r in runs if r["run"] == "many"} == {590}:
            break
        time.sleep(0.05)
    yield client
    if request.param == "load_fast":
        ingester._stdin_handle.close()


def get(client: Client, route: str, **query: Any) -> Any:
    response = client.get(route, query_string=query)
    assert response.status_code == 200, response.text
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    return response.json if response.mimetype == "application/json" else response


def test_runs_are_those_with_records(client: Client):
    runs = {run["run"]: run["last_step"] for run in get(client, "/runs")["runs"]}
    others = dict.fromkeys((name.replace("/", "_") for name in NASTY), 1)
    assert runs == {"first": 30, "second/deep": 30, "many": 590, "scalars only": 2, **others}


def test_steps_are_all_there_in_order(client: Client):
    steps = get(client, "/steps", run="many")
    assert [step["step"] for step in steps["steps"]] == list(range(0, 600, 10))
    assert steps["class_names"] == ["ankle boot", "bag", "coat"]
    assert steps["settings"]["composite"] == "EpsilonPlus()"
    last = steps["steps"][-1]
    assert (last["epoch"], last["classes"], last["shortcuts"]) == (59, [0, 1], [0])
    assert last["measures"]["random_accuracy"] == 0.1
    assert abs(last["wall_time"] - time.time()) < 3600


def test_a_step_has_its_graph_and_pictures(client: Client):
    found = get(client, "/step", run="first", step=20, **{"class": 1})
    graph = graph_of(20 * 10 + 1)
    names = [name for name, _ in found["graph"]["layers"]]
    assert names == ["input", "block.1.conv", "block.2.conv", "head"]
    for layer, neuron, relevance, *_ in found["graph"]["nodes"]:
        assert relevance == pytest.approx(graph.nodes[names[layer], neuron]["relevance"], rel=1e-4)

    def picture(ref: dict) -> np.ndarray:
        response = get(client, "/picture", run="first", step=ref["step"], index=ref["index"])
        assert response.headers["Content-Type"] == "application/octet-stream"
        return np.frombuffer(response.data, np.int8 if "scale" in ref else np.uint8).reshape(ref["shape"])

    record = record_of(20)
    assert record.samples is not None
    ref = found["head"]["samples"]["heatmaps"]
    heatmaps = picture(ref) / 127 * np.array(ref["scale"])[:, None, None]
    np.testing.assert_allclose(heatmaps, record.samples.heatmaps, atol=0.05)
    assert found["head"]["samples"]["images"]["step"] == 10  # stored once
    assert picture(found["head"]["samples"]["images"]).shape == (SAMPLES, SIDE, SIDE, 1)
    assert picture(found["head"]["neurons"][0][2]).shape == (SAMPLES, SIDE, SIDE)
    assert get(client, "/step", run="first", step=20)["graph"] is None


def test_measures_are_those_of_every_epoch(client: Client):
    measures = get(client, "/measures", run="scalars only")["measures"]
    assert measures == {"contest_accuracy": [[0, 0.5], [3, 0.75], [5, None]]}
    assert get(client, "/measures", run="first")["measures"] == {}


def test_a_neurons_relevance_over_steps(client: Client):
    for layer, neuron in (("block.1.conv", 3), ("head", 1), ("block.2.conv", 19)):
        series = get(client, "/series", run="first", layer=layer, neuron=neuron, **{"class": 0})["series"]
        assert [step for step, _, _ in series] == [10, 20, 30]
        for step, relevance, total in series:
            assert relevance == pytest.approx(graph_of(step * 10).nodes[layer, neuron]["relevance"], rel=1e-4)
            assert total == pytest.approx(6)
    absent = get(client, "/series", run="first", layer="block.1.conv", neuron=99, **{"class": 0})["series"]
    assert [relevance for _, relevance, _ in absent] == [None] * 3
    assert get(client, "/series", run="first", layer="head", neuron=1, **{"class": 7})["series"] == []


def test_newer_and_broken_records_are_told_and_nothing_else(client: Client):
    steps = get(client, "/steps", run="scalars only")["steps"]
    assert ["broken" in step["problem"] or "update lrp-lightning" in step["problem"] for step in steps] == [True] * 3
    for step in range(3):
        problem = get(client, "/step", run="scalars only", step=step, **{"class": 0})
        assert list(problem) == ["problem"]
        assert "Traceback" not in problem["problem"]
    assert "class 5 is not in this step" in get(client, "/step", run="first", step=10, **{"class": 5})["problem"]


@pytest.mark.parametrize("name", NASTY)
def test_names_travel_as_json_whatever_they_are(client: Client, name: str):
    run = name.replace("/", "_")
    steps = client.get("/steps", query_string={"run": run})
    assert steps.headers["Content-Type"] == "application/json"
    assert steps.json["class_names"] == [name * 50] * 3
    assert steps.json["settings"] == {name: name * 50}
    assert get(client, "/step", run=run, step=1, **{"class": 0})["head"]["class_names"] == [name * 50] * 3


@pytest.mark.parametrize(
    ("route", "query", "status"),
    [
        ("/steps", {}, 400),
        ("/steps", {"run": "x" * 20_001}, 400),
        ("/steps", {"run": "absent"}, 404),
        ("/steps", {"run": "../first"}, 404),
        ("/step", {"run": "first"}, 400),
        ("/step", {"run": "first", "step": "x"}, 400),
        ("/step", {"run": "first", "step": "1e3"}, 400),
        ("/step", {"run": "first", "step": "٣"}, 400),
        ("/step", {"run": "first", "step": "9" * 30}, 400),
        ("/step", {"run": "first", "step": "11"}, 404),
        ("/step", {"run": "first", "step": "10", "class": "bag"}, 400),
        ("/series", {"run": "first", "class": "0", "layer": "head"}, 400),
        ("/series", {"run": "first", "class": "0", "neuron": "0"}, 400),
        ("/picture", {"run": "first", "step": "10", "index": "-1"}, 404),
        ("/picture", {"run": "first", "step": "10", "index": "9999"}, 404),
        ("/picture", {"run": "first", "step": "10"}, 400),
        ("/picture", {"run": "absent", "step": "10", "index": "0"}, 404),
    ],
)
def test_what_makes_no_sense_is_refused(client: Client, route: str, query: dict, status: int):
    response = client.get(route, query_string=query)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json"
    assert response.json["error"]


def test_only_get(client: Client):
    assert client.post("/runs").status_code == 405
    assert client.delete("/steps", query_string={"run": "first"}).status_code == 405
    assert client.head("/runs").data == b""


def test_the_front_end_fetches_little(client: Client):
    """Under 200 kB for a step: its record, and the samples' heatmaps."""
    step = client.get("/step", query_string={"run": "first", "step": 20, "class": 0}, headers={"Accept-Encoding": "gzip"})
    assert step.headers["Content-Encoding"] == "gzip"
    assert len(step.data) + SAMPLES * 64 * 64 < 200_000


# the rest needs no log


@pytest.fixture
def routes() -> dict:
    return RelevancePlugin(TBContext()).get_plugin_apps()


def test_files_are_served_by_a_list_and_nothing_else(routes: dict):
    files = {f"/{path.name}" for path in STATIC.iterdir()}
    assert set(routes) == files | {"/runs", "/steps", "/step", "/measures", "/series", "/picture"}
    assert not [route for route in routes if "*" in route]
    types = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
    for route in files:
        response = Client(routes[route]).get(route)
        assert response.headers["Content-Type"] == types[FilePath(route).suffix]
        assert response.data == (STATIC / route[1:]).read_bytes()


@pytest.fixture
def board() -> program.TensorBoard:
    return program.TensorBoard(plugins=[*default.get_static_plugins(), RelevanceLoader])


def test_more_than_ten_steps_are_kept(board: program.TensorBoard):
    board.configure(argv=["", "--logdir", "x"])
    assert board.flags.samples_per_plugin["relevance"] == 1000
    board.configure(argv=["", "--logdir", "x", "--samples_per_plugin", "relevance=5,images=3"])
    assert board.flags.samples_per_plugin == {"relevance": 5, "images": 3}


def test_tensorboard_itself_lists_and_serves_the_tab(board: program.TensorBoard, logdir: FilePath):
    board.configure(argv=["", "--logdir", str(logdir)])
    app = application.TensorBoardWSGIApp(board.flags, board.plugin_loaders, local(logdir), board.assets_zip_provider)
    client = Client(app)
    listed = client.get("/data/plugins_listing").json["relevance"]
    assert listed["enabled"]
    assert listed["tab_name"] == "Relevance"
    entry = client.get("/data/plugin_entry.html", query_string={"name": "relevance"})
    assert 'import("./index.js")' in entry.text
    assert client.get("/data/plugin/relevance/index.js").status_code == 200
    assert client.get("/data/plugin/relevance/steps", query_string={"run": "first"}).json["steps"]
    for path in ("../plugin.py", "plugin.py", "static/index.js", "..%2fplugin.py", "/etc/passwd"):
        assert client.get(f"/data/plugin/relevance/{path}").status_code == 404


def test_without_a_data_provider_there_is_no_tab():
    assert RelevanceLoader().load(TBContext()) is None


def test_tensorboard_starts_without_torch():
    heavy = ("torch", "lightning", "pytorch_lightning", "networkx", "matplotlib", "plotly", "captum")
    code = f"import sys, lrp_lightning.tensorboard_plugin.plugin; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
