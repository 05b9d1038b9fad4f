"""What users may rely on: names, signatures, and an import that costs nothing."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from lightning.pytorch import Callback, LightningModule

import lrp_lightning
from lrp_lightning import (
    Agreement,
    AlphaBeta,
    Composite,
    Coverage,
    Epsilon,
    EpsilonAlpha2Beta1,
    EpsilonGammaBox,
    EpsilonPlus,
    Fixed,
    Flat,
    Gamma,
    MinError,
    Pass,
    Path,
    PerLayer,
    RelevanceStore,
    SelectiveLRP,
    Threshold,
    TopK,
    Trace,
    WSquare,
    ZBox,
    ZPlus,
    build_graph,
    class_graph,
    diff_graphs,
    k_best_paths,
    masked_forward,
    path_heatmaps,
    prune_graph,
    reconstruct,
    reconstruct_top_activations,
)
from lrp_lightning.callbacks import Explainer, RelevanceMonitor, RelevanceWriter
from lrp_lightning.drawing import as_array, draw_graph, draw_heatmaps, draw_paths

NAMES = {
    "lrp_lightning": """
        Agreement AlphaBeta ByGraph ByKeyword Circuits Composite Contest Contrast Coverage Epsilon EpsilonAlpha2Beta1
        EpsilonGammaBox EpsilonPlus Fixed Flat Gamma LayerSelectiveLRP MinError NeuronCard OddSample Pass Path PathCurve
        PerLayer RelevanceStore Robustness SelectiveLRP Strategies Strategy Threshold TopActivations TopK Trace WSquare ZBox
        ZPlus __version__ build_graph class_circuits class_graph contest contrast diff_graphs find_strategies k_best_paths
        masked_forward neuron_cards neuron_heatmaps path_curve path_heatmaps prune_graph reconstruct
        reconstruct_top_activations register_operator registered_operator robustness unregister_operator
    """,
    "lrp_lightning.metrics": """
        AblatedAccuracy CircuitAgreement Comprehensiveness ConservationError ContestAccuracy CriticalNeuronAccuracy
        LogitCorrelation RandomControl RetainedAccuracy RetentionCurve RunnerUpAccuracy SelectionError
        SelectionStability Sufficiency area circuits_agree class_frequencies contest_won faithfulness jaccard
        label_predicted mse prediction_survives probability_lost runner_up runner_up_wins smape
    """,
    "lrp_lightning.drawing": """
        ClassGraph Curves Report as_array draw_contact_sheet draw_contrast draw_curves draw_graph draw_heatmaps
        draw_neuron_cards draw_paths relevance_as_images save_contrast
        draw_series draw_strategies draw_tokens draw_top_activations report_of write_report
    """,
    "lrp_lightning.capture": "Captured Explanation export save_compiled save_exported save_onnx",
    "lrp_lightning.callbacks": "Explainer RelevanceMonitor RelevanceWriter",
}
PUBLIC = [(module, name) for module, names in NAMES.items() for name in names.split()]
REQUIRED = inspect.Parameter.empty


@pytest.mark.parametrize("module", NAMES)
def test_all_is_what_is_promised(module: str) -> None:
    exported = importlib.import_module(module).__all__
    assert sorted(exported) == sorted(NAMES[module].split())
    assert set(exported) <= set(dir(importlib.import_module(module)))


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, n in PUBLIC if n != "__version__"])
def test_every_public_name_is_there_and_says_what_it_is(module: str, name: str) -> None:
    doc = getattr(importlib.import_module(module), name).__doc__
    assert doc is not None
    assert not doc.startswith(f"{name}(")  # what dataclasses write where nobody else did


WITHOUT_VERSION = [(module, name) for module, name in PUBLIC if name != "__version__"]
HOOKS = {*dir(Callback), *dir(LightningModule)} - {"predict_step"}
"""What Lightning says of them is enough."""


def sections(doc: str) -> dict[str, str]:
    """What stands below each head of a docstring."""
    parts = re.split(r"^(Args|Attributes|Returns|Raises|Example):$", doc, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def arguments_left_out(call: Callable, told: str) -> list[str]:
    names = {name for line in told.splitlines() if ":" in line for name in re.findall(r"\w+", line.partition(":")[0])}
    return [name for name in inspect.signature(call).parameters if name not in {*names, "self", "args", "kwargs"}]


@pytest.mark.parametrize(("module", "name"), WITHOUT_VERSION)
def test_docstrings_say_what_goes_in_what_goes_wrong_and_show_it(module: str, name: str) -> None:
    public = getattr(importlib.import_module(module), name)
    doc = inspect.getdoc(public) or ""
    told = sections(doc)
    assert not arguments_left_out(public, told.get("Args", "") + told.get("Attributes", ""))
    if inspect.isfunction(public) and "raise " in inspect.getsource(public):
        assert "Raises" in told
    assert ">>> " in told["Example"]  # which the doctests run


@pytest.mark.parametrize(("module", "name"), WITHOUT_VERSION)
def test_docstrings_of_methods(module: str, name: str) -> None:
    public = getattr(importlib.import_module(module), name)
    own = {} if inspect.isfunction(public) else vars(public)
    for method, value in own.items():
        call = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if method.startswith("_") or method in HOOKS or not inspect.isfunction(call):
            continue
        doc = inspect.getdoc(call) or ""
        assert doc, method
        if not re.search(r"[Ss]ee :\w+:", doc):  # and it is said there
            told = sections(doc)
            assert not arguments_left_out(call, told.get("Args", "")), method
            assert "raise " not in inspect.getsource(call) or "Raises" in told, method


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="'lrp_lightning' has no attribute 'selective_lrp'"):
        _ = lrp_lightning.selective_lrp
    with pytest.raises(ImportError):
        exec("from lrp_lightning import selective_lrp")


def test_the_documented_path_that_has_moved_warns_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lrp_lightning.min_error", raising=False)
    with pytest.warns(DeprecationWarning, match=r"is lrp_lightning\.selection\.min_error since 0\.2") as warned:
        from lrp_lightning.min_error import MinError as Old
    assert Old is MinError
    assert [warning.filename for warning in warned] == [__file__]


def test_star_import_gives_the_public_names() -> None:
    scope: dict[str, object] = {}
    exec("from lrp_lightning import *", scope)
    assert set(NAMES["lrp_lightning"].split()) <= set(scope)


@pytest.mark.parametrize(
    ("call", "parameters"),
    [
        (Epsilon, {"eps": 1e-6}),
        (ZPlus, {"eps": 1e-6}),
        (Gamma, {"gamma": 0.25, "eps": 1e-6}),
        (AlphaBeta, {"alpha": 2, "beta": 1, "eps": 1e-6}),
        (ZBox, {"low": REQUIRED, "high": REQUIRED}),
        (WSquare, {}),
        (Flat, {}),
        (Pass, {}),
        (Composite, {"default": REQUIRED, "convolution": None, "linear": None, "first": None}),
        (EpsilonPlus, {"eps": 1e-6}),
        (EpsilonGammaBox, {"low": REQUIRED, "high": REQUIRED, "gamma": 0.25}),
        (EpsilonAlpha2Beta1, {"eps": 1e-6}),
        (TopK, {"keep": REQUIRED, "by": "magnitude"}),
        (Coverage, {"share": REQUIRED}),
        (Threshold, {"share": REQUIRED}),
        (Fixed, {"layers": REQUIRED}),
        (PerLayer, {"default": REQUIRED}),
        (MinError, {"measure": "smape", "keep": 0.1, "max_passes": 25}),
        (Agreement, {"measure": "smape", "keep": 0.1}),
        (Path, {"nodes": REQUIRED, "share": REQUIRED}),
        (SelectiveLRP, {"model": REQUIRED, "composite": EpsilonPlus(), "selection": None}),
        (
            SelectiveLRP.attribute,
            {
                "self": REQUIRED, "inputs": REQUIRED, "target": None, "additional_forward_args": None,
                "return_convergence_delta": False, "verbose": False,
            },
        ),
        (
            SelectiveLRP.trace,
            {"self": REQUIRED, "inputs": REQUIRED, "target": None, "additional_forward_args": None, "edges": False},
        ),
        (
            masked_forward,
            {"model": REQUIRED, "inputs": REQUIRED, "masks": REQUIRED, "keep": True, "additional_forward_args": None},
        ),
        (
            reconstruct,
            {"model": REQUIRED, "inputs": REQUIRED, "layer": REQUIRED, "neurons": REQUIRED, "method": "deconvnet"},
        ),
        (
            reconstruct_top_activations,
            {"model": REQUIRED, "loader": REQUIRED, "layer": REQUIRED, "neuron": REQUIRED, "k": 9},
        ),
        (build_graph, {"trace": REQUIRED, "min_share": 0.0}),
        (build_graph, {"trace": REQUIRED, "min_share": 0.0, "classes": None}),
        (class_graph, {"model": REQUIRED, "loader": REQUIRED, "target": REQUIRED}),
        (diff_graphs, {"before": REQUIRED, "after": REQUIRED}),
        (path_heatmaps, {"model": REQUIRED, "inputs": REQUIRED, "paths": REQUIRED, "composite": EpsilonPlus()}),
        (prune_graph, {"graph": REQUIRED, "node_share": 0.8, "edge_share": 0.98}),
        (k_best_paths, {"graph": REQUIRED, "k": 5, "source": None, "target": None}),
        (
            RelevanceMonitor,
            {
                "composite": "epsilon_plus", "selection": TopK(0.1), "every_n_epochs": 1, "max_samples": 256,
                "n_heatmaps": 8, "class_names": None,
            },
        ),
        (
            Explainer, {"model": REQUIRED, "composite": EpsilonPlus(), "selection": None, "target": "predicted"},
        ),
        (
            RelevanceWriter,
            {"out": REQUIRED, "dtype": "float16", "input_relevance": "values", "keep_inputs": False},
        ),
        (RelevanceStore, {"path": REQUIRED}),
        (draw_heatmaps, {"images": REQUIRED, "relevance": REQUIRED, "titles": None}),
        (draw_graph, {"graph": REQUIRED, "neurons_per_layer": 8, "paths": (), "class_names": None}),
        (draw_paths, {"graph": REQUIRED, "paths": REQUIRED, "heatmaps": None, "class_names": None}),
        (as_array, {"figure": REQUIRED}),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)  # fmt: skip
def test_signatures_hold(call: object, parameters: dict[str, object]) -> None:
    """Names, order and defaults; what is added later comes after these and has a default."""
    found = inspect.signature(call).parameters  # type: ignore[arg-type]
    promised = list(found.values())[: len(parameters)]
    assert {p.name: p.default for p in promised} == parameters
    assert [p.name for p in promised] == list(parameters)
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in promised)
    assert all(p.default is not REQUIRED for p in list(found.values())[len(parameters) :])


def test_fields_hold() -> None:
    promised = ["inputs", "output", "relevance", "masks", "edges", "absorbed"]
    assert set(promised) <= set(inspect.signature(Trace).parameters)
    assert isinstance(Trace.conservation_error, property)
    assert Composite(Epsilon()).layers == {}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("torch", "lightning", "pytorch_lightning", "tensorboard", "captum", "matplotlib", "networkx", "numpy")
    code = f"import sys, lrp_lightning; print([name for name in {heavy} if name in sys.modules], lrp_lightning.__version__)"
    assert run(code) == f"[] {lrp_lightning.__version__}"


def test_drawing_runs_no_analysis_and_nothing_needs_lightning_and_tensorboard() -> None:
    """The report runs analyses, and is imported when it is asked for."""
    code = """
import sys
from lrp_lightning.drawing import draw_graph, draw_top_activations
analysis = ("attribution", "deconvnet", "engine", "insight", "masking", "report")
print([name for name in analysis if f"lrp_lightning.{name}" in sys.modules])
from lrp_lightning import drawing, report
print([name for name in drawing.__all__ if getattr(drawing, name) is getattr(report, name, None)])
from lrp_lightning import *
print([name for name in ("lightning", "pytorch_lightning", "tensorboard") if name in sys.modules])
"""
    assert run(code) == "[]\n['ClassGraph', 'Curves', 'Report', 'report_of', 'save_contrast', 'write_report']\n[]"


def test_callbacks_are_part_of_the_package_only() -> None:
    """A link to the folder stands at the top of the repository; no module ``callbacks`` may reach a user's environment."""
    assert RelevanceMonitor.__module__ == "lrp_lightning.callbacks.relevance_monitor"
    assert run("import importlib.util, os; os.chdir('/'); print(importlib.util.find_spec('callbacks'))") == "None"
