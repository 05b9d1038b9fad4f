"""Lazy access to the explanations of a data set on disk: only requested rows are read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrp_lightning.checks import is_whole, meant
from lrp_lightning.errors import InputError, LayerError, StoreError
from lrp_lightning.store.segments import SCALES, Column, Segment, read_about, segments_of

__all__ = ["RelevanceStore", "StoredRows"]

Rows = int | slice | Sequence[int] | Tensor


class RelevanceStore:
    """The relevance of a data set, written by :class:`lrp_lightning.callbacks.RelevanceWriter` and read on demand.

    Samples are in the order of the data set, regardless of the process that explained them. Sample ``i`` is the data set's
    sample ``indices[i]``; in a complete store that is ``i`` itself. ``store[i]``, ``store[10:20]``, ``store[[3, 5]]`` and
    ``store[mask]`` return a dictionary like :meth:`lrp_lightning.callbacks.Explainer.predict_step`. A store can be read
    while it is written; files that are added later are ignored.

    Args:
        path: the folder.

    Attributes:
        path: the folder.
        about: a description, as text: ``model``, ``weights`` (a hash), ``composite``, ``selection``, ``target``,
            ``precision``, ``samples`` (number in the data set), ``versions``, ``created``.
        relevance: ``{layer: (N, C)}``, a :class:`StoredRows` for each layer, as in ``Trace.relevance``.
        masks: ``{layer: (N, C) bool}``, the critical neurons; empty without a selection.
        inputs: relevance of the inputs, shaped like them; a tuple for several inputs; None if it was not kept.
        kept_inputs: the inputs, as the model takes them; a tuple for several; None without ``keep_inputs=True``.
        kinds: the kind of each layer, as in ``Trace.kinds``.
        places: the number of values per sample of a neuron in each layer, as in ``Trace.places``.
        indices: ``(N,)``, the samples of the data set that the store contains.

    Raises:
        StoreError: if it is not a store, or one of its files cannot be read.

    Example:
        >>> import tempfile, torch
        >>> from lightning.pytorch import Trainer
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from lrp_lightning import RelevanceStore, TopK
        >>> from lrp_lightning.callbacks import Explainer, RelevanceWriter
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> loader = DataLoader(TensorDataset(torch.randn(20, 4), torch.arange(20) % 3), batch_size=8)
        >>> out = tempfile.mkdtemp()
        >>> trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[RelevanceWriter(out)])
        >>> _ = trainer.predict(Explainer(model, selection=TopK(2)), loader, return_predictions=False)
        >>> store = RelevanceStore(out)
        >>> len(store), store.complete, store.relevance["0"][5:8].shape, store.masks["0"][0].sum()
        (20, True, torch.Size([3, 8]), tensor(2))
        >>> store.labels[:4], store.relevance["0"][store.labels == 2].shape
        (tensor([0, 1, 2, 0]), torch.Size([6, 8]))
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)
        self.about: dict[str, Any] = read_about(self.path)
        self._segments = segments_of(self.path)
        indices = np.concatenate([segment.index for segment in self._segments] or [np.zeros(0, np.int64)])
        whose = np.repeat(np.arange(len(self._segments)), [len(segment.index) for segment in self._segments])
        rows = np.concatenate([np.arange(len(segment.index)) for segment in self._segments] or [np.zeros(0, np.int64)])
        found, first = np.unique(indices, return_index=True)  # if two runs wrote a sample, the first is used
        self.indices: Tensor = torch.from_numpy(found.astype(np.int64))
        self._whose, self._rows = whose[first], rows[first]
        shapes = self._segments[0].shapes if self._segments else {}
        of_kind = {kind: [name for k, name in shapes if k == kind] for kind, _ in shapes}
        facts = self._segments[0].facts if self._segments else {}
        in_order = sorted(of_kind.get("relevance", ()), key=lambda layer: facts["relevance", layer]["order"])
        self.kinds: dict[str, str] = {layer: str(facts["relevance", layer]["kind"]) for layer in in_order}
        self.places: dict[str, int] = {layer: int(facts["relevance", layer]["places"]) for layer in in_order}
        self.relevance: dict[str, StoredRows] = _Layers({layer: self._of("relevance", layer) for layer in in_order})
        masked = of_kind.get("masks", ())
        self.masks: dict[str, StoredRows] = _Layers(
            {layer: self._of("masks", layer) for layer in in_order if layer in masked}
        )
        self.inputs: StoredRows | tuple[StoredRows, ...] | None = self._one_or_several("inputs", of_kind.get("inputs", ()))
        self.kept_inputs: StoredRows | tuple[StoredRows, ...] | None = self._one_or_several(
            "kept_inputs", of_kind.get("kept_inputs", ())
        )
        self._in_samples = of_kind.get("samples", ())

    def _of(self, kind: str, name: str) -> StoredRows:
        return StoredRows(self._segments, self._whose, self._rows, (kind, name))

    def _one_or_several(self, kind: str, names: Sequence[str]) -> StoredRows | tuple[StoredRows, ...] | None:
        found = tuple(self._of(kind, name) for name in sorted(names, key=int))
        several = bool(found) and bool(self._segments[0].facts[kind, "0"]["several"])
        return None if not found else found if several else found[0]

    def _sample(self, name: str) -> Tensor:
        return self._of("samples", name)[:] if self._segments else torch.zeros(0)

    @property
    def complete(self) -> bool:
        """Whether it contains all samples of the data set."""
        return len(self) == self.about["samples"]

    @cached_property
    def predicted(self) -> Tensor:
        """``(N,)``, the class with the highest logit; -1 where the output is not ``(N, classes)``."""
        return self._sample("predicted").long()

    @cached_property
    def labels(self) -> Tensor | None:
        """``(N,)``, integers; None if the batches had no such labels."""
        return self._sample("labels").long() if "labels" in self._in_samples else None

    @cached_property
    def explained(self) -> Tensor:
        """``(N,)``, the explained logit."""
        return self._sample("explained")

    @cached_property
    def explained_class(self) -> Tensor:
        """``(N,)``, its class; -1 if the explained value is not the output of one class."""
        return self._sample("explained_class").long()

    @cached_property
    def conservation_error(self) -> Tensor:
        """``(N,)``, as ``Trace.conservation_error``."""
        return self._sample("conservation_error")

    def batches(self, batch_size: int = 64) -> Iterable[Any]:
        """The kept inputs as a loader: batches ``(inputs, labels)``, or inputs alone without labels.

        Args:
            batch_size: number of samples in a batch.

        Raises:
            StoreError: if the inputs were not kept, or there are several.
            InputError: if ``batch_size`` is below 1.
        """
        if not is_whole(batch_size) or batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size!r}")
        if not isinstance(self.kept_inputs, StoredRows):
            why = "has no inputs; write it with RelevanceWriter(..., keep_inputs=True)"
            raise StoreError(f"{str(self.path)!r} {'has several inputs' if self.kept_inputs else why}")
        return _Batches(self.kept_inputs, self.labels, batch_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: Rows) -> dict[str, Any]:
        at = _positions(rows, len(self))

        def read(stored: Tensor | StoredRows) -> Tensor:
            return stored[at][0] if is_whole(rows) else stored[at]

        found: dict[str, Any] = {"indices": read(self.indices)}
        for name in ("predicted", "explained", "explained_class", "conservation_error", "labels", "inputs", "kept_inputs"):
            stored = getattr(self, name)
            if stored is not None:
                found[name] = tuple(map(read, stored)) if isinstance(stored, tuple) else read(stored)
        of_layers = {
            name: {layer: read(stored) for layer, stored in getattr(self, name).items()} for name in ("relevance", "masks")
        }
        return found | of_layers | {"kinds": dict(self.kinds), "places": dict(self.places)}

    def __repr__(self) -> str:
        about, hidden = self.about, [layer for layer, kind in self.kinds.items() if kind != "input"]
        neurons = sum(self.relevance[layer].shape[1] for layer in hidden)
        size = sum(segment.path.stat().st_size for segment in self._segments)
        lines = [
            f"RelevanceStore of {len(self)} of {about['samples']} samples, {len(self._segments)} files, {size / 1e6:.1f} MB",
            f"  model       {about['model']} ({about['weights'][:8]}), {about['precision']}",
            f"  explained   {about['target']}, by {about['composite']}, selection {about['selection']}",
            f"  layers      {len(hidden)}, {neurons} neurons, {len(self.masks)} with masks",
        ]
        for name in ("inputs", "kept_inputs"):
            stored = getattr(self, name)
            parts = stored if isinstance(stored, tuple) else () if stored is None else (stored,)
            lines += [f"  {name:<11} {tuple(part.shape)}" for part in parts]
        return "\n".join(lines)


