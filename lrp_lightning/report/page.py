"""The report as one HTML file, which needs no network and no server: data for the templates beside, the markup."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Sequence
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from lrp_lightning.compat import in_double
from lrp_lightning.composites import Composite, EpsilonPlus, named
from lrp_lightning.deconvnet import TopActivations
from lrp_lightning.drawing.contrast import draw_contrast
from lrp_lightning.drawing.curves import draw_curves
from lrp_lightning.drawing.figures import as_array
from lrp_lightning.drawing.neuron_cards import draw_neuron_cards
from lrp_lightning.drawing.pixels import COLOURS, check_pair, coloured, displayable, limit_of, summed
from lrp_lightning.drawing.reconstructions import patches
from lrp_lightning.drawing.sequences import of_tokens
from lrp_lightning.drawing.strategies import draw_strategies
from lrp_lightning.errors import InputError
from lrp_lightning.files import replacing
from lrp_lightning.graphs.class_graph import ClassGraph
from lrp_lightning.graphs.paths import Path
from lrp_lightning.insight.headline import kept_by
from lrp_lightning.report.analysis import Curves, Report, report_of
from lrp_lightning.report.shapes import shapes_of
from lrp_lightning.rules import Rule
from lrp_lightning.selection import Selection
from lrp_lightning.trace import Trace
from lrp_lightning.words import percent

__all__ = ["page_of", "write_report"]

_SAMPLES = 24
"""Heatmaps, neuron cards and rows of the conservation table that are shown: bounds the file's size."""
_GRAPHS = 4
"""Classes whose graphs are drawn: the same."""
_SIDE = 320
"""Pixels; larger images are shown smaller."""
_SMALL = 64
"""Pixels; images up to this are shown pixel by pixel."""
_SHORT = 8
"""Neurons of a path that is written out."""


def write_report(
    source: Report | Trace,
    path: str | os.PathLike[str],
    images: Tensor | None = None,
    model: nn.Module | None = None,
    composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
    class_names: Sequence[str] | None = None,
    **about: Any,
) -> FilePath:
    """Write one HTML file with all pictures: open it in a browser, send it, keep it; it needs no network.

    It is dark or light as the reader's system is, and readable on a phone. A click enlarges a heatmap. Text in it is data,
    never markup.

    Args:
        source: a trace; or a :class:`Report` filled by hand, to which the arguments below do not apply.
        path: the file, which is replaced if it is there. Folders above it are made.
        images: what was traced, ``(N, C, H, W)``.
        model: what was traced. With it the report shows what paths and neurons see too; without it nothing is computed.
        composite: the one of the trace.
        class_names: of the output's neurons.
        about: other fields of :class:`Report`, such as ``title``, ``titles``, ``mean``, ``std``, ``curves``, ``settings``.

    Returns:
        The file's path.

    Raises:
        InputError: if the images are not those of the trace, or parts of a report do not fit together.

    Example:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> from lrp_lightning import SelectiveLRP
        >>> from lrp_lightning.drawing import write_report
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> images = torch.rand(2, 1, 8, 8)
        >>> trace = SelectiveLRP(model).trace(images, target=1, edges=True)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = write_report(trace, f"{folder}/report.html", images, model)
        ...     file.stat().st_size < 1e6
        True
    """
    if isinstance(source, Trace):
        source = report_of(source, images, model, composite, class_names=class_names, **about)
    elif not isinstance(source, Report):
        raise InputError(f"a report is written of a Trace or a Report, got {type(source).__name__}")
    page = page_of(source)
    path = FilePath(path)
    with replacing(path) as file:
        file.write_text(page, encoding="utf-8")
    return path


def page_of(report: Report) -> str:
    """The report as text of HTML, for whoever does not want it in a file.

    Raises:
        InputError: if parts of it do not fit together.

    Example:
        >>> from lrp_lightning.report import Report
        >>> from lrp_lightning.report.page import page_of
        >>> page_of(Report(title="Digits")).splitlines()[0]
        '<!DOCTYPE html>'
    """
    graphs = _graphs(report)
    sections = [
        _section("Contrast", _contrast(report)),
        _section("Strategies", _strategies(report)),
        _section("Heatmaps", _heatmaps(report)),
        _section("Tokens", _tokens(report)),
        *(
            _section(f"Graph of {name}" if name else "Graph", _graph(report, name, of, first=not i), "graph", i)
            for i, (name, of) in enumerate(graphs[:_GRAPHS])
        ),
        _section("Neurons", _cards(report)),
        _section("Reconstructions", [_drives(top, report) for top in report.reconstructions]),
        _section("Curves", [_curve(curves) for curves in report.curves]),
        _section("Conservation", _conservation(report)),
        _section("Settings", [(str(name), str(value)) for name, value in report.settings.items()]),
    ]
    return _template().render(
        report=report,
        about=_about(report),
        measures=[(name, _number(value)) for name, value in report.measures.items()],
        sections=[section for section in sections if section["data"]],
        undrawn=[name for name, _ in graphs[_GRAPHS:]],
        negative=_negative(report),
    )


