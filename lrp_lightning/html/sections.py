"""The data of the sections of report and notebook: plain values for the templates, from objects of this library.

All sizes are bounded: at most ``most`` items are shown, and the section gives the total number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lrp_lightning.compat import in_double
from lrp_lightning.html.pictures import SIDE, Picture, Row, heat_picture, palette_picture, strip
from lrp_lightning.patches import squares
from lrp_lightning.pixels import coloured, displayable, limit_of, summed
from lrp_lightning.words import percent

if TYPE_CHECKING:
    import networkx as nx

    from lrp_lightning.graphs.paths import Path
    from lrp_lightning.graphs.shapes import Shapes
    from lrp_lightning.insight.contrast import Contrast
    from lrp_lightning.insight.neuron_cards import NeuronCard
    from lrp_lightning.insight.strategies import OddSample, Strategy
    from lrp_lightning.insight.transplant import Region
    from lrp_lightning.trace import Trace

__all__ = [
    "conservation", "contrast", "graph", "input_heatmaps", "negative", "neurons", "number", "numbers", "paths", "strategies",
]  # fmt: skip

_SHORT = 8
"""The most neurons of a path that are all named."""
_PROTOTYPES = 6
_KINDS = {"driven": "drive it most", "relevant": "most relevant", "mistaken": "most relevant among mistakes"}
_PATCH, _PATCHES = 56, 4
"""Pixels of a patch, and number of patches of each kind."""


def number(value: float) -> str:
    """A number as text for a table."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def numbers(heads: Sequence[str], rows: Iterable[Sequence[str]], many: int, said: str = "") -> dict[str, Any]:
    """The first rows of a table of ``many`` rows, with an explanation."""
    return {"heads": heads, "rows": list(rows), "many": many, "said": said}


def conservation(trace: Trace, titles: Sequence[str] = (), most: int = 24, layers: int | None = None) -> dict[str, Any]:
    """Where the relevance of each sample was absorbed, and what arrived at each layer.

    Args:
        trace: of any batch.
        titles: one per sample; if the number differs, samples are numbered instead.
        most: the most samples to show.
        layers: the most layers to show; None for all.
    """
    inputs = trace.inputs if isinstance(trace.inputs, tuple) else (trace.inputs,)
    reached = sum(in_double(r[:most]).flatten(1).sum(1) for r in inputs)
    kinds = {"in biases": ".bias", "in stabilisers": ".stabiliser", "in unselected neurons": ".unselected"}
    columns: dict[str, Any] = {"output": trace.explained[:most], "reached the input": reached}
    rest = {where: r for where, r in trace.absorbed.items() if not where.endswith(tuple(kinds.values()))}
    for name, ending in kinds.items():
        columns[name] = _sum(r[:most] for where, r in trace.absorbed.items() if where.endswith(ending))
    columns["elsewhere"] = _sum(r[:most] for r in rest.values())
    columns = {name: values.tolist() for name, values in columns.items() if values is not None}
    names = titles if len(titles) == len(trace.explained) else range(len(trace.explained))
    errors = trace.conservation_error[:most].tolist()
    rows = [
        [str(title), *(number(float(values[n])) for values in columns.values()), f"{errors[n]:.1e}"]
        for n, title in zip(range(len(errors)), names, strict=False)
    ]
    of_layers = [
        [
            name,
            trace.kinds[name],
            str(relevance.shape[1]),
            f"{float(in_double(trace.masks[name].sum(1)).mean()):.1f}" if name in trace.masks else "",
            number(float(in_double(relevance.sum(1)).mean())),
        ]
        for name, relevance in list(trace.relevance.items())[:layers]
    ]
    return {
        "heads": ["sample", *columns, "error"], "rows": rows, "many": len(trace.explained), "selected": bool(trace.masks),
        "layers": of_layers, "many_layers": len(trace.relevance),
    }  # fmt: skip


def negative(trace: Trace | None) -> str:
    """The samples whose explained output is negative, in words; empty if there are no such samples."""
    below = 0 if trace is None else int((trace.explained < 0).sum())
    if trace is None or not below:
        return ""
    return "all" if below == len(trace.explained) else f"{below} of {len(trace.explained)} samples"


