"""The templates of the report's sections, and self-contained parts of a page, without script or network."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import colormaps

from lrp_lightning.pixels import COLOURS

__all__ = ["part", "templates"]

_SECTIONS = "lrp_lightning.html"


@cache
def templates(package: str = _SECTIONS) -> Environment:
    """The templates of a package, together with those of the sections.

    All data is escaped. ``css`` is the style of sections, ``stops`` the colours of the scale.
    """
    room = Environment(
        loader=ChoiceLoader([PackageLoader(name, "") for name in dict.fromkeys((package, _SECTIONS))]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    room.globals["css"] = Markup(files(_SECTIONS).joinpath("sections.css").read_text("utf-8"))  # the library's own
    stops = colormaps[COLOURS](np.linspace(0, 1, 11), bytes=True)[:, :3]
    room.globals["stops"] = ", ".join("#{:02x}{:02x}{:02x}".format(*stop) for stop in stops)
    return room


def part(title: str, *sections: tuple[str, Any]) -> str:
    """Sections of the report for a notebook; colours are inherited from the page.

    Args:
        title: above them, plain text.
        sections: pairs of a kind and its data, as the functions of ``sections`` return it.

    Example:
        >>> from lrp_lightning.html.markup import part
        >>> "<dt>&lt;b&gt;</dt>" in part("A number", ("figures", [("<b>", "1")]))
        True
    """
    return templates().get_template("part.html.jinja").render(title=title, sections=sections, alone=True)
