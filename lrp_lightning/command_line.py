"""The command line: explain a classifier's decisions on images, or export a module that does so, without writing code."""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import os
import random
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import v2

from lrp_lightning.attribution import SelectiveLRP
from lrp_lightning.capture import Captured, save_compiled, save_exported, save_onnx
from lrp_lightning.capture.export import DESCRIPTION
from lrp_lightning.composites import as_composite
from lrp_lightning.errors import InputError, LRPError, ModelError, TargetError, UnsupportedOperatorError
from lrp_lightning.insight.contrast import contrast
from lrp_lightning.report import save_contrast, write_report
from lrp_lightning.report.analysis import captions
from lrp_lightning.selection import TopK
from lrp_lightning.store import RelevanceStore
from lrp_lightning.store.segments import ABOUT

__all__ = ["main"]

_TORCHVISION = "torchvision:"
_INSTANTIATORS = (None, "lightning.pytorch.cli.instantiate_module", "pytorch_lightning.cli.instantiate_module")
"""The instantiators that a checkpoint may name: none, so that its module's class is called, or LightningCLI's."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m lrp_lightning``.

    Args:
        arguments: the arguments after the program's name; None for those of the process.

    Returns:
        The exit status: 0, or 2 with one line on standard error that says what was wrong.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except LRPError as error:
        print(f"lrp_lightning: error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m lrp_lightning", description="Layer-wise relevance propagation.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    about = "explain a classifier's decisions on images, in one HTML report"
    explain = commands.add_parser("explain", help=about, description=f"{about[0].upper()}{about[1:]}.")
    explain.set_defaults(run=_explain)
    explain.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="image files, in a format that Pillow reads")
    _add_model(explain)
    explain.add_argument(
        "--target", metavar="CLASS", help="number or name of the class to explain (default: the predicted class)"
    )
    explain.add_argument(
        "--against", metavar="CLASS|runner-up",
        help="explain why --target, or the predicted class, and not this class; --out is then a folder",
    )  # fmt: skip
    explain.add_argument(
        "--out", type=Path,
        help="the report (default: report.html); with --against a folder (contrast), with --dataset one (relevance_store)",
    )  # fmt: skip
    _add_rules(explain, explain)
    many = explain.add_argument_group(
        "a data set", "in place of images: no report, but a store, for RelevanceStore to read."
    )
    many.add_argument(
        "--dataset", type=Path, metavar="FOLDER",
        help="a folder of images, or of one folder per class; a second run continues where the first ended",
    )  # fmt: skip
    many.add_argument("--batch-size", type=_natural, default=16, help="images in a pass (default: %(default)s)")
    many.add_argument("--workers", type=int, default=2, help="processes that read images (default: %(default)s)")
    many.add_argument("--keep-inputs", action="store_true", help="keep the images in the store, as find_strategies needs")
    _add_preparation(explain)

    about = "write a file that predicts and explains, and runs without this library"
    export = commands.add_parser("export", help=about, description=f"{about[0].upper()}{about[1:]}.")
    export.set_defaults(run=_export)
    _add_model(export)
    export.add_argument(
        "--target", default="predicted", metavar="CLASS|predicted",
        help="number or name of the class to explain, or what is predicted for each image (default: %(default)s)",
    )  # fmt: skip
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file, which ends in .pt2 or .onnx")
    export.add_argument(
        "--format", choices=("pt2", "compiled", "onnx"),
        help="pt2, for torch.export.load; compiled, a .pt2 for this kind of processor, which C++ loads too and for which a "
        "C++ compiler must be here; onnx (default: as --out ends)",
    )  # fmt: skip
    export.add_argument(
        "--batch", type=_samples, default="any", metavar="N|any",
        help="how many images it takes at a time (default: %(default)s)",
    )  # fmt: skip
    kept = export.add_mutually_exclusive_group()
    _add_rules(export, kept)
    kept.add_argument("--all-neurons", action="store_true", help="relevance through all neurons, and no masks")
    _add_preparation(export)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True,
        help="torchvision:NAME, or package.module:NAME, a module, a class or a function without arguments that gives one",
    )  # fmt: skip
    parser.add_argument(
        "--weights", metavar="PATH|DEFAULT",
        help="a file of weights, as torch.save(model.state_dict(), PATH) writes it, or DEFAULT, torchvision's own, which "
        "torchvision downloads once; DEFAULT unless the model is your own",
    )  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, help="a Lightning checkpoint of the LightningModule that --model names")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="names of the classes, one per line")


def _add_rules(parser: argparse.ArgumentParser, selection: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--composite",
        default="epsilon_plus",
        help="rules: epsilon, epsilon_plus or epsilon_alpha2_beta1 (default: %(default)s)",
    )
    selection.add_argument(
        "--keep", type=_budget, default=0.1, metavar="SHARE|NUMBER",
        help="how many of each layer's neurons are critical: a share such as 0.1, or a number such as 5 "
        "(default: %(default)s)",
    )  # fmt: skip


def _add_preparation(parser: argparse.ArgumentParser) -> None:
    taken = parser.add_argument_group("what the model takes", "torchvision's models have their own defaults.")
    taken.add_argument("--size", type=int, help="side of the images in pixels (default: 224)")
    taken.add_argument("--mean", type=float, nargs="+", help="what is subtracted from values in [0, 1], one per channel")
    taken.add_argument("--std", type=float, nargs="+", help="what they are divided by")


def _budget(text: str) -> int | float:
    """Parse ``keep`` as in :class:`lrp_lightning.TopK`: ``5`` is a number of neurons, ``0.1`` a share."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a share such as 0.1 or a number such as 5, got {text!r}") from None


