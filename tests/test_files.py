"""A file that cannot be written whole leaves the one that was there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lrp_lightning import SelectiveLRP
from lrp_lightning.drawing import write_report
from lrp_lightning.files import replacing


def test_what_was_there_stays_until_all_is_written(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a.txt"
    with replacing(file) as new:
        new.write_text("one")
    assert file.read_text() == "one"

    def half() -> None:
        with replacing(file) as new:
            new.write_text("tw")
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        half()
    assert file.read_text() == "one"
    assert list(file.parent.iterdir()) == [file]


def test_a_full_disk_leaves_the_report_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3))
    trace = SelectiveLRP(model).trace(torch.rand(2, 4), target=0)
    report = write_report(trace, tmp_path / "report.html")
    before, own = report.read_bytes(), Path.write_text

    def half(path: Path, text: str, *args: object, **kwargs: object) -> int:
        own(path, text[:100], *args, **kwargs)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space left"):
        write_report(trace, report)
    assert report.read_bytes() == before
    assert list(tmp_path.iterdir()) == [report]