class StoredRows:
    """A column of a store: an array with a row per sample, which is read on demand.

    ``rows[5]``, ``rows[5:8]``, ``rows[[5, 7]]``, and ``rows[mask]`` with a boolean per sample return tensors.

    Attributes:
        shape: samples first.
        dtype: of the tensors returned; values stored in half precision are scaled and returned in single precision.

    Example:
        >>> import tempfile, torch
        >>> from lightning.pytorch import Trainer
        >>> from lrp_lightning import RelevanceStore
        >>> from lrp_lightning.callbacks import Explainer, RelevanceWriter
        >>> out = tempfile.mkdtemp()
        >>> trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[RelevanceWriter(out)])
        >>> loader = torch.utils.data.DataLoader(torch.randn(20, 4), batch_size=8)
        >>> _ = trainer.predict(Explainer(torch.nn.Linear(4, 3)), loader, return_predictions=False)
        >>> RelevanceStore(out).inputs
        StoredRows(inputs 0, (20, 4), torch.float32)
        >>> RelevanceStore(out).inputs[[3, 17]].shape
        torch.Size([2, 4])
    """

    def __init__(self, segments: Sequence[Segment], whose: np.ndarray, rows: np.ndarray, column: Column) -> None:
        self._segments, self._whose, self._rows, self._column = segments, whose, rows, column
        kind, name = column
        shape, dtype = segments[0].shapes[column]
        self._scales = (SCALES + kind, name) if (SCALES + kind, name) in segments[0].shapes else None
        self._bits = int(segments[0].facts[column]["neurons"]) if kind == "masks" else None
        self.shape: torch.Size = torch.Size((len(rows), *(shape if self._bits is None else (self._bits,))))
        wide = torch.float32 if self._scales else getattr(torch, dtype)
        self.dtype: torch.dtype = wide if self._bits is None else torch.bool

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Rows) -> Tensor:
        at = _positions(rows, len(self)).numpy()
        values = self._read(self._column, at)
        if self._bits is not None:
            found = torch.from_numpy(np.unpackbits(values, axis=1, count=self._bits).astype(bool))
        elif self._scales is not None:
            scale = torch.from_numpy(self._read(self._scales, at))
            found = torch.from_numpy(values).float() * scale.view(-1, *[1] * (values.ndim - 1))
        else:
            found = torch.from_numpy(values)
        return found[0] if is_whole(rows) else found

    def _read(self, column: Column, at: np.ndarray) -> np.ndarray:
        shape, dtype = self._segments[0].shapes[column]
        values = np.empty((len(at), *shape), dtype)
        whose, rows = self._whose[at], self._rows[at]
        for segment in np.unique(whose):
            here = whose == segment
            values[here] = self._segments[segment].rows(column, rows[here])
        return values

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"StoredRows({' '.join(self._column)}, {tuple(self.shape)}, {self.dtype})"


