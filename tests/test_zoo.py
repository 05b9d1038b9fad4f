"""Every torchvision classification model is explained as it is, and conserves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
from torch import nn

from lrp_lightning import Epsilon, EpsilonPlus, SelectiveLRP

pytestmark = pytest.mark.slow


def state(model: nn.Module) -> list[Any]:
    """All that a pass could change, by identity and version where values are many."""
    tensors = [*model.parameters(), *model.buffers()]
    return [
        [(name, id(t)) for name, t in [*model.named_parameters(), *model.named_buffers()]],
        [(t._version, t.data_ptr(), t.requires_grad, t.grad is None) for t in tensors],
        [(m.training, sorted(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
    ]


@pytest.mark.parametrize("name", zoo.NAMES)
def test_conserves(name: str) -> None:
    model, x = zoo.build(name)
    with torch.no_grad():
        logits = model(x)
    before, rng = state(model), torch.get_rng_state()
    for rule in (Epsilon(), EpsilonPlus()):
        trace = SelectiveLRP(model, rule).trace(x, target=lambda logits: logits.argmax(1))
        torch.testing.assert_close(trace.output, logits, rtol=1e-4, atol=1e-4)
        assert trace.conservation_error.max() <= 1e-3
        assert trace.inputs.isfinite().all()
        assert trace.inputs.any()
    assert state(model) == before
    assert torch.equal(torch.get_rng_state(), rng)
