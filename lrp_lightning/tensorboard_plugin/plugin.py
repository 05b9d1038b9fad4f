"""The plugin that TensorBoard loads: serves the tab's files, and the records of a log as JSON.

It reads through TensorBoard's data provider only, so it works with ``--load_fast``, without, and with remote providers, and
it imports neither torch nor lightning, so that TensorBoard starts as fast as without it.

======================================= ======================================================
``/runs``                               runs that have records, with their last step and its time
``/steps?run=``                         every step of a run: its epoch, measures, classes and those with shortcuts
``/step?run=&step=&class=``             the head of one step, and the graph of one class
``/measures?run=``                      each measure at every epoch, of those without records too
``/series?run=&class=&layer=&neuron=``  a neuron's relevance at every step
``/picture?run=&step=&index=``          one array of pictures, its bytes
======================================= ======================================================

What is wrong with a step's record is told as ``{"problem": ...}``. A request that makes no sense is answered by status 400,
one for what is not there by 404, both with ``{"error": ...}``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tensorboard import errors, plugin_util
from tensorboard.backend import http_util
from tensorboard.data.provider import RunTagFilter
from tensorboard.plugins.base_plugin import FrontendMetadata, TBContext, TBLoader, TBPlugin
from werkzeug.wrappers import Request, Response

from lrp_lightning.errors import RecordError
from lrp_lightning.tensorboard_plugin.schema import (
    PICTURES,
    PLUGIN,
    RECORD,
    read_graph,
    read_head,
    unpack_picture,
)

__all__ = ["RelevanceLoader", "RelevancePlugin"]

STEPS_KEPT = 1000
"""Steps of a run that TensorBoard keeps for the tab, unless ``--samples_per_plugin=relevance=...`` says otherwise."""
_TYPES = {".js": "text/javascript", ".css": "text/css"}
_STATIC = Path(__file__).parent / "static"

_App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class RelevancePlugin(TBPlugin):
    """The tab *Relevance*."""

    plugin_name = PLUGIN

    def __init__(self, context: TBContext) -> None:
        self._provider = context.data_provider

    def get_plugin_apps(self) -> dict[str, _App]:
        """Routes: those of the module's table, and each file of ``static/`` by its own."""
        # what is not in this list is not served, whatever a path says
        files = {f"/{path.name}": _file(path) for path in sorted(_STATIC.iterdir()) if path.suffix in _TYPES}
        routes = {
            "/runs": self._runs,
            "/steps": self._steps,
            "/step": self._step,
            "/measures": self._measures,
            "/series": self._series,
            "/picture": self._picture,
        }
        return {**files, **{route: _answers(answer) for route, answer in routes.items()}}

    def is_active(self) -> bool:
        """False: TensorBoard itself finds the runs that have records, through :meth:`data_plugin_names`."""
        return False

    def frontend_metadata(self) -> FrontendMetadata:
        return FrontendMetadata(es_module_path="/index.js", tab_name="Relevance")

    # answers

    def _runs(self, request: Request) -> dict[str, Any]:
        found = self._provider.list_tensors(
            plugin_util.context(request.environ),
            experiment_id=plugin_util.experiment_id(request.environ),
            plugin_name=PLUGIN,
            run_tag_filter=RunTagFilter(tags=[RECORD]),
        )
        runs = [
            {"run": run, "last_step": tags[RECORD].max_step, "changed": tags[RECORD].max_wall_time}
            for run, tags in sorted(found.items())
            if RECORD in tags
        ]
        return {"runs": runs}

    def _steps(self, request: Request) -> dict[str, Any]:
        steps: list[dict[str, Any]] = []
        about: dict[str, Any] = {"class_names": None, "settings": {}}
        for datum in self._records(request).values():
            step = {"step": datum.step, "wall_time": datum.wall_time}
            try:
                head = read_head(datum.numpy)
            except RecordError as error:
                steps.append({**step, "problem": str(error)})
                continue
            shortcuts = sorted({strategy["class"] for strategy in head["strategies"] if strategy["shortcut"]})
            step |= {"epoch": head["epoch"], "measures": head["measures"], "classes": head["explained"]}
            steps.append({**step, "shortcuts": shortcuts})
            about = {key: head[key] for key in about}
        return {**about, "steps": steps}

    def _step(self, request: Request) -> dict[str, Any]:
        parts = self._record(request)
        label = _whole(request, "class", optional=True)
        try:
            head = read_head(parts)
            return {"head": head, "graph": None if label is None else read_graph(parts, head, label)}
        except RecordError as error:
            return {"problem": str(error)}

    def _series(self, request: Request) -> dict[str, Any]:
        label, layer, neuron = _whole(request, "class"), _text(request, "layer"), _whole(request, "neuron")
        series = []
        for datum in self._records(request).values():
            try:
                graph = read_graph(datum.numpy, read_head(datum.numpy), label)
            except RecordError:
                continue
            series.append([datum.step, _relevance(graph, layer, neuron), _total(graph)])
        return {"series": series}

    def _measures(self, request: Request) -> dict[str, Any]:
        """What is logged as scalars under ``relevance/``, by name: ``[step, value]`` pairs, null where not finite."""
        run, prefix = _text(request, "run"), f"{PLUGIN}/"
        context, experiment = plugin_util.context(request.environ), plugin_util.experiment_id(request.environ)
        of_run = RunTagFilter(runs=[run])
        listed = self._provider.list_scalars(context, experiment_id=experiment, plugin_name=_SCALARS, run_tag_filter=of_run)
        tags = [tag for tag in listed.get(run, {}) if tag.startswith(prefix)]
        found = self._provider.read_scalars(
            context,
            experiment_id=experiment,
            plugin_name=_SCALARS,
            downsample=STEPS_KEPT,
            run_tag_filter=RunTagFilter(runs=[run], tags=tags),
        )
        by_step = {tag: {datum.step: float(datum.value) for datum in data} for tag, data in found.get(run, {}).items()}
        measures = {
            tag.removeprefix(prefix): [[step, value if math.isfinite(value) else None] for step, value in sorted(of.items())]
            for tag, of in by_step.items()
        }
        return {"measures": measures}

    def _picture(self, request: Request) -> bytes | dict[str, Any]:
        run, step, index = _text(request, "run"), _whole(request, "step"), _whole(request, "index")
        found = self._provider.read_blob_sequences(
            plugin_util.context(request.environ),
            experiment_id=plugin_util.experiment_id(request.environ),
            plugin_name=PLUGIN,
            downsample=_ALL,
            run_tag_filter=RunTagFilter(runs=[run], tags=[PICTURES]),
        )
        for datum in found.get(run, {}).get(PICTURES, ()):
            if datum.step == step and 0 <= index < len(datum.values):
                blob = self._provider.read_blob(plugin_util.context(request.environ), blob_key=datum.values[index].blob_key)
                return unpack_picture(blob)
        raise errors.NotFoundError("no such picture")

    # what they read

    def _records(self, request: Request) -> dict[int, Any]:
        """A run's records by step, in order; of a step that was logged twice the first, as TensorBoard does for blobs."""
        run = _text(request, "run")
        found = self._provider.read_tensors(
            plugin_util.context(request.environ),
            experiment_id=plugin_util.experiment_id(request.environ),
            plugin_name=PLUGIN,
            downsample=_ALL,
            run_tag_filter=RunTagFilter(runs=[run], tags=[RECORD]),
        )
        data = found.get(run, {}).get(RECORD)
        if not data:
            raise errors.NotFoundError("no such run, or it has no records")
        by_step: dict[int, Any] = {}
        for datum in data:
            by_step.setdefault(datum.step, datum)
        return dict(sorted(by_step.items()))

    def _record(self, request: Request) -> Any:
        step = _whole(request, "step")
        records = self._records(request)
        if step not in records:
            raise errors.NotFoundError("no such step")
        return records[step].numpy


