"""Imports from Captum, without the warning of ``tqdm.auto`` in a notebook that lacks ipywidgets."""

from __future__ import annotations

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)
    from captum._utils.common import _select_targets as select_targets
    from captum.attr._utils.attribution import GradientAttribution, LayerAttribution
    from captum.log import log_usage

__all__ = ["GradientAttribution", "LayerAttribution", "log_usage", "select_targets"]