class _Layers(dict[str, StoredRows]):
    """Columns by layer; the error for an unknown layer names those that exist."""

    def __missing__(self, layer: object) -> StoredRows:
        raise LayerError(f"the store has no layer {layer!r}; {meant(layer, self)}")


class _Batches:
    """A loader that can be iterated several times."""

    def __init__(self, inputs: StoredRows, labels: Tensor | None, batch_size: int) -> None:
        self.inputs, self.labels, self.batch_size = inputs, labels, batch_size

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor | tuple[Tensor, Tensor]]:
        for start in range(0, len(self.inputs), self.batch_size):
            part = slice(start, start + self.batch_size)
            x = self.inputs[part]
            yield x if self.labels is None else (x, self.labels[part])


def _positions(rows: Any, length: int) -> Tensor:
    """The numbers of the requested rows, ``(n,)``.

    Raises:
        IndexError: if a row does not exist.
        InputError: if the index is of another kind.
    """
    if isinstance(rows, slice):
        return torch.arange(length)[rows] if (rows.step or 1) > 0 else torch.tensor(range(length)[rows], dtype=torch.long)
    try:
        at = torch.as_tensor(rows)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"rows must be a number, a slice, numbers or a mask, got {type(rows).__name__}") from None
    if at.dtype == torch.bool and at.shape == (length,):
        return at.nonzero().flatten()
    if not at.numel():
        return torch.zeros(0, dtype=torch.long)
    if at.is_floating_point() or at.dtype == torch.bool or at.ndim > 1:
        raise InputError(f"rows must be whole numbers or a mask ({length},) bool, got {tuple(at.shape)} of {at.dtype}")
    at = at.reshape(-1).long().cpu()
    if bool(((at < -length) | (at >= length)).any()):
        raise IndexError(f"the store has samples 0 to {length - 1}, got {rows!r:.80}")
    return at % length
