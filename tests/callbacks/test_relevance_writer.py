"""A store holds what each sample's own pass finds, once, in the data set's order, however it came about."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_data_set import Slow, model
from lightning.pytorch import Callback, Trainer
from memory import held, least, of_now
from small_networks import TwoInputs, convolutions
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Subset, TensorDataset
from trainings import Classifier, images, same

import lrp_lightning
from lrp_lightning import RelevanceStore, SelectiveLRP, TopK
from lrp_lightning.callbacks import Explainer, RelevanceWriter
from lrp_lightning.errors import InputError, LRPError, StoreError

TESTS = Path(__file__).parents[1]


def predict(explainer: Any, loader: Any, *callbacks: Callback, **more: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(devices=1, callbacks=list(callbacks), **(quiet | more))
    trainer.predict(explainer, loader, return_predictions=False)
    return trainer


def write(out: Path, explainer: Explainer, loader: Any, **more: Any) -> RelevanceStore:
    predict(explainer, loader, RelevanceWriter(out, **more))
    return RelevanceStore(out)


def equal(one: RelevanceStore, other: RelevanceStore) -> bool:
    """Whether samples of two stores are the same, up to rounding: batches differ."""
    a, b = one[:], other[:]
    exact = ("indices", "labels", "predicted", "explained_class", "kept_inputs", "kinds", "places", "masks")
    near = [(a["explained"], b["explained"]), (a["inputs"], b["inputs"])]
    near += [(a["relevance"][layer], b["relevance"][layer]) for layer in a["relevance"]]
    return all(same(a[name], b[name]) for name in exact) and all(torch.allclose(x, y, rtol=1e-2, atol=1e-4) for x, y in near)


@pytest.mark.parametrize("selection", [None, TopK(2)], ids=["whole", "topk"])
def test_each_sample_is_stored_as_its_own_pass_explains_it(tmp_path: Path, selection: Any) -> None:
    net, data = Classifier(), images(13)
    loader = DataLoader(data, 4, shuffle=True)
    store = write(tmp_path, Explainer(net, "epsilon", selection, "label"), loader, dtype="float32", samples_per_file=5)
    assert (len(store), store.complete, len(list(tmp_path.glob("*.h5")))) == (13, True, 2)
    assert store.labels is not None
    for i, (x, y) in enumerate(data):
        trace = SelectiveLRP(net, "epsilon", selection).trace(x[None], int(y))
        assert torch.allclose(store.inputs[i], trace.inputs[0], rtol=1e-3, atol=1e-5)
        for layer, relevance in trace.relevance.items():
            assert torch.allclose(store.relevance[layer][i], relevance[0], rtol=1e-3, atol=1e-5)
        assert same({layer: mask[i] for layer, mask in store.masks.items()}, {n: m[0] for n, m in trace.masks.items()})
        assert store.explained[i] == pytest.approx(trace.explained.item(), rel=1e-4, abs=1e-5)
        assert int(store.predicted[i]) == int(trace.output.argmax())
        assert int(store.labels[i]) == int(store.explained_class[i]) == int(y)
    assert (store.kinds, store.places) == (trace.kinds, trace.places)


def test_a_store_says_what_it_is_of(tmp_path: Path) -> None:
    explainer = Explainer(Classifier(), selection=TopK(2))
    store = write(tmp_path, explainer, DataLoader(images(5), 4), about={"images": "noise", "samples": "not these"})
    assert store.about["images"] == "noise"
    about = store.about
    assert about["model"] == "trainings.Classifier"
    assert about["composite"] == "Composite(default=Epsilon(eps=1e-06), convolution=ZPlus(eps=1e-06))"
    assert about["selection"] == "TopK(keep=2, by='magnitude')"
    assert (about["target"], about["samples"], about["precision"]) == ("predicted", 5, "32-true")
    assert set(about["versions"]) == {"lrp_lightning", "torch", "lightning"}
    assert about["created"].startswith("20")
    for part in ("RelevanceStore of 5 of 5 samples, 1 files", "trainings.Classifier", "TopK(keep=2", "(5, 1, 8, 8)"):
        assert part in repr(store)


def test_half_precision_keeps_small_values_by_a_scale_for_each_sample(tmp_path: Path) -> None:
    """Relevance of 1e-6 is nothing in half precision itself."""
    net = nn.Linear(64, 2, bias=False)
    x = torch.cat([torch.randn(3, 64), 1e-6 * torch.randn(3, 64), torch.zeros(1, 64)])
    half = write(tmp_path / "half", Explainer(net, target=0), DataLoader(x, 7))
    full = write(tmp_path / "full", Explainer(net, target=0), DataLoader(x, 7), dtype="float32")
    one, other = half.inputs[:], full.inputs[:]
    assert one.dtype == other.dtype == torch.float32
    allowed = torch.maximum(2**-11 * other.abs(), 2**-24 * other.abs().amax(1, keepdim=True))
    assert bool(((one - other).abs() <= allowed).all())
    assert bool((other[3:6].abs().amax(1) < 1e-5).all())
    assert bool((one[3:6].abs().amax(1) > 0).all())


def test_relevance_of_inputs_by_place_or_not_at_all(tmp_path: Path) -> None:
    net, loader = (
        convolutions(3, 4, side=4, classes=2),
        DataLoader(torch.rand(5, 3, 4, 4), 5),
    )
    values = write(tmp_path / "values", Explainer(net), loader, dtype="float32")
    places = write(tmp_path / "places", Explainer(net), loader, dtype="float32", input_relevance="places")
    none = write(tmp_path / "none", Explainer(net), loader, input_relevance="none")
    assert torch.allclose(places.inputs[:], values.inputs[:].sum(1))
    assert none.inputs is None
    assert "inputs" not in none[0]
    assert none.relevance["input"].shape == (5, 3)


def test_several_inputs_are_kept_side_by_side(tmp_path: Path) -> None:
    a, b = torch.rand(5, 4), torch.rand(5, 3)
    explainer = Explainer(TwoInputs(4, 3), batch_fn=lambda batch: (tuple(batch), None))
    store = write(tmp_path, explainer, DataLoader(TensorDataset(a, b), 2), keep_inputs=True)
    assert [part.shape for part in store.inputs] == [(5, 4), (5, 3)]
    assert same(store[3]["kept_inputs"], (a[3], b[3]))
    assert store.labels is None


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64, torch.long], ids=str)
def test_inputs_of_any_precision(tmp_path: Path, kind: torch.dtype) -> None:
    tokens = kind == torch.long
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)) if tokens else nn.Linear(3, 2).to(kind)
    x = torch.randint(9, (5, 3)) if tokens else torch.randn(5, 3).to(kind)
    store = write(tmp_path, Explainer(net), DataLoader(x, 2), keep_inputs=True, dtype="float64")
    assert same(store.kept_inputs[:], x.float() if kind == torch.bfloat16 else x)
    assert torch.allclose(store.inputs[:], SelectiveLRP(net).trace(x, lambda y: y.argmax(1)).inputs.double(), rtol=2e-2)


def test_a_sample_that_a_sampler_repeats_is_stored_once(tmp_path: Path) -> None:
    data = images(9)
    torch.manual_seed(0)
    store = write(tmp_path, Explainer(model()), DataLoader(data, 4, sampler=RandomSampler(data, True, 40)), keep_inputs=True)
    rows = sum(len(np.asarray(segment.index)) for segment in store._segments)
    assert len(store) == rows == len(set(store.indices.tolist()))
    assert same(store.kept_inputs[:], data.tensors[0][store.indices])


# going on


class Stop(Callback):
    """Ends the run with an error when so many batches are done."""

    def __init__(self, batches: int, error: BaseException) -> None:
        self.batches, self.error = batches, error

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx + 1 == self.batches:
            raise self.error


class Counting(SelectiveLRP):
    samples = 0

    def trace(self, inputs: Any, *more: Any, **most: Any) -> Any:
        Counting.samples += len(inputs)
        return super().trace(inputs, *more, **most)


def test_a_second_run_goes_on_where_the_store_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = images(30)
    whole = write(tmp_path / "whole", Explainer(model()), DataLoader(data, 4), keep_inputs=True)
    writer = RelevanceWriter(tmp_path / "parts", keep_inputs=True)
    with pytest.raises(ZeroDivisionError):
        predict(Explainer(model()), DataLoader(data, 4), writer, Stop(3, ZeroDivisionError()))
    part = RelevanceStore(tmp_path / "parts")
    assert not part.complete
    assert part.indices.tolist() == list(range(12))  # what was explained before the error is kept
    monkeypatch.setattr("lrp_lightning.callbacks.explainer.SelectiveLRP", Counting)
    monkeypatch.setattr(Counting, "samples", 0)
    parts = write(tmp_path / "parts", Explainer(model()), DataLoader(data, 7, shuffle=True), keep_inputs=True)
    assert Counting.samples == 18
    assert equal(parts, whole)
    write(tmp_path / "parts", Explainer(model()), DataLoader(data, 7), keep_inputs=True)
    assert Counting.samples == 18


@pytest.mark.parametrize(
    ("explainer", "loader", "more", "says"),
    [
        (lambda: Explainer(Classifier()), images(12), {}, "weights '"),
        (lambda: Explainer(nn.Sequential(model())), images(12), {}, "model 'trainings.Classifier', not 'torch.nn"),
        (lambda: Explainer(model(), "epsilon"), images(12), {}, r"composite 'Composite\(default=Epsilon.*', not 'Composite"),
        (lambda: Explainer(model(), selection=TopK(3)), images(12), {}, r"selection 'None', not \"TopK\(keep=3"),
        (lambda: Explainer(model(), target="label"), images(12), {}, "target 'predicted', not 'label'"),
        (lambda: Explainer(model()), images(13), {}, "samples 12, not 13"),
        (lambda: Explainer(model()), images(12), {"dtype": "float32"}, "dtype 'float16', not 'float32'"),
        (lambda: Explainer(model()), images(12), {"keep_inputs": True}, "keep_inputs False, not True"),
        (lambda: Explainer(model()), images(12), {"about": {"images": "b"}}, "images None, not 'b'"),
    ],
    ids=["weights", "model", "composite", "selection", "target", "samples", "dtype", "inputs", "about"],
)
def test_a_store_of_something_else_is_refused(
    tmp_path: Path, explainer: Any, loader: Dataset, more: dict, says: str
) -> None:
    before = write(tmp_path, Explainer(model()), DataLoader(images(12), 4))
    files = sorted(tmp_path.iterdir())
    with pytest.raises(StoreError, match=f"holds a store with other settings: .*{says}"):
        write(tmp_path, explainer(), DataLoader(loader, 4), **more)
    assert sorted(tmp_path.iterdir()) == files
    assert len(before) == 12


def start(*arguments: object) -> subprocess.Popen:
    checkout = str(Path(lrp_lightning.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, TESTS / "in_data_set.py", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": checkout},
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_whole_files_and_the_next_goes_on(tmp_path: Path) -> None:
    running = start("slow", tmp_path / "store")
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "store").glob("process*.h5"))) < 2 and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    told = running.communicate()[0]
    assert running.returncode == -signal.SIGKILL, told
    part = RelevanceStore(tmp_path / "store")
    assert 8 <= len(part) < 40
    (tmp_path / "store" / ".1.process00000-0-000009.h5").write_bytes(b"cut off")  # as where it was killed while writing
    explainer, options = Explainer(model(), selection=TopK(2)), {"keep_inputs": True, "samples_per_file": 4}
    parts = write(tmp_path / "store", explainer, DataLoader(Slow(0.0), 2), **options)
    assert parts.complete
    assert not list((tmp_path / "store").glob(".*.h5"))
    assert equal(parts, write(tmp_path / "whole", explainer, DataLoader(Slow(0.0), 2), **options))


@pytest.mark.slow
def test_two_processes_write_what_one_does(tmp_path: Path) -> None:
    for processes in (1, 2):
        running = start("--processes", processes, "--out", tmp_path)
        told = running.communicate(timeout=300)[0]
        assert running.returncode == 0, told[-4000:]
    one, two, repeating = (RelevanceStore(tmp_path / "stores" / name) for name in ("1", "2", "repeating"))
    assert one.complete
    assert equal(one, two)
    assert equal(one, repeating)
    for store in (two, repeating):
        segments = {segment.path.name.split("-")[0] for segment in store._segments}
        assert segments == {"process00000", "process00001"}
        assert sum(len(segment.index) for segment in store._segments) == 21  # the sample that evens out is written once
    for rank in range(2):
        assert "samples 21, not 22" in json.loads((tmp_path / f"seen_2_{rank}.json").read_text())["other"]


# much


class Watching(Callback):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx % 10 == 9:
            self.seen.append(held())


@pytest.mark.slow
def test_memory_is_flat_over_ten_thousand_samples(tmp_path: Path) -> None:
    class Noise(Dataset):
        def __len__(self) -> int:
            return 10_000

        def __getitem__(self, i: int) -> Tensor:
            return torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(i))

    watching = Watching()
    writer = RelevanceWriter(tmp_path, samples_per_file=500)
    with of_now():
        predict(Explainer(Classifier()), DataLoader(Noise(), 50), writer, watching)
    early, late = least(watching.seen[2:6]), least(watching.seen[-4:])
    assert late.tensors == early.tensors
    assert late.resident - early.resident < 20e6  # all relevance together is ten times that in single precision
    store = RelevanceStore(tmp_path)
    assert store.complete
    assert torch.equal(store.indices, torch.arange(10_000))


# what is refused


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        return iter(torch.rand(6, 1, 8, 8))


class Growing(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Tensor:
        return torch.rand(1, 8 + 2 * (i // 2), 8)


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        (DataLoader(Endless(), 2), "a data set with a length and an order, got DataLoader of Endless"),
        ([DataLoader(images(4), 2), DataLoader(images(4), 2)], "got 2 loaders; write a separate store for each"),
        (DataLoader(list(torch.rand(3, 2, 1, 8, 8)), batch_size=None), "give the DataLoader a batch_size"),
        (DataLoader(images(6), 2, collate_fn=lambda batch: torch.rand(5, 1, 8, 8)), "5 samples, but the sampler gave 2"),
        (DataLoader(Growing(), 2), r"input.* \(\(1, 8, 8\), 'float16'\) before, \(\(1, 10, 8\), 'float16'\) now"),
    ],
    ids=["iterable", "several", "no batches", "collated", "shapes"],
)
def test_loaders_that_are_refused(tmp_path: Path, loader: Any, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        write(tmp_path, Explainer(Classifier()), loader)


def test_inputs_of_several_sizes_without_their_relevance(tmp_path: Path) -> None:
    store = write(tmp_path, Explainer(Classifier()), DataLoader(Growing(), 2), input_relevance="none")
    assert store.relevance["conv2"].shape == (4, 16)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"dtype": "int8"}, "dtype must be one of 'float16', 'float32', 'float64', got 'int8'"),
        ({"input_relevance": "all"}, "'values', 'places' or 'none', got 'all'"),
        ({"samples_per_file": 0}, "samples_per_file must be a whole number >= 1, got 0"),
    ],
    ids=lambda value: "",
)
def test_arguments_that_are_refused(tmp_path: Path, arguments: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        RelevanceWriter(tmp_path, **arguments)


def test_folders_that_are_refused(tmp_path: Path) -> None:
    loader = DataLoader(images(4), 2)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.tex").write_text("")
    (tmp_path / "file").write_text("")
    for name, says in (("own", "is not a store; use an empty or a new folder"), ("file", "is not a store")):
        with pytest.raises(StoreError, match=says):
            write(tmp_path / name, Explainer(Classifier()), loader)
    (tmp_path / "own" / "store.json").write_text('{"format": 99}')
    with pytest.raises(StoreError, match="has format 99; this version of lrp_lightning reads format 1"):
        write(tmp_path / "own", Explainer(Classifier()), loader)


def test_a_folder_in_which_a_run_was_killed_at_once(tmp_path: Path) -> None:
    (tmp_path / ".17.store.json").write_text("{")
    assert write(tmp_path, Explainer(Classifier()), DataLoader(images(4), 2)).complete


def test_another_module_is_refused(tmp_path: Path) -> None:
    class Predicting(Classifier):
        def predict_step(self, batch: Any, batch_idx: int = 0) -> Tensor:
            return self(batch[0])

    with pytest.raises(StoreError, match=r"writes what an Explainer predicts, got Predicting; trainer.predict\(Explainer"):
        predict(Predicting(), DataLoader(images(4), 2), RelevanceWriter(tmp_path))


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lrp_lightning.files.os.replace", full)
    (tmp_path / "store").mkdir()
    with pytest.raises(LRPError, match="No space left on device"):
        write(tmp_path / "store", Explainer(Classifier()), DataLoader(images(4), 2))
    assert not list((tmp_path / "store").iterdir())


def test_a_part_of_a_data_set_is_a_data_set(tmp_path: Path) -> None:
    store = write(tmp_path, Explainer(Classifier()), DataLoader(Subset(images(20), [3, 7, 11]), 2), keep_inputs=True)
    assert store.indices.tolist() == [0, 1, 2]
    assert same(store.kept_inputs[:], images(20).tensors[0][[3, 7, 11]])
