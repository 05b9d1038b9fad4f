"""Attention's two rules: through the values (Ali et al. 2022), and AttnLRP (Achtibat et al. 2024) as lxt computes it."""

from __future__ import annotations

import importlib
import math
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import lxt
import pytest
import torch
import torch.nn.functional as F
from flow import flow_error
from oracles import input_times_gradient
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from lrp_lightning import Composite, Epsilon, SelectiveLRP
from lrp_lightning.errors import RuleError, UnsupportedOperatorError

TINY = 1e-10
BY_VALUES, ATTNLRP = Composite(Epsilon(TINY)), Composite(Epsilon(TINY), attention="attnlrp")


@pytest.fixture
def vit() -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=32, patch_size=8, num_layers=3, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=5
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.double().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 0.4


@pytest.fixture
def patches(monkeypatch: pytest.MonkeyPatch) -> Any:
    """lxt's patches; its package imports language models of certain releases of transformers beside them, so without it."""
    package = ModuleType("lxt.efficient")
    package.__path__ = [str(Path(lxt.__file__).with_name("efficient"))]
    monkeypatch.setitem(sys.modules, "lxt.efficient", package)
    yield importlib.import_module("lxt.efficient.patches")
    for name in ("lxt.efficient.patches", "lxt.efficient.rules"):
        sys.modules.pop(name)


def patch_torch(monkeypatch: pytest.MonkeyPatch, patches: Any, attention: Any) -> None:
    """torch's modules with lxt's backwards, until the test is over."""
    for module, patch in (
        (nn.GELU, partial(patches.patch_method, patches.non_linear_forward, keep_original=True)),
        (nn.LayerNorm, partial(patches.patch_method, patches.layer_norm_forward)),
        (nn.MultiheadAttention, attention),
    ):
        monkeypatch.setattr(module, "forward", module.forward)
        monkeypatch.setattr(module, "original_forward", None, raising=False)
        assert patch(module)


def test_by_values_is_lxts(vit: VisionTransformer, images: Tensor, monkeypatch: pytest.MonkeyPatch, patches: Any) -> None:
    ours = SelectiveLRP(vit, BY_VALUES).attribute(images, target=2)
    patch = partial(patches.patch_method, patches.cp_multi_head_attention_forward, keep_original=True)
    patch_torch(monkeypatch, patches, patch)
    theirs = input_times_gradient(vit, images, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


def test_attnlrp_is_lxts(vit: VisionTransformer, images: Tensor, monkeypatch: pytest.MonkeyPatch, patches: Any) -> None:
    ours = SelectiveLRP(vit, ATTNLRP).attribute(images, target=2)

    def eager(module: nn.MultiheadAttention, q: Tensor, k: Tensor, v: Tensor, **_: Any) -> Tensor:
        return ((q / math.sqrt(q.shape[-1])) @ k.mT).softmax(-1) @ v

    def forward(self: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, **_: Any) -> tuple[Tensor, None]:
        q, k, v = (
            t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for t in F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        )
        y = patches.wrap_attention_forward(eager)(self, q, k, v)  # lxt's uniform rule
        return self.out_proj(y.transpose(1, 2).flatten(2)), None

    patch_torch(monkeypatch, patches, partial(patches.patch_method, forward))
    theirs = input_times_gradient(vit, images, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


def written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), -1) @ v


class SelfAttention(nn.Module):
    """One layer, its attention fused or written out."""

    def __init__(self, attend: Any) -> None:
        super().__init__()
        self.qkv, self.out, self.head = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 3)
        self.attend = attend

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.head(self.out(self.attend(q, k, v)).mean(1))


@pytest.mark.parametrize("composite", [BY_VALUES, ATTNLRP], ids=["values", "attnlrp"])
def test_fused_is_written_out(composite: Composite) -> None:
    torch.manual_seed(0)
    fused = SelfAttention(F.scaled_dot_product_attention).double()
    out = SelfAttention(written_out).double()
    out.load_state_dict(fused.state_dict())
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    one, other = (SelectiveLRP(model, composite).trace(x, target=1) for model in (fused, out))
    torch.testing.assert_close(one.inputs, other.inputs)
    for trace in (one, other):
        assert trace.conservation_error.max() < 1e-6


