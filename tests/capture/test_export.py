"""Captured passes as files, run where this library is not imported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from families import built
from small_networks import cnn
from torch import Tensor

from lrp_lightning import SelectiveLRP, TopK
from lrp_lightning.capture import Captured, export, save_compiled, save_exported, save_onnx
from lrp_lightning.errors import LRPError, UnsupportedOperatorError

ALONE = """
import sys, torch
x = torch.load(sys.argv[2])
explain = {how}
output, relevance, masks = explain(x)
assert "lrp_lightning" not in sys.modules
torch.save((output, relevance, dict(masks)), sys.argv[3])
"""


def predicted(y: Tensor) -> Tensor:
    return y.argmax(1)


def captured(dynamic_batch: bool = False) -> Captured:
    lrp = SelectiveLRP(cnn(), selection=TopK(0.3))
    return lrp.capture(torch.randn(2, 1, 8, 8), predicted, dynamic_batch=dynamic_batch)


def alone(how: str, file: Path, x: Tensor, folder: Path) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """What a process says that knows torch alone."""
    torch.save(x, folder / "x.pt")
    program = ALONE.replace("{how}", how)
    asked = [sys.executable, "-I", "-c", program, str(file), str(folder / "x.pt"), str(folder / "found.pt")]
    subprocess.run(asked, check=True, cwd=folder)
    return torch.load(folder / "found.pt")


def assert_same(found: tuple[Tensor, Tensor, dict[str, Tensor]], explain: Captured, x: Tensor) -> None:
    output, relevance, masks = explain(x)
    torch.testing.assert_close(found[0], output)
    torch.testing.assert_close(found[1], relevance, rtol=1e-4, atol=1e-6 * relevance.abs().max().item() + 1e-8)
    assert {layer: mask.tolist() for layer, mask in found[2].items()} == {k: mask.tolist() for k, mask in masks.items()}


@pytest.mark.slow
def test_an_exported_program_runs_without_the_library(tmp_path: Path) -> None:
    explain, x = captured(True), torch.randn(5, 1, 8, 8)
    file = save_exported(explain, tmp_path / "explain.pt2", {"mean": [0.5]})
    assert_same(alone("torch.export.load(sys.argv[1]).module()", file, x, tmp_path), explain, x)
    extra = {"explanation.json": ""}
    torch.export.load(file, extra_files=extra)
    said = json.loads(extra["explanation.json"])
    assert said == {"shapes": [[2, 1, 8, 8]], "dynamic_batch": True, "layers": ["0", "4"], "mean": [0.5]}


def test_torchs_own_export_takes_it_as_it_is(tmp_path: Path) -> None:
    explain, x = captured(), torch.randn(2, 1, 8, 8)
    torch.export.save(torch.export.export(explain, (x,), strict=False), tmp_path / "explain.pt2")
    assert_same(torch.export.load(tmp_path / "explain.pt2").module()(x), explain, x)


def test_a_number_of_samples_that_was_not_exported_is_refused() -> None:
    with pytest.raises((AssertionError, RuntimeError), match=r"shape|size|[Gg]uard"):
        export(captured()).module()(torch.randn(3, 1, 8, 8))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler")
def test_a_compiled_package_runs_without_the_library(tmp_path: Path) -> None:
    explain, x = captured(True), torch.randn(4, 1, 8, 8)
    file = save_compiled(explain, tmp_path / "explain.pt2", {"mean": [0.5]})
    assert_same(alone("torch._inductor.aoti_load_package(sys.argv[1])", file, x, tmp_path), explain, x)
    said = json.loads(torch._inductor.aoti_load_package(str(file)).get_metadata()["explanation.json"])
    assert (said["mean"], said["layers"]) == ([0.5], ["0", "4"])


def test_a_compiled_package_needs_a_compiler_and_a_name(tmp_path: Path) -> None:
    with pytest.raises(LRPError, match=r"must end in \.pt2, got '.*explain\.so'"):
        save_compiled(captured(), tmp_path / "explain.so")
    missing = torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)})
    with missing, pytest.raises(LRPError, match=r"is a C\+\+ compiler installed\?.*no-such-compiler"):
        save_compiled(captured(), tmp_path / "explain.pt2")


@pytest.mark.slow
def test_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    explain, x = captured(True), torch.randn(5, 1, 8, 8)
    file = save_onnx(explain, tmp_path / "explain.onnx", {"mean": [0.5]})
    onnx.checker.check_model(file)
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names == ["output", "relevance", "mask.0", "mask.4"]
    assert session.get_inputs()[0].shape == ["batch", 1, 8, 8]
    said = json.loads(session.get_modelmeta().custom_metadata_map["explanation.json"])
    assert (said["mean"], said["dynamic_batch"]) == ([0.5], True)
    output, relevance, *masks = map(torch.from_numpy, session.run(None, {"images": x.numpy()}))
    assert_same((output, relevance, dict(zip(explain.layers, masks, strict=True))), explain, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet", "ViT"])
def test_families_in_onnx(tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, (x, *_), target = built(name)
    x = x.float()  # onnxruntime has no convolutions in double precision
    explain = SelectiveLRP(model.float(), selection=TopK(0.2)).capture(x, target)
    session = runtime.InferenceSession(save_onnx(explain, tmp_path / "e.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == list(x.shape)
    x = torch.randn_like(x)
    output, relevance, *masks = map(torch.from_numpy, session.run(None, {"images": x.numpy()}))
    assert_same((output, relevance, dict(zip(explain.layers, masks, strict=True))), explain, x)


@pytest.mark.slow
def test_onnx_with_classes_as_an_input(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    lrp, x, classes = SelectiveLRP(cnn()), torch.randn(4, 1, 8, 8), torch.tensor([3, 0, 2, 4])
    file = save_onnx(lrp.capture(x[:2], classes[:2], dynamic_batch=True), tmp_path / "explain.onnx")
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    _, relevance = session.run(None, {"images": x.numpy(), "classes": classes.numpy()})
    right = lrp.attribute(x, classes)
    torch.testing.assert_close(torch.from_numpy(relevance), right, rtol=1e-4, atol=1e-6 * right.abs().max().item())


@pytest.mark.slow
def test_an_operator_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")

    class Bessel(torch.nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.special.i0e(x[:, :1].detach())

    explain = SelectiveLRP(Bessel(4, 3)).capture(torch.rand(2, 4), 1)
    with pytest.raises(UnsupportedOperatorError, match=r"cannot be written as ONNX: .*i0e"):
        save_onnx(explain, tmp_path / "explain.onnx")


def test_onnx_without_its_packages_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(LRPError, match=r"pip install 'lrp-lightning\[onnx\]'"):
        save_onnx(captured(), tmp_path / "explain.onnx")
