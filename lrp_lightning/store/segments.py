"""The files of a store: each holds some samples, as rows of columns, and is either complete or absent.

A column is an HDF5 dataset whose first dimension is samples. In half precision, a sample's values are divided by the
greatest of them, which is stored beside them: relevance of single pixels is far below the range of half precision.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrp_lightning.compat import in_double
from lrp_lightning.errors import StoreError
from lrp_lightning.files import replacing

__all__ = [
    "ABOUT", "Column", "DTYPES", "INDEX", "SCALES", "Segment", "name_of", "packed", "read_about", "remove_leftovers",
    "segments_of", "write_about", "write_segment",
]  # fmt: skip

Column = tuple[str, str]
"""The kind of a column, and the layer: ``("relevance", "features.28")``."""
INDEX: Column = ("samples", "index")
"""The sample of the data set that a row belongs to."""
SCALES = "scales_of_"
"""Prefix of a kind that gives the kind of its scales."""
FORMAT = 1
ABOUT = "store.json"
"""The file that describes the store."""
DTYPES = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
_SUFFIX = ".h5"
_CHUNK = 1 << 18
"""Bytes that are compressed and read together."""


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the description of a store."""
    with replacing(folder / ABOUT) as file:
        file.write_text(json.dumps({"format": FORMAT, **about}, indent=2), "utf-8")


def read_about(folder: Path) -> dict[str, Any]:
    """Read the description of a store.

    Raises:
        StoreError: if the folder is not a store, or this version cannot read it.
    """
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        there = "there is no such folder" if not folder.exists() else f"it has no {ABOUT}"
        raise StoreError(f"{str(folder)!r} is not a store of relevance: {there}; write one with RelevanceWriter") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{str(folder / ABOUT)!r} cannot be read: {error}") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else None
        raise StoreError(f"{str(folder)!r} has format {found!r}; this version of lrp_lightning reads format {FORMAT}")
    return about


def packed(values: Tensor, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Values in their stored form, ``(N, ...)``, and, in half precision, each sample's scale, ``(N,)``.

    Booleans, ``(N, C)``, are packed into bits, eight per byte.
    """
    values = values.detach()
    if values.dtype == torch.bool:
        return np.packbits(values.cpu().numpy(), axis=1), None
    if dtype != "float16":
        return values.to(DTYPES[dtype]).cpu().numpy(), None
    wide = in_double(values) if values.dtype == torch.float64 else values.float()
    scale = wide.flatten(1).abs().amax(1) if wide[0].numel() else wide.new_zeros(len(wide))
    shares = wide / torch.where(scale > 0, scale, 1).view(-1, *[1] * (wide.ndim - 1))
    return shares.half().cpu().numpy(), scale.cpu().numpy().astype(np.float32)


def write_segment(
    path: Path,
    columns: Mapping[Column, Sequence[np.ndarray]],
    facts: Mapping[Column, Mapping[str, Any]],
    about: Mapping[str, Any],
) -> None:
    """Write some samples.

    Args:
        path: the file.
        columns: the parts of each column, concatenated along samples.
        facts: attributes of a column, such as a layer's kind.
        about: attributes of the file.

    Raises:
        StoreError: if it cannot be written.
    """
    try:
        with replacing(path) as beside, _h5py().File(beside, "w") as file:
            file.attrs.update(about)
            for column, parts in columns.items():
                values = np.concatenate(list(parts))
                row = max(values[0].nbytes, 1)
                rows = min(max(_CHUNK // row, 1), len(values))
                stored = file.create_dataset(
                    _in_file(column), data=values, chunks=(rows, *values.shape[1:]) if values.size else None,
                    **({"compression": "gzip", "compression_opts": 1, "shuffle": True} if values.size else {}),
                )  # fmt: skip
                stored.attrs.update(facts.get(column, {}))
    except OSError as error:
        raise StoreError(f"{str(path)!r} cannot be written: {error}") from error


@dataclass(frozen=True)
class Segment:
    """One file of a store.

    Attributes:
        path: the file.
        index: ``(n,)``, the samples of the data set that it holds.
        shapes: for each column the shape of a sample's values, and their dtype.
        facts: attributes of each column.
    """

    path: Path
    index: np.ndarray
    shapes: dict[Column, tuple[tuple[int, ...], str]] = field(repr=False)
    facts: dict[Column, dict[str, Any]] = field(repr=False)

    @staticmethod
    def of(path: Path) -> Segment:
        """Read a file's index, shapes and attributes, but not its values.

        Raises:
            StoreError: if it cannot be read.
        """
        with _opened(path) as file:
            shapes: dict[Column, tuple[tuple[int, ...], str]] = {}
            facts: dict[Column, dict[str, Any]] = {}
            for kind, group in file.items():
                for name, stored in group.items():
                    column = _column(f"{kind}/{name}")
                    shapes[column] = (stored.shape[1:], str(stored.dtype))
                    facts[column] = dict(stored.attrs)
            return Segment(path, file[_in_file(INDEX)][:], shapes, facts)

    def rows(self, column: Column, rows: np.ndarray) -> np.ndarray:
        """Some rows of a column, in the given order.

        Raises:
            StoreError: if the file cannot be read.
        """
        low, high = int(rows.min()), int(rows.max()) + 1
        with _opened(self.path) as file:
            stored = file[_in_file(column)]
            if high - low <= 4 * len(rows):  # one block, so that HDF5 reads each chunk once
                return stored[low:high][rows - low]
            different, places = np.unique(rows, return_inverse=True)
            return stored[different][places]


def segments_of(folder: Path) -> list[Segment]:
    """The files of a store, in the order of their names.

    Raises:
        StoreError: if one cannot be read, or does not have the columns of the first.
    """
    found = [Segment.of(path) for path in sorted(folder.glob(f"[!.]*{_SUFFIX}"))]
    for segment in found[1:]:
        if segment.shapes != found[0].shapes:
            both = {*segment.shapes, *found[0].shapes}
            differing = sorted(" ".join(of) for of in both if segment.shapes.get(of) != found[0].shapes.get(of))
            raise StoreError(
                f"{str(segment.path)!r} does not hold what {found[0].path.name!r} does: {', '.join(differing[:3])} differ"
            )
    return found


def name_of(process: int, run: str, number: int) -> str:
    """The name of a file, unique to the process and run."""
    return f"process{process:05d}-{run}-{number:06d}{_SUFFIX}"


def remove_leftovers(folder: Path) -> None:
    """Remove incomplete files of runs that were killed."""
    for path in folder.glob(f".*{_SUFFIX}"):
        path.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with _h5py().File(path, "r") as file:
            yield file
    except (OSError, KeyError) as error:
        raise StoreError(
            f"{str(path)!r} cannot be read: {error}; if it was cut off, delete it; the next run writes its samples again"
        ) from error


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise StoreError("stores of relevance are HDF5 files: pip install 'lrp-lightning[store]'") from None
    return h5py


def _in_file(column: Column) -> str:
    """A column's place in the file; a slash in a layer's name is escaped, because HDF5 would create a group."""
    kind, name = column
    return f"{kind}/{name.replace('%', '%25').replace('/', '%2F')}"


def _column(place: str) -> Column:
    kind, _, name = place.partition("/")
    return kind, name.replace("%2F", "/").replace("%25", "%")
