"""Files that are written completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file in the same folder, which replaces ``path`` once it is written completely.

    So a full disk or an interruption leaves the previous file unchanged.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lrp_lightning.files import replacing
        >>> report = Path(tempfile.mkdtemp()) / "report.html"
        >>> with replacing(report) as file:
        ...     _ = file.write_text("<html>")
        >>> [file.name for file in report.parent.iterdir()]
        ['report.html']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
