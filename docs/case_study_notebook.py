"""The cells of ``examples/vgg16_case_study.ipynb``, made of ``examples/vgg16_case_study.py``; ``notebooks.py`` writes them.

Each step is its docstring, its code, and what comes of it.
"""

import ast
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "examples" / "vgg16_case_study.py"
CHOSEN = """options = Options(width="narrow", epochs=2, seed=0)  # as on the command line; weights and data for ImageNet
torch.manual_seed(options.seed)
study = prepare(options)
print(study.name)"""
SHOW = """from IPython.display import Image as Picture
from IPython.display import Markdown, display

found: dict[str, str] = {}


def show(step: Step) -> None:
    found.update(step.found)
    display(Picture(png(step.figure)), Markdown(f"*{step.caption}*"), Markdown(step.table))"""


def cells() -> list[tuple[str, str, str]]:
    """``(kind, text, tag)`` of each cell; the tag is that of papermill, of the cell with what may be chosen."""
    source = SCRIPT.read_text()
    tree, lines = ast.parse(source), source.splitlines()
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    steps = [name.id for name in _value(tree, "STEPS").elts]  # type: ignore[attr-defined]
    before_steps = functions[steps[0]].lineno - 1

    def code(node: ast.FunctionDef) -> str:
        body = [node.lineno - 1, node.body[1].lineno - 1 if ast.get_docstring(node) else node.lineno]
        return "\n".join([*lines[body[0] : node.body[0].lineno - 1], *lines[body[1] : node.end_lineno]])

    found = [("markdown", "# VGG16, step by step\n\n" + (ast.get_docstring(tree) or ""))]
    first = tree.body[1].lineno - 1
    setting_up = "\n".join(lines[first:before_steps]).replace("import argparse\n", "").replace("# The steps", "")
    found.append(("code", setting_up.strip()))
    found += [("code", code(functions["png"])), ("code", SHOW), ("code", CHOSEN)]
    for name in steps:
        found.append(("markdown", ast.get_docstring(functions[name]) or ""))
        found.append(("code", f"{code(functions[name])}\n\n\nshow({name}(study))"))
    found.append(("markdown", ast.literal_eval(_value(tree, "PUBLIC_TEXT")).strip()))
    found.append(("code", f"{code(functions['compared'])}\n\n\ndisplay(Markdown(compared(found, options.passes)))"))
    found.append(("markdown", ast.literal_eval(_value(tree, "CREDITS")).strip()))
    return [(kind, text, "parameters" if text == CHOSEN else "") for kind, text in found]


def _value(tree: ast.Module, name: str) -> ast.expr:
    [node] = [n for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == name]
    return node.value
