"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write, in the same folder, that takes the place of ``path`` once all is written.

    So a full disk, or an end half way, leaves what was there before.

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
