"""Layer-wise relevance propagation with neuron selection inside the backward pass."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrp_lightning.attribution import LayerSelectiveLRP as LayerSelectiveLRP
    from lrp_lightning.attribution import SelectiveLRP as SelectiveLRP
    from lrp_lightning.composites import Composite as Composite
    from lrp_lightning.composites import EpsilonAlpha2Beta1 as EpsilonAlpha2Beta1
    from lrp_lightning.composites import EpsilonGammaBox as EpsilonGammaBox
    from lrp_lightning.composites import EpsilonPlus as EpsilonPlus
    from lrp_lightning.deconvnet import TopActivations as TopActivations
    from lrp_lightning.deconvnet import reconstruct as reconstruct
    from lrp_lightning.deconvnet import reconstruct_top_activations as reconstruct_top_activations
    from lrp_lightning.engine import register_operator as register_operator
    from lrp_lightning.graphs.build import build_graph as build_graph
    from lrp_lightning.graphs.class_mean import class_graph as class_graph
    from lrp_lightning.graphs.diff import diff_graphs as diff_graphs
    from lrp_lightning.graphs.paths import Path as Path
    from lrp_lightning.graphs.paths import k_best_paths as k_best_paths
    from lrp_lightning.graphs.prune import prune_graph as prune_graph
    from lrp_lightning.insight.heatmaps import neuron_heatmaps as neuron_heatmaps
    from lrp_lightning.insight.heatmaps import path_heatmaps as path_heatmaps
    from lrp_lightning.masking import masked_forward as masked_forward
    from lrp_lightning.rules import AlphaBeta as AlphaBeta
    from lrp_lightning.rules import Epsilon as Epsilon
    from lrp_lightning.rules import Flat as Flat
    from lrp_lightning.rules import Gamma as Gamma
    from lrp_lightning.rules import Pass as Pass
    from lrp_lightning.rules import WSquare as WSquare
    from lrp_lightning.rules import ZBox as ZBox
    from lrp_lightning.rules import ZPlus as ZPlus
    from lrp_lightning.selection import Coverage as Coverage
    from lrp_lightning.selection import Fixed as Fixed
    from lrp_lightning.selection import PerLayer as PerLayer
    from lrp_lightning.selection import Threshold as Threshold
    from lrp_lightning.selection import TopK as TopK
    from lrp_lightning.selection.agreement import Agreement as Agreement
    from lrp_lightning.selection.min_error import MinError as MinError
    from lrp_lightning.trace import Trace as Trace

__version__ = "0.1.0"

_MODULE_OF = {
    **dict.fromkeys(("LayerSelectiveLRP", "SelectiveLRP"), "attribution"),
    **dict.fromkeys(("Composite", "EpsilonAlpha2Beta1", "EpsilonGammaBox", "EpsilonPlus"), "composites"),
    **dict.fromkeys(("TopActivations", "reconstruct", "reconstruct_top_activations"), "deconvnet"),
    "register_operator": "engine",
    "build_graph": "graphs.build",
    "class_graph": "graphs.class_mean",
    "diff_graphs": "graphs.diff",
    "path_heatmaps": "insight.heatmaps",
    "prune_graph": "graphs.prune",
    "masked_forward": "masking",
    "Agreement": "selection.agreement",
    "MinError": "selection.min_error",
    **dict.fromkeys(("Path", "k_best_paths"), "graphs.paths"),
    **dict.fromkeys(("AlphaBeta", "Epsilon", "Flat", "Gamma", "Pass", "WSquare", "ZBox", "ZPlus"), "rules"),
    **dict.fromkeys(("Coverage", "Fixed", "PerLayer", "Threshold", "TopK"), "selection"),
    "neuron_heatmaps": "insight.heatmaps",
    "Trace": "trace",
}
__all__ = [*sorted(_MODULE_OF), "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562), so that ``import lrp_lightning`` is cheap."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING", "annotations", "importlib"})
