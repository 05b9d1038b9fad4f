"""Families of networks, and torchvision's classifiers, compared with Captum and zennit; writes ``benchmarks/zoo.md``.

``python benchmarks/zoo.py`` writes the whole page, ``python benchmarks/zoo.py families`` or ``torchvision`` one part.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from methods import Explain
from peers import captum, zennit
from torch import Tensor, nn

from lrp_lightning import Epsilon, EpsilonPlus, SelectiveLRP
from lrp_lightning.engine.targets import tensor_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import families
import zoo
from detached import gradient_times_input
from flow import flow_error


def error(model: nn.Module, x: Tensor, rule: object) -> str:
    trace = SelectiveLRP(model, rule).trace(x, target=lambda logits: logits.argmax(1))  # type: ignore[arg-type]
    return f"{trace.conservation_error.max().item():.0e}"


def conservation(model: nn.Module, x: Tensor, target: Tensor, explain: Explain) -> str:
    """The smallest and largest sum of relevance / logit over the samples."""
    try:
        share = explain(model, x, target).double().flatten(1).sum(1) / model(x).gather(1, target[:, None])[:, 0].double()
    except Exception as error:  # if a peer raises, the error is its result
        return type(error).__name__
    least, most = share.min().item(), share.max().item()
    if abs(least - 1) < 1e-3 and abs(most - 1) < 1e-3:
        return "1.000"
    return f"{least:.3g} to {most:.3g}"


def row(name: str) -> str:
    model, x = zoo.build(name)
    with torch.no_grad():
        logits = model(x)
    ours = SelectiveLRP(model, Epsilon())
    same = (ours.trace(x, target=0).output - logits).abs().max().item()
    cells = [name, "0" if same == 0 else f"{same:.0e}", error(model, x, Epsilon()), error(model, x, EpsilonPlus())]
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.zero_()
        target = model(x).argmax(1)
    explains: tuple[Explain, ...] = (
        lambda m, x, t: SelectiveLRP(m, Epsilon()).attribute(x, target=t),
        captum,
        partial(zennit, "epsilon", canonized=False),
    )
    cells += [conservation(model, x, target, explain) for explain in explains]
    return f"| {' | '.join(cells)} |"


def distance(of: Sequence[Tensor], others: Sequence[Tensor]) -> str:
    """The greatest difference, divided by the greatest value."""
    return f"{max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(of, others, strict=True)):.0e}"


def row_of_family(name: str) -> str:
    model, x, target = families.built(name)
    lrp = SelectiveLRP(model, Epsilon(1e-12))
    trace = lrp.trace(x, target, edges=True)
    with torch.no_grad():
        logits = tensor_of(model(*x))
    wanted = gradient_times_input(model, x, lambda y: target(tensor_of(y)))
    alone = lrp.trace(tuple(t[1:2] for t in x), target).inputs
    cells = [
        name,
        "double" if families.FAMILIES[name].double else "single",
        distance([trace.output], [logits]),
        f"{trace.conservation_error.max().item():.0e}",
        distance(trace.inputs, wanted),
        distance([t[1:2] for t in trace.inputs], alone),
        f"{len(trace.edges)}",
        f"{flow_error(trace):.0e}",
    ]
    return f"| {' | '.join(cells)} |"


FAMILIES = """Small networks with random weights and biases are explained for 3 samples each. Their inputs are images,
sound, patches or token ids. The rule is epsilon, with an epsilon of 1e-12.

- *conservation*: |input + absorbed - output| / |output|.
- *oracle*: the greatest difference, divided by the greatest relevance, from gradient times input of a forward in which
  every gate, attention weight and scale is a constant. `tests/detached.py` implements it without this library.
- *batch*: the same difference from a pass of the sample alone.
- *edges*: pairs of layers with relevance between neurons.
- *flow*: the greatest part of a neuron's relevance that is missing from its edges and the absorbed relevance, over the
  output.

Language models compute their norms in single precision for any input, and the small epsilon enlarges the rounding errors."""

TORCHVISION = """The columns *error* give |input + absorbed - output| / |output| of this library with random biases, so that
the relevance which biases absorb counts. The peers do not report absorbed relevance. So the last three columns compare
them with this library at zero biases, by the sum of relevance / logit, which should be 1 except for class tokens and
position embeddings. No model is changed and no canonizer chosen. The peers use their default stabilisers; these are
absolute, and exceed the tiny outputs of some untrained models. Logits differ in the last bits where torch uses its fused
path for attention, which it does only without gradients. 2 images, random weights."""


class Table(NamedTuple):
    title: str
    text: str
    packages: tuple[str, ...]
    columns: tuple[str, ...]
    rows: Sequence[str]
    row: Callable[[str], str]


TABLES = {
    "families": Table(
        "Families",
        FAMILIES,
        ("torch", "torchvision", "transformers"),
        ("family", "precision", "logits differ by", "conservation", "oracle", "batch", "edges", "flow"),
        list(families.FAMILIES),
        row_of_family,
    ),
    "torchvision": Table(
        "torchvision's classification models",
        TORCHVISION,
        ("torch", "torchvision", "captum", "zennit"),
        ("model", "logits differ by", "error, epsilon", "error, EpsilonPlus", "lrp_lightning", "Captum", "zennit"),
        zoo.NAMES,
        row,
    ),
}


def section(table: Table) -> str:
    packages = ", ".join(f"{package} {version(package)}" for package in table.packages)
    lines = [f"## {table.title}", "", table.text, "", f"Measured with {packages}.", ""]
    lines += [f"| {' | '.join(table.columns)} |", f"|{' --- |' * len(table.columns)}"]
    started = time.time()
    for i, name in enumerate(table.rows, 1):
        lines.append(table.row(name))
        print(f"{i}/{len(table.rows)} {time.time() - started:4.0f} s {lines[-1]}", flush=True)
    return "\n".join(lines) + "\n"


def main(asked: Sequence[str]) -> None:
    """Write the page; parts that were not requested are kept from the existing page."""
    warnings.simplefilter("ignore")
    unknown = [name for name in asked if name not in TABLES]
    if unknown:
        raise SystemExit(f"there is no part {unknown[0]!r}; parts are {', '.join(TABLES)}")
    page = Path(__file__).with_name("zoo.md")
    had = {part.partition("\n")[0]: f"## {part}" for part in page.read_text().split("\n## ")[1:]} if page.exists() else {}
    parts = [
        had[table.title].rstrip() + "\n" if asked and name not in asked and table.title in had else section(table)
        for name, table in TABLES.items()
    ]
    page.write_text("\n".join(["# Networks of all kinds\n", "Made by `python benchmarks/zoo.py`.\n", *parts]))


if __name__ == "__main__":
    main(sys.argv[1:])
