"""Which samples are looked at: the same ones by one process and by several, evenly, and none twice."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler, SequentialSampler, TensorDataset

from lrp_lightning.callbacks.sampling import LoaderShare, Sampling, mistakes, stratified


def rows(n: int) -> TensorDataset:
    return TensorDataset(torch.arange(n))


def looked_at(most: int, sizes: list[int], processes: int, batch: int = 4) -> tuple[list[int], list[int]]:
    """Rows of the datasets, numbered through, that the processes choose together; and their ordinals."""
    found, ordinals = [], []
    for process in range(processes):
        samplers = [DistributedSampler(rows(n), processes, process, shuffle=False) for n in sizes]
        loaders = [DataLoader(s.dataset, batch, sampler=s) for s in samplers]
        if processes == 1:
            loaders = [DataLoader(rows(n), batch) for n in sizes]
        shares = [LoaderShare.of(loader, len(loader), processes) for loader in loaders]
        sampling = Sampling(most, shares, processes, process)
        for number, loader in enumerate(loaders):
            for [values] in loader:
                at, ordinal = sampling.choose(len(values), number)
                found += (values[at] + sum(sizes[:number])).tolist()
                ordinals += ordinal.tolist()
    return found, ordinals


@pytest.mark.parametrize("sizes", [[37], [10], [13, 5, 20]])
@pytest.mark.parametrize("most", [1, 7, 10, 100])
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_several_processes_look_at_what_one_would(sizes: list[int], most: int, processes: int):
    alone, ordinals = looked_at(most, sizes, 1)
    together, their_ordinals = looked_at(most, sizes, processes)
    assert len(alone) == min(most, sum(sizes))
    assert ordinals == list(range(len(alone)))
    assert sorted(together) == alone  # none twice, though the sampler repeats some
    assert dict(zip(together, their_ordinals, strict=True)) == dict(zip(alone, ordinals, strict=True))


def test_samples_are_spread_evenly():
    chosen, _ = looked_at(10, [100], 1)
    assert torch.tensor(chosen).diff().unique().tolist() == [10]


def test_of_an_unknown_number_the_first_are_looked_at():
    sampling = Sampling(6, [LoaderShare(None), LoaderShare(None)])
    assert [sampling.choose(4, 0)[0].tolist(), sampling.choose(4, 1)[0].tolist()] == [[0, 1, 2, 3], [0, 1]]
    assert sampling.done


@pytest.mark.parametrize(
    ("loader", "batches", "expected"),
    [
        (DataLoader(rows(10), 4), 3, 10),
        (DataLoader(rows(10), 4), 2, 8),
        (DataLoader(rows(10), 4, drop_last=True), 2, 8),
        (DataLoader(rows(10), 4, sampler=RandomSampler(rows(10), num_samples=5)), 2, 5),
        (DataLoader(rows(10), batch_sampler=BatchSampler(SequentialSampler(rows(10)), 3, False)), 4, 10),
        (DataLoader(rows(10), batch_size=None), 10, None),  # rows are batches of a size that is not known
        (DataLoader(rows(10), 4), float("inf"), None),
        ([1, 2, 3], 3, None),
    ],
)
def test_how_many_samples_a_loader_gives(loader: object, batches: float, expected: int | None):
    assert LoaderShare.of(loader, batches, 1).samples == expected


def test_stratified_takes_the_first_of_each_class_first():
    classes = torch.tensor([3, 3, 3, 0, 3, 0, 7, 3])
    assert stratified(classes, 3).tolist() == [0, 3, 6]
    assert stratified(classes, 5).tolist() == [0, 1, 3, 5, 6]
    assert stratified(classes, 100).tolist() == list(range(8))
    assert stratified(classes, 0).tolist() == []
    assert stratified(classes[:0], 4).tolist() == []


def test_stratified_chooses_the_same_bit_by_bit_as_at_once():
    generator = torch.Generator().manual_seed(0)
    for most in (1, 5, 8):
        classes = torch.randint(6, (60,), generator=generator)
        kept = torch.zeros(0, dtype=torch.long)
        for part in torch.arange(60).split(7):
            seen = torch.cat([kept, part])
            kept = seen[stratified(classes[seen], most)]
        assert kept.tolist() == stratified(classes, most).tolist()


def test_mistakes():
    logits = torch.tensor([[1.0, 5, 2], [1, 5, 2], [1, 5, 2], [1, 5, 2]])
    sets = torch.tensor([[0, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 0]]).bool()
    assert mistakes(logits, sets).tolist() == [-3, 4, 3, -torch.inf]
