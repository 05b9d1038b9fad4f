"""The plugin that TensorBoard loads. It serves the tab's files, and the records of a log as JSON.

It reads only through TensorBoard's data provider, so it works with and without ``--load_fast`` and with remote providers. It
imports neither torch nor lightning, so that TensorBoard starts as fast as without it.

======================================= ======================================================
``/runs``                               runs that have records, with their last step and its time
``/steps?run=``                         every step of a run: its epoch, measures, classes and those with shortcuts
``/step?run=&step=&class=``             the head of one step, and the graph of one class
``/measures?run=``                      each measure at every epoch, of those without records too
``/series?run=&class=&layer=&neuron=``  a neuron's relevance at every step
``/picture?run=&step=&index=``          one array of pictures, its bytes
======================================= ======================================================

A record is checked once (``records``). A problem with a step's record is reported as ``{"problem": ...}``. The answer to an
invalid request has status 400, that to a request for missing data 404, both with ``{"error": ...}``.
"""

from __future__ import annotations

import argparse
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
from lrp_lightning.tensorboard_plugin.records import Place, Records, json_of, seconds
from lrp_lightning.tensorboard_plugin.schema import PLUGIN, read_graph, read_head

__all__ = ["RelevanceLoader", "RelevancePlugin"]

STEPS_KEPT = 1000
"""Number of steps of a run that TensorBoard keeps for the tab, unless ``--samples_per_plugin=relevance=...`` is set."""
_TYPES = {".js": "text/javascript", ".css": "text/css"}
_STATIC = Path(__file__).parent / "static"

_App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class RelevancePlugin(TBPlugin):
    """The tab *Relevance*."""

    plugin_name = PLUGIN

    def __init__(self, context: TBContext) -> None:
        self._provider, self._records = context.data_provider, Records(context.data_provider)

    def get_plugin_apps(self) -> dict[str, _App]:
        """The routes: those of the module's table, and one for each file of ``static/``."""
        # only files in this list are served, regardless of the path
        files = {f"/{path.name}": _file(path) for path in sorted(_STATIC.iterdir()) if path.suffix in _TYPES}
        routes: dict[str, Callable[[Request], str | bytes]] = {
            "/runs": self._runs,
            "/steps": self._steps,
            "/step": self._step,
            "/measures": self._measures,
            "/series": self._series,
            "/picture": self._picture,
        }
        return {**files, **{route: _answers(answer) for route, answer in routes.items()}}

    def is_active(self) -> bool:
        """False, because TensorBoard finds the runs with records itself, through :meth:`data_plugin_names`."""
        return False

    def frontend_metadata(self) -> FrontendMetadata:
        return FrontendMetadata(es_module_path="/index.js", tab_name="Relevance")

    # answers

    def _runs(self, request: Request) -> str:
        found = self._records.runs(plugin_util.context(request.environ), plugin_util.experiment_id(request.environ))
        runs = [{"run": run, "last_step": tag.max_step, "changed": seconds(tag.max_wall_time)} for run, tag in found.items()]
        return json_of({"runs": runs})

    def _steps(self, request: Request) -> str:
        about, steps = self._records.steps(_place(request))
        about = about or json_of({"class_names": None, "settings": {}})
        return f'{about[:-1]},"steps":[{",".join(steps)}]}}'

    def _step(self, request: Request) -> str:
        place, step, label = _place(request), _whole(request, "step"), _whole(request, "class", optional=True)
        with self._records.at(place, step) as parts:
            try:
                head = read_head(parts)
                answer = json_of({"head": head, "graph": None if label is None else read_graph(parts, head, label)})
            except RecordError as error:
                return json_of({"problem": str(error)})
        if label is not None:
            self._records.prepare(place, label)
        return answer

    def _series(self, request: Request) -> str:
        label, layer, neuron = _whole(request, "class"), _text(request, "layer"), _whole(request, "neuron")
        return json_of({"series": self._records.line(_place(request), label, layer, neuron)})

    def _measures(self, request: Request) -> str:
        """The scalars under ``relevance/`` by name: ``[step, value]`` pairs, null if not finite."""
        place, prefix = _place(request), f"{PLUGIN}/"
        read = {"experiment_id": place.experiment, "plugin_name": _SCALARS}
        listed = self._provider.list_scalars(place.context, **read, run_tag_filter=RunTagFilter(runs=[place.run]))
        wanted = RunTagFilter(runs=[place.run], tags=[tag for tag in listed.get(place.run, {}) if tag.startswith(prefix)])
        found = self._provider.read_scalars(place.context, **read, downsample=STEPS_KEPT, run_tag_filter=wanted)
        by_step = {tag: {datum.step: float(datum.value) for datum in data} for tag, data in found.get(place.run, {}).items()}
        measures = {
            tag.removeprefix(prefix): [[step, value if math.isfinite(value) else None] for step, value in sorted(of.items())]
            for tag, of in by_step.items()
        }
        return json_of({"measures": measures})

    def _picture(self, request: Request) -> bytes:
        return self._records.picture(_place(request), _whole(request, "step"), _whole(request, "index"))


class RelevanceLoader(TBLoader):
    """Loads the plugin, and makes TensorBoard keep more steps for it than its default of ten."""

    def fix_flags(self, flags: argparse.Namespace) -> None:
        kept = getattr(flags, "samples_per_plugin", None)
        if kept is not None:
            kept.setdefault(PLUGIN, STEPS_KEPT)

    def load(self, context: TBContext) -> RelevancePlugin | None:
        return None if context.data_provider is None else RelevancePlugin(context)


_SCALARS = "scalars"
"""TensorBoard's own plugin for numbers over steps."""
_MAX_TEXT = 20_000


def _place(request: Request) -> Place:
    environ = request.environ
    return Place(plugin_util.context(environ), plugin_util.experiment_id(environ), _text(request, "run"))


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


def _answers(answer: Callable[[Request], str | bytes]) -> _App:
    """A WSGI application that answers GET with JSON, or with bytes if the result is bytes."""

    @Request.application
    def app(request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return _error(request, "only GET", 405, [("Allow", "GET")])
        try:
            found = answer(request)
        except errors.PublicError as error:
            return _error(request, str(error), error.http_code)
        except RecordError as error:
            return _error(request, str(error), 404)
        return http_util.Respond(
            request, found, "application/octet-stream" if isinstance(found, bytes) else "application/json"
        )

    return app


def _error(request: Request, message: str, code: int, headers: Any = None) -> Response:
    return http_util.Respond(request, json_of({"error": message}), "application/json", code=code, headers=headers)


def _file(path: Path) -> _App:
    @Request.application
    def app(request: Request) -> Response:
        return http_util.Respond(request, path.read_bytes(), _TYPES[path.suffix])

    return app
