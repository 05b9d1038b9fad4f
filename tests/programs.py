"""Random programs that move samples about: networks whose every sample has its own way, in a batch or alone.

Each is a chain of pieces. A piece moves the features ``(N, D)`` somewhere, does something there, and brings them back, so
that what a sample gets depends on it alone; where the samples are meanwhile is what the engine has to know.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 8
Do = Callable[[Tensor], Tensor]


def filled(h: Tensor, do: Do, how: int) -> Tensor:
    """A buffer, filled row by row."""
    out = torch.zeros_like(h)
    for i in range(len(h)):
        if how == 0:
            out[i] = do(h[i])
        elif how == 1:
            out[i : i + 1] = do(h[i : i + 1])
        elif how == 2:
            out[i].copy_(do(h[i]))
        else:
            out = out.index_copy(0, torch.tensor([i]), do(h[i])[None])
    return out


def columns(h: Tensor, do: Do) -> Tensor:
    """A buffer, filled step by step along another dimension."""
    z = do(h)
    out = torch.empty(z.shape)
    for step in range(z.shape[-1]):
        out[..., step] = z[..., step] * 2.0
    return out


def order(n: int) -> Tensor:
    return torch.arange(n).roll(1).flip(0)


def back(n: int) -> Tensor:
    return order(n).argsort()


PIECES: dict[str, Callable[[Tensor, Do], Tensor]] = {
    "views added": lambda h, do: (lambda z: z[: len(h)] + z[len(h) :])(do(torch.cat([h, h.flip(1)], 0))),
    "views averaged": lambda h, do: do(torch.cat((h, -h, h * 2))).unflatten(0, (3, len(h))).mean(0),
    "views by keyword": lambda h, do: torch.chunk(input=do(torch.cat(tensors=[h, h * 2], dim=0)), chunks=2, dim=0)[1],
    "views interleaved": lambda h, do: do(torch.stack([h, h.flip(1)], 1).flatten(0, 1)).view(len(h), 2, -1).sum(1),
    "repeated": lambda h, do: do(h.repeat(2, 1)).view(2, len(h), -1).sum(0),
    "tiled": lambda h, do: do(torch.tile(h, (3, 1)))[len(h) : 2 * len(h)],
    "interleaved": lambda h, do: do(h.repeat_interleave(2, 0)).reshape(len(h), 2, -1).amax(1),
    "interleaved, every second": lambda h, do: do(torch.repeat_interleave(h, 2, dim=0))[::2],
    "expanded": lambda h, do: do(h.expand(3, *h.shape)).sum(0),
    "expanded behind": lambda h, do: do(h[:, None].expand(-1, 3, -1)).mean(1),
    "T": lambda h, do: torch.relu(h.T).T + do(h),
    "transposed and back": lambda h, do: do(h.t().relu().transpose(0, 1)),
    "moved": lambda h, do: do(h.movedim(0, -1).contiguous().movedim(-1, 0)),
    "permuted": lambda h, do: do(h[:, :, None].permute(1, 2, 0)[:, 0].permute(1, 0)),
    "tokens first": lambda h, do: do(torch.stack([h, h * 2, h.flip(1)])).mean(0),
    "tokens in the middle": lambda h, do: do(torch.stack([h, h * 2], 1)).transpose(0, 1).sum(0),
    "heads first by cat": lambda h, do: torch.cat(do(torch.cat(h.split(4, -1), 0).repeat(1, 2)).split(len(h), 0), -1)[
        :, :WIDTH
    ],
    "heads first by stack": lambda h, do: (
        do(torch.stack(h.chunk(2, -1)).flatten(0, 1).repeat(1, 2))
        .unflatten(0, (2, len(h)))
        .transpose(0, 1)
        .flatten(1)[:, :WIDTH]
    ),
    "heads by view": lambda h, do: do(
        h.view(len(h), 2, 4).transpose(0, 1).reshape(-1, 4).relu().view(2, len(h), 4).transpose(0, 1).flatten(1)
    ),
    "rolled": lambda h, do: do(h.roll(1, 0)).roll(-1, 0),
    "flipped": lambda h, do: do(h.flip(0)).flip([0]),
    "flipud": lambda h, do: torch.flipud(do(torch.flipud(h))),
    "turned": lambda h, do: do(torch.rot90(h, 2, (0, 1))).rot90(2, (0, 1)),
    "turned once": lambda h, do: do(h.rot90(1, (0, 1)).rot90(-1, (0, 1))),
    "indexed": lambda h, do: do(h[order(len(h))])[back(len(h))],
    "indexed by a list": lambda h, do: do(h[order(len(h)).tolist()])[back(len(h)).tolist(), :],
    "index_select": lambda h, do: torch.index_select(do(h.index_select(0, order(len(h)))), dim=0, index=back(len(h))),
    "gathered": lambda h, do: do(h.gather(0, order(len(h))[:, None].expand_as(h))).gather(
        0, back(len(h))[:, None].expand(-1, WIDTH)
    ),
    "taken along": lambda h, do: do(torch.take_along_dim(h, order(len(h))[:, None].expand_as(h), 0))[back(len(h))],
    "masked": lambda h, do: do(torch.cat([h, h], 0)[torch.arange(2 * len(h)) >= len(h)]),
    "rows": lambda h, do: torch.stack([do(row) for row in h]),
    "rows by unbind": lambda h, do: torch.stack([do(row[None])[0] for row in h.unbind()]),
    "rows by cat": lambda h, do: torch.cat([do(h[i : i + 1]) for i in range(len(h))]),
    "rows by narrow": lambda h, do: torch.cat([do(h.narrow(0, i, 1)) for i in reversed(range(len(h)))]).flip(0),
    "rows by select": lambda h, do: torch.vstack([do(h.select(0, i)) for i in range(len(h))]),
    **{f"filled {how}": (lambda h, do, how=how: filled(h, do, how)) for how in range(4)},
    "columns": columns,
    "padded": lambda h, do: do(F.pad(h, (0, 0, 1, 2))[1:-2]),
    "flat": lambda h, do: do(h.flatten().view(len(h), -1)),
    "ravelled": lambda h, do: do(torch.ravel(h * 2).reshape(h.shape)),
    "unfolded": lambda h, do: do(h.unfold(0, 1, 1).squeeze(-1)),
    "windows": lambda h, do: do(h.unfold(1, 4, 4).flatten(1)),
    "diagonal": lambda h, do: do(h.expand(len(h), *h.shape).diagonal(dim1=0, dim2=1).mT),
    "einsum": lambda h, do: do(torch.einsum("nd->dn", h).relu().t()),
    "einsum with ellipsis": lambda h, do: torch.einsum("...d->...", do(h)[..., None].expand(-1, -1, 2)),
    "beside itself": lambda h, do: do(h) * torch.sigmoid(h.roll(1, 0)).roll(-1, 0),
    "in place through a view": lambda h, do: in_place(h, do),
    "hidden in space": lambda h, do: do(h.view(-1, 2, 4).permute(2, 0, 1).relu().permute(1, 2, 0).reshape(len(h), -1)),
    "pooled": lambda h, do: do(F.avg_pool1d(h[None], 2)[0].repeat(1, 2)),
    "attention over heads": lambda h, do: attention(do(h)),
}


def in_place(h: Tensor, do: Do) -> Tensor:
    z = do(h).clone()
    whole = z.view(len(h), 2, 4)
    for row in z:
        row[2:5].mul_(2.0)
    z.t()[:3].relu_()
    whole[:, 1] += 0.5
    return z


def attention(h: Tensor) -> Tensor:
    q = h.view(len(h), 2, 4)
    return (torch.softmax(q @ q.mT, -1) @ q).flatten(1)


class Program(nn.Module):
    """A random chain of pieces.

    Args:
        seed: which.
        piece: that piece alone, with a layer in it.
    """

    def __init__(self, seed: int, piece: str | None = None) -> None:
        super().__init__()
        rng = random.Random(seed)
        self.pieces = [piece] if piece else [rng.choice(list(PIECES)) for _ in range(rng.choice((1, 2, 2, 3)))]
        self.kinds = ["linear" if piece else rng.choice(("linear", "linear", "tanh", "relu", "norm")) for _ in self.pieces]
        state = torch.random.get_rng_state()
        torch.manual_seed(seed)
        self.below = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in self.pieces)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 3)
        torch.random.set_rng_state(state)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        h = self.below(x)
        for piece, kind, layer in zip(self.pieces, self.kinds, self.layers, strict=True):
            does = {"linear": layer, "tanh": torch.tanh, "relu": torch.relu, "norm": self.norm}
            h = PIECES[piece](h, does[kind]).tanh()
        return self.head(h)

    def __repr__(self) -> str:
        return f"Program({list(zip(self.pieces, self.kinds, strict=True))})"
