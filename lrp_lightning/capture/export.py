"""Captured passes as files: exported programs, compiled packages and ONNX, none of which needs this library to run."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from lrp_lightning.capture.decompositions import FORWARD_ONLY
from lrp_lightning.capture.program import Captured
from lrp_lightning.errors import LRPError

__all__ = ["export", "save_compiled", "save_exported", "save_onnx"]


def export(captured: Captured) -> ExportedProgram:
    """The captured pass as ``torch.export`` has it, with the number of samples left open if it was captured so.

    Its module returns ``(output, relevance, masks)``, plain tensors and a dictionary.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP
        >>> from lrp_lightning.capture import export
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> program = export(SelectiveLRP(model).capture(torch.rand(5, 4), target=1, dynamic_batch=True)).module()
        >>> output, relevance, masks = program(torch.rand(7, 4))
        >>> relevance.shape
        torch.Size([7, 4])
    """
    batch = Dim("batch")
    shapes = (tuple({0: batch} for _ in captured.shapes),) if captured.dynamic_batch else None
    return torch.export.export(captured, captured.example(), dynamic_shapes=shapes)


def save_exported(captured: Captured, path: str | Path) -> Path:
    """Save it as a ``.pt2`` file, which ``torch.export.load(path).module()`` reads.

    Returns:
        The path.
    """
    torch.export.save(export(captured), path, extra_files={"explanation.json": _described(captured)})
    return Path(path)


def save_compiled(captured: Captured, path: str | Path) -> Path:
    """Compile it by AOTInductor into a ``.pt2`` package, for ``torch._inductor.aoti_load_package(path)`` and for C++.

    That needs a C++ compiler here, and none where the package runs.

    Returns:
        The path.
    """
    torch._inductor.aoti_compile_and_package(export(captured), package_path=str(path))
    return Path(path)


def save_onnx(captured: Captured, path: str | Path) -> Path:
    """Save it as an ONNX file, without a backward operator: outputs are ``output``, ``relevance`` and ``mask.LAYER`` each.

    Needs ``pip install lrp-lightning[onnx]``.

    Returns:
        The path.

    Raises:
        LRPError: if the extra is not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise LRPError(f"ONNX files need more packages: pip install 'lrp-lightning[onnx]' ({error})") from error
    program = export(captured).run_decompositions(FORWARD_ONLY)
    many = captured.inputs > 1
    relevance = [f"relevance.{n}" for n in range(captured.inputs)] if many else ["relevance"]
    written = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=[f"input.{n}" for n in range(captured.inputs)] if many else ["images"],
        output_names=["output", *relevance, *(f"mask.{layer}" for layer in captured.layers)],
    )
    assert written is not None
    written.save(str(path))
    return Path(path)


def _described(captured: Captured) -> str:
    return json.dumps({"shapes": [list(shape) for shape in captured.shapes], "layers": captured.layers})
