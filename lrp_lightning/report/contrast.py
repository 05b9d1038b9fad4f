"""A contrast as one folder: a picture, the figures, and a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from lrp_lightning.drawing.contrast import draw_contrast
from lrp_lightning.insight.contrast import Contrast
from lrp_lightning.report.analysis import Report
from lrp_lightning.report.page import write_report

__all__ = ["save_contrast"]


def save_contrast(
    why: Contrast,
    folder: str | FilePath,
    class_names: Sequence[str] | None = None,
    titles: Sequence[str] = (),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> FilePath:
    """Write ``contrast.png``, ``contrast.json`` and ``report.html`` into a folder, which is created if needed.

    Args:
        why: from :func:`lrp_lightning.contrast`, of images.
        folder: the folder.
        class_names: names of the classes; without them classes are given by number.
        titles: one per sample, such as the name of its file.
        mean: what was subtracted from the images, one value per channel; without it each is stretched to its own range.
        std: what the images were divided by.
        settings: how it was made, for the report.

    Returns:
        The folder.

    Raises:
        InputError: if the explained inputs are not images ``(N, C, H, W)``.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from lrp_lightning import contrast
        >>> from lrp_lightning.drawing import save_contrast
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 3)).eval()
        >>> with tempfile.TemporaryDirectory() as place:
        ...     folder = save_contrast(contrast(model, torch.rand(2, 1, 5, 5)), place)
        ...     sorted(file.name for file in folder.iterdir())
        ['contrast.json', 'contrast.png', 'report.html']
    """
    folder = FilePath(folder)
    figure = draw_contrast(why, class_names, mean, std)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "contrast.png")
    (folder / "contrast.json").write_text(json.dumps(_figures(why, class_names, titles), indent=1), "utf-8")
    measures = {
        "mean margin": why.margin.float().mean().item(),
        "class ahead with critical neurons alone": why.same_class_ahead.float().mean().item(),
    }
    report = Report(
        title="Why this class and not another", measures=measures, contrast=why, titles=titles, mean=mean, std=std,
        class_names=class_names, settings=settings or {},
    )  # fmt: skip
    write_report(report, folder / "report.html")
    return folder


def _figures(why: Contrast, class_names: Sequence[str] | None, titles: Sequence[str]) -> dict[str, Any]:
    def name(c: int) -> str | None:
        return None if class_names is None else str(class_names[c])

    shares = {"critical neurons": why.logit_shares(why.heatmaps), "all neurons": why.logit_shares(why.all_neurons)}
    return {
        "samples": [
            {
                "title": titles[i] if titles else None,
                "class": int(why.a[i]),
                "name": name(int(why.a[i])),
                "against": int(why.b[i]),
                "against name": name(int(why.b[i])),
                "logits": why.explained[:2, i].tolist(),
                "margin": float(why.margin[i]),
                "logits by their own critical neurons": why.own_logits[i].tolist(),
                "the same is ahead by their own neurons": bool(why.same_class_ahead[i]),
                "part of class, other and margin held": {what: part[:, i].tolist() for what, part in shares.items()},
            }
            for i in range(len(why.a))
        ],
        "neurons for": [list(neuron) for neuron in why.neurons_for],
        "neurons against": [list(neuron) for neuron in why.neurons_against],
    }
