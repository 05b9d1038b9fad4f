"""Memory that runs out at any operator of a look: measures and what is shown are those of a look with room enough."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from trainings import Classifier, loaders, trainer

from lrp_lightning import TopK
from lrp_lightning.callbacks import RelevanceMonitor
from lrp_lightning.callbacks import classifier as classifiers
from lrp_lightning.callbacks.batches import Samples, read_batch
from lrp_lightning.callbacks.budget import Budget
from lrp_lightning.callbacks.measures import Measures
from lrp_lightning.callbacks.observation import Observation, Remembered
from lrp_lightning.callbacks.sampling import LoaderShare, Sampling
from lrp_lightning.callbacks.settings import SCALARS

ERRORS = (torch.OutOfMemoryError, RuntimeError)


class Short(TorchDispatchMode):
    """Has no room for the result of one operator, the ``at``-th that makes a tensor of its own; counts them."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.made = at, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any("Tensor" in str(r.type) and r.alias_info is None for r in function._schema.returns):
            self.made += 1
            if self.made == self.at:
                raise ERRORS[self.at % 2]("CUDA out of memory. Tried to allocate more than there is")
        return function(*args, **(kwargs or {}))


def two_epochs(at: int) -> tuple[dict[str, Any], int]:
    """What the second of two epochs leaves, and how many tensors its second micro-batch makes; the at-th finds no room."""
    torch.manual_seed(0)
    model, short = Classifier(4).eval(), Short(at)
    log = [*SCALARS, "shares", "heatmaps", "mistakes", "critical_paths"]
    settings = RelevanceMonitor(selection=TopK(0.3), n_heatmaps=3, graph_classes=2, log=log).settings
    measures, own, looks = Measures(log), Observation._look, 0

    def look(observation: Observation, samples: Samples) -> None:
        nonlocal looks
        looks += 1
        with short if looks == 5 else nullcontext():
            own(observation, samples)

    with mock.patch.object(Observation, "_look", look):
        for _ in range(2):
            measures.reset(torch.device("cpu"), training=True)
            sampling, remembered = Sampling(24, [LoaderShare(24)]), Remembered()
            view = classifiers.Classifier(model)
            observation = Observation(settings, view, measures, Budget(None, 8), sampling, remembered)
            for batch in loaders()[1]:
                observation.see(read_batch([batch[0], batch[1] % 4]))
            observation.finish()
            with measures.gathered(bool):
                values = measures.compute()
    assert looks == (6 if at == 0 else 9)  # from the failure on in halves
    return {
        **{name: value.item() for name, value in values.items()},
        "samples": observation.samples,
        "shares": observation.shares,
        "of class": {label: Samples.joined(parts).inputs[0] for label, parts in observation.of_class.items()},
        "worst": [(margin, sample.inputs[0]) for margin, sample in observation._worst],
        "shown": [sample.inputs[0] for sample in remembered.shown],
        "classes": remembered.classes,
    }, short.made


@pytest.mark.parametrize("every", [301, pytest.param(29, marks=pytest.mark.slow)])
def test_nothing_is_counted_twice_wherever_memory_runs_out(every: int) -> None:
    """At each so many tensors of a micro-batch; at all of them it takes minutes."""
    expected, tensors = two_epochs(0)
    assert expected["samples"] == 24
    assert {"circuit_agreement", "stability", "contest_accuracy"} <= expected.keys()
    assert tensors > 800
    for at in range(1, tensors + 1, every):
        torch.testing.assert_close(two_epochs(at)[0], expected, rtol=1e-4, atol=1e-5, msg=lambda m, at=at: f"{at}: {m}")


def test_batches_of_the_size_of_a_micro_batch_are_looked_at_once(tmp_path: Path) -> None:
    class Large(Classifier):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not self.training and torch.is_grad_enabled() and len(x) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is")
            return super().forward(x)

    def measured(model: Classifier) -> dict[str, float]:
        torch.manual_seed(0)
        model.load_state_dict(Classifier().state_dict())
        monitor = RelevanceMonitor(max_samples=24, log=[name for name in SCALARS if name != "seconds"])
        monitor._budget.micro_batch = 8
        [found] = trainer(tmp_path, monitor).validate(model, loaders()[1], verbose=False)
        return found

    assert measured(Large()) == pytest.approx(measured(Classifier()), rel=1e-3, abs=1e-6)
