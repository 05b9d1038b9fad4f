"""Relevance flows: what arrives at each neuron leaves it, along edges or absorbed, however networks are wired.

Small networks, wired in one way each. All of torchvision's are looked at in test_zoo.py.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from flow import flow_error
from torch import Tensor, nn

from lrp_lightning import Composite, Epsilon, EpsilonGammaBox, EpsilonPlus, SelectiveLRP, TopK, build_graph
from lrp_lightning.drawing import draw_graph
from lrp_lightning.errors import ModelError


class Tokens(nn.Module):
    """A class token, position embedding, layer norm, attention by module, a residual, and a mean over tokens."""

    def __init__(self, attention: str = "module") -> None:
        super().__init__()
        self.embed = nn.Conv2d(2, 8, 2, 2)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 17, 8))
        self.norm, self.mha = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.qkv, self.out, self.head, self.attention = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 3), attention

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        y = self.norm(x)
        if self.attention == "module":
            y = self.mha(y, y, y, need_weights=False)[0]
        elif self.attention == "weights":
            y = self.mha(y, y, y)[0]
        else:
            q, k, v = self.qkv(y).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
            if self.attention == "sdpa":
                y = F.scaled_dot_product_attention(q, k, v)
            elif self.attention == "einsum":
                y = torch.einsum("nhqk,nhkd->nhqd", torch.einsum("nhqd,nhkd->nhqk", q, k).softmax(-1), v)
            else:
                y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
            y = self.out(y.transpose(1, 2).flatten(2))
        return self.head((x + y).mean(1))


class Mixer(nn.Module):
    """Linear over tokens: neurons of one layer are tokens, of the next channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(2, 6, 2, 2), nn.LayerNorm(6)
        self.tokens, self.channels, self.head = nn.Linear(16, 16), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = x + F.gelu(self.tokens(self.norm(x).transpose(1, 2))).transpose(1, 2)
        return self.head((x + self.channels(x)).mean(1))


class Dense(nn.Module):
    """Concatenations that are added, normalised alone and shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 8, 1, groups=2)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        x = torch.cat([a, self.b(a)], 1)
        x = F.relu(self.norm(F.channel_shuffle(x, 2)))
        return self.head((x + self.c(x)[:, torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])]).amax((2, 3)))


class Groups(nn.Module):
    """Group and instance norm, a transposed and a depthwise convolution, a shortcut padded with channels of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.group, self.instance = nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True)
        self.up, self.depth = nn.ConvTranspose2d(4, 6, 2, 2, groups=2), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.head = nn.Linear(6 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.group(self.a(x)))
        y = self.depth(self.up(F.max_pool2d(self.instance(x), 2)))
        return self.head((y + F.pad(x, (0, 0, 0, 0, 1, 1))).flatten(1))


