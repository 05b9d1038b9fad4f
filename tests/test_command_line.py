"""The command line: a report from images and a name, and errors that say what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torchvision.transforms import v2

from lrp_lightning import Epsilon, EpsilonPlus, RelevanceStore, SelectiveLRP, TopK
from lrp_lightning.command_line import main

OWN = """
from torch import nn
from lightning.pytorch import LightningModule

class Small(nn.Sequential):
    def __init__(self, channels=3):
        super().__init__(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))

def grey():
    return Small(1)

class Wide(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))

class Lit(LightningModule):
    def __init__(self, width=5):
        super().__init__()
        self.save_hyperparameters()
        below = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.model = nn.Sequential(*below, nn.Linear(width, 2))
    def forward(self, x):
        return self.model(x)

number = 7
"""
CLI = "lightning.pytorch.cli.instantiate_module"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    generator = np.random.default_rng(0)
    for name in ("one.png", "two.jpg"):
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "text.png").write_text("no image")
    return tmp_path


def explain(arguments: str) -> int:
    return main(["explain", *arguments.split()])


def test_a_model_of_ones_own(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "names.txt").write_text("cat\n<b>dog</b>\nfox\n")
    torch.manual_seed(0)
    arguments = "one.png two.jpg --model own_models:Small --size 24 --keep 0.5 --classes names.txt --target Fox"
    assert explain(f"{arguments} --out new/report.html") == 0
    said = capsys.readouterr().out
    assert "explaining fox in 2 images with own_models:Small" in said
    assert "written to new/report.html (" in said
    page = (folder / "new/report.html").read_text()
    for part in ("one.png: ", "two.jpg: ", "TopK(keep=0.5", "<td>fox</td>", 'id="graph"', 'id="reconstructions"'):
        assert part in page
    assert "<b>dog" not in page


def test_grey_images_for_a_model_of_one_channel(folder: Path) -> None:
    assert explain("one.png --model own_models:grey --size 16 --mean 0.5 --std 0.25 --target 2") == 0
    assert (folder / "report.html").is_file()


def test_weights_of_a_file_are_what_is_explained(folder: Path, capsys: pytest.CaptureFixture) -> None:
    import own_models  # type: ignore[import-not-found]

    model = own_models.Small()
    with torch.no_grad():
        model[-1].bias.copy_(torch.tensor([0.0, 100.0, 0.0]))
    torch.save(model.state_dict(), folder / "weights.pt")
    assert explain("one.png --model own_models:Small --size 16 --weights weights.pt") == 0
    assert "one.png: class 1 (100%)" in capsys.readouterr().out


def test_a_lightning_checkpoint(folder: Path, capsys: pytest.CaptureFixture) -> None:
    import own_models

    module: LightningModule = own_models.Lit(width=7)
    with torch.no_grad():
        module.model[-1].bias.copy_(torch.tensor([100.0, 0.0]))
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", max_steps=0, enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(folder / "last.ckpt")
    assert explain("one.png --model own_models:Lit --size 16 --checkpoint last.ckpt") == 0
    assert "one.png: class 0 (100%)" in capsys.readouterr().out


class Ran:
    """What a pickle can do: a folder, made when it is read."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("ran",)


