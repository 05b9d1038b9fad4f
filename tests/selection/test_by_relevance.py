"""Selections by relevance by themselves, and inside the backward pass, where the choice below follows the choice above."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import Tokens, cnn, mlp
from torch import Tensor, nn

from lrp_lightning import (
    Coverage,
    Epsilon,
    EpsilonPlus,
    LayerSelectiveLRP,
    SelectiveLRP,
    Threshold,
    TopK,
    build_graph,
)
from lrp_lightning.errors import SelectionError
from lrp_lightning.selection import Selection, random_masks


def select(selection: Selection, relevance: list[list[float]] | Tensor) -> Tensor:
    return selection.select(torch.as_tensor(relevance), layer="layer", output=torch.ones(len(relevance)))


# TopK by itself


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        (TopK(1), [3]),
        (TopK(2), [2, 3]),
        (TopK(99), [0, 1, 2, 3, 4]),  # no more than there are
        (TopK(0.4), [2, 3]),
        (TopK(1e-9), [3]),  # at least one
        (TopK(1.0), [0, 1, 2, 3, 4]),
        (TopK(2, by="relevance"), [0, 3]),
        (TopK(0.4, by="relevance"), [0, 3]),
    ],
)
def test_top_k_keeps_the_highest(selection: TopK, kept: list[int]) -> None:
    mask = select(selection, [[2.0, 1.0, -5.0, 6.0, 0.0]])
    assert mask.dtype == torch.bool
    assert mask[0].nonzero().flatten().tolist() == kept


def test_top_k_decides_for_each_sample_alone() -> None:
    together = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [0.0, -1.0, -2.0]])
    mask = select(TopK(1, by="relevance"), together)
    assert mask.tolist() == [[False, False, True], [True, False, False], [True, False, False]]
    assert torch.equal(mask, torch.cat([select(TopK(1, by="relevance"), row[None]) for row in together]))


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_ties_do_not_change_how_many_are_kept(value: float) -> None:
    assert select(TopK(3), torch.full((4, 7), value)).sum(1).tolist() == [3, 3, 3, 3]


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    relevance=st.integers(1, 12).flatmap(
        lambda width: st.lists(
            st.lists(st.floats(-1e6, 1e6, width=32), min_size=width, max_size=width), min_size=1, max_size=4
        )
    ),
    keep=st.one_of(st.integers(1, 15), st.floats(0, 1, exclude_min=True)),
    by=st.sampled_from(["relevance", "magnitude"]),
)
def test_top_k_in_general(relevance: list[list[float]], keep: int | float, by: str) -> None:
    mask = select(TopK(keep, by=by), relevance)  # type: ignore[arg-type]
    width = len(relevance[0])
    expected = min(keep, width) if isinstance(keep, int) else max(1, round(keep * width))
    assert mask.shape == (len(relevance), width)
    assert mask.sum(1).tolist() == [expected] * len(relevance)
    score = torch.tensor(relevance).abs() if by == "magnitude" else torch.tensor(relevance)
    least_kept = score.masked_fill(~mask, float("inf")).amin(1)
    most_dropped = score.masked_fill(mask, float("-inf")).amax(1)
    assert bool((least_kept >= most_dropped).all())


@pytest.mark.parametrize("keep", [0, -1, 0.0, 1.5, -0.1, True, "3", None, float("nan")])
def test_top_k_refuses_keep(keep: object) -> None:
    with pytest.raises(SelectionError, match="TopK: keep must be"):
        TopK(keep)  # type: ignore[arg-type]


def test_top_k_refuses_by() -> None:
    with pytest.raises(SelectionError, match="'activation'"):
        TopK(3, by="activation")  # type: ignore[arg-type]


def test_top_k_is_a_value() -> None:
    assert TopK(3) == TopK(3)
    assert TopK(1) != TopK(2)
    assert repr(TopK(0.1)) == "TopK(keep=0.1, by='magnitude')"
    assert len({TopK(0.1), TopK(0.1), TopK(0.1, by="relevance")}) == 2
    assert isinstance(TopK(3), Selection)


# Inside the pass


def by_hand(model: nn.Sequential, x: Tensor, target: int, choose: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    """Two hidden layers, the epsilon rule without epsilon: R = z * g; ``choose`` masks g at the upper, then at the lower."""
    first, _, second, _, last = model
    with torch.no_grad():
        z1 = first(x)
        z2 = second(z1.relu())
        g2 = last.weight[target] * (z2 > 0)
        mask2 = choose(z2 * g2)
        g1 = (g2 * mask2) @ second.weight * (z1 > 0)
        mask1 = choose(z1 * g1)
        return x * ((g1 * mask1) @ first.weight), mask1, mask2, z1 * g1, z2 * g2


@pytest.mark.parametrize("by", ["relevance", "magnitude"])
def test_the_choice_below_depends_on_the_choice_above(by: str) -> None:
    model, x = mlp(10, 32, 24, 4).double(), torch.randn(20, 10, dtype=torch.double)
    top = TopK(3, by=by)  # type: ignore[arg-type]
    trace = SelectiveLRP(model, Epsilon(0), top).trace(x, target=2)
    inputs, mask1, mask2, r1, r2 = by_hand(model, x, 2, lambda r: select(top, r))
    assert torch.equal(trace.masks["2"], mask2)
    assert torch.equal(trace.masks["0"], mask1)
    for mine, theirs in ((trace.inputs, inputs), (trace.relevance["0"], r1), (trace.relevance["2"], r2)):
        torch.testing.assert_close(mine, theirs)
    # and it is not what one would choose afterwards, from a pass without selection
    ordinary = SelectiveLRP(model, Epsilon(0)).trace(x, target=2)
    assert torch.equal(select(top, ordinary.relevance["2"]), mask2)
    assert not torch.equal(select(top, ordinary.relevance["0"]), mask1)


def test_keeping_all_changes_nothing() -> None:
    model, x = cnn(), torch.rand(3, 1, 8, 8)
    every, none = (SelectiveLRP(model, selection=s).trace(x, target=1) for s in (TopK(1.0), None))
    assert torch.equal(every.inputs, none.inputs)
    assert none.masks == {}
    assert all(bool(mask.all()) for mask in every.masks.values())


@pytest.mark.parametrize("composite", [EpsilonPlus(), Epsilon()], ids=repr)
def test_what_is_not_selected_is_counted(composite: object) -> None:
    model, x = cnn(), torch.rand(3, 1, 8, 8)
    trace = SelectiveLRP(model, composite, TopK(2)).trace(x, target=1)  # type: ignore[arg-type]
    assert list(trace.masks) == ["0", "4"]  # hidden layers; never the logits, never the input
    assert {name for name in trace.absorbed if name.endswith(".unselected")} == {"0.unselected", "4.unselected"}
    for layer, mask in trace.masks.items():
        assert mask.sum(1).tolist() == [2, 2, 2]
        left = (trace.relevance[layer] * ~mask).sum(1)
        torch.testing.assert_close(trace.absorbed[f"{layer}.unselected"], left)
        assert left.abs().sum() > 0
    assert trace.conservation_error.max() < 1e-5


def test_edges_leave_selected_neurons_only() -> None:
    x = torch.rand(1, 1, 8, 8)
    trace = SelectiveLRP(cnn(), selection=TopK(2)).trace(x, target=1, edges=True)
    above = trace.edges["0", "4"]
    assert not above[:, ~trace.masks["4"][0]].any()
    assert above[:, trace.masks["4"][0]].abs().sum() > 0
    kept = trace.relevance["4"] * trace.masks["4"]
    handed_down = kept.sum(1) - trace.absorbed["4.bias"] - trace.absorbed["4.stabiliser"]
    torch.testing.assert_close(above.sum()[None], handed_down, rtol=1e-4, atol=1e-6)


# Coverage and Threshold by themselves

RELEVANCE = st.lists(st.integers(-20, 20), min_size=1, max_size=7)  # integers: sums are exact


@settings(deadline=None, derandomize=True, max_examples=150)
@given(relevance=RELEVANCE, share=st.sampled_from([0.125, 0.5, 0.75, 1.0]))
def test_coverage_is_the_smallest_set_that_carries_the_share(relevance: list[int], share: float) -> None:
    (mask,) = select(Coverage(share), [list(map(float, relevance))])
    wanted = share * sum(r for r in relevance if r > 0)
    sizes = range(len(relevance) + 1)
    least = next(k for k in sizes if any(sum(c) >= wanted for c in combinations(relevance, k)))
    kept = [r for r, on in zip(relevance, mask.tolist(), strict=True) if on]
    assert len(kept) == least
    assert sum(kept) >= wanted
    assert all(r > 0 for r in kept)


def test_coverage_of_everything_keeps_all_that_is_positive() -> None:
    relevance = torch.randn(50, 30)
    assert torch.equal(select(Coverage(1.0), relevance), relevance > 0)
    assert not select(Coverage(0.5), -relevance.abs()).any()


def test_threshold_is_relative_to_the_output_of_each_sample() -> None:
    relevance = torch.tensor([[6.0, 1.0, -8.0, 3.0], [6.0, 1.0, -8.0, 3.0], [6.0, 1.0, -8.0, 3.0]])
    output = torch.tensor([10.0, 40.0, -10.0])
    mask = Threshold(0.25).select(relevance, layer="layer", output=output)
    assert mask.tolist() == [[True, False, False, True], [False] * 4, [False, False, True, False]]
    assert Threshold(0).select(relevance, layer="layer", output=output)[0].tolist() == [True, True, False, True]


def test_a_threshold_is_exceeded_and_not_reached() -> None:
    relevance, output = torch.tensor([[2.5, 2.75, 0.0, -2.5, -2.75]] * 2), torch.tensor([10.0, -10.0])
    mask = Threshold(0.25).select(relevance, layer="layer", output=output)
    assert mask.tolist() == [[False, True, False, False, False], [False, False, False, False, True]]
    mask = Threshold(0).select(relevance, layer="layer", output=output)
    assert mask.tolist() == [[True, True, False, False, False], [False, False, False, True, True]]
    assert not Threshold(0.25).select(relevance, layer="layer", output=torch.zeros(2)).any()


@pytest.mark.parametrize("selection", [TopK(0.3), TopK(4, by="relevance"), Coverage(0.5), Threshold(0.1)], ids=repr)
def test_single_values_are_chosen_as_neurons_are(selection: Selection) -> None:
    relevance = torch.randn(3, 4, 2, 5, generator=torch.Generator().manual_seed(0))
    output = torch.tensor([3.0, -4.0, 5.0])
    flat = selection.select(relevance.flatten(1), layer="layer", output=output)
    assert flat is not None
    assert 0 < flat.sum() < flat.numel()
    together = selection.select(relevance, layer="layer", output=output)
    assert together is not None
    assert torch.equal(together, flat.view(relevance.shape))


@pytest.mark.parametrize(
    ("selection", "share"),
    [(Coverage, 0), (Coverage, 1.1), (Coverage, -0.1), (Coverage, "all"), (Coverage, True), (Coverage, float("nan")),
     (Threshold, -0.1), (Threshold, 1.0), (Threshold, None), (Threshold, float("nan"))],
)  # fmt: skip
def test_shares_out_of_range(selection: type, share: object) -> None:
    with pytest.raises(SelectionError, match=f"{selection.__name__}: share must be in"):
        selection(share)


@pytest.mark.parametrize("kind", [TopK, Coverage, Threshold])
def test_unit_and_rescale_are_checked_shown_and_part_of_the_value(kind: type) -> None:
    with pytest.raises(SelectionError, match="unit must be 'channel' or 'element', got 'pixel'"):
        kind(0.5, unit="pixel")
    with pytest.raises(SelectionError, match="rescale must be True or False, got 1"):
        kind(0.5, rescale=1)
    assert repr(kind(0.5, unit="element", rescale=True)).endswith("unit='element', rescale=True)")
    assert "rescale" not in repr(kind(0.5))
    assert repr(kind(0.5, unit="".join(("chan", "nel")))) == repr(kind(0.5))
    assert len({kind(0.5), kind(0.5), kind(0.5, rescale=True), kind(0.5, unit="element")}) == 3


# Rescaling


@pytest.mark.parametrize("unit", ["channel", "element"])
def test_rescaled_what_is_kept_conserves_the_whole(unit: str) -> None:
    model, x = cnn().double(), torch.rand(3, 1, 8, 8, dtype=torch.double)
    for module in model:
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            module.bias.data.zero_()
    model[1].running_mean.zero_()  # type: ignore[union-attr, operator]
    trace = SelectiveLRP(model, Epsilon(1e-12), TopK(0.3, unit=unit, rescale=True)).trace(x, target=1)  # type: ignore[arg-type]
    assert isinstance(trace.inputs, Tensor)
    torch.testing.assert_close(trace.inputs.flatten(1).sum(1), trace.explained)  # nothing is lost on the way
    torch.testing.assert_close(trace.relevance["0"].sum(1), trace.explained)
    for layer in ("0", "4"):
        assert trace.absorbed[f"{layer}.unselected"].abs().max() < 1e-10
    plain = SelectiveLRP(model, Epsilon(1e-12), TopK(0.3, unit=unit)).trace(x, target=1)  # type: ignore[arg-type]
    assert torch.equal(plain.masks["4"], trace.masks["4"])
    assert plain.absorbed["4.unselected"].abs().max() > 1e-6


def test_nothing_kept_cannot_be_rescaled() -> None:
    model, x = cnn(), torch.rand(3, 1, 8, 8)
    trace = SelectiveLRP(model, selection=Threshold(0.999, rescale=True)).trace(x, target=1)
    assert isinstance(trace.inputs, Tensor)
    assert trace.inputs.isfinite().all()
    assert trace.conservation_error.max() < 1e-5


# Single values


def test_elements_are_chosen_by_their_own_relevance() -> None:
    model, x = cnn(), torch.rand(3, 1, 8, 8)
    relevance = LayerSelectiveLRP(model, "4").attribute(x, target=1)
    trace = SelectiveLRP(model, selection=TopK(5, unit="element")).trace(x, target=1)
    assert trace.masks["4"].shape == (3, 16, 2, 2)
    assert torch.equal(trace.masks["4"], select(TopK(5), relevance.flatten(1)).view_as(relevance))
    assert trace.relevance["4"].shape == (3, 16)
    assert trace.conservation_error.max() < 1e-5
    assert torch.equal(trace.critical("4"), trace.masks["4"].flatten(2).any(2))
    assert " 5 critical" in repr(trace)
    control = random_masks(trace.masks, torch.Generator().manual_seed(0))
    assert control["4"].shape == (3, 16, 2, 2)
    assert control["4"].flatten(1).sum(1).tolist() == [5] * 3


def test_elements_of_a_sequence() -> None:
    torch.manual_seed(0)
    trace = SelectiveLRP(Tokens(), selection=TopK(4, unit="element")).trace(torch.rand(2, 6, 6), target=1)
    assert trace.masks["embed"].shape == (2, 6, 9)
    assert torch.equal(trace.critical("embed"), trace.masks["embed"].any(1))


def test_a_graph_of_selected_elements_has_their_channels() -> None:
    trace = SelectiveLRP(cnn(), selection=TopK(4, unit="element")).trace(torch.rand(1, 1, 8, 8), target=1, edges=True)
    nodes = {neuron for layer, neuron in build_graph(trace) if layer == "0"}
    assert nodes
    assert nodes <= set(trace.critical("0").any(0).nonzero().flatten().tolist())