class Products(nn.Module):
    """Two signals multiplied, a gate, a constant taken away, and one added to where values are filled in."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.gate, self.head = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[:, :5]
        y = self.a(x) * self.b(x) * torch.sigmoid(self.gate(x))
        return self.head(torch.where(torch.arange(6) > 3, 0.5, 1.0 - y))


WIRED = {
    **{f"tokens-{how}": (lambda how=how: Tokens(how)) for how in ("module", "weights", "sdpa", "matmul", "einsum")},
    "mixer": Mixer,
    "dense": Dense,
    "groups": Groups,
    "products": Products,
}


def wired(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = WIRED[name]().double().eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.normal_(0, 0.1)
    return model, torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.double) - 0.3


@pytest.mark.parametrize("selection", [None, TopK(3)], ids=["whole", "selected"])
@pytest.mark.parametrize("name", WIRED)
def test_flow_is_conserved(name: str, selection: TopK | None) -> None:
    model, x = wired(name)
    for rule in (Epsilon(), EpsilonPlus()):
        lrp = SelectiveLRP(model, rule, selection)
        trace = lrp.trace(x, target=[0, 1, 2], edges=True)
        assert trace.conservation_error.max() < 1e-8
        assert flow_error(trace) < 1e-10
        graph = build_graph(trace)
        for node, about in graph.nodes(data=True):
            if about["kind"] != "input":
                arrived = sum(r for *_, r in graph.in_edges(node, data="relevance"))
                assert arrived + about["absorbed"] == pytest.approx(about["relevance"], abs=1e-9)
        draw_graph(graph)


@pytest.mark.parametrize("name", WIRED)
def test_edges_of_each_sample_add_up_to_those_of_the_batch_and_are_its_own(name: str) -> None:
    model, x = wired(name)
    lrp = SelectiveLRP(model, EpsilonPlus())
    whole = lrp.trace(x, target=[0, 1, 2], edges=True)
    apart = lrp.trace(x, target=[0, 1, 2], edges=True, per_sample=True)
    assert flow_error(apart) < 1e-10
    assert apart.per_sample
    assert list(apart.edges) == list(whole.edges)
    for pair, edges in whole.edges.items():
        assert apart.edges[pair].shape == (3, *edges.shape)
        torch.testing.assert_close(apart.edges[pair].sum(0), edges, rtol=1e-9, atol=1e-12)
    for layer, stays in whole.absorbed_by.items():
        torch.testing.assert_close(apart.absorbed_by[layer].sum(0), stays, rtol=1e-9, atol=1e-12)
    for n in range(3):
        alone = lrp.trace(x[n : n + 1], target=n, edges=True)
        for pair, edges in alone.edges.items():
            # nn.MultiheadAttention computes tokens first, and a stabiliser's scale is one along the first dimension
            close = (
                {"rtol": 1e-4, "atol": 1e-6}
                if name in ("tokens-module", "tokens-weights")
                else {"rtol": 1e-8, "atol": 1e-11}
            )
            torch.testing.assert_close(apart.edges[pair][n], edges, **close)
    assert build_graph(apart).edges == build_graph(whole).edges


def test_a_layer_with_two_normalisations_is_one() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(2, 4, 3), nn.Linear(4, 3)
            self.one, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.head((F.relu(self.one(x)) + F.relu(self.other(x)) + x).mean([2, 3]))

    torch.manual_seed(0)
    trace = SelectiveLRP(Two().double(), Epsilon()).trace(torch.rand(2, 2, 8, 8).double(), 0, edges=True)
    assert trace.conservation_error.max() < 1e-6
    assert flow_error(trace) < 1e-10


@pytest.mark.parametrize("rule", [Epsilon(), EpsilonGammaBox(-0.5, 1.0)], ids=["epsilon", "box"])
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_what_is_padded_is_nobodys(value: float, rule: Composite) -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(2, 4, 3), nn.Linear(4 * 64, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.conv(F.pad(x, (1, 1, 1, 1), value=value))).flatten(1))

    torch.manual_seed(0)
    trace = SelectiveLRP(Padded().double(), rule).trace(wired("dense")[1], 0, edges=True)
    assert trace.conservation_error.max() < 1e-6
    assert flow_error(trace) < 1e-9


def test_edges_run_one_to_one_through_a_junction_and_to_others_where_channels_were_moved() -> None:
    model, x = wired("dense")
    trace = SelectiveLRP(model, Epsilon()).trace(x, target=0, edges=True)
    assert trace.edges["norm", "add"].shape == (8,)
    moved = trace.edges["c", "add"]
    assert moved.shape == (8, 8)
    assert torch.equal(moved.nonzero(), torch.tensor([[i, i ^ 1] for i in range(8)]))


def test_of_tokens_that_share_a_linear_layer_edges_land_on_its_channels() -> None:
    model, x = wired("tokens-module")
    trace = SelectiveLRP(model, Epsilon()).trace(x, target=0, edges=True)
    assert trace.edges["mha.v_proj", "mha.out_proj"].shape == (8, 8)
    assert trace.kinds["norm"] == "normalisation"
    assert trace.kinds["position"] == "junction"
    assert trace.edges["embed", "position"].shape == (8,)
    assert trace.absorbed_by["position"].sum() == pytest.approx(  # the class token's relevance stays there too
        sum(trace.absorbed[name].sum().item() for name in ("position", "constant"))
    )


@pytest.mark.parametrize(
    ("first", "shape", "neurons"),
    [
        (nn.Conv1d(3, 4, 3), (2, 3, 9), 3),
        (nn.Linear(3, 4), (2, 9, 3), 3),
        (nn.GRU(3, 4, batch_first=True), (2, 9, 3), 3),
        (nn.Linear(9, 4), (2, 3, 3, 9), 3),
    ],
    ids=["convolution", "linear", "recurrent", "images"],
)
def test_neurons_of_an_input_are_its_channels(first: nn.Module, shape: tuple[int, ...], neurons: int) -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = first

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return (y[0] if isinstance(y, tuple) else y).flatten(1)[:, :3]

    trace = SelectiveLRP(Mean(), Epsilon()).trace(torch.randn(shape), 1, edges=True)
    assert trace.relevance["input"].shape == (2, neurons)


def test_a_model_says_where_the_neurons_of_its_input_are() -> None:
    class Turned(nn.Module):
        input_neurons = 2

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(5, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.transpose(1, 2)).mean(2)

    model = Turned()
    trace = SelectiveLRP(model, Epsilon()).trace(torch.randn(2, 7, 5), 1, edges=True)
    assert trace.relevance["input"].shape == (2, 5)
    assert set(trace.edges) == {("input", "conv")}
    model.input_neurons = 3
    with pytest.raises(ModelError, match=r"input_neurons of Turned is 3.*1 to 2"):
        SelectiveLRP(model, Epsilon()).trace(torch.randn(2, 7, 5), 1)
