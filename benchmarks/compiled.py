"""Captured and compiled passes compared with gradient x input, eager and compiled; writes ``benchmarks/compiled.md``.

    python benchmarks/compiled.py [--model resnet18] [--side 128]

Gradient x input is recorded and compiled in the same way as the passes, by ``make_fx`` and ``torch.compile``. Times are CPU
seconds on one thread, as the median of interleaved rounds, so that other work on the machine has little effect.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch._inductor.config
from models import subject
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from lrp_lightning import SelectiveLRP, TopK

PASSES = {
    "ε": ("epsilon", None),
    "ε-z⁺": ("epsilon_plus", None),
    "ε-z⁺, TopK(0.1)": ("epsilon_plus", TopK(0.1)),
}


def gradient_x_input(model: nn.Module, target: Tensor) -> Callable[[Tensor], Tensor]:
    def explain(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        chosen = model(x).gather(1, target.view(-1, 1))
        return (torch.autograd.grad(chosen.sum(), x)[0] * x).detach()

    return explain


def seconds(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median time of each, over interleaved rounds."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for n in range(rounds + 2):
        for name, run in runs.items():
            began = time.process_time()
            run()
            if n > 1:  # the first are warm-ups
                taken[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in taken.items()}


def rows(name: str, side: int, batch: int, rounds: int, say: Callable[[str], None]) -> None:
    torch.compiler.reset()  # otherwise modules of all rows count towards one limit, beyond which they run uncompiled
    of = subject(name, side, batch)
    of.model.requires_grad_(False)
    explain = gradient_x_input(of.model, of.target)
    recorded = make_fx(explain)(of.x)
    compile_seconds: dict[str, float] = {}

    def compiled(what: str, module: Callable) -> Callable:
        fast, began = torch.compile(module), time.perf_counter()
        fast(of.x)
        compile_seconds[what] = time.perf_counter() - began
        return fast

    runs: dict[str, Callable[[], object]] = {"gradient": lambda: explain(of.x)}
    fast_gradient = compiled("gradient", recorded)
    runs["gradient, compiled"] = lambda: fast_gradient(of.x)
    operators = {}
    for what, (composite, selection) in PASSES.items():
        lrp = SelectiveLRP(of.model, composite, selection)
        captured = lrp.capture(of.x, of.target[0].item())
        operators[what] = sum(node.op == "call_function" for node in captured.program.graph.nodes)
        fast = compiled(what, captured)
        runs[what] = lambda lrp=lrp: lrp.attribute(of.x, of.target)  # type: ignore[misc]
        runs[f"{what}, captured"] = lambda captured=captured: captured(of.x)  # type: ignore[misc]
        runs[f"{what}, compiled"] = lambda fast=fast: fast(of.x)  # type: ignore[misc]
    took = seconds(runs, rounds)
    eager, fast_base = took["gradient"], took["gradient, compiled"]
    say(
        f"| {name}, {batch} of {side} px | gradient x input | {1e3 * eager:.1f} ms | | {fast_base / eager:.2f} | | "
        f"{compile_seconds['gradient']:.0f} | |"
    )
    for what in PASSES:
        ours, program, fast = took[what], took[f"{what}, captured"], took[f"{what}, compiled"]
        ratios = " | ".join(f"{ratio:.2f}" for ratio in (ours / eager, program / eager, fast / eager, fast / fast_base))
        say(f"| | {what} | {ratios} | {compile_seconds[what]:.0f} | {operators[what]:,} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["resnet18", "vgg16_bn"])
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("compiled.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch._inductor.config.force_disable_caches = True  # so that compilation time is measured
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)
        options.out.write_text("\n".join([*lines, ""]))

    say(f"""# Captured and compiled passes

`SelectiveLRP.capture` records a pass with frozen weights, and `torch.compile` compiles it. Gradient x input is recorded and
compiled in the same way. Times are seconds of the processor on one thread, as the median of {options.rounds} interleaved
rounds, with torch {torch.__version__}. Ratios are relative to eager gradient x input in the same run, the last one to
compiled gradient x input. The images have no negative values. The eager pass finds this out and leaves out what only
negative inputs need; a captured pass explains any images, so EpsilonPlus takes more time in its first convolution.

| | | eager | captured | compiled | compiled, of compiled gradient x input | compiling, s | operators |
| --- | --- | --- | --- | --- | --- | --- | --- |""")
    for name in options.model:
        for batch in options.batch:
            rows(name, options.side, batch, options.rounds, say)


if __name__ == "__main__":
    main()
