"""The report as a single HTML file that needs no network and no server; this module prepares the data of its templates."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from datetime import date
from importlib.resources import files
from pathlib import Path as FilePath
from typing import Any

import networkx as nx
import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor, nn

from lrp_lightning.composites import Composite, EpsilonPlus, named
from lrp_lightning.deconvnet import TopActivations
from lrp_lightning.drawing.contrast import draw_contrast
from lrp_lightning.drawing.curves import draw_curves
from lrp_lightning.drawing.figures import as_array
from lrp_lightning.drawing.sequences import of_tokens
from lrp_lightning.errors import InputError
from lrp_lightning.files import replacing
from lrp_lightning.graphs.class_graph import ClassGraph
from lrp_lightning.graphs.shapes import shapes_of
from lrp_lightning.html import sections as shown
from lrp_lightning.html.markup import templates
from lrp_lightning.html.pictures import SMALL, Picture, Row, data_uri, heat_picture, palette_picture, picture
from lrp_lightning.insight.headline import kept_by
from lrp_lightning.patches import patches
from lrp_lightning.pixels import check_pair, coloured, displayable, limit_of, summed
from lrp_lightning.report.analysis import Curves, Report, report_of
from lrp_lightning.rules import Rule
from lrp_lightning.selection import Selection
from lrp_lightning.trace import Trace
from lrp_lightning.words import percent

__all__ = ["page_of", "write_report"]

_PACKAGE = "lrp_lightning.report"
_SAMPLES = 24
"""The most heatmaps, neuron cards and rows of the conservation table, which limits the file's size."""
_GRAPHS = 4
"""The most classes whose graphs are drawn."""


def write_report(
    source: Report | Trace,
    path: str | os.PathLike[str],
    images: Tensor | None = None,
    model: nn.Module | None = None,
    composite: Composite | Rule | str = EpsilonPlus(),  # noqa: B008  (a frozen value)
    class_names: Sequence[str] | None = None,
    **about: Any,
) -> FilePath:
    """Write a report as a single HTML file that includes all pictures and needs no network.

    The page follows the reader's dark or light theme and is readable on a phone. A click enlarges a heatmap. All text is
    escaped: it is data, never markup.

    Args:
        source: a trace; or a :class:`Report` filled by hand, to which the arguments below do not apply.
        path: the file; an existing one is replaced, and missing folders are made.
        images: the traced images, ``(N, C, H, W)``.
        model: the traced model. With it the report also shows heatmaps of paths and neurons, which takes further passes;
            without it nothing is computed.
        composite: the composite of the trace.
        class_names: names of the output's neurons.
        about: other fields of :class:`Report`, such as ``title``, ``titles``, ``mean``, ``std``, ``curves``, ``settings``.

    Returns:
        The file's path.

    Raises:
        InputError: if ``source`` is not a trace or a report, the images are not those of the trace, or parts of the report
            do not fit together.

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
        raise InputError(f"write_report takes a Trace or a Report, got {type(source).__name__}")
    page = page_of(source)
    path = FilePath(path)
    with replacing(path) as file:
        file.write_text(page, encoding="utf-8")
    return path


def page_of(report: Report) -> str:
    """The report as HTML text, not written to a file.

    Raises:
        InputError: if parts of the report do not fit together.

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
    kinds = {"page_css": "css", "js": "js"}  # the library's own
    ours = {name: Markup(files(_PACKAGE).joinpath(f"report.{kind}").read_text("utf-8")) for name, kind in kinds.items()}
    return (
        templates(_PACKAGE)
        .get_template("page.html.jinja")
        .render(
            report=report,
            about=_about(report),
            measures=[(name, shown.number(value)) for name, value in report.measures.items()],
            sections=[section for section in sections if section["data"]],
            undrawn=[name for name, _ in graphs[_GRAPHS:]],
            alone=False,
            **ours,
        )
    )


def _section(title: str, data: Any, kind: str = "", number: int = 0) -> dict[str, Any]:
    kind = kind or title.lower()
    return {"title": title, "kind": kind, "id": f"{kind}-{number + 1}" if number else kind, "data": data}


def _about(report: Report) -> list[str]:
    """One line about the page: model, data, date, composite and selection."""
    of = {name: named(value) if isinstance(value, Composite) else value for name, value in report.settings.items()}
    images = report.contrast.inputs if report.contrast is not None else report.images
    samples = report.measures.get("samples", 0 if images is None else len(images))
    what = "texts" if report.tokens else "samples" if images is None else "images"
    many = f"{samples:,.0f} {what if samples != 1 else what[:-1]}" if samples else ""
    data = f"{of['data']}, {many}".removesuffix(", ") if "data" in of else many
    selection = of.get("selection")
    critical = f"critical: {kept_by(selection)}" if isinstance(selection, Selection) else selection
    rules = f"rules: {of['composite']}" if "composite" in of else ""
    parts = [of.get("model"), data, of.get("date", f"{date.today():%Y-%m-%d}"), rules, critical]
    return [str(part) for part in parts if part]


# sections


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
        accounted = report.logit_shares[i] if report.logit_shares and len(maps) == 2 else ()
        said = [f" {percent(part)}" for part in accounted] or [""] * len(maps)
        pictures = [
            heat_picture(of[i], limit, name, name + part) for (name, of), part in zip(heat.items(), said, strict=True)
        ]
        rows.append(Row([picture(images[i], "image"), *pictures], str(title)))
    return {
        "rows": rows, "limit": limit, "two": len(maps) == 2, "held": bool(report.logit_shares), "many": len(report.images),
        "wide": max(images.shape[1:3]) > SMALL, "bare": False, "negative": shown.negative(report.trace),
        "critical": len(maps) == 1 and report.trace is not None and bool(report.trace.masks),
    }  # fmt: skip


