"""Reading batches: which of a batch's tensors are inputs and which are labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

__all__ = ["BatchFn", "Samples", "read_batch"]

BatchFn = Callable[[Any], tuple[Any, Any]]
"""A function that maps a batch of the validation loader to its inputs and labels."""

_INPUTS = {"image", "images", "img", "imgs", "input", "inputs", "pixel_values", "x", "data", "features", "signal", "signals"}
_LABELS = {"label", "labels", "target", "targets", "y", "class", "classes", "category", "categories", "gt", "truth"}


@dataclass(frozen=True)
class Samples:
    """Samples of one shape.

    Attributes:
        inputs: each ``(N, ...)``.
        labels: ``(N, ...)`` as in the batch; None without labels.
        places: ``(N,)``, the samples' numbers in their batch.
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor | None
    places: Tensor

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, which: slice | Tensor) -> Samples:
        """Some of the samples; views if ``which`` is a slice."""
        if isinstance(which, Tensor):
            which = which.to(self.inputs[0].device)
        labels = None if self.labels is None else self.labels[which]
        places = self.places[which.cpu() if isinstance(which, Tensor) else which]
        return Samples(tuple(x[which] for x in self.inputs), labels, places)

    @property
    def shape(self) -> tuple:
        """The properties that samples must share to be concatenated."""
        return (*((x.shape[1:], x.dtype) for x in self.inputs), None if self.labels is None else self.labels.shape[1:])

    def cloned(self, device: torch.device | None = None) -> Samples:
        """Copies of the tensors on a device, which autograd can use."""

        def own(t: Tensor) -> Tensor:
            t = t.detach()
            return t.clone() if device is None or t.device == device else t.to(device)

        labels = None if self.labels is None else own(self.labels)
        return Samples(tuple(own(x) for x in self.inputs), labels, self.places.clone())

    @staticmethod
    def joined(parts: Sequence[Samples]) -> Samples:
        """Samples of the same shape, concatenated."""
        inputs = tuple(torch.cat(xs) for xs in zip(*(part.inputs for part in parts), strict=True))
        labels = [part.labels for part in parts if part.labels is not None]
        return Samples(inputs, torch.cat(labels) if labels else None, torch.cat([part.places for part in parts]))


def read_batch(batch: Any, batch_fn: BatchFn | None = None) -> list[Samples]:
    """The samples of a batch, in groups of equal shape: one group, or several if images differ in size.

    Without ``batch_fn`` it reads pairs ``(inputs, labels, ...)``, mappings, dataclasses and named tuples, nested or not. It
    identifies inputs and labels by position, by common names such as ``image`` and ``label``, or because only one tensor
    can be the inputs, or the labels. Images of bytes are converted to floating point, which relevance needs.

    Args:
        batch: a batch of the loader.
        batch_fn: returns ``(inputs, labels)``: ``inputs`` a tensor, a tuple of the model's positional inputs, or a list of
            images of differing size; ``labels`` a tensor, or None.

    Raises:
        MisconfigurationException: if inputs or labels cannot be identified, or differ in number.
    """
    inputs, labels = _asked(batch, batch_fn) if batch_fn is not None else _found(batch)
    if isinstance(inputs, list):
        return _by_shape(inputs, labels, batch)
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    samples = len(inputs[0])
    for x in inputs:
        if len(x) != samples:
            raise _unread(batch, f"inputs of {samples} and {len(x)} samples")
    _check_labels(labels, samples, batch)
    inputs = tuple(x.float() if _is_of_bytes(x) else x for x in inputs)
    return [Samples(inputs, labels, torch.arange(samples))] if samples else []


def _by_shape(images: list[Tensor], labels: Tensor | None, batch: Any) -> list[Samples]:
    _check_labels(labels, len(images), batch)
    places: dict[tuple, list[int]] = {}
    for place, image in enumerate(images):
        places.setdefault((image.shape, image.dtype), []).append(place)
    groups = []
    for group in places.values():
        of_group = torch.tensor(group)
        own = None if labels is None else labels[of_group.to(labels.device)]
        groups.append(Samples((torch.stack([images[i] for i in group]),), own, of_group))
    return groups


def _check_labels(labels: Tensor | None, samples: int, batch: Any) -> None:
    if labels is not None and (labels.ndim == 0 or len(labels) != samples):
        raise _unread(
            batch, f"{samples} inputs and labels of shape {tuple(labels.shape)}, which is not one entry per sample"
        )


