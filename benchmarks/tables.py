"""Turn the suite's records into ``RESULTS.md``, ``graph.md`` and ``growth.png``; guard the ratios.

    python benchmarks/tables.py            # pages of all parts in benchmarks/runs/, whatever order they were measured in
    python benchmarks/tables.py --check    # the same; status 1 if a ratio of ours is greater than the stored one allows
    python benchmarks/tables.py --update   # the same; stores the ratios of ours in benchmarks/ratios.json

If something was measured several times, the newest record is used.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from methods import OURS, PEERS, SELECTING
from models import MODELS

HERE = Path(__file__).parent
PACKAGES = ("torch", "torchvision", "captum", "zennit", "autolrp", "lxt", "zennit-crp")
TOLERANCE = 1.15
FAMILIES = ("convolutions, products", "element-wise", "copies", "Python, dispatch")
Record = dict[str, Any]

OF_RATIOS = """Ratios are relative to gradient x input in the same process and round: each round times one gradient x
input, then one pass of the method. Cells show the median over two to fifteen rounds, depending on the time available, ±
half the interquartile range. Peers are called as for one batch, including what they set up for it."""
OF_RIGHT = """In these untrained models only the input can receive relevance: biases, class token and positions are
zero, and batch norms have the variances of the images and zero means. The input is two images of 64 pixels. Cells show
the smallest and largest sum of relevance / logit, and in brackets |relevance - oracle| / |oracle|. The oracle is
gradient x input of rewritten modules in float64 (`benchmarks/oracle.py`). A result within 5 % of the oracle is right. A
neuron without inputs of the sign that a rule requires propagates nothing. With z+ and alpha-beta, the oracle's own sum
therefore also differs from 1 where activations can be negative. zennit uses its own canonizer for ResNets, and
elsewhere the one that merges batch norms."""
OF_LEAST = """*The least* is gradient x input plus the kernels that no implementation can avoid, timed alone: for z+,
one more forward of each convolution (for inputs of both signs two, and a backward); for edges, a weight gradient of
each convolution and of each linear layer of tokens."""
OF_ONE = (("resnet50", "epsilon", 1.2), ("resnet50", "EpsilonPlus", 1.7), ("efficientnet_b0", "EpsilonPlus", 2.2))
"""Goals for a single image."""
OF_MISSED = """Why goals are missed: in ResNet50 and EfficientNet-B0 the kernels of one operator take little time, so the
Python that accompanies it counts ([shares](#where-the-time-goes)). z+ needs a second forward and a second backward where a
convolution reads values of both signs, as after SiLU and GELU. A selection sums the relevance by neuron in each layer."""
OF_OVERHEAD = """The network has 500 tiny layers; the rule is epsilon. *Plain* is gradient x input. *Eager hooks* keep
each module's output and scale the gradient that arrives at it, which is the least that hooks do."""
OF_GRAPHS = """This library gives every edge between all neurons of all layers in one pass. zennit-crp gives the edges
into one neuron in one conditional pass. The last table therefore also has a smaller graph for zennit-crp, of the ten
most relevant neurons of every hidden layer. Its passes are batched by ten and timed in three layers, since they cost
the same in all. Ratios are medians of interleaved rounds."""

NOT_ON_A_GPU = """Not measured yet. `python benchmarks/gpu.py --out benchmarks/gpu.md` takes ten minutes on one GPU. It
measures whether the tests marked `gpu` pass; time, peak memory and waits of passes in float32 and bfloat16; and the
share of a fit that RelevanceMonitor takes. `make bench` puts its page here."""


class Records:
    """The records of all parts, newest first."""

    def __init__(self, parts: Iterable[Path], device: str, side: int) -> None:
        newest: dict[str, tuple[str, Record]] = {}
        for path in parts:
            part = json.loads(path.read_text())
            for benchmark in part["benchmarks"]:
                info = benchmark["extra_info"]
                if info.get("device") != device or info.get("side") != side:
                    continue
                key = json.dumps([info["kind"], info["what"]])
                if key not in newest or newest[key][0] < part["datetime"]:
                    newest[key] = part["datetime"], info
        self.all = [info for _, info in newest.values()]

    def of(self, kind: str, **what: Any) -> list[Record]:
        return [r for r in self.all if r["kind"] == kind and what.items() <= r["what"].items()]

    def one(self, kind: str, **what: Any) -> Record:
        """The record, or an empty one."""
        return next(iter(self.of(kind, **what)), {})

    def values(self, kind: str, of: str) -> list[Any]:
        return sorted({r["what"][of] for r in self.of(kind)})

    def models(self, kind: str) -> list[str]:
        there = {r["what"]["model"] for r in self.of(kind)}
        return [m for m in MODELS if m in there] + sorted(there - set(MODELS))


def median(record: Record, of: str = "ratios") -> float | None:
    return float(np.median(record[of])) if record.get(of) else None


def spread(record: Record, of: str = "ratios") -> float:
    """Half of the distance between the quartiles."""
    low, high = np.percentile(record[of], [25, 75])
    return float(high - low) / 2


def cell(record: Record, of: str = "ratios", digits: int = 2) -> str:
    if "raises" in record:
        return record["raises"]
    found = median(record, of)
    return "" if found is None else f"{found:.{digits}f} ± {spread(record, of):.{digits}f}"


def table(corner: str, columns: Iterable[str], rows: Iterable[tuple[str, list[str]]]) -> list[str]:
    """A table; rows without a figure are left out."""
    columns, rows = list(columns), [row for row in rows if any(row[1])]
    lines = [f"| {' | '.join([corner, *columns])} |", "| --- |" + " ---: |" * len(columns)]
    return [*lines, *(f"| {' | '.join([name, *cells])} |" for name, cells in rows)] if rows else ["Not measured yet."]


def judged(right: Record) -> str:
    """The oracle's verdict on a method for a model, in a word."""
    if not right:
        return ""
    if "raises" in right:
        return right["raises"]
    if right["error"] < 0.05:
        return "right"
    due = all(abs(a - b) <= 0.02 * abs(b) for a, b in zip(right["sums"], right["due"], strict=True))
    return "sum right, relevance differs" if due else "wrong"


def conservation(right: Record) -> str:
    if not right or "raises" in right:
        return judged(right)
    low, high = min(right["sums"]), max(right["sums"])
    close = max(abs(low - 1), abs(high - 1)) < 1e-3
    sums = "1.000" if close else f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"
    return f"{sums} ({right['error']:.0e}) {'' if judged(right) == 'right' else f'**{judged(right)}**'}".strip()


def rightness(records: Records) -> list[str]:
    models = records.models("right")
    ours = [m for m in OURS if m.rule]
    return table(
        "sum / logit (distance from the oracle)",
        models,
        [
            (_named(m.name, m.package), [conservation(records.one("right", model=model, method=m.name)) for model in models])
            for m in (*ours, *PEERS)
        ],
    )


def times(records: Records, batch: int) -> list[str]:
    models = [m for m in records.models("time") if records.of("time", model=m, batch=batch)]

    def timed(model: str, method: str) -> str:
        text = cell(records.one("time", model=model, batch=batch, method=method))
        verdict = judged(records.one("right", model=model, method=method))
        return f"{text} **{verdict}**" if text and "±" in text and verdict not in ("right", "") else text

    rows = [(_named(m.name, m.package), [timed(model, m.name) for model in models]) for m in (*OURS, SELECTING, *PEERS)]
    at_least = [
        ("the least for EpsilonPlus", ("convolutions",)),
        ("the least for epsilon, all edges", ("edges",)),
        ("the least for EpsilonPlus, all edges", ("convolutions", "edges")),
    ]
    rows += [(name, [_number(floor(records, model, batch, *of)) for model in models]) for name, of in at_least]
    seconds = [_number(_unit(records, model, batch), 3) for model in models]
    return table("ratio to gradient x input", models, [*rows, ("seconds of gradient x input", seconds)])


def floor(records: Records, model: str, batch: int, *of: str) -> float | None:
    shares = [median(records.one("least", model=model, batch=batch, of=part)) for part in of]
    return None if None in shares else 1 + sum(share for share in shares if share is not None)


def memory(records: Records) -> list[str]:
    models = records.models("memory")

    def ratio(model: str, method: str) -> str:
        unit, own = (records.one("memory", model=model, method=m).get("bytes") for m in ("gradient x input", method))
        return f"{own / unit:.2f}" if own and unit else ""

    methods = [m.name for m in OURS if records.of("memory", method=m.name)]
    unit = [records.one("memory", model=m, method="gradient x input").get("bytes") for m in models]
    rows = [(_named(method), [ratio(model, method) for model in models]) for method in methods]
    return table(
        "ratio of peaks", models, [*rows, ("MB of gradient x input", [f"{n / 1e6:,.0f}" if n else "" for n in unit])]
    )


def on_gpu(records: Records, batch: int) -> list[str]:
    models = records.models("time")

    def text(r: Record) -> str:
        return f"{1000 * r['seconds']:.2f} ms, {r['memory']:.2f}, {r['waits']}" if "waits" in r else ""

    rows = [
        (_named(m.name, m.package), [text(records.one("time", model=model, batch=batch, method=m.name)) for model in models])
        for m in (*OURS, *PEERS)
    ]
    return table("time, ratio of peak memory, waits of the host", models, rows)


def on_one_gpu() -> list[str]:
    """The results of ``gpu.py``."""
    page = HERE / "gpu.md"
    return page.read_text().rstrip().splitlines() if page.exists() else ["## On a GPU", "", NOT_ON_A_GPU]


def shares(records: Records) -> list[str]:
    rows = []
    for model in records.models("shares"):
        for record in records.of("shares", model=model):
            found = record["shares"]
            name = f"{model}, {record['what']['method']}"
            rows.append((name, [f"{record['seconds']:.3f}", *(f"{100 * found.get(f, 0):.0f} %" for f in FAMILIES)]))
    return table("one image, profiled", ["seconds", *FAMILIES], rows)


def overhead(records: Records) -> list[str]:
    layers = records.values("overhead", "layer")
    pairs = ["eager hooks over plain", "ours over plain", "ours over eager hooks", "zennit over plain"]
    rows = [
        (pair, [cell(records.one("overhead", layer=layer, pair=pair), "microseconds", 1) for layer in layers])
        for pair in pairs
    ]
    return table("microseconds an operator", layers, rows)


def growth(records: Records) -> list[str]:
    lines: list[str] = []
    for axis in sorted({r["what"]["axis"] for r in records.of("growth")}):
        found = sorted(records.of("growth", axis=axis), key=lambda r: r["what"]["at"])
        lines += [
            *table(
                axis,
                [f"{r['what']['at']:,}" for r in found],
                [
                    ("milliseconds", [f"{1000 * r['seconds']:.1f}" for r in found]),
                    *([] if "build_graph" in axis else [("ratio", [cell(r) for r in found])]),
                ],
            ),
            "",
        ]
    return lines or ["Not measured yet.", ""]


def draw_growth(records: Records, path: Path) -> None:
    axes = sorted({r["what"]["axis"] for r in records.of("growth")})
    if not axes:
        return
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    panels = list(figure.subplots(2, 3).flat)
    for panel, axis in zip(panels, axes, strict=False):
        found = sorted(records.of("growth", axis=axis), key=lambda r: r["what"]["at"])
        at, took = [r["what"]["at"] for r in found], [1000 * r["seconds"] for r in found]
        power = found[0]["what"].get("power", 1)
        name = "build_graph" if "build_graph" in axis else "EpsilonPlus"
        flat = {0: "constant", 1: "in proportion", 2: "in proportion to the square"}[power]
        panel.plot(at, [took[-1] * (x / at[-1]) ** power for x in at], ":", color="0.5", label=flat)
        if "build_graph" not in axis:
            panel.plot(at, [1000 * r["unit_seconds"] for r in found], "s--", color="0.4", label="gradient x input")
        panel.plot(at, took, "o-", color="#c1272d", label=name)
        panel.set_xlim(0)
        panel.set_ylim(0, 1.6 * max(took))
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panel.xaxis.set_major_formatter("{x:,.0f}")
        panel.set_title(axis, fontsize=9)
        panel.set_ylabel("milliseconds", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.legend(fontsize=7, frameon=False, loc="upper left")
    if whole := records.one("data set"):
        panel = panels[len(axes)]
        panel.plot(range(1, len(whole["held"]) + 1), [n / 1e6 for n in whole["held"]], color="#c1272d")
        panel.set_ylim(0, 1.25e-6 * max(whole["held"]))
        panel.set_title("a data set: MB that the process holds, by batch", fontsize=9)
        panel.tick_params(labelsize=8)
    for panel in panels[len(axes) + bool(whole) :]:
        panel.remove()
    figure.savefig(path, dpi=110)


def data_set(records: Records) -> str:
    whole = records.one("data set")
    if not whole:
        return "Not measured yet."
    took, held = np.array(whole["took"]), np.array(whole["held"]) / 1e6
    half = len(took) // 2
    first, second = (1000 * np.median(part) for part in (took[:half], took[half:]))
    return (
        f"A data set of {len(took)} batches of 8 (ResNet-50, 64 pixels, EpsilonPlus, TopK(0.1)): {first:.0f} ms a batch in "
        f"the first half, {second:.0f} ms in the second, ratio {cell(whole)}; the process held {held[0]:,.0f} MB after the "
        f"first batch, {held[-1]:,.0f} MB after the last, {held.max():,.0f} MB at most."
    )


def goals(records: Records, batch: int) -> list[str]:
    """Goals, and whether they were reached."""
    rows: list[tuple[str, list[str]]] = []

    def row(name: str, of: str, found: float | None, most: float, least: float | None = None, form: str = ".2f") -> None:
        if found is not None:
            met = "yes" if found <= most else "no"
            rows.append((name, [of, f"{most:g}", f"{found:{form}}", met, _number(least)]))

    def time(model: str, method: str) -> float | None:
        return median(records.one("time", model=model, batch=batch, method=method))

    for model in records.models("time"):
        row("epsilon", model, time(model, "epsilon"), 1.10, 1.0)
        row("EpsilonPlus", model, time(model, "EpsilonPlus"), 1.55, floor(records, model, batch, "convolutions"))
        row("TopK(0.1), over the same without", model, time(model, SELECTING.name), 1.03, 1.0, ".3f")
        if model == "vgg16":
            least = floor(records, model, batch, "edges")
            row("whole graph, epsilon", model, time(model, "epsilon, all edges"), 2.1, least)
    for model, method, most in OF_ONE:
        found = median(records.one("time", model=model, batch=1, method=method))
        row(
            f"{method}, one image",
            model,
            found,
            most,
            1.0 if method == "epsilon" else floor(records, model, 1, "convolutions"),
        )
    for model in records.models("memory"):
        unit = records.one("memory", model=model, method="gradient x input").get("bytes")
        for method, most in (("epsilon", 1.1), ("EpsilonPlus", 1.25)):
            own = records.one("memory", model=model, method=method).get("bytes")
            row(f"peak memory, {method}", model, own / unit if own and unit else None, most)
    for r in records.of("search"):
        row("passes of MinError", r["what"]["model"], r["passes"], 25, form=".0f")
    for r in records.of("overhead", pair="ours over eager hooks"):
        row("microseconds an operator over eager hooks", r["what"]["layer"], median(r, "microseconds"), 15, form=".1f")
    if (times_ours := crp_ratio(records)) is not None:
        met = "yes" if times_ours >= 300 else "no"
        rows.append(("zennit-crp's top-10 graph, in our whole graphs", ["vgg16", ">= 300", f"{times_ours:.0f}", met, ""]))
    return table("", ["of", "goal", "measured", "met", "the least possible"], rows)


def crp_ratio(records: Records) -> float | None:
    found = [r for r in records.of("crp") if r.get("ratios")]
    return float(np.median([median(r) for r in found])) * found[0]["what"]["layers"] if found else None


def graph_page(records: Records, head: str) -> list[str] | None:
    crp = [r for r in records.of("crp") if r.get("ratios")]
    batches = [
        b
        for b in records.values("time", "batch")
        if records.one("time", model="vgg16", batch=b, method="epsilon, all edges")
    ]
    if not crp or not batches:
        return None
    batch = batches[-1]
    of = lambda method: cell(records.one("time", model="vgg16", batch=batch, method=method))  # noqa: E731
    ways = ("epsilon", "EpsilonPlus", "EpsilonPlus, TopK(0.1)")
    what, ratio = crp[0]["what"], crp_ratio(records) or 0.0
    one = float(np.median([r["seconds"] for r in crp])) / crp[0]["passes"]
    build, neurons = records.one("build"), what["neurons"]
    text = [
        "# The relevance graph of VGG16",
        "",
        OF_GRAPHS,
        "",
        head,
        "",
        *table(
            f"ratio to gradient x input, {batch} images",
            ["relevance alone", "with every edge"],
            [(way, [of(way), of(f"{way}, all edges")]) for way in ways],
        ),
        "",
    ]
    if build:
        text += [
            f"`build_graph` of one image at TopK(0.1): {build['what']['edges']:,} edges in {build['seconds']:.2f} s.",
            "",
        ]
    return [
        *text,
        "## zennit-crp",
        "",
        "| one image | edges into | passes | times our whole graph |",
        "| --- | --- | ---: | ---: |",
        f"| lrp_lightning | all {neurons:,} neurons of {what['layers'] + 1} hidden layers | 1 | 1 |",
        f"| zennit-crp | the top 10 neurons of {what['layers']} hidden layers | {10 * what['layers']} | {ratio:.0f} |",
        f"| zennit-crp | all {neurons:,} neurons | {neurons:,} | {ratio / what['layers'] / 10 * neurons:,.0f} |",
        "",
        f"A conditional pass took {one:.2f} s.",
    ]


def results_page(records: Records, head: str, device: str) -> list[str]:
    batches = records.values("time", "batch")
    main = max([b for b in batches if b <= 8], default=1)
    text = [
        "# Beside the peers",
        "",
        head,
        "",
        OF_RATIOS,
        "",
        "## Goals",
        "",
        f"Times for a batch of {main}, unless a row says *one image*.",
        "",
        *goals(records, main),
        "",
        OF_MISSED,
        "",
        "## Right or wrong",
        "",
        OF_RIGHT,
        "",
        *rightness(records),
        "",
    ]
    for batch in batches:
        text += [
            f"## Time, {batch} {'image' if batch == 1 else 'images'} of {records.all[0]['side']} pixels",
            "",
            *times(records, batch),
            "",
        ]
        if device != "cpu":
            text += [*on_gpu(records, batch), ""]
    text += [
        OF_LEAST,
        "",
    ]
    if searches := records.of("search"):
        rows = [
            (r["what"]["model"], [str(r["passes"]), f"{r['ratios'][0]:.0f}", f"{r['before']:.2f}", f"{r['after']:.2f}"])
            for r in searches
        ]
        text += ["MinError, one image:", "", *table("", ["passes", "ratio", "SMAPE before", "after"], rows), ""]
    if device == "cpu":
        at = records.values("memory", "batch")
        text += [
            "## Peak memory",
            "",
            f"Peak growth of a process that runs only this pass; {', '.join(map(str, at)) or 'no'} images.",
            "",
            *memory(records),
            "",
            "## Where the time goes",
            "",
            "Shares of the total time by torch's profiler, which itself takes time; kernels count by their own time.",
            "",
            *shares(records),
            "",
        ]
    return [
        *text,
        "## Overhead of the mode",
        "",
        OF_OVERHEAD,
        "",
        *overhead(records),
        "",
        "## Growth",
        "",
        "![growth](growth.png)" if device == "cpu" else "",
        "",
        *growth(records),
        data_set(records),
        *([] if device != "cpu" else ["", *on_one_gpu()]),
    ]


def _named(name: str, package: str = "lrp_lightning") -> str:
    return f"{package}, {name}" if package == "lrp_lightning" else name


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _unit(records: Records, model: str, batch: int) -> float | None:
    found = [
        r["unit_seconds"]
        for r in records.of("time", model=model, batch=batch, over="gradient x input")
        if "unit_seconds" in r
    ]
    return float(np.median(found)) if found else None


def ratios_of_ours(records: Records) -> dict[str, float]:
    ours = {m.name for m in (*OURS, SELECTING)}
    found = {
        f"{r['what']['model']}, {r['what']['batch']}, {r['what']['method']}": median(r)
        for r in records.of("time")
        if r["what"]["method"] in ours
    }
    found |= {
        f"{r['what']['layer']}, {r['what']['pair']}": median(r)
        for r in records.of("overhead")
        if "zennit" not in r["what"]["pair"]
    }
    return {name: round(ratio, 3) for name, ratio in sorted(found.items()) if ratio is not None}


def check(found: dict[str, float], stored: dict[str, float]) -> list[tuple[str, list[str]]]:
    """Ratios that have become slower than the tolerance allows."""
    return [
        (name, [f"{stored[name]:.2f}", f"{ratio:.2f}", f"{100 * (ratio / stored[name] - 1):+.0f} %"])
        for name, ratio in found.items()
        if name in stored and ratio > TOLERANCE * stored[name]
    ]


def heading(records: Records, side: int) -> str:
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} not installed")
    threads = records.all[0]["threads"]
    return f"Made by `make bench` ({', '.join(versions)}; {threads} threads of {platform.machine()})."


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="folder of the suite's JSON")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the pages")
    parser.add_argument("--ratios", type=Path, default=HERE / "ratios.json", help="where the guard's ratios are")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--check", action="store_true", help="fail if ours has become slower")
    parser.add_argument("--update", action="store_true", help="store the ratios")
    parser.add_argument("--no-pages", action="store_true", help="only check or update")
    options = parser.parse_args(arguments)
    records = Records(sorted(options.runs.glob("*.json")), options.device, options.side)
    if not records.all:
        print(
            f"{options.runs} has no records of {options.side} pixels on {options.device}: run the suite first",
            file=sys.stderr,
        )
        return 2
    if not options.no_pages:
        head, suffix = heading(records, options.side), "" if options.device == "cpu" else f".{options.device}"
        options.out.mkdir(parents=True, exist_ok=True)
        pages: dict[str, list[str] | None] = {f"RESULTS{suffix}.md": results_page(records, head, options.device)}
        pages[f"graph{suffix}.md"] = graph_page(records, head)
        for name, text in pages.items():
            if text is not None:
                (options.out / name).write_text("\n".join(text) + "\n")
                print(options.out / name)
        draw_growth(records, options.out / f"growth{suffix}.png")
    return guard(ratios_of_ours(records), f"{options.device}, {options.side} pixels", options)


def guard(found: dict[str, float], where: str, options: argparse.Namespace) -> int:
    stored = json.loads(options.ratios.read_text()) if options.ratios.exists() else {}
    if options.check:
        slower = check(found, stored.get(where, {}))
        if slower:
            print(*table(f"slower than stored ({where})", ["stored", "now", "more"], slower), sep="\n")
            return 1
        known = len(found.keys() & stored.get(where, {}).keys())
        print(f"{known} of {len(found)} ratios have a stored one, and are within {100 * (TOLERANCE - 1):.0f} % of it")
    if options.update:
        stored[where] = {**stored.get(where, {}), **found}
        options.ratios.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