def input_heatmaps(trace: Trace, most: int, side: int) -> dict[str, Any]:
    """The relevance of the first samples' inputs, if these are images; otherwise empty."""
    relevance = trace.inputs
    if not isinstance(relevance, Tensor) or relevance.ndim != 4 or relevance.numel() == 0:
        return {}
    few = relevance[:most]
    if not bool(few.isfinite().all()):
        return {}
    heat = summed(few, shares=True)
    limit = limit_of(heat, 99.5)
    pictures = [heat_picture(one, limit, f"heatmap of sample {n}", side=side) for n, one in enumerate(heat)]
    return {
        "rows": [Row([one], f"sample {n}") for n, one in enumerate(pictures)], "limit": limit, "two": False, "held": False,
        "many": len(relevance), "wide": False, "bare": True, "negative": negative(trace),
        "critical": bool(trace.masks),
    }  # fmt: skip


def contrast(
    why: Contrast, figure: Picture | None = None, titles: Sequence[str] = (), most: int = 2, side: int = SIDE
) -> dict[str, Any]:
    """Why one class and not another: heatmaps, and the neurons that raise and lower the difference.

    Args:
        why: of any inputs.
        figure: a drawing of the heatmaps; None to show those of the first samples, if these are images.
        titles: one per sample, listed above the figure.
        most: the most samples to show without a figure.
        side: the most pixels of their heatmaps.
    """
    rows = [
        [effect, layer, str(neuron), f"{share:+.1%}"]
        for effect, of in (("raises", why.neurons_for), ("lowers", why.neurons_against))
        for layer, neuron, share in of
    ]
    maps = [] if figure is not None or why.inputs.ndim != 4 else _heatmaps_of(why, min(most, len(why.inputs)), side)
    return {
        "figure": figure, "maps": maps, "rows": rows, "titles": titles, "shown": len(maps) // 2, "many": len(why.inputs),
    }  # fmt: skip


def _heatmaps_of(why: Contrast, samples: int, side: int) -> list[Row]:
    """For each sample a row of relevance through critical neurons and one through all neurons, each with its own scale."""
    images, explained = displayable(why.inputs[:samples]), why.explained
    rows: dict[tuple[int, int], Row] = {}
    for kind, (name, maps) in enumerate({"critical neurons": why.heatmaps, "all neurons": why.all_neurons}.items()):
        few, held = maps[:, :samples], why.logit_shares(maps)
        heat = summed(few.flatten(0, 1), shares=True).reshape(3, samples, *few.shape[3:])
        limit = limit_of(heat, 99.5)
        for i in range(samples):
            a, b = int(why.a[i]), int(why.b[i])
            pictures = [palette_picture(images[i], "image", side)]
            for what, said in enumerate((f"for class {a}", f"for class {b}", f"{a}, not {b}")):
                label = f"{said}: {number(float(explained[what, i]))}, holds {percent(float(held[what, i]))}"
                pictures.append(heat_picture(heat[what, i], limit, f"heatmap {said}", label, side))
            rows[i, kind] = Row(pictures, f"sample {i}, {name}")
    return [rows[key] for key in sorted(rows)]


def paths(of: Sequence[Path], most: int | None = None, first: bool = True) -> dict[str, Any]:
    """Paths with their shares, relative to the strongest.

    Args:
        of: the paths, best first.
        most: the most paths to show; None for all.
        first: whether to explain what a path is.
    """
    strongest = max((abs(path.share) for path in of), default=0.0)
    return {
        "paths": [_chain(path, strongest if len(of) > 1 else 0.0) for path in of[:most]],
        "many_paths": len(of),
        "first": first,
    }


def _chain(path: Path, strongest: float) -> dict[str, Any]:
    """A path's share, its share relative to the strongest, all its neurons, and the ends of a long path."""
    names = [f"{layer}[{neuron}]" for layer, neuron in path.nodes]
    return {
        "carries": path.carries, "whole": " → ".join(names), "against": path.share < 0,
        "ends": " → ".join([*names[:2], "…", *names[-4:]]) if len(names) > _SHORT else "",
        "width": round(100 * abs(path.share) / strongest, 1) if strongest else 0,
    }  # fmt: skip


def graph(
    whole: nx.DiGraph, shapes: Shapes | None, of: Sequence[Path], samples: int = 0, first: bool = True, **more: Any
) -> dict[str, Any]:
    """A graph with its paths.

    Args:
        whole: the graph.
        shapes: its shapes; None to draw nothing.
        of: its best paths.
        samples: number of samples that it sums over; 0 if unknown.
        first: whether to explain how to read it.
        more: further data of the report.
    """
    explained = sum(about["relevance"] for _, about in whole.nodes(data=True) if about.get("output"))
    return {
        "shapes": shapes, "samples": samples, "no_path": not of and explained < 0, "neurons": [], "links": {}, "sheet": {},
        "blocks": shapes is not None and len(shapes.layers) < len({layer for layer, _ in whole}),
        **paths(of, first=first), **more,
    }  # fmt: skip