def _natural(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return int(text)


def _samples(text: str) -> int | None:
    """The number of images that an exported file takes; None for any number."""
    return None if text == "any" else _natural(text)


@dataclass(frozen=True)
class _Classifier:
    """A model, how images are prepared for it, and the names of its classes."""

    model: nn.Module
    prepare: Callable[[Image.Image], Tensor]
    mean: Sequence[float] | None
    std: Sequence[float] | None
    class_names: Sequence[str] | None
    resized: tuple[int, str]  # the shorter side of an image before its middle is taken, and by which interpolation


def _explain(options: argparse.Namespace) -> int:
    default = "relevance_store" if options.dataset is not None else "report.html" if options.against is None else "contrast"
    options.out = options.out or Path(default)
    if options.dataset is not None:
        return _explain_data_set(options)
    if not options.images:
        raise InputError("give images, such as photo.jpg, or --dataset FOLDER")
    pictures = [_read(path) for path in options.images]
    _check(options, "--against" if options.against is not None else "")
    classifier = _classifier(options)
    model, names = classifier.model.eval(), classifier.class_names
    images = torch.stack([classifier.prepare(picture) for picture in pictures])

    lrp = SelectiveLRP(model, options.composite, TopK(options.keep))
    classes = _classes(options, classifier, images[:1])
    target = _target(options.target, names, classes)
    explained = "what is predicted" if callable(target) else names[target] if names is not None else f"class {target}"
    if options.against is not None:
        return _contrast(options, classifier, images, target, classes)
    print(f"explaining {explained} in {len(images)} image{'s' * (len(images) != 1)} with {options.model}", flush=True)
    try:
        trace = lrp.trace(images, target, edges=True)
    except UnsupportedOperatorError as error:
        trace = lrp.trace(images, target)  # if relevance could not pass an operator, this raises an error that says so
        print(f"the report has no graph: {error}")
    titles = [f"{path.name}: {caption}" for path, caption in zip(options.images, captions(trace, names), strict=True)]
    print(*(f"  {title}" for title in titles), sep="\n")
    print("drawing what drives its neurons", flush=True)
    settings = {
        "model": options.model,
        "weights": options.checkpoint or options.weights or "as made",
        "explained": explained,
        "composite": lrp.composite,
        "selection": lrp.selection,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
    report = write_report(
        trace, options.out, images, model, lrp.composite, names,
        title=f"What {options.model.removeprefix(_TORCHVISION)} sees", titles=titles,
        mean=classifier.mean, std=classifier.std, settings=settings,
    )  # fmt: skip
    print(f"written to {report} ({report.stat().st_size / 1e6:.1f} MB)")
    return 0


def _explain_data_set(options: argparse.Namespace) -> int:
    if options.images or options.against is not None:
        raise InputError("--dataset takes neither images nor --against: it explains one class of each image in a folder")
    folder = _Folder.of(options.dataset)
    _check(options, "--dataset")
    classifier = _classifier(options)
    folder.prepare = classifier.prepare
    classes = _classes(options, classifier, classifier.prepare(_read(folder.paths[0]))[None])
    target = _target(options.target, classifier.class_names, classes)
    labelled = folder.label(classifier.class_names, classes)
    print(f"explaining {len(folder)} images with {options.model}; {labelled}", flush=True)
    selection = None if options.keep == 1.0 and isinstance(options.keep, float) else TopK(options.keep)
    from lrp_lightning.callbacks import Explainer  # Lightning takes a second to import, and a report does without
    from lrp_lightning.callbacks.data_set import write_store

    explainer = Explainer(classifier.model.eval(), options.composite, selection, "predicted" if callable(target) else target)
    before = len(RelevanceStore(options.out)) if (options.out / ABOUT).exists() else 0
    try:
        store, seconds = write_store(
            explainer, folder, options.out, options.batch_size, options.workers, options.keep_inputs,
            " ".join(repr(classifier.prepare).split()),
        )  # fmt: skip
    except InputError as error:
        said = str(error).strip().splitlines()  # of an image that another process read, with where it did
        raise InputError(said[-1].partition(": ")[2] if len(said) > 1 else said[0]) from None
    there = f", {before} of them from before" if before else ""
    size = sum(path.stat().st_size for path in options.out.iterdir())
    rate = f", {(len(store) - before) / seconds:.1f} images/s" if len(store) > before else ""
    print(f"written to {options.out}: {len(store)} images{there}, {size / 1e6:.1f} MB{rate}")
    return 0


def _contrast(options: argparse.Namespace, classifier: _Classifier, images: Tensor, target: Any, classes: int) -> int:
    names, composite, selection = classifier.class_names, as_composite(options.composite), TopK(options.keep)
    b = None if options.against == "runner-up" else _target(options.against, names, classes)
    print(f"explaining {len(images)} image{'s' * (len(images) != 1)} with {options.model}", flush=True)
    why = contrast(classifier.model, images, None if callable(target) else target, b, composite, selection)

    def name(c: Tensor) -> str:
        return f"class {int(c)}" if names is None else names[int(c)]

    titles = [
        f"{path.name}: {name(one)}, not {name(other)}, by {margin:.3g}"
        for path, one, other, margin in zip(options.images, why.a, why.b, why.margin.tolist(), strict=True)
    ]
    print(*(f"  {title}" for title in titles), sep="\n")
    settings = {"model": options.model, "composite": composite, "selection": selection, "torch": torch.__version__}
    folder = save_contrast(why, options.out, names, titles, classifier.mean, classifier.std, settings)
    print(f"written to {folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    return 0


def _check(options: argparse.Namespace, of_folder: str = "", example: str = "report.html") -> None:
    """Check options whose errors would otherwise appear only after the work, or not at all.

    Args:
        options: the command's.
        of_folder: the option that makes ``--out`` a folder.
        example: what a file for ``--out`` may be called.
    """
    above = next(folder for folder in options.out.absolute().parents if folder.exists())
    if of_folder and options.out.is_file():
        raise InputError(f"--out must be a folder with {of_folder}; {str(options.out)!r} is a file")
    if not of_folder and options.out.is_dir():
        raise InputError(f"--out must be a file, such as {str(options.out / example)!r}; {str(options.out)!r} is a folder")
    if not above.is_dir() or not os.access(options.out if options.out.exists() else above, os.W_OK):
        raise InputError(f"--out {str(options.out)!r} cannot be written: see {str(above)!r}")
    if options.size is not None and options.size < 1:
        raise InputError(f"--size must be at least 1 pixel, got {options.size}")
    if (options.mean is None) != (options.std is None):
        raise InputError("--mean and --std must be given together")
    if not all(s > 0 for s in options.std or ()):
        raise InputError(f"--std must be above 0, since values are divided by it, got {options.std}")


def _classifier(options: argparse.Namespace) -> _Classifier:
    classifier = _torchvision(options) if options.model.startswith(_TORCHVISION) else _own(options)
    if options.classes is not None:
        classifier = replace(classifier, class_names=_text(options.classes).rstrip().splitlines())
    return classifier


def _classes(options: argparse.Namespace, classifier: _Classifier, image: Tensor) -> int:
    """The number of classes of the model."""
    name, names = options.model, classifier.class_names
    try:
        with torch.no_grad():
            output = classifier.model.eval()(image)
    except (RuntimeError, AssertionError, ValueError) as error:  # anything an operator may raise
        raise ModelError(
            f"{name} cannot read images {tuple(image.shape[1:])}: {_shortly(error)}; give the side that it takes by --size"
        ) from None
    if not isinstance(output, Tensor) or output.ndim != 2:
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(f"{name} is not a classifier: its output must be a tensor (N, classes), got {got}")
    if names is not None and len(names) != output.shape[1]:
        raise InputError(f"{str(options.classes)!r} names {len(names)} classes; the output of {name} has {output.shape[1]}")
    return output.shape[1]


def _target(given: str | None, names: Sequence[str] | None, classes: int) -> Any:
    if given is None:
        return lambda output: output.argmax(1)
    if given.removeprefix("-").isdecimal():
        if not -classes <= int(given) < classes:
            raise TargetError(
                f"there is no class {given}; classes are 0 to {classes - 1}, or, from the end, -1 to {-classes}"
            )
        return int(given) % classes
    known = list(names or ())
    found = [n for n, name in enumerate(known) if name == given]
    found = found or [n for n, name in enumerate(known) if name.lower() == given.lower()]
    if len(found) > 1:
        raise TargetError(f"{len(found)} classes are called {given!r}: give the number, {' or '.join(map(str, found))}")
    if found:
        return found[0]
    spelt = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), spelt, n=3) or [name for name in spelt if given.lower() in name][:3]
    hint = f"did you mean {', '.join(repr(spelt[name]) for name in close)}?" if close else "give its number"
    raise TargetError(f"there is no class {given!r}; {hint}")


# export


def _export(options: argparse.Namespace) -> int:
    kind, save = _kind(options.out, options.format)
    _check(options, example="explain.pt2")
    classifier = _classifier(options)
    noise = Image.frombytes("RGB", (64, 64), random.Random(0).randbytes(3 * 64 * 64))
    image = classifier.prepare(noise)[None]
    classes = _classes(options, classifier, image)
    target = _target(None if options.target == "predicted" else options.target, classifier.class_names, classes)
    selection = None if options.all_neurons else TopK(options.keep)
    lrp = SelectiveLRP(classifier.model.eval(), options.composite, selection)
    print(f"recording a pass of {options.model}", flush=True)
    try:
        captured = lrp.capture(image.repeat(options.batch or 1, 1, 1, 1), target, dynamic_batch=options.batch is None)
    except UnsupportedOperatorError as error:
        raise UnsupportedOperatorError(str(error).replace("dynamic_batch=False", "--batch N")) from error
    about = {
        "model": options.model,
        "composite": str(lrp.composite),
        "selection": str(selection),
        "explained": "predicted" if callable(target) else target,
        "classes": classifier.class_names,
        "images": _prepared(classifier, image),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save(captured, options.out, about)
    beside = options.out.with_name(f"{options.out.name}.data")  # the weights of what is too large for one ONNX file
    size = sum(file.stat().st_size for file in (options.out, beside) if file.exists())
    print(
        f"written to {options.out} ({size / 1e6:.1f} MB), {kind}",
        *_used(captured, about, classes, options.out, kind),
        sep="\n",
    )
    return 0


def _kind(out: Path, asked: str | None) -> tuple[str, Callable[..., Path]]:
    """The format of a file, and the function that writes it."""
    suffix = out.suffix.lower()
    if suffix not in (".pt2", ".onnx"):
        raise InputError(f"--out must end in .pt2 or .onnx, got {str(out)!r}")
    kind = asked or suffix[1:]
    if (kind == "onnx") != (suffix == ".onnx"):
        raise InputError(
            f"--format {kind} is written to a file that ends in {'.onnx' if kind == 'onnx' else '.pt2'}, got {str(out)!r}"
        )
    return kind, {"pt2": save_exported, "compiled": save_compiled, "onnx": save_onnx}[kind]


def _prepared(classifier: _Classifier, image: Tensor) -> dict[str, Any]:
    """How an image becomes an input of the model, for the program that loads the file."""
    _, channels, height, width = image.shape
    side, interpolation = classifier.resized
    return {
        "channels": "grey" if channels == 1 else "RGB",
        "resize": side,
        "interpolation": interpolation,
        "crop": [height, width],
        "mean": list(classifier.mean or ()),
        "std": list(classifier.std or ()),
    }


def _used(captured: Captured, about: dict[str, Any], classes: int, out: Path, kind: str) -> list[str]:
    """The inputs and outputs of a file, and how to load it, as lines of text."""
    [(samples, *image)], taken = captured.shapes, about["images"]
    n = "N" if captured.dynamic_batch else samples
    of_image = ", ".join(map(str, image))
    masks = f"; masks (critical neurons) of {len(captured.layers)} layers" if captured.layers else ""
    load = {
        "pt2": f"torch.export.load({str(out)!r}).module()(images)",
        "compiled": f"torch._inductor.aoti_load_package({str(out)!r})(images)",
        "onnx": f'onnxruntime.InferenceSession({str(out)!r}).run(None, {{"images": images}})',
    }[kind]
    return [
        f"  input    images ({n}, {of_image}), float32",
        f"  outputs  output ({n}, {classes}); relevance ({n}, {of_image}){masks}",
        f"  images   {taken['channels']}, resized to a shorter side of {taken['resize']}, of which the middle "
        f"{' x '.join(map(str, taken['crop']))}; values in [0, 1] less {taken['mean']}, divided by {taken['std']}",
        f"           (this, and what the outputs are, stands in the file too: {DESCRIPTION})",
        f"  load it  {load}",
    ]


# files


class _Folder(Dataset):
    """The images of a folder, or of its folders, in the order of their names."""

    prepare: Callable[[Image.Image], Tensor]

    def __init__(self, paths: Sequence[Path], folders: Sequence[str], of_folder: Sequence[int]) -> None:
        self.paths, self.folders, self.of_folder = paths, folders, of_folder
        self.labels: list[int] | None = None

    @staticmethod
    def of(path: Path) -> _Folder:
        """The images in the folder, or, if it has no images, those in its subfolders, as in torchvision's ImageFolder."""
        if not path.is_dir():
            raise InputError(
                f"--dataset must be a folder of images; {str(path)!r} is {'a file' if path.exists() else 'not there'}"
            )
        flat = sorted(file for file in path.iterdir() if file.suffix.lower() in IMG_EXTENSIONS and file.is_file())
        if flat:
            return _Folder(flat, (), ())
        try:
            found = ImageFolder(path, allow_empty=True)
        except FileNotFoundError:
            found = None
        if found is None or not found.samples:
            raise InputError(
                f"{str(path)!r} has no images, and no folders of images; files may end in {', '.join(IMG_EXTENSIONS)}"
            )
        return _Folder([Path(file) for file, _ in found.samples], found.classes, found.targets)

    def label(self, names: Sequence[str] | None, classes: int) -> str:
        """Set labels by folder, if the folders have the classes' names or number; return where they are from, as text."""
        known = {name: n for n, name in enumerate(names or ())}
        if not self.folders:
            return "without labels"
        if all(folder in known for folder in self.folders):
            self.labels = [known[self.folders[n]] for n in self.of_folder]
            return "labels by the names of the folders"
        if len(self.folders) == classes:
            self.labels = list(self.of_folder)
            return f"labels by the {classes} folders in the order of their names"
        return f"without labels, since {len(self.folders)} folders are not the model's {classes} classes"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, ...] | Tensor:
        image = self.prepare(_read(self.paths[i]))
        return image if self.labels is None else (image, torch.tensor(self.labels[i]))


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except FileNotFoundError:
        raise InputError(f"there is no file {str(path)!r}") from None
    except IsADirectoryError:
        raise InputError(f"{str(path)!r} is a folder; give its images, such as {path}/*.jpg") from None
    except UnidentifiedImageError:
        raise InputError(f"{str(path)!r} is not an image that Pillow can read") from None
    except OSError as error:
        raise InputError(f"the image {str(path)!r} cannot be read: {error}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from None


def _unpickled(path: Path) -> Any:
    """Load a file of torch.save that contains only tensors and plain values; no other object is created."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"there is no file {str(path)!r}") from None
    except Exception as error:  # any exception that unpickling raises
        other = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, UnpicklingError) else None
        if other is None:
            short = "torch.save did not write it" if isinstance(error, UnpicklingError | EOFError) else _shortly(error)
            raise InputError(f"{str(path)!r} holds no weights that torch.load can read safely: {short}") from None
        raise InputError(
            f"{str(path)!r} holds no weights that torch.load can read safely: it holds {other[1]}, and making objects of a "
            "file can run any program. If you trust the file, load it in Python with torch.load(PATH, weights_only=False), "
            "write its state dict alone with torch.save, and give that to --weights"
        ) from None


def _state(path: Path) -> dict[str, Tensor]:
    """The weights in a file: a state dict, or a Lightning checkpoint with one."""
    state = _unpickled(path)
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()) or not state:
        raise InputError(f"{str(path)!r} holds no state dict, as torch.save(model.state_dict(), PATH) writes it")
    for prefix in ("module.", "model.", "_orig_mod."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): t for name, t in state.items()}
    return state


def _fill(model: nn.Module, path: Path, state: dict[str, Tensor]) -> nn.Module:
    """Put weights into a model."""
    own = model.state_dict()
    missing, unknown = [n for n in own if n not in state], [n for n in state if n not in own]
    other = [n for n in own if n in state and own[n].shape != state[n].shape]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("are missing", missing), ("are not the model's", unknown), ("have another shape", other))
        if names
    ]
    if problems:
        raise ModelError(f"the weights in {str(path)!r} do not fit {type(model).__name__}: {'; '.join(problems)}")
    model.load_state_dict(state)
    return model


# models


def _torchvision(options: argparse.Namespace) -> _Classifier:
    name = options.model.removeprefix(_TORCHVISION)
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        raise ModelError(
            f"torchvision has no classifier {name!r}; "
            + (f"did you mean {', '.join(map(repr, close))}?" if close else "see torchvision.models.list_models()")
        )
    if options.checkpoint is not None:
        raise ModelError("--checkpoint is for a LightningModule of your own; give --weights to a model of torchvision")
    weights = torchvision.models.get_model_weights(name).DEFAULT
    asked = {} if options.size is None else {"crop_size": options.size, "resize_size": options.size}
    if options.mean is not None:
        mean, std = _normalisation(options, 3)
        asked |= {"mean": mean, "std": std}
    transform = weights.transforms(**asked)
    categories: Sequence[str] | None = weights.meta["categories"]
    if options.weights in (None, "DEFAULT"):
        try:
            model = torchvision.models.get_model(name, weights=weights, progress=False)
        except (URLError, OSError) as error:
            raise ModelError(
                f"torchvision's weights of {name} could not be downloaded ({error}); give a file with --weights PATH"
            ) from None
    else:
        state = _state(Path(options.weights))
        classes = len(list(state.values())[-1])  # the last bias
        given = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(name, num_classes=classes, **given)
        model = _fill(model, Path(options.weights), state)
        categories = categories if classes == len(weights.meta["categories"]) else None
    resized = transform.resize_size[0], transform.interpolation.value
    return _Classifier(model, transform, transform.mean, transform.std, categories, resized)


def _own(options: argparse.Namespace) -> _Classifier:
    module_name, colon, attribute = options.model.partition(":")
    if not colon or not attribute:
        raise ModelError(f"--model must be torchvision:NAME or package.module:NAME, got {options.model!r}")
    try:
        made = importlib.import_module(module_name)
        for part in attribute.split("."):
            made = getattr(made, part)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"the model {options.model!r} cannot be imported: {error}") from None
    model = _checkpoint(made, options.checkpoint) if options.checkpoint is not None else _made(options.model, made)
    if options.weights == "DEFAULT":
        raise ModelError("--weights DEFAULT is for torchvision's models; give a file")
    if options.weights is not None:
        model = _fill(model, Path(options.weights), _state(Path(options.weights)))

    channels = next((p.shape[1] for p in model.parameters() if p.ndim == 4), 3)
    if channels not in (1, 3):
        raise ModelError(f"the first convolution of {options.model} reads {channels} channels; an image has 1 or 3")
    size = options.size or 224
    mean, std = _normalisation(options, channels)
    steps = [v2.Grayscale()] if channels == 1 else []
    steps += [
        v2.Resize(size), v2.CenterCrop(size), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(mean, std),
    ]  # fmt: skip
    return _Classifier(model, v2.Compose(steps), mean, std, None, (size, "bilinear"))


def _normalisation(options: argparse.Namespace, channels: int) -> tuple[list[float], list[float]]:
    """One value per channel."""
    mean, std = options.mean or [0.0], options.std or [1.0]
    if {len(mean), len(std)} - {1, channels}:
        raise InputError(f"--mean and --std must have one value for each of {channels} channels, got {mean} and {std}")
    return mean * (channels // len(mean)), std * (channels // len(std))


def _made(name: str, made: Any) -> nn.Module:
    try:
        model = made if isinstance(made, nn.Module) else made()
    except Exception as error:
        raise ModelError(f"{name} cannot be called without arguments: {_shortly(error)}") from None
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name} must give a torch.nn.Module, got {type(model).__name__}")
    return model


def _checkpoint(made: Any, path: Path) -> nn.Module:
    if not hasattr(made, "load_from_checkpoint"):
        raise ModelError(f"--checkpoint needs a LightningModule; got {getattr(made, '__name__', made)!r}")
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}")
    saved = _unpickled(path)
    if not isinstance(saved, dict) or "pytorch-lightning_version" not in saved:
        raise InputError(
            f"{str(path)!r} is not a Lightning checkpoint, as Trainer.save_checkpoint writes it; should it be given as "
            "--weights?"
        )
    _check_instantiator(path, saved)
    safe = io.BytesIO()  # written anew, since Lightning below 2.6 takes no weights_only, and 2.4 and 2.5 unpickle anything
    torch.save(saved, safe)
    safe.seek(0)
    try:
        return made.load_from_checkpoint(safe, map_location="cpu")
    except Exception as error:
        raise ModelError(f"the checkpoint {str(path)!r} does not fit {made.__name__}: {_shortly(error)}") from None


def _check_instantiator(path: Path, saved: dict[str, Any]) -> None:
    """Refuse a checkpoint that names a function or class to import: Lightning below 2.6.6 calls whatever it names."""
    for key in ("hparams", "module_arguments", "hyper_parameters"):
        arguments = saved[key] if isinstance(saved.get(key), dict) else {}
        maker, kind = arguments.get("_instantiator"), str(arguments.get("_class_path", ""))
        if maker not in _INSTANTIATORS or kind.rpartition(".")[0] not in {"", *sys.modules}:
            raise InputError(
                f"{str(path)!r} asks for {kind or maker!r} to be imported, which can run any program. If you trust the "
                "file, give it to --weights, which reads its weights alone"
            )


def _shortly(error: Exception) -> str:
    """The first line of a message that may be long."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
