"""How the documentation is built: ``make docs``. Nothing is fetched, neither while it is built nor while it is read."""

import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode
from sphinx.writers.html5 import HTML5Translator

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lrp_lightning import __version__ as release  # noqa: E402

project = "lrp_lightning"
copyright = "the authors of lrp_lightning"
version = release
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
nitpicky = True  # what a docstring refers to is there
add_module_names = False
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

myst_enable_extensions = ["dollarmath", "deflist", "attrs_inline"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"lrp_lightning {release}"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_copy_source = False
html_extra_path = ["llms.txt"]  # for coding assistants, as it stands
html_show_sphinx = False
html_math_renderer = "mathml"

nitpick_ignore_regex = [
    (
        "py:.*",
        r"(torch|lightning|pytorch_lightning|captum|torchmetrics|networkx|nx|numpy|np|plotly|go|matplotlib|pathlib)\..*",
    ),
    ("py:.*", r"(collections|typing|os)\..*|MisconfigurationException"),
    ("py:class", r"lrp_lightning\.(graphs\.paths\.Paths|insight\.neuron_cards\.NeuronCards)"),  # lists, but for a notebook
    ("py:class", "Figure|Tensor"),  # by the short names that signatures of type checkers and fields of tuples have
]


def displayed(self: HTML5Translator, node: nodes.math_block) -> None:
    """A formula as MathML, which browsers draw themselves: no script, no font, no request."""
    self.body.append(f'<div class="formula">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def errors_by_full_name(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """A ``SelectionError`` that is raised is not the measure of that name."""
    lines[:] = [
        re.sub(r"(?<![.\w])SelectionError", "~lrp_lightning.errors.SelectionError", line)
        if line.startswith(":raises")
        else line
        for line in lines
    ]


def readable_defaults(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """A dataclass writes ``<factory>`` where a field starts as an empty dict, which is no Python."""
    return signature.replace("<factory>", "{}") if signature else signature, returns


def short_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element) -> nodes.reference | None:
    """Docstrings name errors and each other's methods without the module, and annotations by the module they are made in."""
    if node.get("refdomain") != "py":
        return None
    kind = {"exc": "exception"}.get(node["reftype"])
    domain = env.domains.python_domain
    found = {
        name: entry
        for name, entry in domain.objects.items()
        if f".{name}".endswith("." + node["reftarget"]) and kind in (None, entry.objtype) and not entry.aliased
    }
    if len(found) != 1:
        return None
    [(name, entry)] = found.items()
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, text, name)


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", errors_by_full_name, priority=600)  # after napoleon
    app.connect("autodoc-process-signature", readable_defaults)
    app.connect("missing-reference", short_name)
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(displayed, None))
