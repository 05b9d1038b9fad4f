"""Batches of every form: which tensors are read, and what is said of those that cannot be."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lrp_lightning.callbacks.batches import Samples, read_batch

X, Y = torch.rand(4, 3, 8, 8), torch.arange(4)
COLUMN = Y.view(4, 1)
MULTI = torch.tensor([[1.0, 0, 1]] * 4)
Named = namedtuple("Named", ["image", "label"])


@dataclass
class Batch:
    pixels: Tensor
    target: Tensor
    index: Tensor


@pytest.mark.parametrize(
    ("batch", "labels"),
    [
        ((X, Y), Y),
        ([X, Y], Y),
        ((X, Y, torch.arange(4) + 100), Y),
        ((X, Y, {"path": ["a"] * 4}), Y),
        ((X, MULTI), MULTI),
        ((X, COLUMN), COLUMN),
        ((X, X + 1, Y), Y),
        ((Y, X), Y),
        ({"image": X, "label": Y}, Y),
        ({"pixel_values": X, "labels": Y, "weights": torch.rand(4)}, Y),
        ({"Image": X, "Target": Y, "index": torch.arange(4)}, Y),
        ({"a": X, "b": Y}, Y),
        ({"x": X, "mask": torch.rand(4, 1, 8, 8), "y": Y}, Y),
        ({"inputs": {"image": X, "thumbnail": torch.rand(4, 3, 2, 2)}, "label": Y}, Y),
        (({"image": X, "age": torch.rand(4, 1)}, Y), Y),
        (((X, torch.rand(4, 7)), Y), Y),
        ([{"image": X, "label": Y}], Y),
        (Named(X, Y), Y),
        (Batch(X, Y, torch.arange(4)), Y),
        ({"data": Batch(X, Y, torch.arange(4)), "epoch": 3}, Y),
    ],
)
def test_forms_that_are_read(batch: object, labels: Tensor):
    [samples] = read_batch(batch)
    assert samples.inputs[0] is X
    assert samples.labels is labels
    assert samples.places.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (X, "no tensor, or more than one, that can be the labels, in a Tensor of"),
        (((X, X + 1), Y), "can be the inputs"),
        ({"left": X, "right": X + 1, "label": Y}, r"\(batch\['left'\]: \(4, 3, 8, 8\) torch.float32; batch\['right'\]"),
        ({"image": X, "first": Y, "second": Y + 1}, "can be the labels"),
        ((X, Y[:3]), r"4 inputs and labels of shape \(3,\)"),
        ({"text": ["a", "b"]}, "no tensors"),
        (None, "NoneType"),
    ],
)
def test_forms_that_cannot_be_told(batch: object, message: str):
    with pytest.raises(
        MisconfigurationException, match=r"^RelevanceMonitor cannot read inputs and labels.*batch_fn=f.*token num"
    ) as error:
        read_batch(batch)
    assert error.match(message)


def test_images_of_differing_size_are_grouped():
    images = [torch.rand(3, 8, 8), torch.rand(3, 6, 9), torch.rand(3, 8, 8)]
    groups = read_batch((images, torch.tensor([5, 6, 7])))
    assert [group.inputs[0].shape for group in groups] == [(2, 3, 8, 8), (1, 3, 6, 9)]
    assert [group.labels.tolist() for group in groups] == [[5, 7], [6]]
    assert [group.places.tolist() for group in groups] == [[0, 2], [1]]
    assert torch.equal(groups[0].inputs[0][1], images[2])


def test_images_of_bytes_become_floating_point_where_nothing_else_can_be_the_inputs():
    bytes_ = (X * 255).to(torch.uint8)
    for batch in ((bytes_, Y), {"a": bytes_, "b": Y}):
        [samples] = read_batch(batch)
        assert samples.inputs[0].is_floating_point()
        assert torch.equal(samples.inputs[0], bytes_)
        assert samples.labels is Y
    [samples] = read_batch({"u": X, "mask": bytes_, "y": Y})
    assert samples.inputs[0] is X
    [samples] = read_batch(None, lambda batch: (bytes_, Y))
    assert samples.inputs[0].is_floating_point()


def test_batch_fn():
    [samples] = read_batch({"u": X, "v": X + 1, "w": [0, 1, 2, 3]}, lambda batch: ((batch["u"], batch["v"]), batch["w"]))
    assert samples.inputs[0] is X
    assert torch.equal(samples.inputs[1], X + 1)
    assert samples.labels.tolist() == [0, 1, 2, 3]
    [samples] = read_batch(X, lambda batch: (batch, None))
    assert samples.labels is None
    assert read_batch((X[:0], Y[:0])) == []


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (X, r"must return \(inputs, labels\), got Tensor"),
        ((X, Y, Y), "must return"),
        (("X", Y), "whose inputs are a tensor"),
        ((X, ["a", "b"]), "whose labels are a tensor or None"),
        ((X, Y[:2]), "4 inputs and labels of shape"),
        (((X, X[:2]), Y), "inputs of 4 and 2 samples"),
    ],
)
def test_a_batch_fn_that_gives_something_else(result: object, message: str):
    with pytest.raises(MisconfigurationException, match=message):
        read_batch(None, lambda batch: result)


def test_samples_are_taken_cloned_and_joined():
    [samples] = read_batch((X, Y))
    assert len(samples[1:3]) == 2
    assert samples[1:3].inputs[0].data_ptr() == X[1:].data_ptr()
    assert samples[torch.tensor([3, 0])].labels.tolist() == [3, 0]
    own = samples.cloned()
    assert torch.equal(own.inputs[0], X)
    assert own.inputs[0].data_ptr() != X.data_ptr()
    both = Samples.joined([samples[:1], samples[2:]])
    assert both.labels.tolist() == [0, 2, 3]
    assert both.shape == samples.shape
    with torch.inference_mode():
        made_there = torch.rand(4, 3, 8, 8)
    with torch.inference_mode(False):
        assert not Samples((made_there,), None, torch.arange(4)).cloned().inputs[0].is_inference()
