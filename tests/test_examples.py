"""Each example runs as its first lines say."""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import cnn
from torch import Tensor
from torchvision.transforms import v2

from lrp_lightning import SelectiveLRP, TopK, masked_forward
from lrp_lightning.capture import save_compiled, save_exported, save_onnx

EXAMPLES = Path(__file__).parents[1] / "examples"


Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """What ``python examples/EXAMPLE ARGUMENTS`` prints, in this process, as importing takes longer than most examples."""

    def printed(example: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLES / example), *map(str, arguments)])
        monkeypatch.syspath_prepend(EXAMPLES)
        capsys.readouterr()
        runpy.run_path(sys.argv[0], run_name="__main__")
        return capsys.readouterr().out

    return printed


@pytest.mark.slow
def test_the_demo_says_what_it_found(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With a narrow VGG16, as the whole one takes minutes."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import small_vgg

    monkeypatch.setattr(small_vgg, "small_vgg16", partial(small_vgg.small_vgg16, small_vgg.NARROW))
    shown = run("digits_vgg16.py", "--epochs", 1, "--logs", tmp_path)
    for measure in ("validation accuracy", "contest won by 20 % of the neurons", "runner-up wins"):
        assert re.search(rf"^{measure} +[01]\.\d{{3}}$", shown, re.MULTILINE), shown
    assert re.search(r"^likely shortcuts +\d$", shown, re.MULTILINE), shown
    assert "version_0" in shown
    assert f"--logdir {tmp_path}" in shown
    [report] = tmp_path.glob("digits_vgg16/version_0/report.html")
    assert str(report) in shown
    assert report.stat().st_size < 3e6
    page = report.read_text()
    for section in ("heatmaps", "graph", "reconstructions", "curves", "conservation", "settings"):
        assert f'<section id="{section}">' in page
    assert "While it trained" in page
    assert len(list(tmp_path.rglob("events.out.tfevents.*"))) == 1


@pytest.mark.slow
def test_photographs_are_explained_where_their_objects_are(run: Run, tmp_path: Path):
    picture = tmp_path / "photographs.png"
    shown = run("explain_photograph.py", "--out", picture)
    assert picture.stat().st_size > 50_000
    errors = [float(line.rpartition(" ")[2]) for line in shown.splitlines() if "conservation error" in line]
    assert len(errors) == 3
    assert max(errors) < 1e-3


@pytest.mark.slow
def test_lightning_cli_by_its_yaml_and_again_by_what_it_saved(run: Run, tmp_path: Path):
    logs, short = f"--trainer.logger.init_args.save_dir={tmp_path}", "--trainer.max_epochs=1"
    run("lightning_cli.py", "fit", "--config", EXAMPLES / "lightning_cli.yaml", logs, short)
    [first] = tmp_path.rglob("config.yaml")
    assert "lrp_lightning.callbacks.RelevanceMonitor" in first.read_text()
    assert "selection: TopK(0.1)" in first.read_text()
    assert list(tmp_path.rglob("*.ckpt"))
    run("lightning_cli.py", "fit", "--config", first, short)
    assert len(list(tmp_path.rglob("config.yaml"))) == 2


@pytest.mark.slow
def test_the_mark_is_warned_of_until_the_data_are_mended(run: Run, tmp_path: Path):
    shown = run("right_for_the_wrong_reasons.py", "--epochs", 1, "--logs", tmp_path)
    assert len(re.findall(r"^the mark turns \d+\.\d% of other images into", shown, re.MULTILINE)) == 2
    assert len(list(tmp_path.rglob("events*"))) == 2


@pytest.mark.slow
def test_ddp_looks_at_as_many_samples_as_one_process_would(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "ddp.py", "--epochs", "1", "--logs", tmp_path],
        capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "samples looked at on 2 processes  128" in done.stdout
    assert re.search(r"^critical-neuron accuracy +[01]\.\d{3}$", done.stdout, re.MULTILINE), done.stdout
    assert len(list(tmp_path.rglob("events*"))) == 1


@pytest.mark.slow
def test_csv_only_needs_no_tensorboard(run: Run, tmp_path: Path):
    shown = run("csv_only.py", "--epochs", 1, "--logs", tmp_path)
    assert re.search(r"^    0 +[01]\.\d{3} +[01]\.\d{3} +\d+\.\d$", shown, re.MULTILINE), shown
    assert re.search(r"relevance_critical_paths_\w+/step=000022.png", shown)
    assert not list(tmp_path.rglob("events*"))


@pytest.mark.slow
def test_critical_neurons_are_found_and_proved(run: Run, tmp_path: Path):
    picture = tmp_path / "critical_neurons.png"
    shown = run("critical_neurons.py", "--images", 2048, "--samples", 16, "--passes", 5, "--out", picture)
    assert picture.stat().st_size > 10_000
    rows = [line.split() for line in shown.splitlines() if re.match(r" +\d+%", line)]
    assert [row[0] for row in rows] == ["5%", "10%", "20%", "30%", "50%"]
    for row in rows:
        *_, topk, min_error = map(float, row[1:])
        assert min_error <= topk


def test_without_fashion_mnist_there_are_digits(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(EXAMPLES)
    import fashion_mnist

    data = fashion_mnist.load(100, 50, side=32, folder=tmp_path)
    assert f"no Fashion-MNIST in {tmp_path}" in capsys.readouterr().out
    assert data.train[0].shape == (100, 1, 32, 32)
    assert len(data.test[1]) == 50
    assert 0 <= data.train[0].min() < data.train[0].max() <= 1
    assert len(data.class_names) == 10


@pytest.mark.slow
def test_two_runs_are_compared(run: Run, tmp_path: Path):
    shown = run("compare_runs.py", "--images", 512, "--samples", 40, "--out", tmp_path / "compared.png")
    rows = {line[:14].strip(): line[14:].split() for line in shown.splitlines()}
    same, mirrored, another = map(float, rows["mean"])
    assert another < mirrored < 1
    assert another < same < 1
    assert (tmp_path / "compared.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_network_is_pruned_by_its_critical_channels(run: Run, tmp_path: Path):
    shown = run("prune_critical_channels.py", "--images", 512, "--samples", 30, "--out", tmp_path / "pruned.png")
    assert re.findall(r"^by (.+): area", shown, re.MULTILINE) == ["relevance", "weight magnitude", "activation", "random"]
    accuracies = [float(a) for a in re.findall(r"without 0% of the channels: accuracy ([\d.]+),", shown)]
    assert len(set(accuracies)) == 1
    sizes = [int(size.replace(",", "")) for size in re.findall(r"([\d,]+) parameters", shown)]
    assert all(sizes[i] > sizes[i + 1] for i in range(19) if i % 5 != 4)
    assert (tmp_path / "pruned.png").stat().st_size > 10_000


def test_channels_taken_out_are_channels_switched_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import prune_critical_channels as example
    import small_vgg

    torch.manual_seed(0)
    model = small_vgg.small_vgg16((6, 5, 4, 7, 8)).double()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.bias)
            torch.nn.init.uniform_(module.running_mean)
    x, labels = torch.rand(30, 1, 32, 32).double(), torch.arange(30) % 10
    for worth in example.worths(model.eval(), x, labels).values():
        left = example.stay(worth, 0.5)
        smaller = example.without(model, left)
        assert sum(int(part.sum()) for part in left.values()) < 46
        assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())
        assert torch.allclose(smaller(x), masked_forward(model, x, left), atol=1e-9)
    assert all(part.sum() == 1 for part in example.stay(worth, 1.0).values())


@pytest.mark.slow
def test_a_vision_transformer_is_explained_both_ways(run: Run, tmp_path: Path):
    shown = run("vit.py", "--epochs", 1, "--out", tmp_path / "vit.png")
    errors = [float(error) for error in re.findall(r"conservation error (.+)$", shown, re.MULTILINE)]
    assert len(errors) == 2
    assert max(errors) < 1e-4
    reached = [int(share) for share in re.findall(r"(-?\d+)% of the logit reaches", shown)]
    assert reached[0] != reached[1]
    assert (tmp_path / "vit.png").stat().st_size > 10_000


def predicted(y: Tensor) -> Tensor:
    return y.argmax(1)


SAVED = [("explain.pt2", save_exported, False), ("explain.onnx", save_onnx, True)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "save", "any_batch"), SAVED, ids=["pt2", "onnx"])
def test_heatmaps_are_served_without_the_library(tmp_path: Path, name: str, save: Callable, any_batch: bool):
    if save is save_onnx:
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    lrp = SelectiveLRP(cnn(), selection=TopK(0.3))
    captured = lrp.capture(torch.rand(2, 1, 8, 8), predicted, dynamic_batch=any_batch)
    how = {"channels": "grey", "resize": 9, "interpolation": "bilinear", "crop": [8, 8], "mean": [0.4], "std": [0.2]}
    file = save(captured, tmp_path / name, {"images": how, "classes": list("abcde")})
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (15, 20, 3), dtype=np.uint8))
    bytes_of = io.BytesIO()
    picture.save(bytes_of, "PNG")
    prepare = v2.Compose(
        [
            v2.Grayscale(), v2.Resize(9), v2.CenterCrop(8), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.4], [0.2]),
        ]
    )  # fmt: skip
    trace = lrp.trace(prepare(picture)[None], predicted)

    # an import of the library would fail
    alone = "import sys, runpy; sys.modules['lrp_lightning'] = None; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    asked = [sys.executable, "-c", alone, EXAMPLES / "serve_heatmaps.py", file, "--port", "0"]
    server = subprocess.Popen(asked, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        found = json.load(urlopen(f"{address}/explanation.json", bytes_of.getvalue()))
        heatmap = np.asarray(Image.open(urlopen(f"{address}/heatmap.png", bytes_of.getvalue())))
        for path, body in (("/heatmap.png", b"text"), ("/other", bytes_of.getvalue()), ("/heatmap.png", b"")):
            with pytest.raises(HTTPError, match="400"):
                urlopen(f"{address}{path}", body)
    finally:
        server.kill()
        server.communicate()
    right = trace.inputs[0, 0]
    assert found["predicted"] == "abcde"[int(trace.output.argmax())]
    assert found["logit"] == pytest.approx(trace.output.max().item(), rel=1e-4)
    torch.testing.assert_close(torch.tensor(found["heatmap"]), right, rtol=1e-3, atol=1e-4 * right.abs().max().item())
    assert found["critical"] == {layer: mask[0].nonzero()[:, 0].tolist() for layer, mask in trace.masks.items()}
    strongest = np.unravel_index(int(right.abs().argmax()), right.shape)
    assert heatmap.shape == (8, 8, 3)
    assert heatmap[strongest].tolist() == ([255, 0, 0] if right[strongest] > 0 else [0, 0, 255])


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") and shutil.which("cmake")), reason="needs g++ and cmake")
def test_a_compiled_package_explains_in_cpp(tmp_path: Path):
    lrp, x = SelectiveLRP(cnn(), selection=TopK(0.3)), torch.rand(3, 1, 8, 8)
    file = save_compiled(lrp.capture(x, predicted, dynamic_batch=True), tmp_path / "explain.pt2", {"mean": [0.5]})
    x.numpy().tofile(tmp_path / "images.f32")
    build = ["cmake", "-S", EXAMPLES / "cpp", "-B", tmp_path / "build", f"-DPython_EXECUTABLE={sys.executable}"]
    for command in (build, ["cmake", "--build", tmp_path / "build"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    program = [tmp_path / "build" / "explain", file, tmp_path / "images.f32"]
    said = subprocess.run([*program, "3", "1", "8", "8"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert json.loads(said[0])["mean"] == [0.5]
    trace = lrp.trace(x, predicted)
    assert len(said) == 4
    for n, line in enumerate(said[1:]):
        [of, c, logit, relevance, critical] = re.findall(r"-?\d[\d.e-]*", line)
        assert (int(of), int(c)) == (n, int(trace.output[n].argmax()))
        assert float(logit) == pytest.approx(trace.output[n].max().item(), rel=1e-3)
        assert float(relevance) == pytest.approx(trace.inputs[n].sum().item(), rel=1e-3, abs=1e-5)
        assert int(critical) == sum(int(mask[n].sum()) for mask in trace.masks.values())
    wrong = subprocess.run([*program, "4", "1", "8", "8"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "must hold 256 float32 values" in wrong.stderr


def test_examples_are_short_enough_to_read():
    for path in EXAMPLES.glob("*.py"):
        longest = {"vgg16_case_study.py": 600, "serve_heatmaps.py": 100}.get(path.name, 80)
        assert len(path.read_text().splitlines()) < longest, path.name


def test_the_command_for_tensorboard_works():
    """The demo prints ``python -m tensorboard.main``: there, whatever is on PATH."""
    shown = subprocess.run(
        [sys.executable, "-m", "tensorboard.main", "--version"], capture_output=True, text=True, env=os.environ, check=True
    )
    assert re.match(r"\d+\.\d+", shown.stdout)