@cache
def _template() -> Template:
    room = Environment(
        loader=PackageLoader("lrp_lightning.report", ""),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    for kind in ("css", "js"):  # ours: no data
        room.globals[kind] = Markup(files("lrp_lightning.report").joinpath(f"report.{kind}").read_text("utf-8"))
    stops = colormaps[COLOURS](np.linspace(0, 1, 11), bytes=True)[:, :3]
    room.globals["stops"] = ", ".join("#{:02x}{:02x}{:02x}".format(*stop) for stop in stops)
    return room.get_template("page.html.jinja")


def _section(title: str, data: Any, kind: str = "", number: int = 0) -> dict[str, Any]:
    kind = kind or title.lower()
    return {"title": title, "kind": kind, "id": f"{kind}-{number + 1}" if number else kind, "data": data}


def _about(report: Report) -> list[str]:
    """What a page is of, in a line: model, data, date, composite and selection."""
    of = {name: named(value) if isinstance(value, Composite) else value for name, value in report.settings.items()}
    images = report.contrast.inputs if report.contrast is not None else report.images
    samples = report.measures.get("samples", 0 if images is None else len(images))
    what = "texts" if report.tokens else "samples" if images is None else "images"
    many = f"{samples:,.0f} {what if samples != 1 else what[:-1]}" if samples else ""
    data = f"{of['data']}, {many}".removesuffix(", ") if "data" in of else many
    selection = of.get("selection")
    critical = f"critical: {kept_by(selection).strip(',')}" if isinstance(selection, Selection) else selection
    rules = f"rules: {of['composite']}" if "composite" in of else ""
    parts = [of.get("model"), data, of.get("date", f"{date.today():%Y-%m-%d}"), rules, critical]
    return [str(part) for part in parts if part]


# sections


class _Picture(NamedTuple):
    """An image of the page, with a word below it where there is one."""

    source: str
    alt: str
    small: bool = False
    label: str = ""


class _Row(NamedTuple):
    """Pictures that belong together, and their caption."""

    pictures: list[_Picture]
    title: str


def _heatmaps(report: Report) -> dict[str, Any]:
    if report.images is None or report.relevance is None:
        return {}
    check_pair(report.images, report.relevance)
    if report.titles and len(report.titles) != len(report.images):
        raise InputError(f"{len(report.titles)} titles were given for {len(report.images)} images")
    images = displayable(report.images[:_SAMPLES], report.mean, report.std)
    maps = {"heatmap": report.relevance} if report.all_neurons is None else {
        "critical neurons": report.relevance, "all neurons": report.all_neurons}  # fmt: skip
    heat = {name: summed(relevance[:_SAMPLES], shares=True) for name, relevance in maps.items()}
    limit = limit_of(np.concatenate(list(heat.values())), 99.5)
    rows = []
    for i, title in zip(range(len(images)), report.titles or range(len(images)), strict=False):
        held = [f" {percent(part)}" for part in report.held[i]] if report.held and len(maps) == 2 else [""] * len(maps)
        pictures = [_heat(of[i], limit, name, name + part) for (name, of), part in zip(heat.items(), held, strict=True)]
        rows.append(_Row([_image(images[i], "image"), *pictures], str(title)))
    return {
        "rows": rows, "limit": limit, "two": len(maps) == 2, "held": bool(report.held), "many": len(report.images),
        "wide": max(images.shape[1:3]) > _SMALL,
    }  # fmt: skip


def _tokens(report: Report) -> dict[str, Any]:
    if not report.tokens or report.relevance is None:
        return {}
    shown, shares = of_tokens(report.tokens, report.relevance, report.titles or None)
    texts = [
        ([_token(*token) for token in zip(text, share, strict=False)], str(title))
        for text, share, title in zip(shown[:_SAMPLES], shares, report.titles or range(len(shown)), strict=False)
    ]
    return {"texts": texts, "many": len(shown)}


def _token(token: str, share: float) -> tuple[str, str, str]:
    """With its part of the greatest of its text, and its style."""
    red, green, blue = (int(part) for part in coloured(np.array([share]), 1.0)[0])
    ink = "#fff" if abs(share) > 0.6 else "#111"
    return token, f"{share:+.0%}", f"background: rgb({red} {green} {blue}); color: {ink}" if share else ""


def _negative(report: Report) -> str:
    """Of which samples the output that is explained is negative; none if it is of none."""
    below = 0 if report.trace is None else int((report.trace.explained < 0).sum())
    if report.trace is None or not below:
        return ""
    return "all" if below == len(report.trace.explained) else f"{below} of {len(report.trace.explained)} samples"


def _graphs(report: Report) -> list[tuple[str, ClassGraph]]:
    """Each with the name of its class; that of the whole trace has none."""
    graphs = [(_named(report, of.label), of) for of in report.graphs]
    if report.graph is not None or report.paths:
        whole = ClassGraph(-1, report.graph or nx.DiGraph(), report.paths, path_heatmaps=report.path_heatmaps)
        graphs.insert(0, ("", whole))
    return graphs


def _named(report: Report, label: int) -> str:
    names = report.class_names or ()
    return str(names[label]) if 0 <= label < len(names) else f"class {label}"


def _graph(report: Report, name: str, of: ClassGraph, first: bool) -> dict[str, Any]:
    shapes = shapes_of(of.graph, of.paths, report.class_names) if len(of.graph) else None
    drawn = {circle.node for circle in shapes.circles} if shapes and not name else set()
    neurons = {node: relevance for node, relevance in report.neuron_heatmaps.items() if node in drawn}
    explained = sum(about["relevance"] for _, about in of.graph.nodes(data=True) if about.get("output"))
    data = {
        "shapes": shapes, "samples": of.n_samples, "neurons": [_neuron(*one) for one in neurons.items()],
        "links": {node: n for n, node in enumerate(neurons)}, "paths": [_chain(path) for path in of.paths],
        "no_path": not of.paths and explained < 0, "sheet": _sheet(report, of), "first": first,
        "blocks": shapes is not None and len(shapes.layers) < len({layer for layer, _ in of.graph}),
    }  # fmt: skip
    return data if shapes or of.paths else {}


def _chain(path: Path) -> tuple[str, str, str]:
    """What it carries, the whole of it, and of a long one its ends."""
    names = [f"{layer}[{neuron}]" for layer, neuron in path.nodes]
    ends = " → ".join([*names[:2], "…", *names[-4:]]) if len(names) > _SHORT else ""
    return path.carries, " → ".join(names), ends


def _sheet(report: Report, of: ClassGraph) -> dict[str, Any]:
    """Rows of images, and columns of what runs through each path; without images that have none."""
    if of.path_heatmaps is None or report.images is None or not of.paths:
        return {}
    maps = torch.as_tensor(of.path_heatmaps)
    maps = maps[:, :, None] if maps.ndim == 4 else maps
    if maps.ndim != 5 or len(maps) != len(of.paths) or maps.shape[1] > len(report.images):
        there = f"{len(of.paths)} paths and {len(report.images)} images"
        raise InputError(f"there are {there}, and path_heatmaps {tuple(of.path_heatmaps.shape)}")
    rows = (~maps.isnan().transpose(0, 1).flatten(1).all(1)).nonzero().flatten().tolist()
    if not rows:
        return {}
    images, heat = displayable(report.images[rows], report.mean, report.std), summed(maps[:, rows], shares=True)
    ends = [_named(report, path.nodes[-1][1]) for path in of.paths]
    told = [path.carries.replace(" %", "\N{NO-BREAK SPACE}%") for path in of.paths]
    heads = [f"path {i} to {end}, {carries}" for i, (end, carries) in enumerate(zip(ends, told, strict=True), 1)]
    limit, titles = limit_of(heat, 99.5), report.titles or [""] * len(report.images)
    columns = [[_heat(h, limit, head, head) for h in maps] for head, maps in zip(heads, heat, strict=True)]
    pictures = zip([_image(image, "image") for image in images], *columns, strict=True)
    shown = [_Row(list(row), str(titles[n])) for n, row in zip(rows, pictures, strict=True)]
    return {"limit": limit, "heads": heads, "ends": list(dict.fromkeys(ends)), "rows": shown}


def _neuron(node: tuple[str, int], relevance: Tensor) -> _Row:
    heat = summed(relevance, shares=True)
    limit, name = limit_of(heat, 99.5), f"{node[0]}, neuron {node[1]}"
    return _Row([_heat(h, limit, f"heatmap of {name}") for h in heat], name)


def _contrast(report: Report) -> dict[str, Any]:
    why = report.contrast
    if why is None:
        return {}
    rows = [
        [f"{sign} it", layer, str(neuron), f"{share:+.1%}"]
        for sign, of in (("for", why.neurons_for), ("against", why.neurons_against))
        for layer, neuron, share in of
    ]
    figure = draw_contrast(why, report.class_names, report.mean, report.std)
    return {"figure": _figure(figure, "heatmaps of the contrast"), "rows": rows}


def _strategies(report: Report) -> dict[str, Any]:
    if not report.strategies:
        return {}
    figure = draw_strategies(report.strategies, report.class_names, report.mean, report.std)
    found = [strategy.sentence(report.class_names) for strategy in report.strategies if strategy.shortcut]
    tested = any(strategy.test is not None for strategy in report.strategies)
    wrong = any(strategy.right < 1 for strategy in report.strategies)
    return {"figure": _figure(figure, "strategies of each class"), "found": found, "tested": tested, "wrong": wrong}


def _cards(report: Report) -> _Picture | None:
    if not report.cards:
        return None
    return _figure(
        draw_neuron_cards(report.cards[-_SAMPLES:], report.class_names, report.mean, report.std, k=4), "neuron cards"
    )


def _drives(top: TopActivations, report: Report) -> dict[str, Any]:
    pairs = patches(top, report.mean, report.std)
    seen = [_image(image, "what the neuron sees") for image, _ in pairs]
    back = [_image(image, "what it responds to") for _, image in pairs]
    values = " · ".join(f"{value:.3g}" for value in top.values.tolist())
    return {"strips": [seen, back], "title": f"{top.layer}, neuron {top.neuron}: activation {values}"}


def _curve(of: Curves) -> dict[str, Any]:
    figure = draw_curves(of.curves, of.x, of.xlabel, of.ylabel, static=True)
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    x = range(len(next(iter(of.curves.values())))) if of.x is None else of.x
    rows = zip(*([_number(float(value)) for value in line] for line in (x, *of.curves.values())), strict=True)
    heads = [of.xlabel or "at", *map(str, of.curves)]
    return {"picture": _Picture(_uri("svg+xml", file), of.title), "title": of.title, "heads": heads, "rows": list(rows)}


def _conservation(report: Report) -> dict[str, Any]:
    if report.trace is None:
        return {}
    trace = report.trace
    inputs = trace.inputs if isinstance(trace.inputs, tuple) else (trace.inputs,)
    reached = sum(in_double(r).flatten(1).sum(1) for r in inputs)
    kinds = {"in biases": ".bias", "in stabilisers": ".stabiliser", "in unselected neurons": ".unselected"}
    columns: dict[str, Any] = {"output": trace.explained, "reached the input": reached}
    rest = {where: r for where, r in trace.absorbed.items() if not where.endswith(tuple(kinds.values()))}
    for name, ending in kinds.items():
        columns[name] = _sum(r for where, r in trace.absorbed.items() if where.endswith(ending))
    columns["elsewhere"] = _sum(rest.values())
    columns = {name: values for name, values in columns.items() if values is not None}
    titles = report.titles if len(report.titles) == len(trace.explained) else range(len(trace.explained))
    rows = [
        [
            str(title),
            *(_number(float(values[n])) for values in columns.values()),
            f"{float(trace.conservation_error[n]):.1e}",
        ]
        for n, title in enumerate(titles)
    ][:_SAMPLES]
    layers = [
        [
            name,
            trace.kinds[name],
            str(relevance.shape[1]),
            f"{float(in_double(trace.masks[name].sum(1)).mean()):.1f}" if name in trace.masks else "",
            _number(float(in_double(relevance.sum(1)).mean())),
        ]
        for name, relevance in trace.relevance.items()
    ]
    return {"heads": ["sample", *columns, "error"], "rows": rows, "layers": layers, "selected": bool(trace.masks)}


def _sum(parts: Iterable[Tensor]) -> Tensor | None:
    parts = list(parts)
    return sum(in_double(part) for part in parts) if parts else None  # type: ignore[return-value]


def _number(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# pictures


def _image(pixels: np.ndarray, alt: str) -> _Picture:
    """``(H, W, 3)`` in [0, 1]: small ones exactly, photographs as JPEG."""
    picture = Image.fromarray(np.round(255 * pixels).astype(np.uint8))
    picture.thumbnail((_SIDE, _SIDE))
    small = max(picture.size) <= _SMALL
    return _Picture(_source(picture, "PNG" if small else "JPEG"), alt, small)


def _heat(heat: np.ndarray, limit: float, alt: str, label: str = "") -> _Picture:
    """``(H, W)`` as a picture of 255 colours: white is exactly nothing."""
    picture = Image.fromarray(heat.astype(np.float32))
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    level = np.round(127 + 127 * np.clip(np.asarray(picture) / limit, -1, 1)).astype(np.uint8)
    indexed = Image.fromarray(level).convert("P")
    indexed.putpalette(colormaps[COLOURS](np.linspace(0, 1, 255), bytes=True)[:, :3].tobytes())
    return _Picture(_source(indexed, "PNG"), alt, max(heat.shape) <= _SMALL, label)


def _figure(figure: Figure, alt: str) -> _Picture:
    return _Picture(_source(Image.fromarray(as_array(figure)).convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), alt)


def _source(picture: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    return _uri(kind.lower(), file)


def _uri(kind: str, file: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
