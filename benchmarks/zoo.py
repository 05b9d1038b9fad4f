"""torchvision's classification models beside Captum and zennit; writes ``benchmarks/zoo.md``: ``python benchmarks/zoo.py``.

Ours: |input + absorbed - output| / |output| with every bias random, so that what biases take counts. Peers cannot say what
biases took, so they, and ours beside them, are measured with biases at zero: sum of relevance / logit, which is 1 but for
class tokens and position embeddings. No model is changed and no canonizer chosen; peers have their default stabilisers,
which are absolute, so the tiny outputs of some untrained models drown in them. Logits differ in the last bits where torch
takes its fused path for attention, which it does only without gradients.
"""

from __future__ import annotations

import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from compare import captum_epsilon, conservation, zennit_epsilon
from torch import Tensor, nn

from lrp_lightning import Epsilon, EpsilonPlus, SelectiveLRP

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import zoo


def error(model: nn.Module, x: Tensor, rule: object) -> str:
    trace = SelectiveLRP(model, rule).trace(x, target=lambda logits: logits.argmax(1))  # type: ignore[arg-type]
    return f"{trace.conservation_error.max().item():.0e}"


def row(name: str) -> str:
    model, x = zoo.build(name)
    with torch.no_grad():
        logits = model(x)
    ours = SelectiveLRP(model, Epsilon())
    same = (ours.trace(x, target=0).output - logits).abs().max().item()
    cells = [name, "0" if same == 0 else f"{same:.0e}", error(model, x, Epsilon()), error(model, x, EpsilonPlus())]
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.zero_()
        target = model(x).argmax(1)
    for attribute in (
        lambda m, x, t: SelectiveLRP(m, Epsilon()).attribute(x, target=t),
        captum_epsilon,
        lambda m, x, t: zennit_epsilon(m, x, t, []),
    ):
        cells.append(conservation(model, x, target, attribute))
    return f"| {' | '.join(cells)} |"


def main() -> None:
    warnings.simplefilter("ignore")
    columns = ["model", "logits differ by", "error, epsilon", "error, EpsilonPlus", "lrp_lightning", "Captum", "zennit"]
    packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "torchvision", "captum", "zennit"))
    lines = ["# torchvision's classification models", "", (__doc__ or "").partition("\n\n")[2].strip(), ""]
    lines += [f"Made by `python benchmarks/zoo.py` ({packages}), 2 images, random weights.", ""]
    lines += [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    started = time.time()
    for i, name in enumerate(zoo.NAMES, 1):
        lines.append(row(name))
        print(f"{i}/{len(zoo.NAMES)} {time.time() - started:4.0f} s {lines[-1]}", flush=True)
    Path(__file__).with_name("zoo.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