@pytest.fixture
def unsafe_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Lightning 2.4 and 2.5 read checkpoints, and torch where it is told to."""
    monkeypatch.setattr(
        "lightning.pytorch.core.saving.pl_load",
        lambda file, map_location=None, **_: torch.load(file, map_location=map_location, weights_only=False),
    )
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


def save_checkpoint(path: Path, **changed: object) -> None:
    import own_models

    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", max_steps=0, enable_progress_bar=False)
    trainer.strategy.connect(own_models.Lit(width=7))
    trainer.save_checkpoint(path)
    torch.save(torch.load(path, weights_only=True) | changed, path)


@pytest.mark.usefixtures("unsafe_lightning")
@pytest.mark.parametrize(
    "arguments", ["Lit --checkpoint unsafe.ckpt", "Lit --weights unsafe.ckpt", "Small --weights unsafe.ckpt"]
)
def test_no_file_runs_a_program(folder: Path, arguments: str, capsys: pytest.CaptureFixture) -> None:
    save_checkpoint(folder / "unsafe.ckpt", callbacks=Ran())
    assert explain(f"one.png --size 16 --model own_models:{arguments}") == 2
    said = capsys.readouterr().err
    assert f"it holds {os.mkdir.__module__}.mkdir, and making objects of a file can run any program" in said
    assert "If you trust the file" in said
    assert not (folder / "ran").exists()
    torch.load(folder / "unsafe.ckpt", weights_only=False)
    assert (folder / "ran").exists()  # so it would have run


@pytest.mark.usefixtures("unsafe_lightning")
def test_a_checkpoint_of_tensors_is_read_whatever_lightning_does(folder: Path) -> None:
    save_checkpoint(folder / "safe.ckpt")
    assert explain("one.png --size 16 --model own_models:Lit --checkpoint safe.ckpt") == 0


@pytest.mark.parametrize(
    "named", [{"_instantiator": "made_by.function"}, {"_instantiator": CLI, "_class_path": "made_by.Lit"}]
)
@pytest.mark.parametrize("place", ["hyper_parameters", "hparams"])
def test_no_checkpoint_has_anything_imported(
    folder: Path, place: str, named: dict[str, str], capsys: pytest.CaptureFixture
) -> None:
    (folder / "made_by.py").write_text("import os\nos.mkdir('ran')\n")
    save_checkpoint(folder / "unsafe.ckpt", **{place: {"width": 7, **named}})
    assert explain("one.png --size 16 --model own_models:Lit --checkpoint unsafe.ckpt") == 2
    assert "to be imported, which can run any program" in capsys.readouterr().err
    assert not (folder / "ran").exists()


def test_a_checkpoint_of_lightning_cli(folder: Path, capsys: pytest.CaptureFixture) -> None:
    save_checkpoint(folder / "cli.ckpt", hyper_parameters={"width": 7, "_instantiator": CLI})
    assert explain("one.png --size 16 --model own_models:Lit --checkpoint cli.ckpt") == 0


def test_another_class_than_the_predicted(folder: Path, capsys: pytest.CaptureFixture) -> None:
    import own_models

    model = own_models.Small()
    with torch.no_grad():
        model[-1].bias.copy_(torch.tensor([0.0, 100.0, -50.0]))
    torch.save(model.state_dict(), folder / "weights.pt")
    assert explain("one.png --model own_models:Small --size 16 --weights weights.pt --target -1 --keep 2") == 0
    said = capsys.readouterr().out
    assert "explaining class 2 in 1 image with" in said
    assert "one.png: predicted class 1 (100%), explained class 2 (<1%, logit -" in said
    page = (folder / "report.html").read_text()
    for part in (
        "explained class 2 (&lt;1%, logit -",
        "The explained output is negative",
        "No path is shown",
        "TopK(keep=2",
    ):
        assert part in page
    assert "kept with critical neurons" not in page


def test_size_and_normalisation_of_a_model_of_torchvision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("lrp_lightning.command_line._classes", lambda options, classifier, image: seen.append(image) or 1000)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), folder / "weights.pt")
    taken = "--size 40 --mean 0.5 --std 0.25 --target nothing"
    assert explain(f"one.png --model torchvision:squeezenet1_1 --weights weights.pt {taken}") == 2
    pixels = v2.functional.to_dtype(v2.functional.pil_to_tensor(Image.open("one.png")), torch.float32, scale=True)
    torch.testing.assert_close(seen[0][0], (pixels[:, :, 5:45] - 0.5) / 0.25)


@pytest.mark.slow
def test_a_model_of_torchvision_with_weights_of_a_file(folder: Path) -> None:
    """As a person types it; torchvision says size, normalisation and class names."""
    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), folder / "weights.pt")
    done = subprocess.run(
        [sys.executable, "-m", "lrp_lightning", "explain", "one.png", "--model", "torchvision:squeezenet1_1", "--weights",
         "weights.pt", "--target", "tabby", "--out", "report.html"],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "What squeezenet1_1 sees" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("missing.png --model own_models:Small", "there is no file 'missing.png'"),
        ("text.png --model own_models:Small", "'text.png' is not an image that Pillow can read"),
        ("one.png --model torchvision:vgg61", "no classifier 'vgg61'; did you mean"),
        ("one.png --model torchvision:vgg16 --weights missing.pt", "there is no file 'missing.pt'"),
        ("one.png --model torchvision:vgg16 --weights text.png", "no weights that torch.load can read safely"),
        ("one.png --model torchvision:squeezenet1_0 --weights other.pt", "do not fit SqueezeNet: 52 are missing (features"),
        (
            "one.png --model own_models:Small --weights other.pt",
            "4 are missing (0.weight, 0.bias, 4.weight, ...); 2 are not the",
        ),
        ("one.png --model own_models:Small --weights shape.pt", "1 have another shape (0.weight)"),
        ("one.png --model own_models:Small --weights DEFAULT", "DEFAULT is for torchvision's models"),
        ("one.png --model own_models:Big", "cannot be imported: module 'own_models' has no attribute 'Big'"),
        ("one.png --model no_such_module:Big", "No module named 'no_such_module'"),
        ("one.png --model own_models", "must be torchvision:NAME or package.module:NAME"),
        ("one.png --model own_models:number", "cannot be called without arguments"),
        ("one.png --model builtins:dict", "must give a torch.nn.Module, got dict"),
        ("one.png --model own_models:Small --checkpoint other.pt", "needs a LightningModule; got 'Small'"),
        ("one.png --model own_models:Lit --checkpoint missing.ckpt", "there is no file 'missing.ckpt'"),
        ("one.png --model own_models:Lit --checkpoint text.png", "torch.save did not write it"),
        ("one.png --model torchvision:vgg16 --checkpoint other.pt", "give --weights to a model of torchvision"),
        (
            "one.png --model own_models:Small --size 16 --target 3",
            "there is no class 3; classes are 0 to 2, or, from the end, -1 to -3",
        ),
        ("one.png --model own_models:Small --size 16 --target cat", "there is no class 'cat'; give its number"),
        ("one.png --model own_models:Small --size 16 --target -4", "there is no class -4; classes are 0 to 2, or, from"),
        ("one.png --model own_models:Small --size 16 --classes names.txt --target cta", "did you mean 'cat'?"),
        (
            "one.png --model own_models:Small --size 16 --classes long.txt --target retriever",
            "did you mean 'Golden Retriever'?",
        ),
        (
            "one.png --model own_models:Small --size 16 --classes twice.txt --target CAT",
            "2 classes are called 'CAT': give the ",
        ),
        (
            "one.png --model own_models:Small --size 16 --classes few.txt",
            "'few.txt' names 2 classes; the output of own_models:Small has 3",
        ),
        ("one.png --model own_models:Wide", "cannot read images (3, 224, 224): mat1 and mat2"),
        ("one.png --model own_models:Wide", "give the side that it takes by --size"),
        ("one.png --model own_models:Small --size 0", "--size must be at least 1 pixel, got 0"),
        ("one.png --model own_models:Small --size -8", "--size must be at least 1 pixel, got -8"),
        ("one.png --model own_models:Small --mean 0 --std 0", "--std must be above 0"),
        ("one.png --model torchvision:vgg16 --mean 0 0 --std 1 1", "one value for each of 3 channels"),
        ("one.png --model own_models:Small --out folder", "--out must be a file, such as 'folder/report.html'"),
        ("one.png --model own_models:Small --out text.png/report.html", "cannot be written: see"),
        ("folder --model own_models:Small", "'folder' is a folder; give its images"),
        (
            "one.png --model own_models:Small --weights whole.pt",
            "it holds own_models.Small, and making objects of a file can run any program",
        ),
        ("one.png --model own_models:Lit --checkpoint other.pt", "'other.pt' is not a Lightning checkpoint"),
        (
            "one.png --model own_models:Lit --checkpoint whole.pt",
            "it holds own_models.Small, and making objects of a file can run any program",
        ),
        ("one.png --model own_models:Small --size 16 --classes missing.txt", "'missing.txt' cannot be read"),
        ("one.png --model own_models:Small --size 16 --mean 0.5", "--mean and --std must be given together"),
        ("one.png --model own_models:Small --size 16 --mean 0.5 0.5 --std 1 1", "one value for each of 3 channels"),
        ("one.png --model own_models:Small --size 16 --composite gold", "'gold'"),
        ("one.png --model own_models:Small --size 16 --keep 1.5", "got 1.5"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(
    folder: Path, arguments: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    (folder / "names.txt").write_text("cat\ndog\nfox\n\n")
    (folder / "few.txt").write_text("cat\ndog\n")
    (folder / "twice.txt").write_text("cat\ndog\nCat\n")
    (folder / "long.txt").write_text("cat\nGolden Retriever\nfox\n")
    (folder / "folder").mkdir()
    torch.save({"other": torch.zeros(1), "more": torch.zeros(1)}, folder / "other.pt")
    import own_models

    torch.save(own_models.Small(), folder / "whole.pt")
    torch.save(own_models.Small().state_dict() | {"0.weight": torch.zeros(2, 2)}, folder / "shape.pt")
    assert explain(arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("lrp_lightning: error: ")
    assert len(said.err.splitlines()) == 1
    assert not (folder / "report.html").exists()


def test_a_graph_that_cannot_be_told_is_left_out(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "own_models.py").write_text(
        OWN
        + """