def _tokens(report: Report) -> dict[str, Any]:
    if not report.tokens or report.relevance is None:
        return {}
    words, shares = of_tokens(report.tokens, report.relevance, report.titles or None)
    texts = [
        ([_token(*token) for token in zip(text, share, strict=False)], str(title))
        for text, share, title in zip(words[:_SAMPLES], shares, report.titles or range(len(words)), strict=False)
    ]
    return {"texts": texts, "many": len(words), "negative": shown.negative(report.trace)}


def _token(token: str, share: float) -> tuple[str, str, str]:
    """A token, its relevance relative to the greatest of its text, and its style."""
    red, green, blue = (int(part) for part in coloured(np.array([share]), 1.0)[0])
    ink = "#fff" if abs(share) > 0.6 else "#111"
    return token, f"{share:+.0%}", f"background: rgb({red} {green} {blue}); color: {ink}" if share else ""


def _graphs(report: Report) -> list[tuple[str, ClassGraph]]:
    """Each graph with the name of its class; empty for that of the whole trace."""
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
    data = shown.graph(
        of.graph, shapes, of.paths, of.n_samples, first, neurons=[_neuron(*one) for one in neurons.items()],
        links={node: n for n, node in enumerate(neurons)}, sheet=_sheet(report, of),
    )  # fmt: skip
    return data if shapes or of.paths else {}


def _sheet(report: Report, of: ClassGraph) -> dict[str, Any]:
    """Rows are images, columns the relevance along each path; images without any are left out."""
    if of.path_heatmaps is None or report.images is None or not of.paths:
        return {}
    maps = torch.as_tensor(of.path_heatmaps)
    maps = maps[:, :, None] if maps.ndim == 4 else maps
    if maps.ndim != 5 or len(maps) != len(of.paths) or maps.shape[1] > len(report.images):
        there = f"{len(of.paths)} paths and {len(report.images)} images"
        raise InputError(
            f"path_heatmaps must be (paths, images, channels, H, W) for {there}, got {tuple(of.path_heatmaps.shape)}"
        )
    rows = (~maps.isnan().transpose(0, 1).flatten(1).all(1)).nonzero().flatten().tolist()
    if not rows:
        return {}
    images, heat = displayable(report.images[rows], report.mean, report.std), summed(maps[:, rows], shares=True)
    ends = [_named(report, path.nodes[-1][1]) for path in of.paths]
    shares = [path.carries.replace(" %", "\N{NO-BREAK SPACE}%") for path in of.paths]
    heads = [f"path {i} to {end}, {carries}" for i, (end, carries) in enumerate(zip(ends, shares, strict=True), 1)]
    limit, titles = limit_of(heat, 99.5), report.titles or [""] * len(report.images)
    columns = [[heat_picture(h, limit, head, head) for h in maps] for head, maps in zip(heads, heat, strict=True)]
    pictures = zip([picture(image, "image") for image in images], *columns, strict=True)
    of_images = [Row(list(row), str(titles[n])) for n, row in zip(rows, pictures, strict=True)]
    return {"limit": limit, "heads": heads, "ends": list(dict.fromkeys(ends)), "rows": of_images}


def _neuron(node: tuple[str, int], relevance: Tensor) -> Row:
    heat = summed(relevance, shares=True)
    limit, name = limit_of(heat, 99.5), f"{node[0]}, neuron {node[1]}"
    return Row([heat_picture(h, limit, f"heatmap of {name}") for h in heat], name)


def _contrast(report: Report) -> dict[str, Any]:
    why = report.contrast
    if why is None:
        return {}
    figure = draw_contrast(why, report.class_names, report.mean, report.std)
    drawn = palette_picture(as_array(figure), "heatmaps of the contrast")
    return shown.contrast(why, drawn, report.titles)


def _strategies(report: Report) -> dict[str, Any]:
    if not report.strategies:
        return {}
    odd = getattr(report.strategies, "odd", ())
    return shown.strategies(report.strategies, report.class_names, report.mean, report.std, odd)


def _cards(report: Report) -> dict[str, Any]:
    if not report.cards:
        return {}
    many = len(report.cards)
    return shown.neurons(
        report.cards[-_SAMPLES:], report.class_names, report.mean, report.std, many, highest=many > _SAMPLES
    )


def _drives(top: TopActivations, report: Report) -> dict[str, Any]:
    pairs = patches(top, report.mean, report.std)
    seen = [picture(image, "image patch") for image, _ in pairs]
    back = [picture(image, "what the neuron responds to") for _, image in pairs]
    values = " · ".join(f"{value:.3g}" for value in top.values.tolist())
    return {"strips": [seen, back], "title": f"{top.layer}, neuron {top.neuron}: activation {values}"}


def _curve(of: Curves) -> dict[str, Any]:
    figure = draw_curves(of.curves, of.x, of.xlabel, of.ylabel, static=True)
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    x = range(len(next(iter(of.curves.values())))) if of.x is None else of.x
    rows = zip(*([shown.number(float(value)) for value in line] for line in (x, *of.curves.values())), strict=True)
    heads = [of.xlabel or "at", *map(str, of.curves)]
    return {"picture": Picture(data_uri("svg+xml", file), of.title), "title": of.title, "heads": heads, "rows": list(rows)}


def _conservation(report: Report) -> dict[str, Any]:
    return {} if report.trace is None else shown.conservation(report.trace, report.titles, _SAMPLES)
