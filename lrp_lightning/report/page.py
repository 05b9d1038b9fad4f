"""The report as one HTML file, which needs no network and no server."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path as FilePath
from typing import Any

import networkx as nx
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs
from torch import Tensor, nn

from lrp_lightning.compat import in_double
from lrp_lightning.composites import Composite, EpsilonPlus
from lrp_lightning.deconvnet import TopActivations
from lrp_lightning.drawing.contrast import draw_contrast
from lrp_lightning.drawing.curves import draw_curves
from lrp_lightning.drawing.figures import as_array
from lrp_lightning.drawing.graphs import draw_graph
from lrp_lightning.drawing.neuron_cards import draw_neuron_cards
from lrp_lightning.drawing.pixels import COLOURS, check_pair, coloured, displayable, limit_of, summed
from lrp_lightning.drawing.reconstructions import patches
from lrp_lightning.drawing.sequences import of_tokens
from lrp_lightning.drawing.strategies import draw_strategies
from lrp_lightning.errors import InputError
from lrp_lightning.files import replacing
from lrp_lightning.graphs.paths import Path
from lrp_lightning.report.analysis import Report, report_of
from lrp_lightning.rules import Rule
from lrp_lightning.trace import Trace
from lrp_lightning.words import percent

__all__ = ["page_of", "write_report"]

_SAMPLES = 24
"""Heatmaps shown, and rows of the conservation table: bounds the file's size."""
_SIDE = 320
"""Pixels; larger images are shown smaller."""
_SMALL = 64
"""Pixels; images up to this are shown pixel by pixel."""
_SHORT = 8


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

    It is dark or light as the reader's system is, and readable on a phone. Text in it is data, never markup.

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
        ...     file.stat().st_size < 8e6
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
    sections = {
        "Contrast": _contrast(report),
        "Strategies": _strategies(report),
        "Heatmaps": _heatmaps(report),
        "Tokens": _tokens(report),
        "Graph": _graph(report),
        "Paths": _paths(report),
        "Neurons": _cards(report),
        "Reconstructions": _reconstructions(report),
        "Curves": _curves(report),
        "Conservation": _conservation(report),
        "Settings": _settings(report),
    }
    shown = {name: body for name, body in sections.items() if body}
    links = "".join(f'<a href="#{name.lower()}">{name}</a>' for name in shown)
    measures = "".join(
        f"<div><dt>{escape(str(name))}</dt><dd>{escape(_number(value))}</dd></div>"
        for name, value in report.measures.items()
    )
    said = "".join(f"<p>{escape(str(sentence))}</p>" for sentence in report.headline)
    body = "".join(f'<section id="{name.lower()}"><h2>{name}</h2>{html}</section>' for name, html in shown.items())
    style, script = (files("lrp_lightning.report").joinpath(f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
    plotly = f"<script>{get_plotlyjs()}</script><script>{script}</script>" if 'class="plot"' in body else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{style}</style></head>\n"
        f"<body><h1>{escape(report.title)}</h1>"
        + (f'<div class="headline">{said}</div>' if said else "")
        + f"<nav>{links}</nav>"
        + (f'<dl class="measures">{measures}</dl>' if measures else "")
        + f"{body}{plotly}</body></html>\n"
    )


# sections


def _heatmaps(report: Report) -> str:
    if report.images is None or report.relevance is None:
        return ""
    check_pair(report.images, report.relevance)
    if report.titles and len(report.titles) != len(report.images):
        raise InputError(f"{len(report.titles)} titles were given for {len(report.images)} images")
    images = displayable(report.images[:_SAMPLES], report.mean, report.std)
    heat = summed(report.relevance[:_SAMPLES], shares=True)
    whole = None if report.all_neurons is None else summed(report.all_neurons[:_SAMPLES], shares=True)
    limit = limit_of(heat if whole is None else np.concatenate([heat, whole]), 99.5)

    def card(i: int, title: object) -> str:
        pictures, said = [_image(images[i], "image"), _heat(heat[i], limit, "heatmap")], ""
        if whole is not None:
            pictures = [*pictures[:1], _heat(heat[i], limit, "critical neurons"), _heat(whole[i], limit, "all neurons")]
            parts = report.held[i] if report.held else None
            of = [] if parts is None else [percent(part) for part in parts]
            said = f"<br>critical neurons hold {of[0]} of the logit, all {of[1]}" if of else ""
        kind = "pair" if whole is None else "pair three"
        caption = f"<figcaption>{escape(str(title))}{said}</figcaption>"
        return f'<figure><div class="{kind}">{"".join(pictures)}</div>{caption}</figure>'

    titles = report.titles or range(len(images))
    cards = "".join(card(i, title) for i, title in zip(range(len(images)), titles, strict=False))
    beside = "its heatmap" if whole is None else "what runs through its critical neurons, and through all neurons"
    more = f" The first {_SAMPLES} of {len(report.images)} are shown." if len(report.images) > _SAMPLES else ""
    return (
        f"<p>Each image beside {beside}: red where its relevance speaks for the output, blue where against.{more}</p>"
        + _negative(report)
        + _scale(limit, "% of the image's relevance a pixel")
        + f'<div class="cards {"wide" if max(heat.shape[1:]) > _SMALL else "pairs"}">{cards}</div>'
    )


def _tokens(report: Report) -> str:
    if not report.tokens or report.relevance is None:
        return ""
    shown, shares = of_tokens(report.tokens, report.relevance, report.titles or None)
    texts = "".join(
        f"<figure><p>{' '.join(map(_token, text, share))}</p><figcaption>{escape(str(title))}</figcaption></figure>"
        for text, share, title in zip(shown[:_SAMPLES], shares, report.titles or range(len(shown)), strict=False)
    )
    more = f" The first {_SAMPLES} of {len(shown)} are shown." if len(shown) > _SAMPLES else ""
    return (
        "<p>Tokens are red where they speak for the output, blue where against, as strong as their relevance is beside the "
        f"greatest of their text; those that get nothing, such as padding, are grey.{more}</p>"
        + _negative(report)
        + f'<div class="texts">{texts}</div>'
    )


def _token(token: str, share: float) -> str:
    red, green, blue = (int(part) for part in coloured(np.array([share]), 1.0)[0])
    ink = "#fff" if abs(share) > 0.6 else "#111"
    style = f"background: rgb({red} {green} {blue}); color: {ink}" if share else ""
    return f'<span title="{share:+.0%} of the greatest" style="{style}">{escape(token)}</span>'


def _negative(report: Report) -> str:
    below = 0 if report.trace is None else int((report.trace.explained < 0).sum())
    if report.trace is None or not below:
        return ""
    of = "" if below == len(report.trace.explained) else f" for {below} of {len(report.trace.explained)} samples"
    return (
        f"<p>The output that is explained is negative{of}. Red still raises it and blue lowers it where the last layer "
        "follows the ε rule, as linear layers do in every composite that has a name; where it follows z+ or αβ, it is the "
        "other way round.</p>"
    )


def _graph(report: Report) -> str:
    if report.graph is None or len(report.graph) == 0:
        return ""
    figure = draw_graph(report.graph, paths=report.paths, class_names=report.class_names)
    drawn = {(layer, neuron) for trace in figure.data if trace.name == "neurons" for layer, neuron in trace.customdata}
    neurons, click = [], ""
    for (layer, neuron), relevance in report.neuron_heatmaps.items():
        if (layer, neuron) in drawn:
            heat = summed(relevance, shares=True)
            limit = limit_of(heat, 99.5)
            neurons.append(
                {"layer": layer, "neuron": neuron, "images": [_heat_source(h, limit) for h in heat],
                 "small": max(heat.shape[1:]) <= _SMALL}
            )  # fmt: skip
    if neurons:
        click = (
            '<div class="neuron"><output>Click a neuron on a path to see its heatmaps.</output><div class="cards"></div>'
            f"{_data(neurons)}</div>"
        )
    return (
        "<p>Layers stand from the input on the left to the output on the right, in each the neurons with the most "
        "relevance; edges are as wide as what they carry, red for, blue against"
        + (", and the best paths are drawn over them." if report.paths else ".")
        + "</p>"
        + _plot(figure, least_width=140 + 46 * len(figure.layout.meta["layers"]))
        + click
    )


def _paths(report: Report) -> str:
    if not report.paths:
        graph = report.graph or nx.DiGraph()
        if sum(about["relevance"] for _, about in graph.nodes(data=True) if about.get("output")) < 0:
            return "<p>No path is shown: paths carry shares of a positive output, and what is explained is negative.</p>"
        return ""
    html = (
        "<p>Chains of neurons from the input to the output, and the share of the output that each carries. There are very "
        "many of them, so that shares are small, and near ties say little.</p>"
        f'<ol class="chain">{"".join(map(_chain, report.paths))}</ol>'
    )
    if report.path_heatmaps is None or report.images is None:
        return html
    heat = summed(report.path_heatmaps, shares=True)
    if heat.ndim != 4 or len(heat) != len(report.paths):
        raise InputError(f"there are {len(report.paths)} paths, and path_heatmaps {tuple(report.path_heatmaps.shape)}")
    images = displayable(report.images[: heat.shape[1]], report.mean, report.std)
    names = dict(enumerate(report.class_names or ()))
    explained = [str(names.get(neuron, neuron)) for _, neuron in (path.nodes[-1] for path in report.paths)]
    heads = [
        f"path {i} to {name}, {path.carries.replace(' %', chr(0xA0) + '%')}"
        for i, (path, name) in enumerate(zip(report.paths, explained, strict=True), 1)
    ]
    return (
        html
        + f"<p>Whatever an image shows, a column explains the class at the end of its path, {escape(_listed(explained))}. A "
        "heatmap is empty where its path carries nothing.</p>"
        + _sheet(images, heat, heads, "% of the heatmap's relevance a pixel")
    )


def _listed(names: Sequence[str]) -> str:
    """Each once."""
    *most, last = dict.fromkeys(names)
    return f"{', '.join(most)} or {last}" if most else last


def _chain(path: Path) -> str:
    """The whole of a short path; of a long one its ends, and the rest when asked for."""
    share = f"<b>{path.carries}</b> "
    names = [f"{layer}[{neuron}]" for layer, neuron in path.nodes]
    whole = escape(" → ".join(names))
    if len(names) <= _SHORT:
        return f"<li>{share}{whole}</li>"
    ends = escape(" → ".join([*names[:2], "…", *names[-4:]]))
    return f"<li><details><summary>{share}{ends}</summary>{whole}</details></li>"


def _sheet(images: np.ndarray, heat: np.ndarray, heads: Sequence[str], unit: str) -> str:
    """Rows are samples; columns the image and ``heat``, ``(K, N, H, W)``."""
    limit = limit_of(heat, 99.5)
    cells = ["<span></span>", *(f'<span class="label">{escape(head)}</span>' for head in heads)]
    for n, image in enumerate(images):
        cells += [_image(image, "image"), *(_heat(h[n], limit, head) for h, head in zip(heat, heads, strict=True))]
    columns = f"grid-template-columns: repeat({len(heads) + 1}, auto)"
    return _scale(limit, unit) + f'<div class="scroll"><div class="sheet" style="{columns}">{"".join(cells)}</div></div>'


def _contrast(report: Report) -> str:
    why = report.contrast
    if why is None:
        return ""
    figure = draw_contrast(why, report.class_names, report.mean, report.std)
    rows = [
        [f"{sign} it", layer, str(neuron), f"{share:+.1%}"]
        for sign, of in (("for", why.neurons_for), ("against", why.neurons_against))
        for layer, neuron, share in of
    ]
    listed = "".join(f"<li>{escape(title)}</li>" for title in report.titles)
    return (
        "<p>What speaks for the class, for the other one, and for the difference of their logits: red for, blue against. "
        "Above, what runs through the critical neurons of each; below, through all neurons. What a heatmap does not hold of "
        "its logit stays in biases, stabilisers and neurons that were not selected.</p>"
        + (f"<ol>{listed}</ol>" if listed else "")
        + _figure(figure, "heatmaps of the contrast")
        + _table(["speaks", "layer", "neuron", "of its layer"], rows)
    )


def _strategies(report: Report) -> str:
    if not report.strategies:
        return ""
    found = [strategy for strategy in report.strategies if strategy.shortcut]
    said = "".join(f"<li><strong>Likely shortcut.</strong> {escape(s.sentence(report.class_names))}.</li>" for s in found)
    figure = draw_strategies(report.strategies, report.class_names, report.mean, report.std)
    return (
        (f"<ul>{said}</ul>" if found else "<p>No shortcut was found.</p>")
        + "<p>A strategy is a group of images of one class that are decided alike. A row each: the mean heatmap, then "
        "the most typical images. The framed region was copied into images of other classes; how many of these then became "
        "the class stands above, and, as controls, how many do by another region, or by that region of the class's other "
        "images.</p>" + _figure(figure, "strategies of each class")
    )


def _cards(report: Report) -> str:
    if not report.cards:
        return ""
    figure = draw_neuron_cards(report.cards, report.class_names, report.mean, report.std, k=4)
    return (
        "<p>A row a neuron: the classes that it speaks for, with their parts of it; the parts of images that drive it most, "
        "those in which it is most relevant for the predicted class, and the same among mistakes. Below each, what in it "
        "drives the neuron; the rest is grey.</p>" + _figure(figure, "neuron cards")
    )


def _figure(figure: Figure, alt: str) -> str:
    source = _source(Image.fromarray(as_array(figure)).convert("P", palette=Image.Palette.ADAPTIVE), "PNG")
    return f'<div class="scroll"><img src="{source}" alt="{escape(alt)}" style="width: auto; max-width: none"></div>'


def _reconstructions(report: Report) -> str:
    if not report.reconstructions:
        return ""
    cards = "".join(_drives(top, report) for top in report.reconstructions)
    return (
        "<p>What drives single neurons: the parts of images that a neuron sees where it is strongest, each above what of it "
        "the neuron responds to, carried back through the network; grey is nothing.</p>"
        f'<div class="cards wide">{cards}</div>'
    )


def _drives(top: TopActivations, report: Report) -> str:
    pairs = patches(top, report.mean, report.std)
    seen = "".join(_image(image, "what the neuron sees") for image, _ in pairs)
    back = "".join(_image(image, "what it responds to") for _, image in pairs)
    return (
        f'<figure><div class="drives">{seen}</div><div class="drives" style="margin-top: 6px">{back}</div>'
        f"<figcaption>{escape(top.layer)} [{top.neuron}], {' · '.join(f'{v:.3g}' for v in top.values.tolist())}"
        "</figcaption></figure>"
    )


def _curves(report: Report) -> str:
    return "".join(
        f"<h3>{escape(c.title)}</h3>" + _plot(draw_curves(c.curves, c.x, c.xlabel, c.ylabel), least_width=0)
        for c in report.curves
    )


def _conservation(report: Report) -> str:
    if report.trace is None:
        return ""
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
    return (
        "<p>What reached the input and what stayed on the way add up to the output; the last column is what is missing, as "
        "a share of the output. Heatmaps show shares of what reached the input, however little that is: with a selection "
        "most of the output stays above, in unselected neurons.</p>"
        + _table(["sample", *columns, "error"], rows)
        + "<details><summary>Layer by layer</summary>"
        + _table(["layer", "kind", "neurons", "critical", "relevance, mean"], layers)
        + "</details>"
    )


def _sum(parts: Iterable[Tensor]) -> Tensor | None:
    parts = list(parts)
    return sum(in_double(part) for part in parts) if parts else None  # type: ignore[return-value]


def _settings(report: Report) -> str:
    rows = "".join(f"<tr><td>{escape(str(k))}</td><td>{escape(str(v))}</td></tr>" for k, v in report.settings.items())
    return f'<div class="scroll"><table class="settings">{rows}</table></div>' if rows else ""


# parts of them


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _number(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plot(figure: Any, least_width: int) -> str:
    """A plotly figure, drawn by report.js in the page's colours."""
    plot = f'<div class="plot" style="min-width: {least_width}px"></div>'
    return f'<div class="scroll">{plot}{_data(figure.to_plotly_json())}</div>'


def _data(value: Any) -> str:
    """JSON that no text in it can break out of."""
    return f'<script type="application/json">{to_json_plotly(value).replace("<", chr(92) + "u003c")}</script>'


def _scale(limit: float, unit: str) -> str:
    stops = ", ".join("#{:02x}{:02x}{:02x}".format(*colormaps[COLOURS](at, bytes=True)[:3]) for at in np.linspace(0, 1, 11))
    return (
        f'<div class="scale"><span>-{limit:.2g}</span><i style="background: linear-gradient(to right, {stops})"></i>'
        f"<span>+{limit:.2g}</span><span>{escape(unit)}</span></div>"
    )


def _image(pixels: np.ndarray, alt: str) -> str:
    """``(H, W, 3)`` in [0, 1]: small ones exactly, photographs as JPEG."""
    picture = Image.fromarray(np.round(255 * pixels).astype(np.uint8))
    picture.thumbnail((_SIDE, _SIDE))
    small = max(picture.size) <= _SMALL
    return _tag(_source(picture, "PNG" if small else "JPEG"), alt, small)


def _heat(heat: np.ndarray, limit: float, alt: str) -> str:
    return _tag(_heat_source(heat, limit), alt, max(heat.shape) <= _SMALL)


def _heat_source(heat: np.ndarray, limit: float) -> str:
    """``(H, W)`` as a picture of 255 colours: white is exactly nothing."""
    picture = Image.fromarray(heat.astype(np.float32))
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    level = np.round(127 + 127 * np.clip(np.asarray(picture) / limit, -1, 1)).astype(np.uint8)
    indexed = Image.fromarray(level).convert("P")
    indexed.putpalette(colormaps[COLOURS](np.linspace(0, 1, 255), bytes=True)[:, :3].tobytes())
    return _source(indexed, "PNG")


def _source(picture: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _tag(source: str, alt: str, small: bool) -> str:
    return f'<img src="{source}" alt="{escape(alt)}"{" class=small" if small else ""}>'
