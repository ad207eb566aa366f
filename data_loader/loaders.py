"""Batches whose content depends on the seed and the epoch alone, not on the worker processes."""

import argparse
import platform
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data_loader.image_set import ImageSet
from data_loader.items import Items
from utils.arguments import allow_change, natural, positive_int
from utils.collectives import broadcast_from_first, split_over_ranks
from utils.errors import InputError
from utils.interruption import ignore_signals
from utils.log import progress
from utils.process_group import local_world_size, world_size
from utils.script import available_cores

BATCH = 64  # images that a process reads at a time where all are read once


def add_loader_arguments(
    parser: argparse.ArgumentParser, *, batch_size: int, num_workers: int
) -> None:
    """Declare the options of loading."""
    group = parser.add_argument_group("loading")
    group.add_argument(
        "--batch_size",
        type=positive_int,
        default=batch_size,
        help="images a step, over all GPUs and processes together",
    )
    group.add_argument(
        "--num_workers",
        type=natural,
        default=num_workers,
        help="worker processes that read images, on each machine, at most one a core; 0 reads "
        "them in the main process",
    )
    allow_change("num_workers")


class SeededSampler:
    """Pairs of index and seed of the item's random samples, in an order of its own each epoch."""

    def __init__(self, length: int, seed: int, shuffle: bool) -> None:
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.epoch = self.skipped = 0

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Choose the epoch that comes next, but for its first ``skip`` keys."""
        if skip > self.length:
            raise InputError(
                f"{skip} images were taken of an epoch that has {self.length} now: resume at the "
                "end of an epoch to change the images"
            )
        self.epoch, self.skipped = epoch, skip

    def __len__(self) -> int:
        return self.length - self.skipped

    def keys(self) -> tuple[Tensor, Tensor]:
        """Return indices and seeds, in their order."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        order = torch.arange(self.length)
        if self.shuffle:
            order = torch.randperm(self.length, generator=generator)
        seeds = torch.randint(2**62, (self.length,), generator=generator)
        return order[self.skipped :], seeds[self.skipped :]


class RankBatches(SeededSampler):
    """This rank's chunk of each batch of B keys; in a single process, the whole batch.

    Where the last batch has too few keys for all ranks, those without any get its first one,
    so that all take equally many steps: see `BatchSplit`.
    """

    def __init__(self, length: int, seed: int, shuffle: bool, batch_size: int) -> None:
        super().__init__(length, seed, shuffle)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-super().__len__() // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, seeds = self.keys()
        for first in range(0, len(order), self.batch_size):
            rows = slice(first, first + self.batch_size)
            # Numbers become Python's, some hundred bytes each, a batch at a time.
            batch = list(zip(order[rows].tolist(), seeds[rows].tolist(), strict=True))
            yield batch[split_over_ranks(len(batch)).rows] or batch[:1]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator, which is the training's own, and put it back in the end."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class SeededItems(Dataset):
    """A data set indexed by (index, seed): torch's generator is seeded for each item."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Any:
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
    shared: bool = True,
) -> DataLoader:
    """Return batches of a data set; call `set_epoch` before each epoch.

    Args:
        dataset: has a length.
        batch_size: items a batch, over all ranks; the last one may be smaller.
        num_workers: processes, see `own_workers`.
        seed: of order and random samples.
        shuffle: a new order each epoch.
        device: where the batches will go.
        shared: other ranks read at the same time.
    """
    length = len(dataset)  # type: ignore[arg-type]  # torch's Dataset declares no length
    workers = own_workers(num_workers) if shared else min(num_workers, available_cores())
    batches = RankBatches(length, seed, shuffle, batch_size)
    return persistent_loader(SeededItems(dataset), workers, device, batch_sampler=batches)


def persistent_loader(
    source: Dataset, workers: int, device: torch.device, **batching: Any
) -> DataLoader:
    """Return a loader whose workers outlive an epoch; its memory is pinned for a GPU."""
    return DataLoader(
        source,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=ignore_signals,
        pin_memory=device.type == "cuda",
        # Its own: DataLoader would take its workers' seeds from the training's generator.
        generator=torch.Generator(),
        **batching,
    )


def read_all(
    dataset: Sized, make: Callable[[int], Any], num_workers: int, title: str
) -> Iterable[Any]:
    """Return what is made of each index, in batches, and show a bar with a title meanwhile.

    At most `available_cores` of the ``num_workers`` processes read.
    """
    workers, generator = min(num_workers, available_cores()), torch.Generator()
    items = Items(dataset, make)
    return progress(DataLoader(items, BATCH, num_workers=workers, generator=generator), title)


def set_epoch(loader: DataLoader, epoch: int, skip: int = 0) -> None:
    """Choose the epoch that a loader yields next, but for its first images over all ranks."""
    source: Any = loader.dataset if loader.batch_sampler is None else loader.batch_sampler
    source.set_epoch(epoch, skip)


def own_workers(num_workers: int) -> int:
    """Return this rank's part of a machine's reader processes, at most one a core.

    That is best beside a model on the same cores, too (benchmarks/README.md).
    """
    return -(-min(num_workers, available_cores()) // local_world_size())


def worker_notice(num_workers: int) -> list[str]:
    """Return a line if more workers were asked for than there are cores."""
    cores = available_cores()
    if num_workers <= cores:
        return []
    return [f"--num_workers {num_workers} capped at this machine's {cores} cores"]


def check_same_images(*datasets: ImageSet) -> None:
    """Raise an `InputError` in ranks whose names or annotations aren't the first rank's."""
    if world_size() == 1:
        return
    own = [dataset.digest() for dataset in datasets]
    if broadcast_from_first(lambda: own) != own:
        raise InputError(
            f"{datasets[0].folder} on {platform.node()}: not the images, or annotations, that "
            "the first process has"
        )


def check_batch_size(batch_size: int) -> None:
    """Raise an `InputError` unless whole batches fall into equal chunks for all ranks."""
    sizes = set(split_over_ranks(batch_size).sizes)
    if len(sizes) > 1:
        raise InputError(
            f"--batch_size {batch_size}: not a multiple of the {world_size()} processes that "
            "torchrun started, which share each batch"
        )
