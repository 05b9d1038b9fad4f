"""Selections and composites written as text, such as ``"Threshold(0.01)"``, for YAML and command lines."""

from __future__ import annotations

import ast
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lrp_lightning import composites, rules, selection
from lrp_lightning.selection import agreement, min_error

__all__ = ["read"]

_MODULES = (selection, min_error, agreement, composites, rules)
_KNOWN = {name: getattr(module, name) for module in _MODULES for name in module.__all__}
_KNOWN = {name: value for name, value in _KNOWN.items() if name[0].isupper()}


def read(text: str) -> Any:
    """The value of an expression of calls and literals; no other code is run.

    Raises:
        MisconfigurationException: if it is not such an expression.

    Example:
        >>> from lrp_lightning.callbacks.text import read
        >>> read("Composite(Epsilon(), convolution=Gamma(0.1))")
        Composite(default=Epsilon(eps=1e-06), convolution=Gamma(gamma=0.1, eps=1e-06))
    """
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError) as error:
        raise MisconfigurationException(
            f"RelevanceMonitor: {text!r} must be written as a Python call, such as TopK(0.1) or "
            f"Composite(Epsilon(), convolution=Gamma(0.1)): {error}"
        ) from error


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id not in _KNOWN:
            raise ValueError(f"{node.func.id!r} must be one of {', '.join(sorted(_KNOWN))}")
        keywords = {keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg}
        return _KNOWN[node.func.id](*map(_value, node.args), **keywords)
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys = [_value(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.List | ast.Tuple):
        return tuple(map(_value, node.elts))
    return ast.literal_eval(node)
