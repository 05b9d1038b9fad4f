"""Neuron cards against brute force: every sample by itself, every neuron by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from lrp_lightning import LayerSelectiveLRP, NeuronCard, SelectiveLRP, TopK, build_graph, neuron_cards, reconstruct
from lrp_lightning.drawing import draw_neuron_cards
from lrp_lightning.errors import InputError, LayerError, RuleError

NAMES = ("cat", "dog", "bird", "fish")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(54, 4),
    ).eval()  # fmt: skip


def data(n: int = 30) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 1, 16, 16, generator=generator), torch.arange(n) % 4


def cards_of(model: nn.Module, neurons: object, size: int = 30, **given: object) -> list[NeuronCard]:
    x, labels = data()
    batches = list(zip(x.split(size), labels.split(size), strict=True))
    return neuron_cards(model, batches, neurons, progress=False, **given)  # type: ignore[arg-type]


def test_patches_are_those_of_the_greatest_activation_and_of_the_greatest_relevance() -> None:
    model, (x, labels) = network(), data()
    [card] = cards_of(model, {"3": [2]}, k=4)
    with torch.no_grad():
        active, said = F.relu(model[:4](x))[:, 2].flatten(1), model(x).argmax(1)
    relevance = LayerSelectiveLRP(model, "3").attribute(x, target=said)[:, 2].flatten(1)
    for patches, by_place in ((card.driven, active), (card.relevant, relevance)):
        values = by_place.amax(1)
        best = values.topk(min(4, int((values > 0).sum())))
        assert patches.samples.tolist() == best.indices.tolist()
        assert torch.allclose(patches.values, best.values.double())
        assert torch.equal(patches.images, x[best.indices])
        assert torch.equal(patches.labels, labels[best.indices])
        assert torch.equal(patches.predictions, said[best.indices])
        for place, field in zip(by_place[best.indices].argmax(1).tolist(), patches.fields.tolist(), strict=True):
            (up, left), (down, right) = field  # of a stride of 2 in maps of 3 x 3: conv, pool, conv
            row, column = divmod(place, 3)
            assert (up, down) == (max(4 * row - 1, 0), min(4 * row + 7, 16))
            assert (left, right) == (max(4 * column - 1, 0), min(4 * column + 7, 16))
    wrong = (said != labels).nonzero().flatten()
    best = relevance[wrong].amax(1).topk(4)
    assert card.mistaken.samples.tolist() == wrong[best.indices[best.values > 0]].tolist()


def test_of_equal_values_the_first_samples_are_shown() -> None:
    model, x = network(), torch.ones(40, 1, 16, 16)
    x[7:] = data(1)[0]  # the same image again and again
    batches = list(x.split(3))
    cards = neuron_cards(
        model, batches, {"0": [1], "3": [2]}, k=3, progress=False, thumbnails={"0": [0, 2, 3], "3": [0, 1, 3, 4]}
    )
    assert all(sample in (0, 1, 2, 7, 8, 9) for card in cards for sample in card.driven.samples.tolist())


def test_thumbnails_are_the_first_patch_of_whole_cards_and_the_same_words() -> None:
    model = network()
    whole = {(card.layer, card.neuron): card for card in cards_of(model, {"0": [1, 3], "3": [0, 2, 5]}, k=4, size=7)}
    found = cards_of(model, {"3": [2]}, k=4, size=7, thumbnails={"3": [5, 2, 0], "0": [3, 1]})
    assert [(card.layer, card.neuron) for card in found] == [("3", 2), ("3", 5), ("3", 0), ("0", 3), ("0", 1)]
    for card in found:
        of = whole[card.layer, card.neuron]
        few = None if (card.layer, card.neuron) == ("3", 2) else 1
        for mine, its in ((card.driven.values, of.driven.values), (card.driven.fields, of.driven.fields),
                          (card.driven.images, of.driven.images), (card.driven.samples, of.driven.samples)):  # fmt: skip
            assert torch.equal(mine, its[:few])
        assert (card.classes, card.similar, card.share) == (of.classes, of.similar, of.share)
        if few is None:
            assert torch.equal(card.driven.reconstructions, of.driven.reconstructions)
            assert len(card.relevant.values) == len(of.relevant.values)
        else:
            assert not card.driven.reconstructions.any()
            assert not len(card.relevant.values)
            assert not len(card.mistaken.values)


def test_what_drives_a_neuron_is_what_reconstruct_gives_at_its_strongest_place() -> None:
    model = network()
    for card in cards_of(model, {"0": [1, 4], "3": [0]}):
        expected = reconstruct(model, card.driven.images, card.layer, [card.neuron], at="strongest", method="guided")[0]
        assert torch.allclose(card.driven.reconstructions, expected, atol=1e-6)


def test_classes_are_the_positive_shares_by_predicted_class() -> None:
    model, (x, _) = network(), data()
    [card] = cards_of(model, {"3": [4]})
    trace = SelectiveLRP(model).trace(x, target=lambda y: y.argmax(1))
    shares = trace.relevance["3"] / trace.relevance["3"].abs().sum(1, keepdim=True)
    said = trace.output.argmax(1)
    means = {c: shares[said == c, 4].clamp(min=0).mean().item() for c in said.unique().tolist()}
    assert dict(card.classes) == pytest.approx({c: mean / sum(means.values()) for c, mean in means.items()})
    assert [share for _, share in card.classes] == sorted((share for _, share in card.classes), reverse=True)
    assert card.share == pytest.approx(shares[:, 4].mean().item(), rel=1e-5)
    assert card.samples == 30


def test_similar_neurons_are_those_whose_share_of_relevance_correlates_most() -> None:
    model, (x, _) = network(), data()
    [card] = cards_of(model, {"0": [3]})
    relevance = SelectiveLRP(model).trace(x, target=lambda y: y.argmax(1)).relevance["0"].double()
    correlation = np.corrcoef((relevance / relevance.abs().sum(1, keepdim=True)).T.numpy())[3]
    correlation[3] = -1
    best = [int(n) for n in np.argsort(-correlation)[:3] if correlation[n] > 0]
    assert [n for n, _ in card.similar] == best
    assert [r for _, r in card.similar] == pytest.approx([correlation[n] for n in best], abs=1e-4)


@pytest.mark.parametrize("size", [1, 7])
def test_batches_of_any_size_give_the_same_cards(size: int) -> None:
    model = network()
    for one, other in zip(
        cards_of(model, {"0": [0], "3": [1, 5]}), cards_of(model, {"0": [0], "3": [1, 5]}, size), strict=True
    ):
        assert torch.equal(one.driven.samples, other.driven.samples)
        assert torch.equal(one.relevant.images, other.relevant.images)
        assert torch.equal(one.driven.fields, other.driven.fields)
        assert dict(one.classes) == pytest.approx(dict(other.classes), rel=1e-4)
        assert dict(one.similar) == pytest.approx(dict(other.similar), rel=1e-3)


def test_a_neuron_that_nothing_drives_has_no_patches_and_no_class() -> None:
    model = network()
    nn.init.constant_(model[3].bias, -100.0)
    [card] = cards_of(model, {"3": [2]})
    assert [len(of.values) for of in (card.driven, card.relevant, card.mistaken)] == [0, 0, 0]
    assert card.driven.fields.shape == (0, 2, 2)
    assert card.name(NAMES) == "no class"
    draw_neuron_cards([card])


def test_residual_sums_have_cards() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None, num_classes=4).eval()
    x = torch.rand(8, 3, 32, 32)
    name = next(layer for layer, kind in SelectiveLRP(model).trace(x, target=0).kinds.items() if kind == "junction")
    [card] = neuron_cards(model, [x], {name: [1]}, k=2, progress=False)
    relevance = LayerSelectiveLRP(model, name).attribute(x, target=model(x).argmax(1))[:, 1].flatten(1)
    assert card.relevant.samples.tolist() == relevance.amax(1).topk(2).indices.tolist()
    assert card.driven.labels is None
    assert len(card.mistaken.values) == 0


def test_tokens_of_a_vision_transformer_are_places() -> None:
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(16, 8, 1, 2, 16, 32, num_classes=3).eval()
    nn.init.normal_(model.heads.head.weight)
    [patch, hidden] = neuron_cards(
        model, [torch.rand(9, 3, 16, 16)], {"conv_proj": [0], "encoder.layers.encoder_layer_0.mlp.0": [5]}, progress=False
    )
    assert {tuple(f) for f in (patch.driven.fields[:, 1] - patch.driven.fields[:, 0]).tolist()} == {(8, 8)}
    assert hidden.driven.values.isfinite().all()


@pytest.mark.parametrize("shape", [(2, 12), (6,)])
def test_sequences_and_features_have_cards_too(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    first = nn.Conv1d(2, 4, 3) if len(shape) == 2 else nn.Linear(6, 4)
    model = nn.Sequential(first, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).eval()
    model(torch.rand(1, *shape))
    [card] = neuron_cards(model, [torch.rand(8, *shape)], {"0": [1]}, k=3, progress=False)
    assert card.driven.fields.shape == (3, 2, len(shape) - 1)
    assert card.driven.reconstructions.shape == (3, *shape)


def test_a_graph_asks_for_its_hidden_neurons_and_nothing_of_the_model_changes() -> None:
    model, (x, _) = network(), data()
    graph = build_graph(SelectiveLRP(model, selection=TopK(2)).trace(x[:1], target=0, edges=True))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    model.train()
    cards = cards_of(model, graph)
    assert model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    hidden = {node for node in graph if node[0] in ("0", "3")}
    assert {(card.layer, card.neuron) for card in cards} == hidden


def test_names_are_of_classes_with_twice_an_even_share() -> None:
    [card] = cards_of(network(), {"3": [4]})
    told = [
        f"{name} {share:.2f}".replace(" 0.", " .")
        for name, share in ((NAMES[c], s) for c, s in card.classes)
        if share >= 0.5
    ]
    assert card.name(NAMES) == (", ".join(told) or "many classes")
    assert "layer '3' neuron 4" in repr(card)


def test_cards_are_drawn_a_row_a_neuron() -> None:
    cards = cards_of(network(), {"0": [0], "3": [1, 5]})
    figure = draw_neuron_cards(cards, NAMES)
    assert len(figure.axes) == 3
    texts = " ".join(text.get_text() for text in figure.texts)
    assert "3, neuron 5" in texts
    assert "most relevant among mistakes" in texts
    with pytest.raises(InputError, match="at least one"):
        draw_neuron_cards([])


def test_wrong_arguments_are_named() -> None:
    model, (x, labels) = network(), data()
    with pytest.raises(LayerError, match="layer '3' has 6 neurons, 0 to 5, got 6"):
        cards_of(model, {"3": [6]})
    with pytest.raises(LayerError, match="'4'"):
        cards_of(model, {"4": [0]})
    with pytest.raises(LayerError, match="neurons is empty; name at least one"):
        cards_of(model, {})
    with pytest.raises(LayerError, match="got list"):
        cards_of(model, ["3"])
    with pytest.raises(InputError, match="k must be at least 1"):
        cards_of(model, {"3": [0]}, k=0)
    with pytest.raises(RuleError, match="'deconvnet', 'guided'"):
        cards_of(model, {"3": [0]}, method="gradient")
    with pytest.raises(InputError, match="gives no batch"):
        neuron_cards(model, [], {"3": [0]}, progress=False)
    with pytest.raises(InputError, match="one class number per sample"):
        neuron_cards(model, [(x, labels[:, None])], {"3": [0]}, progress=False)
