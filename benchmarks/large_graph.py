"""Time and memory of graphs with a million edges, the most that ``build_graph`` makes; ``--out`` writes a page.

    python benchmarks/large_graph.py

VGG16 with random weights explains one random image, through enough neurons that only the strongest million of edges are
kept. Times are CPU seconds on one thread, the least of a few runs, so that other work on the machine has little effect.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torchvision.models import vgg16

from lrp_lightning import EpsilonPlus, SelectiveLRP, TopK, build_graph, diff_graphs, k_best_paths, prune_graph


def seconds(function: Callable[[], object], times: int) -> float:
    found = []
    for _ in range(times):
        began = time.process_time()
        made = function()
        found.append(time.process_time() - began)
        del made  # freeing a graph is not measured
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a Markdown file")
    parser.add_argument("--kept", type=float, default=0.23, help="share of a layer's neurons that carry relevance on")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", message="the relevance graph has")
    lrp = SelectiveLRP(vgg16(weights=None), EpsilonPlus(), TopK(options.kept))
    x = torch.rand(1, 3, 224, 224)
    one, other = (lrp.trace(x, target=target, edges=True) for target in (1, 2))
    graph, second = build_graph(one), build_graph(other)
    what: dict[str, Callable[[], object]] = {
        "`build_graph`": lambda: build_graph(one),
        "`k_best_paths`, k = 5": lambda: k_best_paths(graph, 5, signed=True),
        "`k_best_paths`, k = 64": lambda: k_best_paths(graph, 64, signed=True),
        "`prune_graph`": lambda: prune_graph(graph),
        "`diff_graphs`": lambda: diff_graphs(graph, second),
    }
    lines = [
        f"# A graph of {graph.number_of_edges():,} edges\n",
        *str(__doc__).strip().splitlines()[-2:],
        "",
        "| | seconds |",
    ]
    lines += ["| --- | ---: |", *(f"| {name} | {seconds(function, options.times):.2f} |" for name, function in what.items())]
    lines += ["", f"{graph.number_of_nodes():,} neurons; Python {sys.version.split()[0]}, torch {torch.__version__}."]
    print(*lines, sep="\n")
    if options.out is not None:
        options.out.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
