"""A fresh kernel: figures and objects show themselves without any magic, and nothing warns."""

from __future__ import annotations

import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

PREPARE = """
import torch
from torch import nn
from lrp_lightning import *
from lrp_lightning.callbacks import *
from lrp_lightning.drawing import *

_ = torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)
).eval()
images, labels = torch.rand(60, 1, 9, 9), torch.arange(60) % 3
loader = [(images, labels)]
lrp = SelectiveLRP(model, selection=TopK(0.5))
trace = lrp.trace(images[:4], target=lambda logits: logits.argmax(1), edges=True)
graph = build_graph(trace)
paths = k_best_paths(graph, 3, signed=True)
along = path_heatmaps(model, images[:4], paths)
cards = neuron_cards(model, loader, {"2": [1, 3]}, progress=False)
strategies = find_strategies(model, loader, progress=False)
top = reconstruct_top_activations(model, loader, "2", neuron=1, k=3, progress=False)
changed = diff_graphs(graph, graph)
circuits = class_circuits(model, loader, steps=2, progress=False)
curve = path_curve(model, {0: paths}, images)
"""

HTML, PNG = "text/html", "image/png"
SHOWN = {
    "trace": HTML, "paths": HTML, "paths[0]": HTML, "ClassGraph(0, graph, paths, 4)": HTML, "strategies": HTML,
    "strategies[0]": HTML, "cards": HTML, "cards[0]": HTML, "circuits": HTML, "contest(lrp, images)": HTML, "curve": HTML,
    "draw_heatmaps(images[:4], trace.inputs)": PNG,
    "draw_contact_sheet(images[:4], along)": PNG,
    "draw_contrast(contrast(model, images[:2]))": PNG,
    "draw_curves({'critical': [0.4, 0.9]})": PNG,
    "draw_curves({'critical': [0.4, 0.9]}, static=True)": PNG,
    "draw_graph(graph)": PNG,
    "draw_graph(graph, paths=paths, static=True)": PNG,
    "draw_graph(changed)": PNG,
    "draw_paths(graph, paths, along)": PNG,
    "draw_paths(graph, paths, static=True)": PNG,
    "draw_neuron_cards(cards)": PNG,
    "draw_strategies(strategies)": PNG,
    "draw_top_activations(top)": PNG,
    "draw_tokens([['a', 'film']], torch.tensor([[0.5, -1.0]]))": PNG,
    "draw_series(torch.randn(1, 2, 20), torch.randn(1, 2, 20))": PNG,
}  # fmt: skip


def run(*cells: str) -> list[nbformat.NotebookNode]:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=300).execute()
    return notebook.cells


def test_every_figure_and_object_shows_itself() -> None:
    prepare, *cells, backend = run(PREPARE, *SHOWN, "import matplotlib; print(matplotlib.rcParams._get('backend'))")
    assert prepare.outputs == []
    for cell, (source, kind) in zip(cells, SHOWN.items(), strict=True):
        assert [output.output_type for output in cell.outputs] in (["execute_result"], ["display_data"]), source
        data = cell.outputs[0].data
        assert set(data) <= {kind, "text/plain", "application/vnd.plotly.v1+json"}, source
        assert len(data[kind]) > 1000, source
    assert "inline" in backend.outputs[0].text  # the kernel's own, MPLBACKEND


def test_no_double_display_with_the_magic_or_pyplot() -> None:
    cells = run(
        "%matplotlib inline\nfrom lrp_lightning.drawing import draw_curves",
        "draw_curves({'critical': [0.4, 0.9]}, static=True)",
        "import matplotlib.pyplot as plt\nfigure = draw_curves({'critical': [0.4, 0.9]}, static=True)",
        "figure",
    )
    assert [[PNG in output.data for output in cell.outputs] for cell in cells] == [[], [True], [], [True]]


def test_all_drawing_functions_are_tried() -> None:
    from lrp_lightning import drawing

    assert {name for name in drawing.__all__ if name.startswith("draw_")} == {
        source.partition("(")[0] for source in SHOWN if source.startswith("draw_")
    }


def test_no_warning_at_import() -> None:
    code = """
import lrp_lightning, lrp_lightning.callbacks, lrp_lightning.drawing
for module in (lrp_lightning, lrp_lightning.callbacks, lrp_lightning.drawing):
    for name in module.__all__:
        getattr(module, name)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
