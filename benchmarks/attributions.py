"""The attributions that the benchmarks of evidence compare, with one interface, and common code of their scripts.

An ``Explain`` takes a model, images ``(N, C, H, W)`` and classes ``(N,)``, and returns an attribution of the images' shape.
"""

from __future__ import annotations

import argparse
import copy
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import torch
from captum.attr._utils.lrp_rules import EpsilonRule
from peers import AUTOLRP, ZENNIT, autolrp, zennit
from torch import Tensor, nn

from lrp_lightning import Composite, Epsilon, EpsilonGammaBox, Gamma, SelectiveLRP, TopK

HERE = Path(__file__).parent
Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]

BOUNDS = (-1.0, 1.0)
"""The least and the greatest value of a pixel."""
COMPOSITES: dict[str, Composite | str] = {
    "epsilon": Composite(Epsilon()),
    "epsilon_plus": "epsilon_plus",
    "epsilon_alpha2_beta1": "epsilon_alpha2_beta1",
    "gamma": Composite(Gamma(0.25)),
    "box": EpsilonGammaBox(*BOUNDS),
}
"""Composites of this library. Without convolutions the second and the third equal epsilon."""


def ours(composite: Composite | str, select: bool = False, mapped: bool = False, pair: bool = False) -> Explain:
    """LRP of the class's logit or, with ``pair``, for a network with two classes, of that minus the other class's logit.

    Args:
        composite: the rules.
        select: whether only a tenth of the neurons of each layer propagate relevance.
        mapped: whether to return the map before it is multiplied by the input.
        pair: whether the other class's logit is subtracted.
    """
    return partial(_ours, composite, TopK(0.1) if select else None, mapped, pair)


def _ours(
    composite: Composite | str, selection: TopK | None, mapped: bool, pair: bool, model: nn.Module, x: Tensor, c: Tensor
) -> Tensor:
    lrp = SelectiveLRP(model, composite, selection, multiply_by_inputs=not mapped)
    return lrp.attribute(x, target=difference(c) if pair else c)


def difference(labels: Tensor) -> Callable[[Tensor], Tensor]:
    """For an output with two classes, the logit of each sample's class minus that of the other class."""
    return lambda y: y.gather(1, labels[:, None])[:, 0] - y.gather(1, 1 - labels[:, None])[:, 0]


def all_of_ours(composites: dict[str, Composite | str] = COMPOSITES) -> dict[str, Explain]:
    """For each composite, relevance, the map (except for zB rules), and relevance through selected neurons."""
    found: dict[str, Explain] = {}
    for name, composite in composites.items():
        found[name] = ours(composite)
        if name != "box":
            found[f"{name}, map"] = ours(composite, mapped=True)
        found[f"{name}, TopK(0.1)"] = ours(composite, select=True)
    return found


def captums(window: tuple[int, ...], segments: int | None = None) -> dict[str, Explain]:
    """Captum's methods by their names in the tables, with a baseline of 0.

    Args:
        window: the window of Occlusion, ``(C, height, width)``.
        segments: for large images: Occlusion moves by whole windows, Shapley values are those of this number of rows and
            columns of squares instead of pixels, and both these and GradientShap take fewer samples.
    """

    def squares(x: Tensor) -> Tensor:
        side, count = x.shape[-1], segments or x.shape[-1]
        at = torch.arange(side) * count // side
        return (at[:, None] * count + at)[None, None]

    zeros = {"baselines": torch.zeros_like}
    whole = {"strides": window} if segments else {}
    given: dict[str, dict] = {
        "Saliency": {}, "InputXGradient": {},
        "IntegratedGradients": {"n_steps": 20, "internal_batch_size": 4 if segments else None},
        "DeepLift": {}, "GuidedBackprop": {}, "Deconvolution": {},
        "GradientShap": {"n_samples": 4 if segments else 10, "stdevs": 0.1, **zeros},
        "ShapleyValueSampling": {"n_samples": 2, "feature_mask": squares} if segments else {"n_samples": 5},
        "Occlusion": {"sliding_window_shapes": window, **whole}, "LRP": {},
    }  # fmt: skip
    return {f"Captum {name}": partial(_captum, name, how) for name, how in given.items()}


def _captum(name: str, given: dict, model: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    model = copy.deepcopy(model)  # some leave hooks
    if name == "LRP":  # which has no rule for these by itself; with one it runs
        for module in model.modules():
            if isinstance(module, nn.Flatten | nn.BatchNorm2d | nn.AdaptiveAvgPool2d | nn.Conv2d | nn.Linear | nn.ReLU6):
                module.rule = EpsilonRule()
    how = {key: value(x) if callable(value) else value for key, value in given.items()}
    return getattr(captum.attr, name)(model).attribute(x.clone().requires_grad_(), target=c, **how)


def lrp_of_peers() -> dict[str, Explain]:
    """zennit's and autolrp's by their names in the tables; lxt patches the modules of transformers, which no table has."""
    for package in ("autolrp", "zennit"):
        import_module(package)  # before a seed is set: autolrp draws random numbers when it is imported
    of_zennit = {f"zennit {rule}": partial(zennit, rule, bounds=BOUNDS) for rule in ZENNIT}
    return {**of_zennit, **{f"autolrp {rule}": partial(autolrp, rule) for rule in AUTOLRP}}


def random_attribution(model: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    """Noise, another in every call."""
    return torch.randn_like(x)


def seeded(seed: int) -> None:
    """Makes what methods draw the same in every run."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  Captum's GradientShap draws from the global generator


def attempt(name: str, explain: Explain, model: nn.Module, x: Tensor, c: Tensor) -> Tensor | str:
    """An attribution; "not finite" if it holds NaN or infinity; the name of the error if a peer cannot explain the model."""
    try:
        with quietly():
            attribution = explain(model, x, c).detach()
    except Exception as error:
        if not name.startswith(("Captum", "zennit", "autolrp")):
            raise
        return type(error).__name__
    return attribution if attribution.isfinite().all() else "not finite"


@contextmanager
def quietly() -> Iterator[None]:
    """Suppress the peers' warnings of hooks and gradients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def kept(file: Path, measure: Callable[[], Any]) -> Any:
    """The measured values, read from their file, or measured now and written there."""
    if not file.exists():
        file.write_text(json.dumps(measure()))
    return json.loads(file.read_text())


def cell(scores: Sequence[Sequence[float] | str], which: int) -> str:
    """Of the scores of several networks the mean of one with its standard error, or the name of a peer's error."""
    failed = [of for of in scores if isinstance(of, str)]
    return failed[0] if failed else mean_and_error([float(of[which]) for of in scores])


def mean_and_error(values: Sequence[float]) -> str:
    """A mean with its standard error; without the error for a single value, and empty without values."""
    if not values:
        return ""
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{np.mean(values):.2f} ± {error:.2f}" if len(values) > 1 else f"{np.mean(values):.2f}"


def options_of(name: str, description: str | None, quick: str, seeds: Sequence[int] = (0, 1, 2)) -> argparse.Namespace:
    """Options of a script that stores the figures of each seed and writes a page; quick runs do not replace the page."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--cache", type=Path, default=HERE / "runs" / name, help="where figures are kept")
    parser.add_argument("--out", type=Path, help="the page; by default beside the script")
    parser.add_argument("--quick", action="store_true", help=f"{quick}: whether it runs; its figures count for nothing")
    options = parser.parse_args()
    if options.quick:
        options.cache /= "quick"
    options.cache.mkdir(parents=True, exist_ok=True)
    options.out = options.out or (options.cache if options.quick else HERE) / f"{name}.md"
    return options