class Mixing(Small):
    def forward(self, x):
        return self[4](self[3](self[2](self[0](x).cumsum(1))))
"""
    )
    assert explain("one.png --model own_models:Mixing --size 16") == 0
    assert "the report has no graph: " in capsys.readouterr().out
    assert 'id="graph"' not in (folder / "report.html").read_text()


def test_help(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as done:
        main(["explain", "--help"])
    assert done.value.code == 0
    said = capsys.readouterr().out
    for option in ("--model", "--weights", "--checkpoint", "--target", "--out"):
        assert option in said
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert commands == ["explain", "export"]


def test_why_a_class_and_not_another_is_a_folder(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "names.txt").write_text("cat\ndog\nfox\n")
    given = "one.png two.jpg --model own_models:Small --classes names.txt --size 16"
    assert explain(f"{given} --target fox --against cat --out why") == 0
    said = capsys.readouterr().out
    assert "one.png: fox, not cat, by " in said
    assert "written to why: contrast.json, contrast.png, report.html" in said
    assert [sample["against"] for sample in json.loads((folder / "why/contrast.json").read_text())["samples"]] == [0, 0]
    assert explain(f"{given} --against runner-up") == 0
    assert "fox, not fox" not in capsys.readouterr().out
    assert (folder / "contrast" / "report.html").exists()
    assert explain(f"{given} --target fox --against fox") == 2
    assert "both are class 2" in capsys.readouterr().err
    assert explain(f"{given} --against cow") == 2
    assert "there is no class 'cow'" in capsys.readouterr().err
    assert explain(f"{given} --against cat --out names.txt") == 2
    assert "must be a folder" in capsys.readouterr().err


@pytest.fixture
def data_set(folder: Path) -> Path:
    """Two folders of three images."""
    generator = np.random.default_rng(1)
    for name in ("set/cat/0.png", "set/cat/1.JPG", "set/cat/deep/2.png", "set/fox/a.png", "set/fox/b.png", "set/fox/c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / name)
    (folder / "set/fox/about.txt").write_text("")
    (folder / "names.txt").write_text("cat\ndog\nfox\n")
    return folder


GIVEN = "--model own_models:Small --size 16 --weights weights.pt --workers 0 --batch-size 4"


def weights(folder: Path) -> torch.nn.Module:
    import own_models

    torch.manual_seed(0)
    model = own_models.Small().eval()
    torch.save(model.state_dict(), folder / "weights.pt")
    return model


def test_a_data_set_is_explained_into_a_store(data_set: Path, capsys: pytest.CaptureFixture) -> None:
    model = weights(data_set)
    assert explain(f"--dataset set --classes names.txt --keep-inputs --keep 2 {GIVEN}") == 0
    said = capsys.readouterr().out
    assert "explaining 6 images with own_models:Small; labels by the names of the folders" in said
    assert re.fullmatch(r"written to relevance_store: 6 images, \d+\.\d MB, \d+\.\d images/s", said.splitlines()[-1])
    store = RelevanceStore("relevance_store")
    assert store.complete
    assert store.labels is not None
    assert store.labels.tolist() == [0, 0, 0, 2, 2, 2]
    trace = SelectiveLRP(model, selection=TopK(2)).trace(store.kept_inputs[:], lambda y: y.argmax(1))
    assert torch.allclose(store.relevance["0"][:], trace.relevance["0"], rtol=1e-2, atol=1e-5)
    assert explain(f"--dataset set --classes names.txt --keep-inputs --keep 2 {GIVEN}") == 0
    assert "6 images, 6 of them from before" in capsys.readouterr().out
    assert explain(f"--dataset set --classes names.txt --keep-inputs --keep 3 {GIVEN}") == 2
    assert "holds a store with other settings: selection" in capsys.readouterr().err
    assert explain(f"--dataset set --classes names.txt --keep-inputs --keep 2 --mean 0.5 --std 0.5 {GIVEN}") == 2
    assert "holds a store with other settings: prepared 'Compose(" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "files", "labels", "told"),
    [
        ("", "b.png a.png", None, "without labels"),
        ("", "x/a.png y/b.png z/c.png", [0, 1, 2], "labels by the 3 folders in the order of their names"),
        ("", "x/a.png y/b.png", None, "without labels, since 2 folders are not the model's 3 classes"),
        ("--classes names.txt", "dog/a.png", [1], "labels by the names of the folders"),
    ],
    ids=["flat", "order", "other", "names"],
)
def test_labels_of_a_data_set(
    data_set: Path, names: str, files: str, labels: list[int] | None, told: str, capsys: pytest.CaptureFixture
) -> None:
    weights(data_set)
    for name in files.split():
        (data_set / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data_set / "one.png", data_set / "own" / name)
    assert explain(f"--dataset own --out s --keep 1.0 --target 1 {names} {GIVEN}") == 0
    assert told in capsys.readouterr().out
    store = RelevanceStore("s")
    assert (store.labels if store.labels is None else store.labels.tolist()) == labels
    assert (store.about["selection"], set(store.explained_class.tolist())) == ("None", {1})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--dataset missing", "--dataset must be a folder of images; 'missing' is not there"),
        ("--dataset one.png", "--dataset must be a folder of images; 'one.png' is a file"),
        ("--dataset empty", "'empty' has no images, and no folders of images; files may end in .jpg"),
        ("--dataset set one.png", "--dataset takes neither images nor --against"),
        ("--dataset set --against cat", "--dataset takes neither images nor --against"),
        ("--dataset set --out one.png", "--out must be a folder with --dataset; 'one.png' is a file"),
        ("--dataset set --out set", "'set' exists and is not a store; use an empty or a new folder"),
        ("--dataset set --target 3", "there is no class 3"),
        ("--dataset spoilt", "'spoilt/b.png' is not an image that Pillow can read"),
        ("--dataset spoilt --workers 1", "'spoilt/b.png' is not an image that Pillow can read"),
        ("", "give images, such as photo.jpg, or --dataset FOLDER"),
    ],
)
def test_data_sets_that_are_refused(data_set: Path, arguments: str, message: str, capsys: pytest.CaptureFixture) -> None:
    weights(data_set)
    (data_set / "empty" / "class").mkdir(parents=True)
    (data_set / "spoilt").mkdir()
    shutil.copy(data_set / "one.png", data_set / "spoilt" / "a.png")
    shutil.copy(data_set / "text.png", data_set / "spoilt" / "b.png")
    assert explain(f"{GIVEN} {arguments}") == 2
    said = capsys.readouterr().err
    assert message in said
    assert [line for line in said.splitlines() if line.startswith("lrp_lightning: error: ")] == said.splitlines()[-1:]


TAKEN = "--model own_models:Small --size 16 --weights weights.pt"
HOW = {
    "channels": "RGB", "resize": 16, "interpolation": "bilinear", "crop": [16, 16], "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
}  # fmt: skip


def export(arguments: str) -> int:
    return main(["export", *arguments.split()])


@pytest.mark.slow
def test_a_file_that_explains_any_number_of_images(folder: Path, capsys: pytest.CaptureFixture) -> None:
    model = weights(folder)
    (folder / "names.txt").write_text("cat\ndog\nfox\n")
    assert export(f"{TAKEN} --classes names.txt --mean 0.5 --std 0.25 --keep 2 --out new/explain.pt2") == 0
    told = capsys.readouterr().out
    assert re.search(r"^written to new/explain.pt2 \(\d+\.\d MB\), pt2$", told, re.MULTILINE)
    assert "images (N, 3, 16, 16), float32" in told
    assert "output (N, 3); relevance (N, 3, 16, 16); masks (critical neurons) of 1 layers" in told
    assert "torch.export.load('new/explain.pt2').module()(images)" in told
    extra = {"explanation.json": ""}
    program = torch.export.load("new/explain.pt2", extra_files=extra).module()
    assert json.loads(extra["explanation.json"]) == {
        "shapes": [[1, 3, 16, 16]], "dynamic_batch": True, "layers": ["0"], "model": "own_models:Small",
        "composite": str(EpsilonPlus()), "selection": "TopK(keep=2, by='magnitude')", "explained": "predicted",
        "classes": ["cat", "dog", "fox"], "images": HOW,
    }  # fmt: skip
    x = torch.randn(3, 3, 16, 16)
    trace = SelectiveLRP(model, selection=TopK(2)).trace(x, lambda y: y.argmax(1))
    output, relevance, masks = program(x)
    torch.testing.assert_close((output, relevance), (trace.output, trace.inputs))
    assert torch.equal(masks["0"], trace.masks["0"])


@pytest.mark.slow
def test_an_onnx_file_of_one_class_and_all_neurons(folder: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = weights(folder)
    assert export(f"{TAKEN} --composite epsilon --all-neurons --target -1 --batch 2 --out explain.onnx") == 0
    told = capsys.readouterr().out
    assert "images (2, 3, 16, 16), float32" in told
    assert "masks" not in told
    session = runtime.InferenceSession("explain.onnx", providers=["CPUExecutionProvider"])
    said = json.loads(session.get_modelmeta().custom_metadata_map["explanation.json"])
    assert (said["explained"], said["selection"], said["composite"]) == (2, "None", "Composite(default=Epsilon(eps=1e-06))")
    x = torch.randn(2, 3, 16, 16)
    output, relevance = map(torch.from_numpy, session.run(None, {"images": x.numpy()}))
    trace = SelectiveLRP(model, Epsilon()).trace(x, 2)
    torch.testing.assert_close((output, relevance), (trace.output, trace.inputs), rtol=1e-4, atol=1e-6)


def test_a_compiled_package_of_grey_images(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked of ``save_compiled``; that its package runs is in capture/test_export.py, as compiling takes long."""
    given = {}
    compiled = lambda captured, out, about: given.update(about, shapes=captured.shapes) or out.touch()  # noqa: E731
    monkeypatch.setattr("lrp_lightning.command_line.save_compiled", compiled)
    assert export("--model own_models:grey --size 16 --format compiled --out explain.pt2") == 0
    assert "torch._inductor.aoti_load_package('explain.pt2')(images)" in capsys.readouterr().out
    assert given["images"]["channels"] == "grey"
    assert [tuple(shape) for shape in given["shapes"]] == [(1, 1, 16, 16)]


