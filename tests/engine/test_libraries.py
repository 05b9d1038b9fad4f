"""Networks of other libraries as their users write them, small and with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from detached import gradient_times_input
from families import FAMILIES, TEXT, built
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
from torchvision.models import detection
from zoo import with_biases

from lrp_lightning import ByGraph, ByKeyword, Epsilon, SelectiveLRP, TopK, masked_forward
from lrp_lightning.engine.targets import tensor_of
from lrp_lightning.errors import InputError, ModelError


def tokens() -> Tensor:
    return torch.randint(5, 90, (3, 7), generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str) -> None:
    """What ``benchmarks/zoo.md`` shows: of each family forward, sums, edges and meaning, and that a batch is its samples."""
    model, x, target = built(name)
    close = 1e-5 if FAMILIES[name].double else 1e-4  # norms of language models compute in single precision in any case
    lrp = SelectiveLRP(model, Epsilon(1e-12))
    whole = lrp.trace(x, target, edges=True)
    with torch.no_grad():
        torch.testing.assert_close(whole.output, tensor_of(model(*x)), rtol=close, atol=close)
    assert whole.conservation_error.max() < close
    assert flow_error(whole) < close
    for found, wanted in zip(whole.inputs, gradient_times_input(model, x, lambda y: target(tensor_of(y))), strict=True):
        assert (found - wanted).abs().max() < close * wanted.abs().max()
    alone = lrp.trace(tuple(t[1:2] for t in x), target)
    for found, of_one in zip(whole.inputs, alone.inputs, strict=True):
        assert (found[1:2] - of_one).abs().max() < close * of_one.abs().max()
    trace = SelectiveLRP(model, Epsilon(), TopK(0.3)).trace(x, target)
    assert masked_forward(model, x, trace.masks).shape == trace.output.shape


def test_the_page_has_each_family() -> None:
    page = (
        (Path(__file__).parents[2] / "benchmarks" / "zoo.md").read_text().partition("## Families")[2].partition("\n## ")[0]
    )
    rows = [line.split(" | ")[0].strip("| ") for line in page.splitlines() if line.startswith("| ")][2:]
    assert rows == list(FAMILIES)


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


class Scores(nn.Module):
    """The scores of the surest detections, ``(N, 3)``."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([found["scores"][:3] for found in self.detector(list(images))])


BARE = {"weights": None, "weights_backbone": None, "num_classes": 3}
ALL = {
    "box_score_thresh": 0.0, "box_detections_per_img": 5, "rpn_post_nms_top_n_test": 20, "min_size": 64, "max_size": 96,
    **BARE,
}  # fmt: skip
DETECTORS: dict[str, tuple[Callable[..., nn.Module], str, dict[str, Any]]] = {
    "faster": (detection.fasterrcnn_mobilenet_v3_large_320_fpn, "the logits below softmax", ALL),
    "mask": (detection.maskrcnn_resnet50_fpn, "the logits below softmax", ALL),
    "retina": (
        detection.retinanet_resnet50_fpn,
        "the logits below sigmoid",
        {"score_thresh": 0.0, "min_size": 64, "max_size": 96, **BARE},
    ),
    "ssd": (detection.ssdlite320_mobilenet_v3_large, "the logits below softmax", {"score_thresh": 0.0, **BARE}),
    # its score is the root of two sigmoids' product, which is explained as it is
    "fcos": (detection.fcos_resnet50_fpn, "", {"score_thresh": 0.0, "min_size": 64, "max_size": 96, **BARE}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_whole(name: str) -> None:
    """From images to a score, through what resizes them, proposes boxes and leaves out all but a few."""
    torch.manual_seed(0)
    build, explains, given = DETECTORS[name]
    model = with_biases(Scores(build(**given))).double().eval()
    x = torch.rand(2, 3, 48, 64, dtype=torch.double)
    lrp = SelectiveLRP(model, Epsilon(), TopK(0.5))
    trace = lrp.trace(x, 0)
    torch.testing.assert_close(trace.output, model(x).detach())
    assert trace.explains == explains
    assert trace.conservation_error.max() < 1e-9
    assert trace.inputs.flatten(1).any(1).all()
    alone = lrp.trace(x[1:], 0)
    torch.testing.assert_close(trace.inputs[1:], alone.inputs, rtol=1e-6, atol=1e-9 * alone.inputs.abs().max().item())
    whole = SelectiveLRP(model, Epsilon()).trace(x, 0, edges=True)
    assert flow_error(whole) < 1e-9


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