def strategies(
    of: Sequence[Strategy],
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    odd: Sequence[OddSample] = (),
    most: int | None = None,
    side: int = 96,
) -> dict[str, Any]:
    """Groups of images with the region that was tested, and the samples that fit no strategy of their class.

    Args:
        of: the strategies.
        class_names: names of the classes; without them classes are given by number.
        mean, std: the images' normalisation.
        odd: samples that fit no strategy of their class; the first eight are shown.
        most: the most strategies to show; None for all.
        side: the most pixels of an image.
    """
    rows = [_strategy(s, class_names, mean, std, side) for s in of[:most]]

    return {
        "rows": rows, "many": len(of), "tested": any(s.test is not None for s in of),
        "shortcuts": sum(s.shortcut for s in of), "wrong": any(s.right < 1 for s in of),
        "odd": [
            [
                str(o.sample), _named(o.label, class_names),
                "none" if o.matching_strategy is None else _named(o.matching_strategy.label, class_names), f"{o.margin:.3g}",
            ]
            for o in odd[:8]
        ],
        "many_odd": len(odd),
    }  # fmt: skip


def _named(label: int, class_names: Sequence[str] | None) -> str:
    return f"class {label}" if class_names is None else str(class_names[label])


def _strategy(
    s: Strategy,
    class_names: Sequence[str] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    side: int,
) -> dict[str, Any]:
    """The result of the test, the mean heatmap and the most typical images; a frame marks a region that does not move."""
    said, pictures, frame = s.sentence(class_names), [], ""
    if s.images is not None and s.heatmap is not None and s.images.ndim == 4:
        heat = s.heatmap.cpu().numpy()
        order = s.right_first(_PROTOTYPES)
        pictures = [palette_picture(coloured(heat, limit_of(heat, 99.5)), "mean heatmap", side)]
        for i, image in zip(order, displayable(s.images[order], mean, std), strict=True):
            taken_for = s.label if s.predictions is None else int(s.predictions[i])
            wrong = "" if taken_for == s.label else _named(taken_for, class_names)
            alt = f"typical image, predicted as {wrong}" if wrong else "typical image"
            pictures.append(palette_picture(image, alt, side, wrong))
        if s.test is not None and not s.test.moves:
            frame = _frame(s.test.region, s.images.shape[2:])
    neurons = [f"{layer}[{neuron}]" for layer, neuron, _ in s.neurons[:5]]
    said = said[:1].upper() + said[1:]
    return {"said": said, "shortcut": s.shortcut, "pictures": pictures, "frame": frame, "neurons": neurons}


def _frame(region: Region, sides: Sequence[int]) -> str:
    """The place of a region in an image of the given sides, as CSS."""
    (top, left, tall, wide), (rows, columns) = region, sides
    parts = {"top": top / rows, "left": left / columns, "height": tall / rows, "width": wide / columns}
    return "; ".join(f"{name}: {100 * share:.4g}%" for name, share in parts.items())


def neurons(
    cards: Sequence[NeuronCard],
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    many: int | None = None,
    highest: bool = False,
    side: int = _PATCH,
) -> dict[str, Any]:
    """Cards, with the image patches that activate a neuron and those in which it is relevant.

    Args:
        cards: the cards to show.
        class_names: names of the classes; without them classes are given by number.
        mean, std: the images' normalisation.
        many: the total number of cards; None if these are all.
        highest: whether these are the cards of the highest layers instead of the first ones.
        side: pixels of a patch.
    """
    rows = []
    for card in cards:
        like = f"; similar neurons: {', '.join(str(n) for n, _ in card.similar)}" if card.similar else ""
        kinds = [
            (said, strip([of[:_PATCHES] for of in squares(top, side, mean, std)], f"patches: {said}"))
            for kind, said in _KINDS.items()
            if len((top := getattr(card, kind)).values) and top.images.ndim == 4
        ]
        about = f"{card.layer}, neuron {card.neuron}: {card.share:.1%} of its layer's relevance{like}"
        rows.append({"name": card.name(class_names), "said": about, "kinds": kinds})
    return {"rows": rows, "many": len(cards) if many is None else many, "highest": highest}


def _sum(parts: Iterable[Tensor]) -> Tensor | None:
    parts = list(parts)
    return sum(in_double(part) for part in parts) if parts else None  # type: ignore[return-value]
