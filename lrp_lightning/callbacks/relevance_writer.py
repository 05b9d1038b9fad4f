"""Writing the explanations of a data set to disk during prediction."""

from __future__ import annotations

import datetime
import math
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

import lrp_lightning
from lrp_lightning.callbacks.explainer import Explainer
from lrp_lightning.checks import is_whole
from lrp_lightning.compat import pytree
from lrp_lightning.errors import InputError, StoreError
from lrp_lightning.store import segments
from lrp_lightning.store.segments import INDEX, SCALES, Column

__all__ = ["RelevanceWriter"]

_BYTES, _SECONDS = 64 << 20, 60.0
"""A file is written when its samples reach this size or age; a killed run loses no more than that."""
_OF_SAMPLES = ("predicted", "explained", "explained_class", "conservation_error", "labels")


class RelevanceWriter(BasePredictionWriter):
    """Writes the predictions of an :class:`Explainer` to a store, which :class:`lrp_lightning.RelevanceStore` reads.

    The store is a folder of HDF5 files, each with some samples of one process. A file is complete or absent, and memory does
    not grow. Every sample is identified by its index in the data set and is written once, regardless of the sampler's order
    and repeats. A second run with the same folder skips existing samples: it reads their batches but does not explain them.
    It may have another number of processes, batch size and order, but it must have the same model, weights, composite,
    selection, target, precision and number of samples. Only one run at a time may write to a folder.

    Args:
        out: the folder; created if it does not exist.
        dtype: of relevance. ``"float16"`` stores values relative to the greatest of a sample, with a scale in single
            precision, so that the error is at most ``2**-11`` of a value, or ``2**-25`` of the greatest. ``"float32"`` takes
            twice the space; ``"float64"`` is for models in double precision.
        input_relevance: which relevance of inputs to store, the largest part of a store of images: all ``"values"``, the sum
            over channels at each of the ``"places"`` (for inputs ``(N, C, ...)``), or ``"none"``.
        keep_inputs: whether to store the inputs too, in their own precision, as :func:`lrp_lightning.find_strategies` needs
            them.
        samples_per_file: the most samples in a file.
        about: further text that must be equal in two runs, such as ``{"images": "resized to 224"}``; read as
            ``RelevanceStore.about["images"]``.

    Raises:
        InputError: if an argument is out of range.
        StoreError: when predicting, if the folder is the store of another model or data set or cannot be written, the
            loader is not a ``DataLoader`` of a data set with a length, the module is not an ``Explainer``, or samples
            differ in shape.

    Example:
        >>> import tempfile, torch
        >>> from lightning.pytorch import Trainer
        >>> from lrp_lightning import RelevanceStore, TopK
        >>> from lrp_lightning.callbacks import Explainer, RelevanceWriter
        >>> out = tempfile.mkdtemp()
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> loader = torch.utils.data.DataLoader(torch.randn(20, 4), batch_size=8)
        >>> trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[RelevanceWriter(out)])
        >>> trainer.predict(Explainer(model, selection=TopK(2)), loader, return_predictions=False)
        >>> len(RelevanceStore(out))
        20
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        dtype: Literal["float16", "float32", "float64"] = "float16",
        input_relevance: Literal["values", "places", "none"] = "values",
        keep_inputs: bool = False,
        samples_per_file: int = 1024,
        about: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__("batch")
        if dtype not in segments.DTYPES:
            raise InputError(f"dtype must be one of {', '.join(map(repr, segments.DTYPES))}, got {dtype!r}")
        if input_relevance not in ("values", "places", "none"):
            raise InputError(f"input_relevance must be 'values', 'places' or 'none', got {input_relevance!r}")
        if not is_whole(samples_per_file) or samples_per_file < 1:
            raise InputError(f"samples_per_file must be a whole number >= 1, got {samples_per_file!r}")
        self.out: Path = Path(out)
        self.dtype, self.input_relevance = dtype, input_relevance
        self.keep_inputs: bool = bool(keep_inputs)
        self.samples_per_file: int = samples_per_file
        self.about: dict[str, str] = {str(name): str(text) for name, text in (about or {}).items()}
        self._facts: dict[Column, dict[str, Any]] = {}
        self._started = False

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "predict" and not isinstance(pl_module, Explainer):
            raise StoreError(
                f"RelevanceWriter writes what an Explainer predicts, got {type(pl_module).__name__}; "
                "trainer.predict(Explainer(model), loader)"
            )

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        samples, self._most = _samples_of(trainer)
        of_first = None
        if trainer.is_global_zero:  # the other processes wait for its result, also after an error
            try:
                self._begin({**pl_module.described(), "precision": str(trainer.precision), "samples": samples})
            except (StoreError, OSError) as error:
                of_first = f"{error}"
        problem = trainer.strategy.broadcast(of_first)
        if problem is not None:
            raise StoreError(problem)
        self._run, self._files, self._seen = uuid.uuid4().hex[:12], 0, 0
        self._process = trainer.global_rank
        there = segments.segments_of(self.out)
        self._shapes = there[0].shapes if there else None
        self._done = np.zeros(samples, bool)
        for segment in there:
            self._done[segment.index] = True
        if there:
            rank_zero_info(
                f"RelevanceWriter: {int(self._done.sum())} of {samples} samples are already in {str(self.out)!r} and are "
                "skipped"
            )
        self._empty()
        self._started = True

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        pl_module.wanted = None
        samples = len(pl_module.read(batch)[0][0])
        indices = list(trainer.predict_loop.current_batch_indices)
        if len(indices) != samples:
            raise StoreError(
                f"a batch has {samples} samples, but the sampler gave {len(indices)} indices for it; batch_fn and the "
                "loader's "
                "collate_fn must return exactly one sample for each index"
            )
        here = np.asarray(indices, np.int64)
        real = self._seen + np.arange(samples) < self._most  # later samples only give all processes the same number
        self._seen += samples
        _, first = np.unique(here, return_index=True)
        wanted = np.isin(np.arange(samples), first) & real & ~self._done[here]
        self._indices = here[wanted]
        pl_module.wanted = torch.from_numpy(wanted.nonzero()[0])

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Store the predictions of a batch.

        Args:
            trainer: the trainer.
            pl_module: the :class:`Explainer`.
            prediction: the result of :meth:`Explainer.predict_step`.
            batch_indices: not used; the samples' indices were noted when the batch began.
            batch: a batch of the loader.
            batch_idx: its number.
            dataloader_idx: the loader's number.

        Raises:
            StoreError: if samples differ in shape from earlier ones, or cannot be written.
        """
        if not prediction:
            return
        kept = pl_module.read(batch)[0] if self.keep_inputs else ()
        columns, facts = self._columns(prediction, kept)
        shapes = {column: (values.shape[1:], str(values.dtype)) for column, values in columns.items()}
        if self._shapes is not None and shapes != self._shapes:
            raise StoreError(_differing(self._shapes, shapes))
        self._shapes, self._facts = shapes, facts
        for column, values in columns.items():
            self._parts.setdefault(column, []).append(values)
            self._bytes += values.nbytes
        self._done[self._indices] = True
        self._rows += len(self._indices)
        full = self._rows >= self.samples_per_file or self._bytes >= _BYTES
        if full or time.monotonic() - self._since > _SECONDS:
            self._write()

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._finish(pl_module)
        trainer.strategy.barrier()  # code after predict finds all samples

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self._finish(pl_module)

    # the store

    def _begin(self, about: dict[str, Any]) -> None:
        """Create the store, or check that it matches this run."""
        kept = {"dtype": self.dtype, "input_relevance": self.input_relevance, "keep_inputs": self.keep_inputs}
        about = {**self.about, **about, **kept}
        if (self.out / segments.ABOUT).exists():
            found = segments.read_about(self.out)
            differing = [f"{n} {found.get(n)!r}, not {about[n]!r}" for n in about if found.get(n) != about[n]]
            if differing:
                raise StoreError(
                    f"{str(self.out)!r} holds a store with other settings: {'; '.join(differing)}. Use another folder"
                )
            segments.remove_leftovers(self.out)
            return
        others = self.out.exists() and (not self.out.is_dir() or any(path.name[0] != "." for path in self.out.iterdir()))
        if others:
            raise StoreError(f"{str(self.out)!r} exists and is not a store; use an empty or a new folder")
        versions = {
            "lrp_lightning": lrp_lightning.__version__,
            "torch": torch.__version__,
            "lightning": lightning.__version__,
        }
        created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        segments.write_about(self.out, {**about, "versions": versions, "created": created})

    def _columns(
        self, prediction: dict[str, Any], kept: tuple[Tensor, ...]
    ) -> tuple[dict[Column, np.ndarray], dict[Column, dict[str, Any]]]:
        columns: dict[Column, np.ndarray] = {INDEX: self._indices}
        facts: dict[Column, dict[str, Any]] = {}

        def put(kind: str, name: str, values: Tensor, noted: dict[str, Any]) -> None:
            columns[kind, name], scales = segments.packed(values, self.dtype)
            facts[kind, name] = noted
            if scales is not None:
                columns[SCALES + kind, name] = scales

        for name in _OF_SAMPLES:
            if name in prediction:
                values = prediction[name]
                values = values.long() if not values.is_floating_point() else values
                columns["samples", name] = _in_file(values)
        for order, (layer, values) in enumerate(prediction["relevance"].items()):
            kind, places = prediction["kinds"][layer], prediction["places"][layer]
            put("relevance", layer, values, {"kind": kind, "places": places, "order": order})
        for layer, mask in prediction["masks"].items():
            put("masks", layer, mask, {"neurons": mask.shape[1]})
        several = isinstance(prediction["inputs"], tuple)
        relevance = prediction["inputs"] if several else (prediction["inputs"],)
        for i, values in enumerate(relevance if self.input_relevance != "none" else ()):
            summed = values.sum(1) if self.input_relevance == "places" and values.ndim > 2 else values
            put("inputs", str(i), summed, {"several": several})
        for i, x in enumerate(kept):
            columns["kept_inputs", str(i)] = _in_file(x)
            facts["kept_inputs", str(i)] = {"several": several}
        return columns, facts

    def _empty(self) -> None:
        self._parts: dict[Column, list[np.ndarray]] = {}
        self._rows, self._bytes, self._since = 0, 0, time.monotonic()

    def _write(self) -> None:
        """Write the gathered samples, if there are any."""
        if self._rows:
            path = self.out / segments.name_of(self._process, self._run, self._files)
            segments.write_segment(path, self._parts, self._facts, {"process": self._process})
            self._files += 1
        self._empty()

    def _finish(self, pl_module: Any) -> None:
        if self._started:
            self._started = False
            pl_module.wanted = None
            self._write()


