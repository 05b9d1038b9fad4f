"""Captured passes as files: exported programs, compiled packages and ONNX. They run without this library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from lrp_lightning.capture.decompositions import FORWARD_ONLY
from lrp_lightning.capture.program import Captured
from lrp_lightning.errors import LRPError, UnsupportedOperatorError

__all__ = ["DESCRIPTION", "export", "save_compiled", "save_exported", "save_onnx"]

DESCRIPTION = "explanation.json"
"""The name under which each kind of file stores its description."""


def export(captured: Captured) -> ExportedProgram:
    """The captured pass as an exported program, with a dynamic number of samples if it was captured with one.

    Its module returns ``(output, relevance, masks)``, plain tensors and a dictionary.

    Args:
        captured: the module that :meth:`lrp_lightning.SelectiveLRP.capture` returns.

    Returns:
        The exported program.

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
    return torch.export.export(captured, captured.example(), dynamic_shapes=shapes, strict=False)


def save_exported(captured: Captured, path: str | Path, about: Mapping[str, Any] | None = None) -> Path:
    """Save it as a ``.pt2`` file, which ``torch.export.load(path).module()`` reads.

    The file describes its contents, as JSON, in its extra file ``explanation.json``.

    Args:
        captured: the module that :meth:`lrp_lightning.SelectiveLRP.capture` returns.
        path: where the file goes.
        about: further information for the program that loads it, such as how images are prepared; JSON.

    Returns:
        The path.

    Example:
        >>> import json, tempfile
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP
        >>> from lrp_lightning.capture import save_exported
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> captured = SelectiveLRP(model).capture(torch.rand(5, 4), target=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = save_exported(captured, f"{folder}/explain.pt2", about={"mean": [0.5]})
        ...     said = {"explanation.json": ""}
        ...     output, relevance, masks = torch.export.load(file, extra_files=said).module()(torch.rand(5, 4))
        >>> relevance.shape, json.loads(said["explanation.json"])["mean"]
        (torch.Size([5, 4]), [0.5])
    """
    torch.export.save(export(captured), path, extra_files={DESCRIPTION: _described(captured, about)})
    return Path(path)


def save_compiled(captured: Captured, path: str | Path, about: Mapping[str, Any] | None = None) -> Path:
    """Compile it by AOTInductor into a ``.pt2`` package, for ``torch._inductor.aoti_load_package(path)`` and for C++.

    This needs a C++ compiler, but running the package does not. The package describes its contents, as JSON, under
    ``explanation.json`` in its metadata.

    Args:
        captured: the module that :meth:`lrp_lightning.SelectiveLRP.capture` returns.
        path: where the package goes; it must end in ``.pt2``.
        about: as for :func:`save_exported`.

    Returns:
        The path.

    Raises:
        LRPError: if the path has another suffix, or compilation fails.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP
        >>> from lrp_lightning.capture import save_compiled
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> captured = SelectiveLRP(model).capture(torch.rand(5, 4), target=1, dynamic_batch=True)
        >>> save_compiled(captured, "explain.pt2")  # doctest: +SKIP
        PosixPath('explain.pt2')
    """
    if Path(path).suffix != ".pt2":
        raise LRPError(f"the name of a compiled package must end in .pt2, got {str(path)!r}")
    metadata = {"aot_inductor.metadata": {DESCRIPTION: _described(captured, about)}}
    try:
        torch._inductor.aoti_compile_and_package(export(captured), package_path=str(path), inductor_configs=metadata)
    except RuntimeError as error:  # of inductor or the compiler, which raise many kinds
        raise LRPError(
            f"AOTInductor could not compile this pass; is a C++ compiler installed? {_first_line(error)}"
        ) from error
    return Path(path)


def save_onnx(captured: Captured, path: str | Path, about: Mapping[str, Any] | None = None) -> Path:
    """Save it as an ONNX file without backward operators; its outputs are ``output``, ``relevance`` and ``mask.LAYER``.

    The input is ``images``; several inputs are ``input.0``, ``input.1``, with ``relevance.0``, ``relevance.1``. If the
    target was a tensor, ``classes`` is the last input. The file describes its contents, as JSON, under ``explanation.json``
    in its ``metadata_props``. Needs ``pip install 'lrp-lightning[onnx]'``.

    Args:
        captured: the module that :meth:`lrp_lightning.SelectiveLRP.capture` returns.
        path: the file. If it would exceed ONNX's 2 GB, weights go to a second file beside it.
        about: as for :func:`save_exported`.

    Returns:
        The path.

    Raises:
        LRPError: if the extra is not installed, or too old for this torch.
        UnsupportedOperatorError: if an operator of the pass has no counterpart in ONNX.

    Example:
        >>> import torch
        >>> from lrp_lightning import SelectiveLRP
        >>> from lrp_lightning.capture import save_onnx
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> captured = SelectiveLRP(model).capture(torch.rand(5, 4), target=1, dynamic_batch=True)
        >>> save_onnx(captured, "explain.onnx")  # doctest: +SKIP
        PosixPath('explain.onnx')
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise LRPError(f"ONNX files need more packages: pip install 'lrp-lightning[onnx]' ({error})") from error
    program = export(captured).run_decompositions(FORWARD_ONLY)
    many = captured.inputs > 1
    relevance = [f"relevance.{n}" for n in range(captured.inputs)] if many else ["relevance"]
    classes = ["classes"] * (len(captured.shapes) - captured.inputs)
    batch = (
        ({0: "batch"}, *[None] * (len(captured.shapes) - 1)) if captured.dynamic_batch else None
    )  # named for one input, which all others share
    try:
        written = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            dynamic_shapes=batch,
            input_names=[*([f"input.{n}" for n in range(captured.inputs)] if many else ["images"]), *classes],
            output_names=["output", *relevance, *(f"mask.{layer}" for layer in captured.layers)],
        )
    except ImportError as error:  # torch needs an onnxscript of a matching version
        raise LRPError(
            f"this torch needs a newer onnxscript: pip install --upgrade 'lrp-lightning[onnx]' ({error})"
        ) from error
    except torch.onnx.errors.OnnxExporterError as error:
        raise UnsupportedOperatorError(f"this pass cannot be written as ONNX: {_cause(error)}") from error
    assert written is not None
    written.model.metadata_props[DESCRIPTION] = _described(captured, about)
    written.save(str(path))
    return Path(path)


def _cause(error: BaseException) -> str:
    """The cause, which is at the end of torch's long message."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _described(captured: Captured, about: Mapping[str, Any] | None) -> str:
    own = {
        "shapes": [list(shape) for shape in captured.shapes],
        "dynamic_batch": captured.dynamic_batch,
        "layers": captured.layers,
    }
    return json.dumps({**own, **(about or {})})
