"""Batches whose content depends on the seed and the epoch alone, not on the worker processes."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from utils.arguments import natural, positive_int
from utils.interruption import ignore_signals


def add_loader_arguments(parser: argparse.ArgumentParser, *, batch_size: int, num_workers: int):
    """Declare the options of loading; return the group."""
    group = parser.add_argument_group("loading")
    group.add_argument(
        "--batch_size",
        type=positive_int,
        default=batch_size,
        help="images a step, over all GPUs together",
    )
    group.add_argument(
        "--num_workers",
        type=natural,
        default=num_workers,
        help="processes that read images; capped at the machine's cores, 0 reads in the main one",
    )
    return group


def available_cores() -> int:
    """Return the cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class SeededSampler(Sampler):
    """Yield (index, seed of the item's random draws) in an order of its own each epoch."""

    def __init__(self, length: int, seed: int, shuffle: bool) -> None:
        self.length, self.seed, self.shuffle, self.epoch = length, seed, shuffle, 0
        self.skipped = 0

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Choose the epoch whose order and draws come next, but for the first ``skip`` of them."""
        self.epoch, self.skipped = epoch, skip

    def __len__(self) -> int:
        return self.length - self.skipped

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        order = torch.arange(self.length)
        if self.shuffle:
            order = torch.randperm(self.length, generator=generator)
        seeds = torch.randint(2**62, (self.length,), generator=generator)
        remaining = slice(self.skipped, None)
        yield from zip(order[remaining].tolist(), seeds[remaining].tolist(), strict=True)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's generator as after seeding it, and put it back: the training's own."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


class SeededItems(Dataset):
    """A data set indexed by (index, seed): torch's generator is seeded for each item's draws."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]):
        index, seed = key
        with seeded(seed):
            return self.dataset[index]


def build_loader(
    dataset: Dataset,
    *,
    batch_size: int,
    num_workers: int,
    seed: int,
    shuffle: bool,
    device: torch.device,
) -> DataLoader:
    """Return batches of a data set; call ``loader.sampler.set_epoch(e)`` before each epoch.

    Args:
        dataset: the items.
        batch_size: items a batch; the last one may be smaller.
        num_workers: processes, capped at `available_cores`.
        seed: of order and draws.
        shuffle: a new order each epoch.
        device: where the batches will go; memory is pinned for a GPU.
    """
    workers = min(num_workers, available_cores())
    return DataLoader(
        SeededItems(dataset),
        batch_size=batch_size,
        sampler=SeededSampler(len(dataset), seed, shuffle),
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=ignore_signals,
        pin_memory=device.type == "cuda",
        # Its own: DataLoader would draw its workers' seeds from the training's generator.
        generator=torch.Generator(),
    )


def worker_notice(num_workers: int) -> list[str]:
    """Return a line if the machine has fewer cores than workers were asked for."""
    cores = available_cores()
    if num_workers <= cores:
        return []
    return [f"--num_workers {num_workers} capped at this machine's {cores} cores"]