@pytest.mark.parametrize("composite", [BY_VALUES, ATTNLRP], ids=["values", "attnlrp"])
@pytest.mark.parametrize("need_weights", [False, True])
def test_multi_head_attention_is_written_out(composite: Composite, need_weights: bool) -> None:
    torch.manual_seed(0)

    class Torchs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.attention(x, x, x, need_weights=need_weights)[0].mean(1))

    class Own(nn.Module):
        def __init__(self, of: Torchs) -> None:
            super().__init__()
            self.qkv, self.out, self.head = nn.Linear(8, 24), of.attention.out_proj, of.head
            self.qkv.weight, self.qkv.bias = of.attention.in_proj_weight, of.attention.in_proj_bias

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
            return self.head(self.out(written_out(q, k, v).transpose(1, 2).flatten(2)).mean(1))

    torchs = Torchs().double()
    nn.init.normal_(torchs.attention.in_proj_bias)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    one, other = (SelectiveLRP(model, composite).attribute(x, target=1) for model in (torchs, Own(torchs)))
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_by_values_queries_and_keys_get_nothing() -> None:
    torch.manual_seed(0)
    model = SelfAttention(F.scaled_dot_product_attention)
    relevance = SelectiveLRP(model, BY_VALUES).trace(torch.randn(2, 5, 8), target=1).relevance["qkv"]
    assert not relevance[:, :16].any()
    assert relevance[:, 16:].any()
    assert SelectiveLRP(model, ATTNLRP).trace(torch.randn(2, 5, 8), target=1).relevance["qkv"][:, :16].any()


class Grouped(nn.Module):
    """Four heads of queries to two of keys and values, by torch or with these repeated for each query."""

    def __init__(self, by_torch: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.kv, self.out, self.head = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 3)
        self.by_torch = by_torch

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q = self.q(x).view(n, length, 4, 4).transpose(1, 2)
        k, v = self.kv(x).view(n, length, 2, 2, 4).permute(2, 0, 3, 1, 4)
        if not self.by_torch:
            k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.by_torch)
        return self.head(self.out(y.transpose(1, 2).flatten(2))).mean(1)


@pytest.mark.parametrize("composite", [BY_VALUES, ATTNLRP], ids=["values", "attnlrp"])
def test_grouped_queries(composite: Composite) -> None:
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    by_values = composite is BY_VALUES
    one, other = (
        SelectiveLRP(Grouped(by_torch).double(), composite).trace(x, 1, edges=by_values) for by_torch in (True, False)
    )
    torch.testing.assert_close(one.inputs, other.inputs)
    assert one.edges.keys() == other.edges.keys()
    for pair, edges in one.edges.items():
        torch.testing.assert_close(edges, other.edges[pair])


def test_a_mask_is_a_constant() -> None:
    torch.manual_seed(0)
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    model = SelfAttention(partial(F.scaled_dot_product_attention, attn_mask=causal)).double()
    same = SelfAttention(partial(F.scaled_dot_product_attention, is_causal=True)).double()
    same.load_state_dict(model.state_dict())
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    one, other = (SelectiveLRP(m, BY_VALUES).attribute(x, target=1) for m in (model, same))
    torch.testing.assert_close(one, other)


def test_a_rule_that_is_none() -> None:
    with pytest.raises(RuleError, match="'values' or 'attnlrp'"):
        Composite(Epsilon(), attention="keys")  # type: ignore[arg-type]


class ChannelAttention(nn.Module):
    """Channels weigh channels, and values of different neurons meet in each sum, as in XCiT."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.out, self.head = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 4, 1)  # (N, heads, channels, L)
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2)).softmax(-1)
        return self.head(self.out((weights @ v).permute(0, 3, 1, 2).flatten(2)).mean(1))


def test_channel_attention_has_edges() -> None:
    model, x = ChannelAttention().double(), torch.randn(2, 5, 8, dtype=torch.double)
    trace = SelectiveLRP(model, Epsilon()).trace(x, 1, edges=True)
    assert flow_error(trace) < 1e-12
    torch.testing.assert_close(trace.inputs, SelectiveLRP(model, Epsilon()).attribute(x, 1))
    edges = trace.edges["qkv", "values"]
    assert not edges[:16].any()  # queries and keys are weights
    by_head = edges[16:].view(2, 4, 2)
    assert by_head[0, :, 0].all()
    assert by_head[1, :, 1].all()
    assert not by_head[0, :, 1].any()
    with pytest.raises(UnsupportedOperatorError, match=r"edges below.*attnlrp"):
        SelectiveLRP(model, Composite(Epsilon(), attention="attnlrp")).trace(x, 1, edges=True)
