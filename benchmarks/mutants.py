"""Whether the tests notice faults: small changes to a module, one at a time, each of which should fail a test.

    pip install cosmic-ray
    python benchmarks/mutants.py                    # all modules of TESTS
    python benchmarks/mutants.py axes --sample 20   # one module, 20 of its mutants

Cosmic Ray makes the mutants. For each one a child process is forked from a process that has already imported torch. The
child reads the mutated source from memory and runs the module's tests until one fails. A mutant also counts as noticed if
its tests take three times as long as those of the original. The sample has a fixed seed. Mutants that differ only in
annotations are left out. Mutants that no test can notice are listed, with the reason, in ``equivalent_mutants.json``.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import gc
import importlib
import importlib.abc
import importlib.util
import json
import os
import random
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.json")
SEED = 0
TESTS = {
    "rules": ["test_rules.py", "test_checks.py", "test_captum_contract.py"],
    "axes": ["test_axes.py", "engine/test_moves.py"],
    "selection/by_relevance": ["selection/test_by_relevance.py", "selection/test_protocol.py"],
    "selection/fixed": ["selection/test_fixed.py", "selection/test_protocol.py"],
    "selection/per_layer": ["selection/test_per_layer.py", "selection/test_protocol.py"],
    "selection/budget": ["selection/test_by_relevance.py", "selection/test_min_error.py"],
    "selection/control": ["selection/test_control.py"],
    "selection/protocol": ["selection/test_protocol.py", "selection/test_per_layer.py"],
}
"""The tests of each module, those first that fail soonest."""

SLOW = ["captum.attr", "hypothesis", "lightning", "networkx", "pytest", "sklearn.cluster", "torchmetrics", "torchvision"]
"""What tests import, apart from the library itself: imported once, before any child is forked."""


@dataclass(frozen=True)
class Mutant:
    """A source, and how its changed line reads before and after."""

    source: str
    line: int
    before: str
    after: str


def mutants(source: str, most: int) -> Iterator[Mutant]:
    """Mutants of a source, in an order that is random and always the same."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast(source)))
    found = []
    for name in sorted(operator_names()):
        if name in ("core/VariableInserter", "core/VariableReplacer"):  # these need names of variables
            continue
        operator = get_operator(name)()
        found += [(operator, n) for n in range(sum(len(list(operator.mutation_positions(node))) for node in nodes))]
    random.Random(SEED).shuffle(found)
    seen = {_meaning(source)}
    for operator, occurrence in found:
        mutated = mutate_code(source, operator, occurrence)
        try:
            meaning = _meaning(mutated)
        except SyntaxError:
            continue
        if meaning in seen:
            continue
        seen.add(meaning)
        old, new = source.splitlines(), mutated.splitlines()
        changes = difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes()
        _, start, end, here, there = next(change for change in changes if change[0] != "equal")
        before, after = (" ".join(line.strip() for line in lines) for lines in (old[start:end], new[here:there]))
        yield Mutant(mutated, start + 1, before, after)
        if len(seen) > most:
            return


def _meaning(source: str) -> str:
    """The source as a tree, without docstrings and annotations."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return ast.dump(tree)


class _FromMemory(importlib.abc.MetaPathFinder, SourceFileLoader):
    """Imports one module from a given source."""

    def __init__(self, module: str, path: Path, source: str) -> None:
        super().__init__(module, str(path))
        self.source = source

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec")


def passes(module: str, source: str, seconds: int) -> tuple[bool, float]:
    """Whether the tests of a module pass with this source, and the processor seconds that they take."""
    child = os.fork()
    if not child:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        signal.alarm(20 * seconds)  # waits for what never comes take no processor time
        name = "lrp_lightning." + module.replace("/", ".")
        sys.meta_path.insert(0, _FromMemory(name, ROOT / "lrp_lightning" / f"{module}.py", source))
        import pytest

        for file in TESTS[module]:  # one by one: what the first can tell needs no import of the others
            if code := pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", f"tests/{file}"]):
                os._exit(code)
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    return status == 0, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="module", help=", ".join(TESTS))
    parser.add_argument("--sample", type=int, default=150, help="mutants tried per module (default: %(default)s)")
    options = parser.parse_args()
    if unknown := set(options.modules) - TESTS.keys():
        parser.error(f"unknown module {', '.join(sorted(unknown))}; modules are {', '.join(TESTS)}")
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for slow in SLOW:
        importlib.import_module(slow)
    sys.modules["torch"].set_num_threads(1)
    with open(os.devnull, "w") as null, redirect_stdout(null):  # imports pytest's plugins too
        sys.modules["pytest"].main(["--collect-only", "-p", "no:cacheprovider", "tests/conftest.py"])
    gc.freeze()  # pytest collects garbage when it ends; what is imported by now is none
    equivalent = json.loads(EQUIVALENT.read_text())
    print("| module | mutants | equivalent | noticed | score |\n| --- | --: | --: | --: | --: |", flush=True)
    for module in options.modules or TESTS:
        source = (ROOT / "lrp_lightning" / f"{module}.py").read_text()
        fine, seconds = passes(module, source, 600)
        if not fine:
            sys.exit(f"the tests of {module} fail without a mutant: {' '.join(TESTS[module])}")
        known = {(before, after) for before, after, _ in equivalent.get(module, [])}
        tried = alike = noticed = 0
        for mutant in mutants(source, options.sample):
            tried += 1
            if (mutant.before, mutant.after) in known:
                alike += 1
            elif not passes(module, mutant.source, 5 + int(3 * seconds))[0]:
                noticed += 1
            else:
                where = f"{module}.py:{mutant.line}, mutant {tried}"
                print(f"{where}\n  - {mutant.before}\n  + {mutant.after}", file=sys.stderr, flush=True)
        print(f"| `{module}.py` | {tried} | {alike} | {noticed} | {noticed / (tried - alike):.3f} |", flush=True)


if __name__ == "__main__":
    main()
