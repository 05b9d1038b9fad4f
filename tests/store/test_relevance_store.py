"""A store is read sample by sample, in the data set's order, and says what is wrong with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lrp_lightning import RelevanceStore, TopK, class_circuits, class_graph, neuron_cards, reconstruct_top_activations
from lrp_lightning.errors import InputError, LayerError, StoreError
from lrp_lightning.store import segments


def column(values: torch.Tensor, dtype: str = "float16") -> dict[str, np.ndarray]:
    stored, scales = segments.packed(values, dtype)
    return {"": stored} if scales is None else {"": stored, segments.SCALES: scales}


@pytest.fixture
def known() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "relevance": torch.randn(12, 5, generator=generator),
        "masks": torch.rand(12, 11, generator=generator) > 0.5,
        "labels": torch.arange(12) % 3,
    }


@pytest.fixture
def store(tmp_path: Path, known: dict[str, torch.Tensor]) -> RelevanceStore:
    """Twelve samples, the odd ones by another process; the last one twice."""
    about = {"model": "m", "weights": "0123456789", "precision": "32-true", "target": "label", "composite": "c",
             "selection": "s", "samples": 12, "input_relevance": "values"}  # fmt: skip
    segments.write_about(tmp_path, about)
    for process, at in enumerate((range(0, 12, 2), [11, 9, 7, 5, 3, 1], [11])):
        rows = torch.tensor(at)
        columns = {segments.INDEX: [rows.numpy()]}
        for name in ("labels", "predicted", "explained_class"):
            columns["samples", name] = [known["labels"][rows].numpy()]
        for name in ("explained", "conservation_error"):
            columns["samples", name] = [known["relevance"][rows, 0].numpy()]
        for prefix, values in column(known["relevance"][rows]).items():
            columns[f"{prefix}relevance", "blocks/0.conv#1"] = [values]
        for prefix, values in column(known["relevance"][rows].view(-1, 5)).items():
            columns[f"{prefix}inputs", "0"] = [values]
        columns["masks", "blocks/0.conv#1"] = [column(known["masks"][rows])[""]]
        facts = {
            ("relevance", "blocks/0.conv#1"): {"kind": "convolution", "places": 4, "order": 0},
            ("masks", "blocks/0.conv#1"): {"neurons": 11},
            ("inputs", "0"): {"several": False},
        }
        segments.write_segment(tmp_path / segments.name_of(process, "run", 0), columns, facts, {"process": process})
    return RelevanceStore(tmp_path)


@pytest.mark.parametrize(
    "rows",
    [slice(None), slice(3, 9), slice(2, None, 3), slice(None, None, -1), [7, 1, 1, -1], torch.tensor([5]), slice(4, 4), [],
     np.array([2, 10]), torch.arange(12) % 3 == 1],
    ids=str,
)  # fmt: skip
def test_rows_are_those_of_the_data_set(store: RelevanceStore, known: dict, rows: Any) -> None:
    backwards = isinstance(rows, slice) and rows.step == -1
    expected = {name: values.flip(0) if backwards else values[rows] for name, values in known.items()}
    relevance, masks = store.relevance["blocks/0.conv#1"][rows], store.masks["blocks/0.conv#1"][rows]
    assert torch.allclose(relevance, expected["relevance"], rtol=1e-3, atol=1e-6)
    assert torch.equal(masks, expected["masks"])
    found = store[rows]
    assert torch.equal(found["labels"], expected["labels"])
    assert torch.equal(found["relevance"]["blocks/0.conv#1"], relevance)
    assert torch.equal(found["masks"]["blocks/0.conv#1"], masks)


def test_one_row_has_no_dimension_of_samples(store: RelevanceStore, known: dict) -> None:
    for row in (5, -7, np.int64(5)):
        found = store[row]
        assert (int(found["indices"]), int(found["labels"])) == (5, 2)
        assert found["relevance"]["blocks/0.conv#1"].shape == found["inputs"].shape == (5,)
        assert torch.equal(found["masks"]["blocks/0.conv#1"], known["masks"][5])


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        (12, IndexError, "samples 0 to 11, got 12"),
        ([3, -13], IndexError, "samples 0 to 11"),
        (0.5, InputError, "whole numbers or a mask"),
        ("label", InputError, "got str"),
        (torch.ones(11, dtype=torch.bool), InputError, r"a mask \(12,\) bool, got \(11,\) of torch.bool"),
        (torch.zeros(2, 2, dtype=torch.long), InputError, r"got \(2, 2\)"),
    ],
    ids=str,
)
def test_rows_that_are_refused(store: RelevanceStore, rows: Any, error: type[Exception], says: str) -> None:
    for of in (store, store.relevance["blocks/0.conv#1"]):
        with pytest.raises(error, match=says):
            of[rows]


def test_what_is_known_of_a_store(store: RelevanceStore) -> None:
    assert (len(store), store.complete, len(store.relevance["blocks/0.conv#1"])) == (12, True, 12)
    assert (store.kinds, store.places) == ({"blocks/0.conv#1": "convolution"}, {"blocks/0.conv#1": 4})
    assert store.relevance["blocks/0.conv#1"].shape == (12, 5)
    assert store.masks["blocks/0.conv#1"].shape == (12, 11)
    assert "RelevanceStore of 12 of 12 samples, 3 files" in repr(store)
    assert sum(1 for _ in store.relevance["blocks/0.conv#1"]) == 12
    with pytest.raises(LayerError, match=r"no layer 'conv'; layers are 'blocks/0.conv#1'"):
        store.relevance["conv"]


def test_only_what_is_asked_for_is_read(store: RelevanceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple] = []
    rows = segments.Segment.rows

    def seen(self: segments.Segment, name: segments.Column, at: np.ndarray) -> np.ndarray:
        read.append((self.path.name[:12], name[0], len(at)))
        return rows(self, name, at)

    monkeypatch.setattr(segments.Segment, "rows", seen)
    store.relevance["blocks/0.conv#1"][[0, 4]]
    assert read == [("process00000", "relevance", 2), ("process00000", "scales_of_relevance", 2)]


def test_without_inputs_a_store_is_no_loader(store: RelevanceStore) -> None:
    with pytest.raises(StoreError, match=r"has no inputs; write it with RelevanceWriter\(..., keep_inputs=True\)"):
        store.batches()
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        store.batches(0)


@pytest.mark.parametrize(
    "call",
    [
        lambda net, store: class_graph(net, store, 0, progress=False),
        lambda net, store: class_circuits(net, store, progress=False),
        lambda net, store: neuron_cards(net, store, {"0": [1]}, progress=False),
        lambda net, store: reconstruct_top_activations(net, store, "0", 0),
    ],
    ids=["class_graph", "class_circuits", "neuron_cards", "reconstruct_top_activations"],
)
def test_what_a_store_cannot_serve_says_so(store: RelevanceStore, call: Any) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    with pytest.raises(InputError, match=r"a RelevanceStore gives samples, .* what it does not hold.*batches\(64\)"):
        call(net, store)


def test_with_its_inputs_a_store_is_a_loader(tmp_path: Path) -> None:
    from lightning.pytorch import Trainer
    from trainings import Classifier, images

    from lrp_lightning.callbacks import Explainer, RelevanceWriter

    net, data = Classifier(), images(13)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[RelevanceWriter(tmp_path, keep_inputs=True)]
    )
    trainer.predict(Explainer(net), DataLoader(data, 4), return_predictions=False)
    batches = RelevanceStore(tmp_path).batches(5)
    assert [len(x) for x, _ in batches] == [len(x) for x, _ in batches] == [5, 5, 3]
    assert len(batches) == 3
    for own, other in zip(batches, DataLoader(data, 5), strict=True):
        assert torch.equal(own[0], other[0])
        assert torch.equal(own[1], other[1])
    one, other = (class_graph(net, of, 1, selection=TopK(2), progress=False) for of in (batches, DataLoader(data, 5)))
    assert dict(one.edges) == dict(other.edges)


# what is not a store, or is spoilt


def test_folders_that_are_not_stores(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no such folder"):
        RelevanceStore(tmp_path / "nothing")
    with pytest.raises(StoreError, match=r"it has no store.json; write one with RelevanceWriter"):
        RelevanceStore(tmp_path)
    for text, says in (
        ("{", "cannot be read"),
        ("[]", "has format None"),
        ('{"format": 2}', "has format 2; this"),
    ):
        (tmp_path / "store.json").write_text(text)
        with pytest.raises(StoreError, match=says):
            RelevanceStore(tmp_path)


def test_a_store_without_samples_yet(tmp_path: Path) -> None:
    of = dict.fromkeys(("model", "weights", "precision", "target", "composite", "selection"), "")
    segments.write_about(tmp_path, {"samples": 3, **of})
    store = RelevanceStore(tmp_path)
    assert (len(store), store.complete, dict(store.relevance), store.inputs, store.labels) == (0, False, {}, None, None)
    assert len(store[:]["predicted"]) == 0
    assert "RelevanceStore of 0 of 3 samples" in repr(store)


@pytest.mark.parametrize("spoilt", [b"", b"no HDF5", "half"], ids=["empty", "text", "half"])
def test_a_file_that_is_spoilt(store: RelevanceStore, spoilt: Any) -> None:
    file = sorted(store.path.glob("*.h5"))[1]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if spoilt == "half" else spoilt)
    with pytest.raises(StoreError, match=r"process00001-run-000000.h5' cannot be read: .*delete it; the next run"):
        RelevanceStore(store.path)
    with pytest.raises(StoreError, match="delete it"):
        store.relevance["blocks/0.conv#1"][1]


def test_files_that_do_not_go_together(store: RelevanceStore) -> None:
    segments.write_segment(store.path / "process00009-run-000000.h5", {segments.INDEX: [np.zeros(1, np.int64)]}, {}, {})
    with pytest.raises(StoreError, match=r"process00009.* does not hold what 'process00000-run-000000.h5' does: inputs 0"):
        RelevanceStore(store.path)


def test_without_h5py_it_says_what_to_install(store: RelevanceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(StoreError, match=r"pip install 'lrp-lightning\[store\]'"):
        RelevanceStore(store.path)


@pytest.mark.slow
def test_nothing_is_imported_before_it_is_needed() -> None:
    code = "import sys; import lrp_lightning.callbacks, lrp_lightning.store; print('h5py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_values_of_any_size_are_kept(dtype: str, scale: float) -> None:
    values = scale * torch.randn(4, 7)
    stored, scales = segments.packed(values, dtype)
    found = torch.from_numpy(stored).double() * (1.0 if scales is None else torch.from_numpy(scales)[:, None].double())
    assert torch.allclose(found, values.double(), rtol=2**-10 if dtype == "float16" else 1e-6, atol=scale * 1e-6)


def test_values_that_are_not_finite_stay_so() -> None:
    stored, scales = segments.packed(torch.tensor([[1.0, torch.nan], [1.0, torch.inf], [2.0, 4.0]]), "float16")
    assert scales is not None
    found = stored * scales[:, None]
    assert np.isnan(found[:2]).all()  # of the whole sample, whose scale is unknown
    assert found[2].tolist() == [2.0, 4.0]
