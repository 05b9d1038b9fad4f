"""How far captured passes and their files differ from the pass itself: writes ``benchmarks/export.md``.

``python benchmarks/export.py`` measures what ``--cache`` lacks and writes the table of all results in it;
``--models vit_b_16`` measures a part, ``--only-table`` only writes. A model takes a few minutes on one core and up to 4 GB.

Untrained torchvision models have weights with which relevance reaches the input (``models.py``). Each pass is captured
with one batch, by EpsilonPlus and for the predicted class, and then explains another batch of two images in three forms:
the module that ``capture`` returns (*captured*), a file of ``save_exported`` loaded by ``torch.export.load`` (*.pt2*), and
a file of ``save_onnx`` run by onnxruntime on the CPU (*ONNX*). Everything is in float32.

*output* and *relevance* are the greatest difference of any value from the result of ``SelectiveLRP.trace`` for the same
images, divided by the greatest value there. *flipped* counts the neurons, over all hidden layers and both images, that are
critical in only one of the two: they tie within rounding with the neuron that replaces them, and relevance then takes
another path. *by the same neurons* is therefore the difference of relevance from a pass in which ``Fixed`` selects the
file's neurons. *operators* counts those of the captured graph, as recorded, and after computing everything that depends on
weights alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import onnxruntime
import torch
from models import subject
from torch import Tensor

from lrp_lightning import Fixed, SelectiveLRP, TopK
from lrp_lightning.capture import Captured, save_exported, save_onnx

HERE = Path(__file__).parent
SIDES = {"vgg16": 64, "resnet50": 64, "efficientnet_b0": 64, "vit_b_16": 224}
SELECTIONS = {"all neurons": None, "TopK(0.1)": TopK(0.1)}
GOAL = 1e-4

Found = tuple[Tensor, Tensor, dict[str, Tensor]]
"""Output, relevance and masks."""


def operators(captured: Captured) -> int:
    return sum(node.op == "call_function" for node in captured.program.graph.nodes)


def off(found: Tensor, right: Tensor) -> float:
    return ((found - right).abs().max() / right.abs().max()).item()


def by_onnx(file: Path, x: Tensor, layers: tuple[str, ...]) -> Found:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    output, relevance, *masks = map(torch.from_numpy, session.run(None, {"images": x.numpy()}))
    return output, relevance, dict(zip(layers, masks, strict=True))


def measure(name: str, of: str, side: int) -> dict[str, object]:
    of_model, selection = subject(name, side, batch=2), SELECTIONS[of]
    lrp, x = SelectiveLRP(of_model.model, selection=selection), of_model.x
    example = torch.rand(x.shape, generator=torch.Generator().manual_seed(2))
    trace = lrp.trace(x, lambda y: y.argmax(1))
    recorded = operators(lrp.capture(example, lambda y: y.argmax(1), freeze=False))
    captured = lrp.capture(example, lambda y: y.argmax(1))
    row: dict[str, object] = {"side": side, "recorded": recorded, "folded": operators(captured)}
    row["neurons"] = sum(mask.numel() for mask in trace.masks.values())

    def judge(way: str, found: Found, file: Path | None = None) -> None:
        output, relevance, masks = found
        flipped = sum(int((masks[layer] != trace.masks[layer]).sum()) for layer in trace.masks)
        same = trace.inputs
        if flipped:
            lrp.selection = Fixed(masks)
            same, lrp.selection = lrp.trace(x, lambda y: y.argmax(1)).inputs, selection
        row[way] = {
            "output": off(output, trace.output), "relevance": off(relevance, trace.inputs), "same": off(relevance, same),
            "flipped": flipped, "MB": file.stat().st_size / 1e6 if file else None,
        }  # fmt: skip
        print(name, of, way, row[way], flush=True)

    judge("captured", captured(x))
    with tempfile.TemporaryDirectory() as folder:
        file = save_exported(captured, Path(folder) / "explain.pt2")
        judge(".pt2", torch.export.load(file).module()(x), file)
        file.unlink()
        file = save_onnx(captured, Path(folder) / "explain.onnx")
        judge("ONNX", by_onnx(file, x, captured.layers), file)
    return row


def write(cache: Path, out: Path) -> None:
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    lines = ["# How far captured passes and their files differ", "", about, "", "Made by `python benchmarks/export.py`.", ""]
    lines += [
        "| model, side | selection | operators: recorded, folded | by | output | relevance | by the same neurons | flipped "
        "| MB |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    missed = []
    for name in SIDES:
        for of in SELECTIONS:
            file = cache / f"{name}_{of}.json"
            if not file.exists():
                continue
            row = json.loads(file.read_text())
            for n, way in enumerate(("captured", ".pt2", "ONNX")):
                found = row[way]
                left = (f"{name}, {row['side']}", of, f"{row['recorded']}, {row['folded']}") if n == 0 else ("", "", "")
                flipped = f"{found['flipped']} of {row['neurons']}" if row["neurons"] else ""
                differences = (f"{found[what]:.0e}" if found[what] else "0" for what in ("output", "relevance", "same"))
                size = f"{found['MB']:.0f}" if found["MB"] else ""
                lines.append(f"| {' | '.join((*left, way, *differences, flipped, size))} |")
                if max(found["output"], found["same"]) > GOAL:
                    missed.append(f"{name} ({of}, {way})")
    unmeasured = [name for name in SIDES if not any(cache.glob(f"{name}_*.json"))]
    lines += ["", f"Not measured: {', '.join(unmeasured) or 'nothing'}."]
    lines += ["", f"Above the goal of {GOAL:.0e}, by the same neurons: {', '.join(missed) or 'nothing'}.", ""]
    out.write_text("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--models", choices=list(SIDES), nargs="+", default=list(SIDES))
    parser.add_argument("--side", type=int, help="of the images in pixels, in place of the table's")
    parser.add_argument("--cache", type=Path, default=HERE / "runs" / "export", help="where what was measured is kept")
    parser.add_argument("--out", type=Path, default=HERE / "export.md", help="the page")
    parser.add_argument("--only-table", action="store_true")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    for name in options.models if not options.only_table else ():
        for of in SELECTIONS:
            file = options.cache / f"{name}_{of}.json"
            if not file.exists():
                file.write_text(json.dumps(measure(name, of, options.side or SIDES[name])))
    write(options.cache, options.out)


if __name__ == "__main__":
    main()
