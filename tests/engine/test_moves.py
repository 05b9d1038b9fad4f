"""What is known of samples and neurons after every operator that moves values, against running it on their numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrp_lightning.axes import Axis
from lrp_lightning.engine.facts import Facts
from lrp_lightning.engine.interpreter import Interpreter
from lrp_lightning.engine.layers import Layers
from lrp_lightning.engine.neuron_numbers import numbers_of
from lrp_lightning.engine.operators.moves import PLANS
from lrp_lightning.engine.operators.table import TABLE
from lrp_lightning.engine.visitor import Visitor
from lrp_lightning.layers import LayerNames

SHAPE = (3, 4, 6)
INDEX = torch.tensor([2, 0, 1])

MOVES: dict[str, list[Callable[[Tensor], Tensor | tuple[Tensor, ...]]]] = {
    "reshape": [lambda x: x.reshape(12, 6), lambda x: torch.reshape(x, (3, 24)), lambda x: x.reshape(-1)],
    "view": [lambda x: x.view(3, 2, 2, 6), lambda x: x.view(-1, 6), lambda x: x.view((72,))],
    "flatten": [
        lambda x: x.flatten(1),
        lambda x: torch.flatten(x),
        lambda x: torch.flatten(start_dim=0, end_dim=1, input=x),
    ],
    "unflatten": [lambda x: x.unflatten(1, (2, 2)), lambda x: torch.unflatten(x, -1, (3, -1))],
    "ravel": [torch.ravel],
    "view_as": [lambda x: x.view_as(torch.empty(12, 6))],
    "reshape_as": [lambda x: x.reshape_as(torch.empty(3, 24))],
    "squeeze": [lambda x: x[:1].squeeze(0), lambda x: x[:, :1].squeeze()],
    "unsqueeze": [lambda x: x.unsqueeze(1), lambda x: torch.unsqueeze(x, -1)],
    "atleast": [
        lambda x: torch.atleast_1d(x[0, 0]),
        lambda x: torch.atleast_3d(x[:, 0]),
        lambda x: torch.atleast_2d(x[:, 0, 0]),
    ],
    "transpose": [lambda x: x.transpose(0, 1), lambda x: torch.swapaxes(x, 0, 2), lambda x: x.swapdims(-1, 0)],
    "t": [
        lambda x: x[0].t(),
        lambda x: x[:, 0].T,
        lambda x: x.mT,
        lambda x: x[:, :, 0].H,
        lambda x: x.adjoint(),
        lambda x: x.mH,
    ],
    "permute": [
        lambda x: x.permute(2, 0, 1),
        lambda x: torch.permute(x, (1, 2, 0)),
        lambda x: torch.permute(dims=(-1, 0, 1), input=x),
    ],
    "movedim": [lambda x: x.movedim(0, -1), lambda x: torch.moveaxis(x, (0, 1), (2, 0))],
    "expand": [
        lambda x: x[:, :1].expand(-1, 5, -1),
        lambda x: x.expand(2, 3, 4, 6),
        lambda x: x[0, 0].expand_as(x),
        lambda x: torch.broadcast_to(x[0], SHAPE),
    ],
    "flip": [
        lambda x: x.flip(0),
        lambda x: x.flip([0, 2]),
        lambda x: torch.fliplr(x),
        torch.flipud,
        lambda x: torch.flip(x, dims=(1,)),
    ],
    "roll": [lambda x: x.roll(1, 0), lambda x: torch.roll(x, (1, -2), (0, 2)), lambda x: torch.roll(x, shifts=2, dims=1)],
    "rot90": [lambda x, k=k: torch.rot90(x, k, (0, 1)) for k in (1, 2, 3, 4, -1)] + [lambda x: x.rot90(1, (2, 0))],
    "narrow": [lambda x: x.narrow(0, 1, 2), lambda x: torch.narrow(x, -1, 2, 3), lambda x: x.narrow(1, torch.tensor(1), 2)],
    "select": [lambda x: x.select(0, 1), lambda x: torch.select(x, 1, -1)],
    "split": [
        lambda x: x.split(2, 1),
        lambda x: torch.split(x, [1, 2], 0),
        lambda x: torch.split_with_sizes(x, [1, 3], 1),
        lambda x: x.tensor_split(2, 2),
        lambda x: torch.split(split_size_or_sections=2, tensor=x, dim=0),
    ],
    "chunk": [lambda x: x.chunk(2, 0), lambda x: torch.chunk(x, chunks=3, dim=-1)],
    "stacks": [lambda x: torch.hsplit(x, 2), lambda x: torch.vsplit(x, 3), lambda x: torch.dsplit(x, 2)],
    "unbind": [lambda x: x.unbind(), lambda x: torch.unbind(x, 1)],
    "unfold": [lambda x: x.unfold(2, 3, 1), lambda x: x.unfold(0, 2, 1), lambda x: x.unfold(1, 2, 2)],
    "diagonal": [lambda x: x.diagonal(), lambda x: torch.diagonal(x, 1, 1, 2), lambda x: x.diagonal(-1, 0, 1)],
    "repeat": [
        lambda x: x.repeat(2, 1, 3),
        lambda x: x.repeat(2, 1, 1, 1),
        lambda x: torch.tile(x, (2,)),
        lambda x: x.tile(2, 1, 1),
    ],
    "repeat_interleave": [
        lambda x: x.repeat_interleave(2, 0),
        lambda x: torch.repeat_interleave(x, torch.tensor([1, 0, 2]), 0),
        lambda x: x.repeat_interleave(2),
        lambda x: x.repeat_interleave(repeats=3, dim=1),
    ],
    "index_select": [lambda x: x.index_select(0, INDEX), lambda x: torch.index_select(x, dim=1, index=torch.tensor([3, 3]))],
    "gather": [
        lambda x: x.gather(0, INDEX[:, None, None].expand(SHAPE)),
        lambda x: torch.gather(x, 2, torch.tensor([5, 0]).expand(3, 4, 2)),
        lambda x: torch.take_along_dim(x, INDEX[:, None, None], 0),
        lambda x: torch.take_along_dim(x, torch.tensor([[[1]]]), dim=2),
    ],
    "getitem": [
        lambda x: x[1:],
        lambda x: x[::2, 1],
        lambda x: x[..., 0],
        lambda x: x[:, None, ..., 2:4],
        lambda x: x[INDEX],
        lambda x: x[INDEX.tolist()],
        lambda x: x[torch.tensor([True, False, True])],
        lambda x: x[-1],
        lambda x: x[:, [3, 1]],
        lambda x: x[None, 0, :, ::3],
        lambda x: x[INDEX, :, 2],
        lambda x: x[INDEX, INDEX],
        lambda x: x[x.detach() > -100],
        lambda x: x[1, ..., INDEX],
        lambda x: x[torch.tensor(1)],
        lambda x: x[:, torch.tensor([[0, 1], [2, 3]])],
    ],
    "channel_shuffle": [lambda x: F.channel_shuffle(x, 2)],
    "pixel_shuffle": [
        lambda x: F.pixel_shuffle(x[..., None].expand(3, 4, 6, 2), 2),
        lambda x: F.pixel_unshuffle(x[:, :, None].expand(3, 4, 2, 6), 2),
    ],
    "im2col": [lambda x: F.unfold(x[:, :2].reshape(3, 1, 2, 6), (2, 2))],
    "as_strided": [
        lambda x: x.as_strided((3, 4, 3), (24, 6, 2)),
        lambda x: torch.as_strided(x[1:], (2, 6), (24, 1), 24),
    ],
    "take": [lambda x: x.take(torch.tensor([0, 30, 71]))],
    "same": [
        lambda x: x.clone(),
        lambda x: x.contiguous(),
        lambda x: x.to(torch.float64),
        lambda x: x.double(),
        lambda x: x.type_as(x),
        lambda x: x.positive(),
        lambda x: x.cpu(),
        lambda x: x.resolve_conj(),
        lambda x: torch.as_tensor(x),
        lambda x: torch.as_tensor(data=x, dtype=torch.float64),
        lambda x: torch.asarray(x, requires_grad=x.requires_grad),
    ],
    "triangle": [lambda x: x.tril(), lambda x: torch.triu(x, 1), lambda x: torch.diag_embed(x[0])],
    "cat": [
        lambda x: torch.cat([x, x.flip(0)]),
        lambda x: torch.cat((x, x * 2), dim=-1),
        lambda x: torch.concat([x, torch.zeros(3, 1, 6)], 1),
        lambda x: torch.hstack([x, x]),
        lambda x: torch.vstack((x[:2], x[2:])),
        lambda x: torch.dstack([x, x]),
        lambda x: torch.column_stack([x[:, 0], x[:, 1]]),
        lambda x: torch.cat([torch.zeros(0), x[:, 0, 0]]),
    ],
    "stack": [
        lambda x: torch.stack([x, x], 1),
        lambda x: torch.stack([x[0], x[1], x[2]]),
        lambda x: torch.stack(x.unbind(1), -1),
    ],
    "pad": [
        lambda x: F.pad(x, (1, 2)),
        lambda x: F.pad(x, (0, 0, 1, 1), value=0.5),
        lambda x: F.pad(x, (1, 1), mode="reflect"),
        lambda x: F.pad(x, (-1, 0, 0, -1)),
        lambda x: F.pad(x, (0, 0, 0, 0, 1, 0))[1:],
        lambda x: F.pad(x, (2, 2), mode="circular"),
    ],
    "where": [
        lambda x: torch.where(x > 0, x, 0.0),
        lambda x: x.masked_fill(x > 0, 1.0),
        lambda x: torch.where(x > 0, x, x.flip(2)),
    ],
    "scatter": [
        lambda x: x.new_zeros(SHAPE).scatter(1, torch.tensor([1, 0, 3, 2])[None, :, None].expand(SHAPE), x),
        lambda x: x.index_copy(1, torch.tensor([0, 2]), x[:, :2] * 2),
        lambda x: x.index_fill(1, torch.tensor([0]), 1.0),
        lambda x: torch.select_scatter(x, x[:, 0], 1, 2),
        lambda x: torch.slice_scatter(x, x[:1], 0, 0, 1),
        lambda x: x.index_put((INDEX,), x[INDEX] * 2),
        lambda x: torch.diagonal_scatter(x, x.diagonal()),
    ],
    "broadcast_tensors": [lambda x: torch.broadcast_tensors(x, x[:, :1] * 2)],
}
CASES = [pytest.param(move, id=f"{name}-{i}") for name, moves in MOVES.items() for i, move in enumerate(moves)]


class Known:
    """A forward of which only the facts are looked at."""

    def __init__(self, samples: int) -> None:
        names = LayerNames(nn.Identity())
        self.visitor = Visitor(Layers(names, samples))
        self.visitor.follows = True  # type: ignore[misc]
        self.run = Interpreter(names, TABLE, self.visitor, samples)

    def after(self, move: Callable, x: Tensor, samples: Axis, neurons: Axis) -> list[tuple[Tensor, Facts]]:
        self.run.facts[x] = Facts(samples, neurons)
        with self.run:
            result = move(x)
        made = result if isinstance(result, tuple | list) else (result,)
        return [(t, self.run.of(t)) for t in made]


@pytest.mark.parametrize("move", CASES)
def test_samples_and_neurons_are_where_brute_force_has_them(move: Callable) -> None:
    x = torch.rand(SHAPE).add_(0.1).requires_grad_()
    samples, neurons = Axis.along(SHAPE, 0), Axis.along(SHAPE, 1, range(10, 14))
    for place, (t, facts) in enumerate(Known(3).after(move, x, samples, neurons)):
        for axis, known in ((samples, facts.samples), (neurons, facts.neurons)):
            numbers = torch.broadcast_to(numbers_of(axis), SHAPE).contiguous()
            expected = move(numbers)
            expected = expected if isinstance(expected, Tensor) else expected[place]
            assert known is not None, facts.lost
            found = torch.broadcast_to(numbers_of(known) if isinstance(known, Axis) else known, t.shape)
            if axis is neurons:
                somebody = (expected - expected.round()).abs() < 1e-9  # what is scaled or filled in is not looked at
                assert torch.equal(found[somebody & (found > 0)], _unscaled(expected, found)[somebody & (found > 0)])
            else:
                assert torch.equal(found, _unscaled(expected, found))


def _unscaled(expected: Tensor, found: Tensor) -> Tensor:
    """The moves of this test that also double values do so to numbers too; constants are of the sample beside them."""
    expected = torch.where(expected == 2 * found, found, expected)
    return torch.where((expected == 0) | (expected == 0.5) | (expected == 1), found, expected)


def test_every_plan_is_tried() -> None:
    tried = set()

    class Noted(dict):
        def get(self, func: Callable, default: object = None) -> object:
            operator = TABLE.get(func)
            tried.add(operator.name if operator is not None else "")
            return operator

    known = Known(3)
    known.run.table = Noted()
    for moves in MOVES.values():
        for move in moves:
            known.after(move, torch.rand(SHAPE).requires_grad_(), Axis.along(SHAPE, 0), Axis.along(SHAPE, 1))
    names = {name.removesuffix(".__get__") for name in PLANS}
    assert names - tried <= {
        "float",
        "half",
        "bfloat16",
        "cuda",
        "type",
        "alias",
        "im2col",
        "requires_grad_",
        "native_channel_shuffle",
        "resolve_neg",
    }
