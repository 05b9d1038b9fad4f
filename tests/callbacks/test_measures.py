"""Random sets that belong to a sample, whatever stands beside it."""

from __future__ import annotations

from functools import partial

import torch
from lightning.pytorch import LightningModule
from small_networks import mlp
from torch import Tensor, nn

from lrp_lightning import SelectiveLRP, TopK, masked_forward
from lrp_lightning.callbacks.classifier import Classifier
from lrp_lightning.callbacks.measures import Measures, random_sets
from lrp_lightning.callbacks.settings import SCALARS
from lrp_lightning.metrics import contest_won, mse, probability_lost, runner_up, runner_up_wins, smape


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(6, 20, 20, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def test_every_measure_by_hand_in_parts():
    torch.manual_seed(0)
    net, x, ordinals = Net().eval(), torch.rand(30, 6), torch.arange(30)
    sets = nn.functional.one_hot(torch.randint(4, (30,)), 4).bool() | (torch.rand(30, 4) > 0.9)
    lrp = SelectiveLRP(net, selection=TopK(0.3))
    measures = Measures(SCALARS)
    for _ in range(2):  # the second epoch counts anew
        measures.reset(torch.device("cpu"), training=True)
        for at in ordinals.split(7):
            trace = lrp.trace(x[at], target=lambda logits: logits.argmax(1))
            measures.update(Classifier(net), (x[at],), trace, sets[at], ordinals[at], partial(lrp.trace, x[at]))
        with measures.gathered(bool):
            values = measures.compute()
    trace = lrp.trace(x, target=lambda logits: logits.argmax(1))
    kept, ablated = masked_forward(net, x, trace.masks), masked_forward(net, x, trace.masks, keep=False)
    control = masked_forward(net, x, random_sets(trace.masks, ordinals))

    own, by_chance = torch.full_like(trace.output, torch.nan), torch.full_like(trace.output, torch.nan)
    for chosen in (lambda logits: logits.argmax(1), runner_up):
        of, masks = chosen(trace.output)[:, None], lrp.trace(x, chosen).masks
        forced = masked_forward(net, x, masks)
        own.scatter_(1, of, forced.gather(1, of))
        by_chance.scatter_(1, of, masked_forward(net, x, random_sets(masks, ordinals)).gather(1, of))

    def right(logits: Tensor) -> Tensor:
        return sets.gather(1, logits.argmax(1, keepdim=True)).float().mean()

    of_class = nn.functional.one_hot(torch.where(sets.any(1), sets.int().argmax(1), trace.output.argmax(1)), 4).double()
    degrees = {layer: (of_class.T @ mask.double()) / of_class.sum(0)[:, None] for layer, mask in trace.masks.items()}
    by_circuits = torch.full_like(trace.output, torch.nan)
    for c in range(4):
        masks = {layer: torch.zeros(20, dtype=torch.bool) for layer in degrees}
        for layer, degree in degrees.items():  # 6 of 20 are critical in every sample
            masks[layer][degree[c].argsort(descending=True, stable=True)[:6]] = True
        by_circuits[:, c] = masked_forward(net, x, masks)[:, c]
    scale = trace.output[::2].std(0, correction=0) / by_circuits[::2].std(0, correction=0)
    by_circuits = (by_circuits - by_circuits[::2].mean(0)) * scale + trace.output[::2].mean(0)

    expected = {
        "circuit_agreement": (by_circuits.argmax(1) == trace.output.argmax(1))[1::2].float().mean(),
        "contest_accuracy": contest_won(own, trace.output).float().mean(),
        "random_contest_accuracy": contest_won(by_chance, trace.output).float().mean(),
        "runner_up_accuracy": runner_up_wins(forced, trace.output).float().mean(),
        "sufficiency": probability_lost(kept, trace.output).mean(),
        "comprehensiveness": probability_lost(ablated, trace.output).mean(),
        "logit_correlation": torch.corrcoef(
            torch.cat([logits.gather(1, trace.output.argmax(1, keepdim=True)) for logits in (kept, trace.output)], 1).T
        )[0, 1],
        "critical_neuron_accuracy": (kept.argmax(1) == net(x).argmax(1)).float().mean(),
        "random_accuracy": (control.argmax(1) == net(x).argmax(1)).float().mean(),
        "retained_accuracy": right(kept),
        "ablated_accuracy": right(ablated),
        "smape": smape(kept, net(x)).mean(),
        "mse": mse(kept, net(x)).mean(),
        "conservation_error": trace.conservation_error.mean(),
        "stability": torch.tensor(1.0),  # nothing has changed
    }
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(values[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_without_labels_there_is_no_accuracy_against_them():
    net, x = Net().eval(), torch.rand(5, 6)
    measures = Measures(SCALARS)
    measures.reset(torch.device("cpu"), training=False)
    lrp = SelectiveLRP(net, selection=TopK(3))
    measures.update(Classifier(net), (x,), lrp.trace(x, target=0), None, torch.arange(5), partial(lrp.trace, x))
    assert measures.compute().keys() == {
        "contest_accuracy", "random_contest_accuracy", "runner_up_accuracy",
        "critical_neuron_accuracy", "random_accuracy", "sufficiency", "comprehensiveness", "logit_correlation", "smape",
        "mse", "conservation_error",
    }  # fmt: skip


def masks(samples: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(samples, n, generator=generator) > 0.7 for name, n in (("a", 20), ("b", 50), ("c", 20))}


def test_random_sets_have_the_same_sizes_and_depend_on_the_sample_alone():
    whole = masks(30)
    drawn = random_sets(whole, torch.arange(30))
    for layer, mask in whole.items():
        assert torch.equal(drawn[layer].sum(1), mask.sum(1))
        some = random_sets({name: m[[7, 21]] for name, m in whole.items()}, torch.tensor([7, 21]))
        assert torch.equal(some[layer], drawn[layer][[7, 21]])


def test_random_sets_are_even_and_differ_between_samples_and_layers():
    size, n = 10, 4000
    mask = torch.zeros(n, 40, dtype=torch.bool)
    mask[:, :size] = True
    drawn = random_sets({"a": mask, "b": mask}, torch.arange(n))
    share = drawn["a"].double().mean(0)
    spread = (0.25 * 0.75 / n) ** 0.5
    assert (share - 0.25).abs().max() < 4.5 * spread
    assert (share - 0.25).std() < 1.5 * spread
    for first, second in ((drawn["a"][:-1], drawn["a"][1:]), (drawn["a"], drawn["b"])):
        common = (first & second).double().sum(1).mean()
        assert abs(common - size * 0.25) < 0.15  # as many as chance
    together = (drawn["a"].double().T @ drawn["a"].double()) / n  # of two neurons, no oftener than chance
    pairs = together[~torch.eye(40, dtype=torch.bool)]
    assert (pairs - 0.25 * 9 / 39).abs().max() < 0.03


def test_random_sets_leave_the_generators_alone():
    before = torch.get_rng_state()
    random_sets(masks(4), torch.arange(4))
    assert torch.equal(before, torch.get_rng_state())


def test_circuits_take_forwards_for_every_fourth_sample_alone_if_so_asked(monkeypatch):
    torch.manual_seed(0)
    net, x = Net().eval(), torch.rand(32, 6)
    lrp, seen = SelectiveLRP(net, selection=TopK(0.3)), []
    measures = Measures(["circuit_agreement"], circuits_of_every=4)
    masked = measures._by_circuits
    monkeypatch.setattr(measures, "_by_circuits", lambda of, given, trace: seen.append(given[0]) or masked(of, given, trace))
    for _ in range(2):
        measures.reset(torch.device("cpu"), training=True)
        for at in torch.arange(32).split(10):
            trace = lrp.trace(x[at], target=lambda logits: logits.argmax(1))
            measures.update(Classifier(net), (x[at],), trace, None, at, partial(lrp.trace, x[at]))
        with measures.gathered(bool):
            found = measures.compute()
    assert torch.equal(torch.cat(seen), x[::4].repeat(2, 1))
    assert found.keys() == {"circuit_agreement"}
