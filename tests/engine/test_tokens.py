"""Token numbers as inputs: relevance by token, through the embedding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from flow import flow_error
from torch import Tensor, nn

from lrp_lightning import Epsilon, LayerSelectiveLRP, SelectiveLRP, TopK, build_graph, masked_forward
from lrp_lightning.errors import InputError, UnsupportedOperatorError

WORDS, WIDTH, LENGTH = 11, 6, 4


class Reads(nn.Module):
    """Text through an embedding, as ``function`` looks it up."""

    def __init__(self, function: Callable[[Reads, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.hidden, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, 8, False), nn.Linear(8, 3, False)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.bag = nn.EmbeddingBag(WORDS, WIDTH, mode="mean", padding_idx=0)
        self.function = function

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.hidden(self.function(self, ids)).relu()).sum(1)


def shifted(ids: Tensor) -> Tensor:
    """To the right, with a first token before them, as decoders are given their input."""
    y = ids.new_zeros(ids.shape)
    y[:, 1:] = ids[:, :-1].clone()
    y[:, 0] = 2
    return y


WAYS: dict[str, Callable[[Reads, Tensor], Tensor]] = {
    "plain": lambda m, ids: m.words(ids),
    "with positions": lambda m, ids: m.words(ids) + m.positions(torch.arange(ids.shape[1])),
    "tokens first": lambda m, ids: m.words(ids.T).transpose(0, 1),
    "reversed": lambda m, ids: m.words(ids.flip(1)),
    "flattened": lambda m, ids: m.words(ids.reshape(-1)).view(len(ids), -1, WIDTH),
    "clamped": lambda m, ids: m.words(ids.clamp(max=WORDS - 2)),
    "class token": lambda m, ids: m.words(torch.cat([torch.full((len(ids), 1), 2), ids], 1)),
    "twice": lambda m, ids: m.words(ids) * 0.5 + m.words(ids[:, :1]),
    "shifted": lambda m, ids: m.words(shifted(ids)),
    "halves": lambda m, ids: torch.cat([m.words(part) for part in ids.chunk(2, 1)], 1),
    "types": lambda m, ids: m.words(ids) + m.positions(torch.zeros_like(ids)),
    "first tokens": lambda m, ids: m.words(ids[:, :2]),
    "bag": lambda m, ids: m.bag(ids)[:, None],
}


def ids() -> Tensor:
    return torch.tensor([[3, 7, 1, 10], [5, 5, 2, 0], [9, 4, 0, 0]])


@pytest.mark.parametrize("way", WAYS)
def test_relevance_of_a_token_is_that_of_its_row(way: str) -> None:
    model = Reads(WAYS[way]).double()
    trace = SelectiveLRP(model, Epsilon(), TopK(0.5)).trace(ids(), 1)
    assert trace.inputs.shape == ids().shape
    assert trace.inputs.is_floating_point()
    assert trace.conservation_error.max() < 1e-9
    torch.testing.assert_close(trace.output, model(ids()).detach())
    for i in range(len(ids())):
        alone = SelectiveLRP(model, Epsilon(), TopK(0.5)).trace(ids()[i : i + 1], 1)
        torch.testing.assert_close(trace.inputs[i : i + 1], alone.inputs)
        for layer, mask in alone.masks.items():
            assert torch.equal(trace.masks[layer][i : i + 1], mask)
    all_on = {name: torch.ones_like(mask) for name, mask in trace.masks.items()}
    torch.testing.assert_close(masked_forward(model, ids(), all_on), trace.output)


@pytest.mark.parametrize("way", WAYS)
def test_gradient_times_row(way: str) -> None:
    model = Reads(WAYS[way]).double()
    trace = SelectiveLRP(model, Epsilon(1e-12)).trace(ids(), 1)
    table = model.bag.weight if way == "bag" else model.words.weight
    [gradient] = torch.autograd.grad(model(ids())[:, 1].sum(), table)
    found = trace.inputs.sum() + (trace.absorbed["constant"].sum() if way in ("class token", "shifted") else 0)
    torch.testing.assert_close(found, (table * gradient).sum().detach())


@pytest.mark.parametrize("way", ["plain", "tokens first", "twice", "bag"])
def test_edges_and_graph(way: str) -> None:
    trace = SelectiveLRP(Reads(WAYS[way]).double(), Epsilon(), TopK(3)).trace(ids(), 1, edges=True)
    assert flow_error(trace) < 1e-9
    assert any(lower.startswith("input") for lower, _ in trace.edges)
    assert build_graph(trace).number_of_edges()


def test_at_the_embedding_it_is_the_row_that_is_explained() -> None:
    model = Reads(WAYS["plain"]).double()
    rows = LayerSelectiveLRP(model, model.words, Epsilon()).attribute(ids(), 1)
    assert rows.shape == (3, LENGTH, WIDTH)
    torch.testing.assert_close(rows.sum(-1), SelectiveLRP(model, Epsilon()).attribute(ids(), 1))


def test_masked_tokens_get_exactly_nothing() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.words = nn.Embedding(WORDS, WIDTH)
            layer = nn.TransformerEncoderLayer(WIDTH, 2, 12, batch_first=True, dropout=0.0)
            self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(WIDTH, 3)

        def forward(self, ids: Tensor, padding: Tensor) -> Tensor:
            return self.head(self.encoder(self.words(ids), src_key_padding_mask=padding)[:, 0])

    for attention in ("values", "attnlrp"):
        from lrp_lightning import Composite

        lrp = SelectiveLRP(Masked().eval(), Composite(Epsilon(), attention=attention))
        trace = lrp.trace(ids(), 1, additional_forward_args=(ids() == 0,))
        assert trace.inputs.isfinite().all()
        assert not trace.inputs[ids() == 0].any()
        assert trace.inputs[ids() != 0].all()
        assert trace.conservation_error.max() < 1e-4


def test_an_input_of_integers_that_is_not_looked_up_is_refused_by_name() -> None:
    class Masked(Reads):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
            return self.head(self.hidden(self.words(ids) * mask.unsqueeze(-1)).relu()).sum(1)

    model = Masked(WAYS["plain"])
    mask = (ids() != 0).long()
    with pytest.raises(InputError, match=r"input 1 must be .* that no embedding looks up.*additional_forward_args"):
        SelectiveLRP(model).attribute((ids(), mask), 1)
    assert not SelectiveLRP(model).attribute(ids(), 1, additional_forward_args=mask)[ids() == 0].any()


def test_images_of_bytes_that_the_model_makes_floating_point_are_refused_as_what_they_are() -> None:
    class OfBytes(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x / 255)

    model = OfBytes(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    x = torch.randint(256, (2, 1, 4, 4), dtype=torch.uint8)
    with pytest.raises(InputError, match=r"floating-point tensor, got torch.uint8 .*convert it with .float\(\)"):
        SelectiveLRP(model).attribute(x, 1)
    assert SelectiveLRP(model).attribute(x.float(), 1).shape == x.shape


def test_numbers_that_cannot_be_followed_are_refused() -> None:
    model = Reads(lambda m, ids: m.words(ids.unique().view(1, -1).expand(len(ids), -1)))
    with pytest.raises(
        UnsupportedOperatorError, match=r"embedding in module 'words'.*without a rule; pass them to the model"
    ):
        SelectiveLRP(model).attribute(ids(), 1)