def _in_file(values: Tensor) -> np.ndarray:
    """Values in their own precision, except bfloat16, which HDF5 does not have."""
    return (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().numpy()


def _samples_of(trainer: Trainer) -> tuple[int, float]:
    """The number of samples of the data set, and of this process's samples before its sampler repeats some."""
    loaders = pytree.tree_leaves(trainer.predict_dataloaders)
    if len(loaders) != 1:
        raise StoreError(f"a store takes one data set, got {len(loaders)} loaders; write a separate store for each")
    [loader] = loaders
    dataset: Any = getattr(loader, "dataset", None)
    if not isinstance(loader, DataLoader) or isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        what = type(loader).__name__ if dataset is None else f"{type(loader).__name__} of {type(dataset).__name__}"
        raise StoreError(f"a store needs a DataLoader of a data set with a length and an order, got {what}")
    if loader.batch_sampler is None:
        raise StoreError("a store needs the index of each sample in the data set; give the DataLoader a batch_size")
    samples = len(dataset)
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    if isinstance(sampler, DistributedSampler):
        return samples, len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))  # type: ignore[arg-type]
    return samples, math.inf


def _differing(before: dict[Column, Any], now: dict[Column, Any]) -> str:
    both = [*before, *(column for column in now if column not in before)]
    differing = [
        f"{' '.join(of)}: {before.get(of, 'nothing')} before, {now.get(of, 'nothing')} now"
        for of in both
        if before.get(of) != now.get(of)
    ]
    return (
        f"what is explained must have one shape in the whole data set; {'; '.join(differing[:3])}. Bring inputs to one "
        "shape, or, where the inputs alone differ, leave theirs out by input_relevance='none'"
    )
