"""Batches depend on the seed and the epoch alone."""

import os
import random
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from data_loader import loaders
from data_loader.loaders import (
    SeededItems,
    SeededSampler,
    build_loader,
    set_epoch,
    worker_notice,
)
from tests.data_loader.batches import same
from utils.errors import InputError

CPU = torch.device("cpu")


class Draws(Dataset):
    """Items that consist of what they draw."""

    def __init__(self, length=7):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return index, torch.randn(3), torch.randint(1000, (2,))


class Broken(Draws):
    def __getitem__(self, index):
        raise InputError(f"/data/{index}.jpg: unreadable image")


def loader_of(dataset, workers=0, seed=1, batch_size=3, shuffle=True):
    return build_loader(
        dataset,
        batch_size=batch_size,
        num_workers=workers,
        seed=seed,
        shuffle=shuffle,
        device=CPU,
    )


def epochs(loader, numbers):
    """Return all batches of some epochs."""
    batches = []
    for epoch in numbers:
        loader.batch_sampler.set_epoch(epoch)
        batches += [tuple(batch) for batch in loader]
    return batches


def pairs(sampler):
    return list(zip(*(numbers.tolist() for numbers in sampler.keys()), strict=True))


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    """Let tests ask for two workers on any machine."""
    monkeypatch.setattr(loaders, "available_cores", lambda: 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_batches_whatever_the_workers(workers):
    alone = epochs(loader_of(Draws()), (1, 2, 3))
    loader = loader_of(Draws(), workers)
    assert loader.num_workers == workers
    assert same(epochs(loader, (1, 2, 3)), alone)
    # A run that resumes starts new processes in a later epoch.
    assert same(epochs(loader_of(Draws(), workers), (3,)), alone[6:])


def test_each_item_is_drawn_once_an_epoch_and_the_last_batch_is_smaller():
    batches = epochs(loader_of(Draws(7)), (1,))
    assert [len(batch[0]) for batch in batches] == [3, 3, 1]
    assert sorted(torch.cat([batch[0] for batch in batches]).tolist()) == list(range(7))
    assert len(torch.cat([batch[1] for batch in batches]).unique(dim=0)) == 7  # seeds of their own
    assert len(loader_of(Draws(7))) == 3


def test_epochs_and_seeds_have_their_own_order_and_draws():
    def content(seed, epoch):
        batches = epochs(loader_of(Draws(40), seed=seed), (epoch,))
        order = torch.cat([batch[0] for batch in batches])
        return order, torch.cat([batch[1] for batch in batches])[order.argsort()]

    runs = {(seed, epoch): content(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)}
    keys = list(runs)
    for i, one in enumerate(keys):
        assert all(torch.equal(a, b) for a, b in zip(runs[one], content(*one), strict=True))
        for other in keys[i + 1 :]:
            assert not torch.equal(runs[one][0], runs[other][0])
            # Item for item: none draws the same in two epochs.
            assert (runs[one][1] != runs[other][1]).all()


def test_without_shuffling_the_order_is_the_data_sets_and_draws_differ():
    loader = loader_of(Draws(6), shuffle=False)
    first, second = epochs(loader, (1,)), epochs(loader, (2,))
    for batches in (first, second):
        assert torch.cat([batch[0] for batch in batches]).tolist() == list(range(6))
    assert not same(first, second)


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_moves_no_generator_of_the_training(workers):
    """Else a resumed run, whose workers start anew, would draw other permutations."""
    torch.manual_seed(11)
    np.random.seed(11)
    random.seed(11)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    loader = loader_of(Draws(), workers)
    for epoch in (1, 2):
        epochs(loader, (epoch,))
        assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_does_not_depend_on_the_generator_of_the_training(workers):
    torch.manual_seed(1)
    first = epochs(loader_of(Draws(), workers), (1,))
    torch.manual_seed(2)
    torch.randn(5)
    assert same(epochs(loader_of(Draws(), workers), (1,)), first)


# ---- the parts ----


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_goes_on_after_what_is_skipped(workers):
    whole = epochs(loader_of(Draws(), workers), (2,))
    loader = loader_of(Draws(), workers)
    set_epoch(loader, 2, skip=6)
    assert same([tuple(batch) for batch in loader], whole[2:])
    set_epoch(loader, 2, skip=len(Draws()))  # a run may have ended after an epoch's last step
    assert len(loader) == 0 and list(loader) == []
    set_epoch(loader, 3)
    assert same([tuple(batch) for batch in loader], epochs(loader_of(Draws()), (3,)))
    with pytest.raises(InputError, match="8 images were taken of an epoch that has 7 now"):
        set_epoch(loader, 4, skip=8)


@pytest.mark.parametrize("seed", [0, 2**31, 2**62, 2**64 - 1])
def test_sampler_takes_any_seed_that_torch_takes(seed):
    torch.Generator().manual_seed(seed)
    assert len(pairs(SeededSampler(3, seed, True))) == 3


def test_items_that_fail_leave_the_generator_as_it_was():
    before = torch.get_rng_state()
    with pytest.raises(InputError):
        SeededItems(Broken())[1, 5]
    assert torch.equal(torch.get_rng_state(), before)


# ---- workers ----


def test_workers_are_capped_at_the_cores(monkeypatch):
    monkeypatch.setattr(loaders, "available_cores", lambda: 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch counts this machine's own cores
        workers = [loader_of(Draws(), n).num_workers for n in (0, 2, 3, 4, 18)]
    assert workers == [0, 2, 3, 3, 3]
    assert worker_notice(3) == []
    (line,) = worker_notice(18)
    assert "18" in line and "3 cores" in line


def test_cores_are_those_this_process_may_run_on(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 6, 7}, raising=False)
    assert loaders.available_cores() == 4
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert loaders.available_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert loaders.available_cores() == 1


def test_memory_is_pinned_for_a_gpu_only_and_workers_outlive_an_epoch():
    assert not loader_of(Draws(), 2).pin_memory
    assert loader_of(Draws(), 2).persistent_workers
    assert not loader_of(Draws(), 0).persistent_workers
    options = {"batch_size": 2, "num_workers": 0, "seed": 0, "shuffle": False}
    assert build_loader(Draws(), **options, device=torch.device("cuda", 0)).pin_memory
