"""What is explained of a LightningModule, and how labels of every kind are read."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lrp_lightning import SelectiveLRP
from lrp_lightning.callbacks.classifier import Classifier, label_sets


class Module(LightningModule):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.net = nn.Linear(3, 4)
        self.output = output

    def forward(self, x: Tensor) -> object:
        return self.output(self.net(x))


@pytest.mark.parametrize(
    "output",
    [
        lambda y: y,
        lambda y: {"logits": y, "loss": None},
        lambda y: SimpleNamespace(logits=y),
        lambda y: (y, y + 1),
        lambda y: torch.stack([y, y], 1),
        lambda y: torch.stack([y, y, y, y], -1).unflatten(-1, (2, 2)),
    ],
)
def test_the_logits_are_found_in_an_output(output: object):
    module, x = Module(output), torch.rand(5, 3)
    torch.testing.assert_close(Classifier(module)(x), module.net(x))


def test_a_single_logit_is_two_classes_whose_softmax_is_its_sigmoid():
    module, x = Module(lambda y: y[:, 0]), torch.rand(5, 3)
    z = module(x)
    both = Classifier(module)(x)
    torch.testing.assert_close(both.softmax(1)[:, 1], z.sigmoid())
    trace = SelectiveLRP(Classifier(module)).trace(x, target=lambda logits: logits.argmax(1))
    torch.testing.assert_close(trace.explained, z.abs() / 2)
    assert trace.conservation_error.max() < 1e-5


@pytest.mark.parametrize("output", [lambda y: "a", lambda y: {"y": y}, lambda y: y.sum(), lambda y: ()])
def test_outputs_without_logits(output: object):
    with pytest.raises(MisconfigurationException, match=r"explains outputs \(N, classes\).*with model="):
        Classifier(Module(output))(torch.rand(5, 3))


def test_it_is_a_view_of_the_module_it_looks_at():
    module = Module(lambda y: y)
    seen = Classifier(module)
    assert [name for name, _ in seen.named_modules()] == ["", "net"]
    assert [name for name, _ in seen.named_parameters()] == ["net.weight", "net.bias"]
    assert [name for name, _ in Classifier(module, "net").named_parameters()] == ["weight", "bias"]
    assert not module._forward_hooks


def test_a_compiled_part_is_explained_under_its_own_names():
    module, x = Module(lambda y: y), torch.rand(5, 3)
    module.net = torch.compile(module.net, backend="eager")
    assert list(SelectiveLRP(Classifier(module, "net")).trace(x, target=0).relevance) == ["input", "weight"]
    assert list(SelectiveLRP(Classifier(module)).trace(x, target=0).relevance) == ["input", "net"]


LOGITS = torch.zeros(3, 4)
ONE_HOT = torch.eye(4).bool()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (torch.tensor([2, 0, 3]), ONE_HOT[[2, 0, 3]]),
        (torch.tensor([[2], [0], [3]]), ONE_HOT[[2, 0, 3]]),
        (ONE_HOT[[2, 0, 3]].float(), ONE_HOT[[2, 0, 3]]),
        (ONE_HOT[[2, 0, 3]].long(), ONE_HOT[[2, 0, 3]]),
        (torch.tensor([[0.9, 0.1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]),
         torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]).bool()),
        (torch.tensor([[2, 2, 1], [0, -100, 0], [3, 3, 3]]), ONE_HOT[[2, 0, 3]] | ONE_HOT[[1, 0, 3]]),
        (torch.tensor([[[2, 1]], [[0, 0]], [[3, 3]]]), ONE_HOT[[2, 0, 3]] | ONE_HOT[[1, 0, 3]]),
        (torch.tensor([2, -1, 3]), ONE_HOT[[2, 0, 3]] & torch.tensor([[True], [False], [True]])),
    ],
)  # fmt: skip
def test_labels_as_sets_of_classes(labels: Tensor, expected: Tensor):
    assert torch.equal(label_sets(labels, LOGITS), expected)


@pytest.mark.parametrize(
    "labels", [torch.tensor([0, 1, 1]), torch.tensor([[0.0], [1], [1]]), torch.tensor([False, True, True])]
)
def test_labels_of_a_single_logit(labels: Tensor):
    assert label_sets(labels, LOGITS[:, :2]).tolist() == [[True, False], [False, True], [False, True]]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 4, 1]), "0 to 3, as the model's output has 4 classes; got 4"),
        (torch.rand(3), r"got \(3,\) of torch.float32"),
    ],
)
def test_labels_that_cannot_be_read(labels: Tensor, message: str):
    with pytest.raises(MisconfigurationException, match=f"RelevanceMonitor: labels must be class numbers.*{message}"):
        label_sets(labels, LOGITS)


@pytest.mark.parametrize(
    "labels", [torch.tensor([0.0, 3, 1]), torch.tensor([[0.0], [0.4], [1]]), torch.tensor([0, 1, torch.nan])]
)
def test_labels_of_a_regression_with_one_output(labels: Tensor):
    with pytest.raises(
        MisconfigurationException, match=r"float32, from .* for an output of 2 classes. It explains classifiers"
    ):
        label_sets(labels, LOGITS[:, :2])


def test_labels_of_a_regression_with_an_output_for_each():
    with pytest.raises(MisconfigurationException, match=r"\(3, 4\) of torch.float32, from -1 to 2"):
        label_sets(torch.tensor([-1.0, 0, 1, 2]).expand(3, 4), LOGITS)


def test_no_labels():
    assert label_sets(None, LOGITS) is None


def test_a_forward_that_takes_other_things_than_inputs_is_named() -> None:
    class Whole(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 3)

        def forward(self, **batch: Tensor) -> Tensor:
            return self.net(batch["x"])

    with pytest.raises(MisconfigurationException, match=r"with the 1 input tensors.*Whole does not take these.*model="):
        Classifier(Whole())(torch.randn(2, 4))
    assert Classifier(Whole(), "net")(torch.randn(2, 4)).shape == (2, 3)
