"""A LightningModule as a classifier whose output is ``(N, classes)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lrp_lightning.adapters import View
from lrp_lightning.engine import logits_of
from lrp_lightning.layers import unwrapped

__all__ = ["Classifier", "ModelOf", "label_sets"]

ModelOf = str | Callable[[LightningModule], Callable[..., Any]]
"""Name of a module's attribute or method, or a function that returns the module or function to explain."""


class Classifier(View):
    """The classifying part of a LightningModule, with its output converted to ``(N, classes)``.

    Layers keep the names that they have in the LightningModule, or in the module that ``model`` names. If the output is a
    mapping or an object, its ``logits`` are used; if it is a tuple, its first element. A single logit ``z`` per sample
    becomes the two classes ``(-z / 2, z / 2)``, whose softmax is its sigmoid. Outputs with several positions are averaged
    over them, so that relevance explains the mean logit: ``(N, positions, classes)`` for sequences, ``(N, classes, height,
    width)`` for maps. If it ends in a softmax, a sigmoid or another monotone map, the logits below that are used.

    Args:
        pl_module: the LightningModule.
        model: the attribute, method or function to explain; None for the module's forward.

    Raises:
        MisconfigurationException: if ``model`` does not name a callable.
    """

    def __init__(self, pl_module: LightningModule, model: ModelOf | None = None) -> None:
        found: Any = pl_module
        if isinstance(model, str):
            try:
                found = attrgetter(model)(pl_module)
            except AttributeError as error:
                children = ", ".join(repr(name) for name, _ in pl_module.named_children())
                raise MisconfigurationException(
                    f"RelevanceMonitor: {type(pl_module).__name__} has no attribute {model!r} (model=); it has {children}"
                ) from error
        elif model is not None:
            found = model(pl_module)
        if not callable(found):
            raise MisconfigurationException(
                "RelevanceMonitor: model= must name or return a module or a function of the inputs, got "
                f"{type(found).__name__}"
            )
        super().__init__(unwrapped(found) if isinstance(found, nn.Module) else pl_module)
        object.__setattr__(self, "call", self.model if isinstance(found, nn.Module) else found)

    call: Callable[..., Any]

    def forward(self, *inputs: Tensor) -> Tensor:
        """``(N, classes)``."""
        try:
            output = logits_of(_logits(self.call(*inputs)))
        except NotImplementedError as error:
            if 'missing the required "forward"' not in str(error):
                raise
            children = ", ".join(repr(name) for name, _ in self.model.named_children())
            raise MisconfigurationException(
                f"RelevanceMonitor explains the module's forward, and {type(self.model).__name__} has none; name what to "
                f"explain with model=, such as one of {children}"
            ) from error
        except TypeError as error:
            if _takes(self.call, inputs):
                raise
            raise MisconfigurationException(
                f"RelevanceMonitor calls the model with the {len(inputs)} input tensors of a batch, and "
                f"{type(self.model).__name__} does not take these; name what to explain with model=, such as an attribute, "
                "or choose its input tensors with batch_fn="
            ) from error
        if output.ndim == 1:
            output = output.unsqueeze(1)
        if output.ndim == 3:
            output = output.mean(1)
        elif output.ndim > 3:
            output = output.mean(list(range(2, output.ndim)))
        return torch.cat([-0.5 * output, 0.5 * output], 1) if output.shape[1] == 1 else output


def _takes(call: Callable[..., Any], inputs: tuple[Any, ...]) -> bool:
    try:
        inspect.signature(call.forward if isinstance(call, nn.Module) else call).bind(*inputs)
    except TypeError:
        return False
    return True


def _logits(output: Any) -> Any:
    if isinstance(output, Tensor):
        found: Any = output
    elif isinstance(output, Mapping):
        found = output.get("logits")
    elif hasattr(output, "logits"):
        found = output.logits
    else:
        found = output[0] if isinstance(output, tuple | list) and output else None
    if not isinstance(found, Tensor) or found.ndim == 0:
        shape = " of no dimensions" if isinstance(found, Tensor) else ""
        raise MisconfigurationException(
            f"RelevanceMonitor explains outputs (N, classes), and the model returned {type(output).__name__}{shape}; name a "
            "classifier with model=: an attribute or method, or a function of the LightningModule that returns one"
        )
    return found


def label_sets(labels: Tensor | None, logits: Tensor) -> Tensor | None:
    """The classes of each sample, ``(N, classes)`` bool: one for a label, several for multi-label and for positions.

    Args:
        labels: class numbers ``(N,)``; several per sample, ``(N, ...)``, where negative numbers mean no label; or zeros and
            ones per class, ``(N, classes)``; for a single logit zeros and ones, ``(N,)`` or ``(N, 1)``.
        logits: ``(N, classes)``.

    Raises:
        MisconfigurationException: if labels are of another kind, such as those of a regression.
    """
    if labels is None:
        return None
    samples, classes = logits.shape
    labels = labels.to(logits.device)
    if labels.shape == (samples, classes) and bool(((labels >= 0) & (labels <= 1)).all()):
        return labels > 0.5
    of_one_logit = classes == 2 and labels.shape in ((samples,), (samples, 1))
    if labels.dtype == torch.bool or (of_one_logit and bool(((labels == 0) | (labels == 1)).all())):
        labels = labels.long()
    if labels.is_floating_point():
        raise MisconfigurationException(
            "RelevanceMonitor: labels must be class numbers, or zeros and ones for each class; got "
            f"{tuple(labels.shape)} of {labels.dtype}, from {labels.min():.4g} to {labels.max():.4g}, for an output of "
            f"{classes} classes. It explains classifiers; convert other labels with batch_fn=, which returns (inputs, "
            "labels)"
        )
    numbers = labels.reshape(samples, -1).long()
    if bool((numbers >= classes).any()):
        raise MisconfigurationException(
            f"RelevanceMonitor: labels must be class numbers 0 to {classes - 1}, as the model's output has {classes} "
            "classes; "
            f"got {int(numbers.max())}"
        )
    sets = torch.zeros(samples, classes + 1, dtype=torch.bool, device=logits.device)
    return sets.scatter_(1, numbers.where(numbers >= 0, classes), True)[:, :classes]