def _asked(batch: Any, batch_fn: BatchFn) -> tuple[Any, Tensor | None]:
    result = batch_fn(batch)
    if not (isinstance(result, tuple | list) and len(result) == 2):
        raise MisconfigurationException(
            f"RelevanceMonitor: batch_fn must return (inputs, labels), got {type(result).__name__}"
        )
    inputs, labels = result
    tensors = inputs if isinstance(inputs, tuple | list) else (inputs,)
    if not tensors or not all(isinstance(x, Tensor) and x.ndim for x in tensors):
        raise MisconfigurationException(
            "RelevanceMonitor: batch_fn must return (inputs, labels) whose inputs are a tensor, a tuple of tensors, or a "
            "list "
            f"of images, got {inputs!r:.200}"
        )
    if labels is not None and not isinstance(labels, Tensor):
        try:
            labels = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError) as error:
            raise MisconfigurationException(
                "RelevanceMonitor: batch_fn must return (inputs, labels) whose labels are a tensor or None, got "
                f"{labels!r:.200}"
            ) from error
    return inputs, labels


# detection


Leaf = Tensor | list[Tensor]
"""A tensor of a batch, or a list of images of differing size."""


def _found(batch: Any) -> tuple[Leaf, Tensor]:
    leaves = dict(_leaves(batch))
    pair = isinstance(batch, list | tuple) and not hasattr(batch, "_fields") and len(batch) >= 2
    first = {path: leaf for path, leaf in leaves.items() if path[:1] == (0,)} if pair else {}
    second = {path: leaf for path, leaf in leaves.items() if path[:1] == (1,)} if pair else {}

    inputs = _the_inputs(first) or _the_inputs(leaves)
    if inputs is None:
        raise _unread(batch, "no tensor, or more than one, that can be the inputs")
    rest = {path: leaf for path, leaf in leaves.items() if path != inputs}
    labels = _the_labels({path: leaf for path, leaf in second.items() if path != inputs}) or _the_labels(rest)
    if labels is None:
        raise _unread(batch, "no tensor, or more than one, that can be the labels")
    found = leaves[labels]
    assert isinstance(found, Tensor)
    return leaves[inputs], found


def _the_inputs(leaves: Mapping[tuple, Leaf]) -> tuple | None:
    able = {path: leaf for path, leaf in leaves.items() if isinstance(leaf, list) or leaf.ndim >= 2}
    named = [path for path in able if _name(path) in _INPUTS]
    if len(named) == 1:
        return named[0]
    floating = [
        path
        for path, leaf in able.items()
        if (leaf[0] if isinstance(leaf, list) else leaf).is_floating_point() and _name(path) not in _LABELS
    ] or [path for path, leaf in able.items() if _is_of_bytes(leaf) and _name(path) not in _LABELS]
    dims = {path: 4 if isinstance(leaf, list) else leaf.ndim for path, leaf in able.items()}
    most = max((dims[path] for path in floating), default=0)
    largest = [path for path in floating if dims[path] == most]
    return largest[0] if len(largest) == 1 else None


def _is_of_bytes(leaf: Leaf) -> bool:
    """Whether these are images, ``(N, C, H, W)`` or more dimensions, in bytes, as in files."""
    return isinstance(leaf, Tensor) and leaf.dtype == torch.uint8 and leaf.ndim >= 4


def _the_labels(leaves: Mapping[tuple, Leaf]) -> tuple | None:
    able = {
        path: leaf
        for path, leaf in leaves.items()
        if isinstance(leaf, Tensor) and leaf.ndim and not (leaf.is_floating_point() and leaf.ndim > 2)
    }
    named = [path for path in able if _name(path) in _LABELS]
    whole = [path for path, leaf in able.items() if not leaf.is_floating_point() and leaf.ndim == 1]
    for candidates in (named, list(able), whole):
        if len(candidates) == 1:
            return candidates[0]
    return None


def _name(path: tuple) -> str:
    return str(path[-1]).lower() if path else ""


def _leaves(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, Leaf]]:
    """The tensors of a batch with their paths, depth first."""
    if isinstance(value, Tensor):
        yield path, value
    elif (
        isinstance(value, list | tuple)
        and path
        and value
        and all(isinstance(t, Tensor) and t.ndim == 3 and t.is_floating_point() for t in value)
    ):
        yield path, list(value)  # images of differing size, (C, H, W) each
    else:
        for key, part in _parts(value):
            yield from _leaves(part, (*path, key))


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif is_dataclass(value) and not isinstance(value, type):
        yield from ((f.name, getattr(value, f.name)) for f in fields(value))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, list | tuple):
        yield from enumerate(value)


def _unread(batch: Any, found: str) -> MisconfigurationException:
    def shown(path: tuple, leaf: Leaf) -> str:
        where = "".join(f"[{key!r}]" for key in path)
        what = f"{len(leaf)} images" if isinstance(leaf, list) else f"{tuple(leaf.shape)} {leaf.dtype}"
        return f"batch{where}: {what}"

    tensors = "; ".join(shown(path, leaf) for path, leaf in _leaves(batch)) or "no tensors"
    return MisconfigurationException(
        f"RelevanceMonitor cannot read inputs and labels from a batch: it found {found}, in a {type(batch).__name__} of "
        f"({tensors}). Name them: RelevanceMonitor(batch_fn=f), where f(batch) returns (inputs, labels), such as "
        "lambda batch: (batch[0], batch[1]); with batch_fn, inputs may also be token numbers"
    )
