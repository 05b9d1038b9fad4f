"""How fast the tab's server answers, for a log of 1,000 steps of a VGG16's graph, with one client and with ten clients.

python benchmarks/tab.py [--steps 1000]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from torch.utils.tensorboard import SummaryWriter
from werkzeug.test import Client

from lrp_lightning.tensorboard_plugin.plugin import RelevancePlugin
from lrp_lightning.tensorboard_plugin.summary import ClassGraph, Record, RelevanceSummary

LAYERS = {
    "input": 3,
    **{f"features.{i}": size for i, size in enumerate([64] * 2 + [128] * 2 + [256] * 3 + [512] * 6)},
    **{f"classifier.{i}": size for i, size in enumerate([4096, 4096, 1])},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as folder:
        write(folder, steps)
        multiplexer = EventMultiplexer(tensor_size_guidance={"relevance": 0}).AddRunsFromDirectory(folder).Reload()
        routes = RelevancePlugin(TBContext(data_provider=MultiplexerDataProvider(multiplexer, folder))).get_plugin_apps()
        client = Client(lambda environ, start_response: routes[environ["PATH_INFO"]](environ, start_response))

        def ask(route: str, **query: Any) -> float:
            start = time.perf_counter()
            response = client.get(route, query_string={"run": ".", "class": 0, **query})
            assert response.status_code == 200, response.text
            return time.perf_counter() - start

        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        print(f"{size / steps / 1000:.1f} kB of the log a step")
        print(f"{steps} steps, {sum(LAYERS.values())} neurons; {megabytes():.0f} MB before the first answer")
        print(f"list of steps: {ask('/steps'):.3f} s, again {ask('/steps'):.3f} s")
        used = time.process_time()
        first = ask("/series", layer="features.5", neuron=7)
        used = time.process_time() - used
        print(f"a neuron's line, the first of its class: {first:.3f} s, {used:.3f} s of processor time")
        print(f"a neuron's line: {ask('/series', layer='classifier.1', neuron=7):.3f} s")
        with ThreadPoolExecutor(10) as pool:
            waits = list(pool.map(lambda neuron: ask("/series", layer="features.9", neuron=neuron), range(10)))
        print(f"ten at once: the longest {max(waits):.3f} s")
        print(f"a step: {ask('/step', step=steps // 2):.3f} s")
        print(f"{megabytes():.0f} MB at most")


def write(folder: str, steps: int) -> None:
    rng = np.random.default_rng(0)
    graph = nx.DiGraph()
    for order, (layer, size) in enumerate(LAYERS.items()):
        graph.add_nodes_from(
            ((layer, neuron), {"layer": layer, "activation": 1.0, "kind": layer, "order": order, "output": size == 1})
            for neuron in range(size)
        )
    names = list(LAYERS)
    for lower, upper in pairwise(names):
        graph.add_edges_from(
            ((lower, i), (upper, j), {"relevance": 1.0, "share": 0.1})
            for i in range(min(12, LAYERS[lower]))
            for j in range(min(12, LAYERS[upper]))
        )
    with SummaryWriter(folder) as writer:
        summary = RelevanceSummary(writer)
        for step in range(steps):
            for node, relevance in zip(graph, rng.normal(size=len(graph)), strict=True):
                graph.nodes[node]["relevance"] = float(relevance)
            summary.write(Record(step, [ClassGraph(0, graph)], measures={"mse": 0.1}), step)


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