class RelevanceLoader(TBLoader):
    """Loads the plugin, and has TensorBoard keep more steps for it than the ten that it keeps by itself."""

    def fix_flags(self, flags: argparse.Namespace) -> None:
        kept = getattr(flags, "samples_per_plugin", None)
        if kept is not None:
            kept.setdefault(PLUGIN, STEPS_KEPT)

    def load(self, context: TBContext) -> RelevancePlugin | None:
        return None if context.data_provider is None else RelevancePlugin(context)


_SCALARS = "scalars"
"""TensorBoard's own plugin for numbers over steps."""
_ALL = 1_000_000
"""A data provider wants to know how many at most."""
_MAX_TEXT = 20_000


def _relevance(graph: dict[str, Any], layer: str, neuron: int) -> float | None:
    """A neuron's relevance, whether it is shown or not; None where the graph does not have it."""
    for index, (name, *_) in enumerate(graph["layers"]):
        if name == layer:
            for of_layer, shown, relevance, *_ in graph["nodes"]:
                if (of_layer, shown) == (index, neuron):
                    return relevance
            neurons, relevances = graph["others"][index][:2]
            return relevances[neurons.index(neuron)] if neuron in neurons else None
    return None


def _total(graph: dict[str, Any]) -> float:
    """Relevance of the output."""
    return sum(node[2] for node in graph["nodes"] if node[4])


def _text(request: Request, name: str) -> str:
    value = request.args.get(name)
    if value is None or len(value) > _MAX_TEXT:
        raise errors.InvalidArgumentError(f"{name} must be given, with at most {_MAX_TEXT} characters")
    return value


def _whole(request: Request, name: str, optional: bool = False) -> Any:
    value = request.args.get(name)
    if value is None and optional:
        return None
    digits = (value or "").removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise errors.InvalidArgumentError(f"{name} must be a whole number")
    return int(value or 0)


def _answers(answer: Callable[[Request], Any]) -> _App:
    """A WSGI application that answers GET by JSON, or by bytes where the answer is bytes."""

    @Request.application
    def app(request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return _json(request, {"error": "only GET"}, 405, [("Allow", "GET")])
        try:
            found = answer(request)
        except errors.PublicError as error:
            return _json(request, {"error": str(error)}, error.http_code)
        except RecordError as error:
            return _json(request, {"error": str(error)}, 404)
        if isinstance(found, bytes):
            return http_util.Respond(request, found, "application/octet-stream")
        return _json(request, found)

    return app


def _json(request: Request, content: dict[str, Any], code: int = 200, headers: Any = None) -> Response:
    text = json.dumps(content, separators=(",", ":"))
    return http_util.Respond(request, text, "application/json", code=code, headers=headers)


def _file(path: Path) -> _App:
    @Request.application
    def app(request: Request) -> Response:
        return http_util.Respond(request, path.read_bytes(), _TYPES[path.suffix])

    return app