def test_what_torchvision_says_of_images_stands_in_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {}
    saved = lambda captured, out, about: said.update(about) or out.touch()  # noqa: E731
    monkeypatch.setattr("lrp_lightning.command_line.save_exported", saved)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), folder / "weights.pt")
    monkeypatch.setattr(SelectiveLRP, "capture", lambda lrp, x, *_, **__: Recorded(x))
    assert export("--model torchvision:squeezenet1_1 --weights weights.pt --out explain.pt2 --target tabby") == 0
    assert said["images"] == {
        "channels": "RGB", "resize": 256, "interpolation": "bilinear", "crop": [224, 224],
        "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    assert said["classes"][said["explained"]] == "tabby"


class Recorded:
    """What the command reads of a captured pass."""

    dynamic_batch, layers = True, ()

    def __init__(self, x: torch.Tensor) -> None:
        self.shapes = (x.shape,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--out explain.bin", "--out must end in .pt2 or .onnx, got 'explain.bin'"),
        ("--out explain.onnx --format compiled", "--format compiled is written to a file that ends in .pt2, got 'explain.o"),
        ("--out explain.pt2 --format onnx", "--format onnx is written to a file that ends in .onnx, got 'explain.pt2'"),
        ("--out folder.pt2", "--out must be a file, such as 'folder.pt2/explain.pt2'; 'folder.pt2' is a folder"),
        ("--out text.png/explain.pt2", "cannot be written: see"),
        ("--out explain.pt2 --target cat", "there is no class 'cat'; give its number"),
        ("--out explain.pt2 --target 3", "there is no class 3; classes are 0 to 2"),
        ("--out explain.pt2 --keep 1.5", "got 1.5"),
        ("--out explain.pt2 --composite gold", "'gold'"),
        ("--out explain.pt2 --mean 0.5", "--mean and --std must be given together"),
        ("--out explain.pt2 --model own_models:Big", "cannot be imported: module 'own_models' has no attribute 'Big'"),
        ("--out explain.pt2 --model own_models:Asking", "Asking cannot be captured: its forward"),
        (
            "--out explain.pt2 --model own_models:OneByOne",
            "Capture it for the number of samples that you need, with --batch N",
        ),
    ],
)
def test_what_is_not_exported_is_one_line(folder: Path, arguments: str, message: str, capsys: pytest.CaptureFixture) -> None:
    (folder / "own_models.py").write_text(
        OWN
        + """
import torch

class Asking(Small):
    def forward(self, x):
        h = super().forward(x)
        return h if h.sum() > 0 else 2 * h

class OneByOne(Small):
    def forward(self, x):
        return torch.cat([super(OneByOne, self).forward(image[None]) for image in x])
"""
    )
    (folder / "folder.pt2").mkdir()
    assert export(f"--model own_models:Small --size 16 {arguments}") == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("lrp_lightning: error: ")
    assert len(said.err.splitlines()) == 1
    assert not (folder / "explain.pt2").exists()


@pytest.mark.parametrize(
    "arguments", ["", "--out e.pt2 --batch 0", "--out e.pt2 --keep 2 --all-neurons", "--out e --format so"]
)
def test_options_that_argparse_refuses(folder: Path, arguments: str) -> None:
    with pytest.raises(SystemExit) as done:
        export(f"--model own_models:Small {arguments}")
    assert done.value.code == 2
