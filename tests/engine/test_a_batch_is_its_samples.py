"""A batch is its samples: what each gets in it is what it gets alone, wherever a network puts samples meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from programs import PIECES, WIDTH, Program
from small_networks import Between
from torch import Tensor, nn

from lrp_lightning import Epsilon, SelectiveLRP, TopK, Trace, masked_forward
from lrp_lightning.errors import LRPError

N = 4


@pytest.fixture(autouse=True)
def in_double() -> Iterator[None]:
    torch.set_default_dtype(torch.double)
    yield
    torch.set_default_dtype(torch.float)


def inputs(seed: int) -> Tensor:
    return torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(seed))


def off(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().sum() / other.abs().sum().clamp(min=1e-6))


def differences(model: nn.Module, x: Tensor) -> tuple[list[str], str]:
    """Where a batch is not its samples; and why it is refused, if it is."""
    lrp = SelectiveLRP(model, Epsilon(), TopK(3))
    try:
        whole = lrp.trace(x, 1)
    except LRPError as error:
        return [], str(error)
    alone = [lrp.trace(x[i : i + 1], 1) for i in range(len(x))]
    found = []
    with torch.no_grad():
        if not torch.allclose(whole.output, model(x), atol=1e-9):
            found.append("the output is not the model's")
    for i, one in enumerate(alone):
        if off(whole.inputs[i : i + 1], one.inputs) > 1e-6:
            found.append(f"relevance of sample {i}")
        if whole.masks.keys() == one.masks.keys():  # a loop over samples has a call of its own for each
            found += [f"{what} in sample {i}" for what in of_layers(whole, one, i)]
    if whole.conservation_error.max() > 1e-6:
        found.append(f"conservation error {float(whole.conservation_error.max()):.1e}")
    if all(t.masks.keys() == whole.masks.keys() for t in alone):
        apart = [
            masked_forward(model, x[i : i + 1], {n: m[i : i + 1] for n, m in whole.masks.items()}) for i in range(len(x))
        ]
        if not torch.allclose(masked_forward(model, x, whole.masks), torch.cat(apart), atol=1e-9):
            found.append("masked_forward")
    found += edges(model, x)
    return found, ""


def of_layers(whole: Trace, alone: Trace, i: int) -> list[str]:
    found = [f"relevance of layer {n}" for n, r in whole.relevance.items() if off(r[i : i + 1], alone.relevance[n]) > 1e-6]
    found += [f"the mask of layer {n}" for n, m in whole.masks.items() if not torch.equal(m[i : i + 1], alone.masks[n])]
    return found + [
        f"what {name} absorbs"
        for name, r in whole.absorbed.items()
        if name in alone.absorbed and not torch.allclose(r[i : i + 1], alone.absorbed[name], 1e-6, 1e-9)
    ]


def edges(model: nn.Module, x: Tensor) -> list[str]:
    lrp = SelectiveLRP(model, Epsilon())
    try:
        whole = lrp.trace(x, 1, edges=True, per_sample=True)
        alone = [lrp.trace(x[i : i + 1], 1, edges=True) for i in range(len(x))]
    except LRPError:  # neurons that meet are refused, in the batch or alone
        return []
    return [
        f"edges {pair} of sample {i}"
        for i, one in enumerate(alone)
        if one.edges.keys() == whole.edges.keys()
        for pair, found in one.edges.items()
        if found.shape == whole.edges[pair][i].shape and off(whole.edges[pair][i], found) > 1e-6
    ]


@pytest.mark.parametrize("piece", PIECES)
def test_each_piece(piece: str) -> None:
    wrong, refused = differences(Program(0, piece), inputs(0))
    assert not wrong
    assert not refused, "each of them can be followed"


def test_random_programs(request: pytest.FixtureRequest) -> None:
    first, many = request.config.getoption("--program-seed"), request.config.getoption("--programs")
    refusals = []
    for seed in range(first, first + many):
        program = Program(seed)
        wrong, refused = differences(program, inputs(seed))
        assert not wrong, (seed, program, wrong)
        refusals += [(seed, program, refused)] if refused else []
    assert len(refusals) < 0.1 * many, refusals[0]


@pytest.mark.parametrize(
    "mix",
    [
        lambda h: h - h.mean(0),
        lambda h: h @ h.T @ h,
        lambda h: nn.functional.pad(h[:, : len(h)] @ h[:, : len(h)], (0, WIDTH - len(h))),
        lambda h: nn.functional.scaled_dot_product_attention(*[h[None]] * 3)[0],
        lambda h: torch.softmax(h, 0) * h,
        lambda h: h + h.roll(1, 0),
        lambda h: h.cumsum(0),
        lambda h: h.sort(0).values,
        lambda h: nn.functional.avg_pool1d(h.T[None], 3, 1, 1)[0].T,
        lambda h: torch.stack([h, h.flip(0)]).sum(0),
        lambda h: h[:1] + h,
    ],
    ids=["mean", "gram", "squared", "attended", "softmax", "rolled", "cumsum", "sorted", "pooled", "flipped", "first"],
)
def test_samples_that_are_brought_together_are_refused(mix) -> None:
    with pytest.raises(LRPError, match=r"torch\..* in the model's own forward .*samples"):
        SelectiveLRP(Between(mix, WIDTH, WIDTH), Epsilon()).attribute(inputs(0), 1)
    SelectiveLRP(Between(mix, WIDTH, WIDTH), Epsilon()).attribute(inputs(0)[:1], 1)  # of one sample there is nothing to mix
