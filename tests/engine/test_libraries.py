"""Networks of other libraries as their users write them, small and with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from flow import flow_error
from torch import Tensor, nn
from torch_geometric.nn import (
    BatchNorm,
    GATConv,
    GATv2Conv,
    GCNConv,
    GINConv,
    GraphConv,
    GraphNorm,
    SAGEConv,
    TransformerConv,
    global_max_pool,
    global_mean_pool,
)
from torch_geometric.utils import to_dense_batch

from lrp_lightning import ByGraph, ByKeyword, Epsilon, SelectiveLRP, TopK, masked_forward
from lrp_lightning.errors import InputError, ModelError

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {"vocab_size": 100, "num_labels": 3, **SMALL}
LLM = {"pad_token_id": 0, "num_key_value_heads": 2, "max_position_embeddings": 64, **TEXT}
IMAGE = {"image_size": 32, "patch_size": 8, "num_labels": 3, **SMALL}
GPT2 = {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "num_labels": 3, "pad_token_id": 0}
SOUND = {
    "num_labels": 3,
    "conv_dim": (8, 8),
    "conv_stride": (5, 2),
    "conv_kernel": (10, 3),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    **SMALL,
}
WHISPER = {
    "num_labels": 3,
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "num_mel_bins": 16,
    "max_source_positions": 20,
    "decoder_layers": 1,
}
T5 = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "num_labels": 3}
SIGLIP = {"vision_config": {"image_size": 32, "patch_size": 8, **SMALL}, "num_labels": 3}
MAMBA = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, **TEXT}
XLNET = {"vocab_size": 100, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "num_labels": 3}


def tokens() -> Tensor:
    return torch.randint(5, 90, (3, 7), generator=torch.Generator().manual_seed(0))


def values(*shape: int) -> Tensor:
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))


def classifier(
    name: str, inputs: Callable[[], Tensor], **config: Any
) -> tuple[str, str, Callable[[], Tensor], dict[str, Any]]:
    return name.split("For")[0], name, inputs, config


FAMILIES = [
    classifier("BertForSequenceClassification", tokens, **TEXT),
    classifier("RobertaForSequenceClassification", tokens, **TEXT),
    classifier("DebertaV2ForSequenceClassification", tokens, **DEBERTA),
    classifier("XLNetForSequenceClassification", tokens, **XLNET),
    classifier("GPT2ForSequenceClassification", tokens, **GPT2),
    classifier("LlamaForSequenceClassification", tokens, **LLM),
    classifier("GemmaForSequenceClassification", tokens, head_dim=8, **LLM),
    classifier("Qwen3ForSequenceClassification", tokens, head_dim=8, **LLM),
    classifier("MixtralForSequenceClassification", tokens, num_local_experts=4, num_experts_per_tok=2, **LLM),
    classifier("T5ForTokenClassification", tokens, **T5),
    classifier("MambaForCausalLM", tokens, **MAMBA),
    classifier("ViTForImageClassification", lambda: values(3, 32, 32), **IMAGE),
    classifier("SiglipForImageClassification", lambda: values(3, 32, 32), **SIGLIP),
    classifier("Wav2Vec2ForSequenceClassification", lambda: values(400), **SOUND),
    classifier("WhisperForAudioClassification", lambda: values(16, 40), **WHISPER),
]


SINGLE = {"Mamba", "Mixtral"}
"""Those that compute in single precision, whatever they are given."""


@pytest.mark.parametrize(("family", "name", "inputs", "config"), FAMILIES, ids=[family[0] for family in FAMILIES])
def test_transformers(family: str, name: str, inputs: Callable[[], Tensor], config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = getattr(hf, name)(getattr(hf, f"{family}Config")(**config)).eval()
    model = model if family in SINGLE else model.double()
    x, close = inputs(), 1e-4 if family in SINGLE else 1e-6
    x = x.to(model.dtype) if x.is_floating_point() else x
    target = (lambda y: y[:, -1, 1]) if name.endswith(("TokenClassification", "CausalLM")) else 1
    lrp = SelectiveLRP(model, Epsilon(), TopK(0.3))
    trace = lrp.trace(x, target)
    with torch.no_grad():
        torch.testing.assert_close(trace.output, model(x).logits, rtol=close, atol=close)
    assert trace.conservation_error.max() < close
    alone = lrp.trace(x[1:2], target)
    assert (trace.inputs[1:2] - alone.inputs).abs().max() < close * alone.inputs.abs().max()
    assert masked_forward(model, x, trace.masks).shape == trace.output.shape
    whole = SelectiveLRP(model, Epsilon()).trace(x, target, edges=True)
    assert flow_error(whole) < close


def test_an_attention_mask_is_no_input_and_what_it_masks_gets_exactly_nothing() -> None:
    torch.manual_seed(0)
    model = hf.BertForSequenceClassification(hf.BertConfig(**TEXT)).eval()
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[0, 4:] = mask[2, 6:] = 0
    relevance = SelectiveLRP(model).attribute(tokens(), 1, additional_forward_args=mask)
    assert not relevance[mask == 0].any()
    assert relevance[mask == 1].all()
    with pytest.raises(InputError, match=r"input 1 .*additional_forward_args"):
        SelectiveLRP(model).attribute((tokens(), mask), 1)


def test_a_forward_by_keyword() -> None:
    torch.manual_seed(0)
    model = hf.BertForSequenceClassification(hf.BertConfig(**TEXT)).eval()
    mask = torch.ones(3, 7, dtype=torch.long)
    view = ByKeyword(model, "inputs_embeds", "attention_mask")
    embeds = model.bert.embeddings.word_embeddings(tokens()).detach()
    by_row = SelectiveLRP(view).attribute(embeds, 1, additional_forward_args=mask)
    torch.testing.assert_close(by_row.sum(-1), SelectiveLRP(model).attribute(tokens(), 1, mask))
    assert "bert.encoder.layer.0.output.dense" in SelectiveLRP(view).trace(embeds, 1).relevance
    assert repr(view) == "ByKeyword(BertForSequenceClassification, inputs_embeds, attention_mask)"
    with pytest.raises(InputError, match="3 inputs were given for the keywords inputs_embeds, attention_mask"):
        SelectiveLRP(view).attribute(embeds, 1, (mask, mask))
    with pytest.raises(InputError, match="name the keywords"):
        ByKeyword(model)
    with pytest.raises(ModelError, match=r"must be a torch\.nn\.Module"):
        ByKeyword(lambda x: x, "x")  # type: ignore[arg-type]


class GraphNet(nn.Module):
    def __init__(
        self, conv: Callable[[int, int], nn.Module], norm: Callable[[int], nn.Module] | None, pool: Callable
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.head = conv(5, 8), conv(8, 8), nn.Linear(8, 3)
        self.norm, self.pool = None if norm is None else norm(8), pool

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        h = self.one(x, edge_index)
        if self.norm is not None:
            h = self.norm(h, batch) if isinstance(self.norm, GraphNorm) else self.norm(h)
        return self.head(self.pool(self.two(h.relu(), edge_index).relu(), batch))


GRAPHS: dict[str, tuple[Any, Any, Any]] = {
    "GCN": (GCNConv, BatchNorm, global_mean_pool),
    "SAGE": (SAGEConv, None, global_max_pool),
    "GAT": (lambda i, o: GATConv(i, o // 2, heads=2), None, global_mean_pool),
    "GATv2": (lambda i, o: GATv2Conv(i, o // 2, heads=2), None, global_mean_pool),
    "GIN": (lambda i, o: GINConv(nn.Sequential(nn.Linear(i, o), nn.ReLU(), nn.Linear(o, o))), GraphNorm, global_mean_pool),
    "transformer": (lambda i, o: TransformerConv(i, o // 2, heads=2), None, global_mean_pool),
    "GraphConv": (GraphConv, None, global_mean_pool),
}
SIZES = (4, 6, 3)


def graphs() -> tuple[Tensor, Tensor, Tensor]:
    """Three of them: nodes, edges, and which graph each node is of. Some nodes have no edge that leads to them."""
    generator, edges, start = torch.Generator().manual_seed(0), [], 0
    for size in SIZES:
        edges.append(torch.randint(0, size, (2, size + 2), generator=generator) + start)
        start += size
    nodes = torch.randn(sum(SIZES), 5, generator=generator, dtype=torch.double)
    return nodes, torch.cat(edges, 1), torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_are_samples(name: str) -> None:
    model = GraphNet(*GRAPHS[name]).double().eval()
    x, edge_index, batch = graphs()
    nodes, there = to_dense_batch(x, batch)
    lrp = SelectiveLRP(ByGraph(model), Epsilon(), TopK(0.5))
    trace = lrp.trace(nodes, 1, (there, edge_index, batch))
    torch.testing.assert_close(trace.output, model(x, edge_index, batch).detach())
    assert trace.conservation_error.max() < 1e-9
    assert trace.inputs.shape == (3, 6, 5)
    assert not trace.inputs[~there].any()
    start = 0
    for i, size in enumerate(SIZES):
        own = (edge_index[0] >= start) & (edge_index[0] < start + size)
        rest = torch.ones(1, size, dtype=torch.bool), edge_index[:, own] - start, torch.zeros(size, dtype=torch.long)
        alone = lrp.trace(x[None, start : start + size], 1, rest)
        torch.testing.assert_close(trace.inputs[i, :size], alone.inputs[0])
        start += size
    assert masked_forward(ByGraph(model), nodes, trace.masks, additional_forward_args=(there, edge_index, batch)).shape == (
        3,
        3,
    )
    whole = SelectiveLRP(ByGraph(model), Epsilon()).trace(nodes, 1, (there, edge_index, batch), edges=True)
    assert flow_error(whole) < 1e-9


def test_a_library_may_put_functions_of_its_own_in_torchs_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As PyTorch Geometric does with torch.select and torch.index_select."""
    original = torch.narrow
    monkeypatch.setattr(torch, "narrow", lambda *args, **kwargs: original(*args, **kwargs))

    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.recurrent, self.head = nn.GRU(4, 5, bidirectional=True), nn.Linear(10, 3)

        def forward(self, x: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 2]), batch_first=True)
            out, _ = nn.utils.rnn.pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
            return self.head(torch.narrow(out, 1, 0, 2).sum(1))

    assert SelectiveLRP(Narrow(), Epsilon()).trace(torch.randn(2, 3, 4), 1).conservation_error.max() < 1e-4
