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
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from methods import Explain, captum, zennit
from torch import Tensor, nn

from lrp_lightning import Epsilon, EpsilonPlus, SelectiveLRP

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import zoo


def error(model: nn.Module, x: Tensor, rule: object) -> str:
    trace = SelectiveLRP(model, rule).trace(x, target=lambda logits: logits.argmax(1))  # type: ignore[arg-type]
    return f"{trace.conservation_error.max().item():.0e}"


def conservation(model: nn.Module, x: Tensor, target: Tensor, explain: Explain) -> str:
    """The smallest and largest sum of relevance / logit over the samples."""
    try:
        share = explain(model, x, target).double().flatten(1).sum(1) / model(x).gather(1, target[:, None])[:, 0].double()
    except Exception as error:  # a peer that raises: that is its result
        return type(error).__name__
    least, most = share.min().item(), share.max().item()
    if abs(least - 1) < 1e-3 and abs(most - 1) < 1e-3:
        return "1.000"
    return f"{least:.3g} to {most:.3g}"


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
    explains: tuple[Explain, ...] = (
        lambda m, x, t: SelectiveLRP(m, Epsilon()).attribute(x, target=t),
        captum,
        partial(zennit, "epsilon", canonized=False),
    )
    cells += [conservation(model, x, target, explain) for explain in explains]
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
