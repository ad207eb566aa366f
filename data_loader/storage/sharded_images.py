"""Batches from shards, for any number of processes: who reads which images, and when.

An epoch's order depends on the seed, the epoch, the number of ranks R and the images a step B,
and not on the worker processes; nor does its part after any step depend on where a run resumed.
The shards, in random order, make a sequence of N places. It is cut into ranges, one for each of
R * LANES lanes. Lane l of rank r has the images that r is to take in the steps l, l + LANES,
l + 2 * LANES, ...: just as many as its range has places, however short the last step is. Within a
lane, each `BLOCK` of places is in random order. So a lane reads its shards from end to end, and
one that resumes begins with the block that it was at.

WebDataset's own split_by_node and split_by_worker deal out whole shards. Ranks would have unequal
numbers of steps, at the end of which some wait for the others for good, and where in its order a
run stopped would depend on its workers.

Letters: N images, B images a step over all ranks, R ranks, W the side of the network input, S that
of a square.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from functools import partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from data_loader.bad_images import first_good
from data_loader.data_loaders_face import AlignedFaces
from data_loader.folder import OwnImages
from data_loader.image_set import ImageSet, spread
from data_loader.items import PairItem, SquareItem
from data_loader.loaders import own_workers, persistent_loader, seeded
from data_loader.storage.shards import Shard, ShardImage, images
from data_loader.views.random_view import IMAGENET_MEAN, IMAGENET_STD
from utils.errors import InputError
from utils.process_group import world_size

LANES = 12  # of a rank; 1, 2, 3, 4, 6 or 12 workers can share them
BLOCK = 512  # places in random order; their files' bytes are held in memory, for each lane


class ShardedSet(ImageSet):
    """The unlabelled images of shards.

    Args:
        shards: all of them; every one of their images is used.
        frame: the arguments of `ImageSet`.
    """

    def __init__(self, shards: list[Shard], **frame: Any) -> None:
        super().__init__(**frame)
        self.shards, self.folder = shards, shards[0].path.parent
        self.starts = [0, *accumulate(shard.count for shard in shards)]

    def __len__(self) -> int:
        return self.starts[-1]

    def image(self, index: int) -> ShardImage:
        """Return the image at a place in the shards, which takes long to find."""
        shard = bisect_right(self.starts, index) - 1
        place = index - self.starts[shard]
        return next(images(self.shards[shard], place, place + 1))

    def path(self, index: int) -> Path:
        """See `ImageSet.path`: the shard's, and the member's name below it."""
        return self.image(index).path

    def read_square(self, index: int) -> Image.Image:
        """See `ImageSet.read_square`."""
        return self.square(self.open_file(*self.image(index), index), index)

    def some_files(self, count: int) -> Iterator[tuple[Path, bytes | None, int]]:
        """See `ImageSet.some_files`: the first images of shards from all over the set."""
        places = spread(len(self.shards), count)
        for place in places:
            shard = self.shards[place]
            for found in images(shard, 0, min(shard.count, -(-count // len(places)))):
                yield *found, place

    def digest(self) -> str:
        """Return a hash of the shards' names and counts."""
        counts = [(shard.path.name, shard.count) for shard in self.shards]
        return hashlib.sha256(repr(counts).encode()).hexdigest()

    def order_name(self) -> str:
        """See `ImageSet.order_name`."""
        return (
            f"{len(self)} images in {len(self.shards)} shards ({self.digest()[:8]}) for "
            f"{world_size()} processes"
        )


class ShardedInatAve(ShardedSet):
    """Images of birds."""

    mean, std = IMAGENET_MEAN, IMAGENET_STD


class ShardedFolder(OwnImages, ShardedSet):
    """Images of one's own."""


class ShardedCelebA(AlignedFaces, ShardedSet):
    """CelebA's aligned images; to leave out MAFL's is up to who writes the shards."""


def mixed(*numbers: int) -> int:
    """Return a number below 2**62 that differs, as if at random, for all other numbers."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2


def permutation(length: int, *numbers: int) -> list[int]:
    """Return a random order that depends on the numbers."""
    generator = torch.Generator().manual_seed(mixed(*numbers))
    return torch.randperm(length, generator=generator).tolist()


def step_sizes(total: int, batch_size: int, ranks: int, rank: int) -> np.ndarray:
    """Return how many images of each step are a rank's, (steps,): as `torch.chunk` does it."""
    images = np.diff(np.arange(0, total + batch_size, batch_size).clip(max=total))  # of a step
    chunk = -(-images // ranks)
    return np.clip(images - chunk * rank, 0, chunk)


class ShardedImages(IterableDataset):
    """A rank's batches of an epoch, for `build_sharded_loader`.

    A batch is what `DataLoader` makes of items, see `data_loader.items`; their index is the
    image's place in the shards. An image's random samples depend on the seed, the epoch and its
    place alone. A rank that has no image in the last step still gets a batch, of one image, to
    take the step with the others.

    If the data set skips bad images, the next good one of the block takes their place and their
    random samples (after the last one the first, and then those of the first shard). ``bad`` of
    an item is 1 then.

    Args:
        dataset: makes the items.
        squares: yield `SquareItem`, whose views are made elsewhere, in place of `PairItem`.
        seed: of order and random samples.
        batch_size: B.
        rank: whose images, of those of each step.
        ranks: R.
    """

    def __init__(
        self,
        dataset: ShardedSet,
        *,
        squares: bool,
        seed: int,
        batch_size: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.dataset, self.squares = dataset, squares
        self.shards, self.seed, self.rank = dataset.shards, seed, rank
        self.batch_size = batch_size
        divided = partial(step_sizes, len(dataset), batch_size, ranks)
        self.sizes = divided(rank)  # (steps,)
        # One rank after the other: of a billion images, all steps of all ranks fill a memory.
        every = map(divided, range(ranks))
        lanes = (int(sizes[lane::LANES].sum()) for sizes in every for lane in range(LANES))
        self.ends = [0, *accumulate(lanes)]  # of the lanes of all ranks; before them, 0
        # Epoch and first step, in memory that the workers, which outlive an epoch, see change.
        self.position = torch.zeros(2, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Choose the epoch that comes next, but for its first ``skip`` images over all ranks."""
        step = -(-skip // self.batch_size)
        if skip != min(step * self.batch_size, len(self.dataset)) or skip < 0:
            raise InputError(
                f"the {skip} images that were taken of an epoch are no whole steps of "
                f"{self.batch_size}: resume at the end of an epoch to change --batch_size"
            )
        self.position.copy_(torch.tensor([epoch, step]))

    def __len__(self) -> int:
        """Return how many steps remain of the epoch."""
        return len(self.sizes) - int(self.position[1])

    def __iter__(self) -> Iterator[tuple]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        epoch, first = self.position.tolist()
        lanes = {}
        # DataLoader takes its first batch from worker 0, the next from worker 1, and so on. As
        # their count divides LANES, see `fitting_workers`, each has lanes to itself.
        for step in range(first + number, len(self.sizes), workers):
            lane = step % LANES
            if lane not in lanes:
                lanes[lane] = self.lane_items(epoch, lane, first)
            items = list(islice(lanes[lane], self.sizes[step]))
            yield default_collate(items or [self.item(epoch, [next(self.spares())])])

    def lane_items(self, epoch: int, lane: int, step: int) -> Iterator[PairItem | SquareItem]:
        """Yield the items of a lane, but for those of the steps before one."""
        first, end = self.ends[self.rank * LANES + lane :][:2]
        skip = int(self.sizes[lane:step:LANES].sum())
        block, within = divmod(skip, BLOCK)
        source = self.read(epoch, first + block * BLOCK, end)
        while held := list(islice(source, BLOCK)):
            order = permutation(len(held), self.seed, epoch, self.rank, lane, block)
            block_images = [held[place] for place in order]
            for turn in range(within, len(order)):
                yield self.item(epoch, block_images[turn:] + block_images[:turn])
            block, within = block + 1, 0

    def read(self, epoch: int, first: int, end: int) -> Iterator[tuple[int, ShardImage]]:
        """Yield what lies at some places of an epoch: place in the shards as listed, image."""
        order = permutation(len(self.shards), self.seed, epoch)
        starts = [0, *accumulate(self.shards[i].count for i in order)]
        while first < end:
            turn = bisect_right(starts, first) - 1
            stop, shard = min(end, starts[turn + 1]), order[turn]
            span = (first - starts[turn], stop - starts[turn])
            start = self.dataset.starts[shard] + span[0]
            yield from enumerate(images(self.shards[shard], *span), start)
            first = stop

    def item(self, epoch: int, candidates: list[tuple[int, ShardImage]]) -> PairItem | SquareItem:
        """Return the item of the first image; or, if bad ones are skipped, of the next good one."""
        index, tried = candidates[0][0], chain(candidates, self.spares())
        tries = (partial(self.make, epoch, index, image) for _, image in tried)
        item, bad = first_good(self.dataset, tries)
        return item._replace(bad=min(bad, 1))

    def make(self, epoch: int, index: int, image: ShardImage) -> PairItem | SquareItem:
        """Return an image as the item of a place, whose random samples it gets."""
        with seeded(mixed(self.seed, epoch, index)):
            square = self.dataset.square(self.dataset.open_file(*image, index), index)
            if self.squares:
                return self.dataset.make_square(np.asarray(square), index)
            return self.dataset.make_pair(square, index)

    def spares(self) -> Iterator[tuple[int, ShardImage]]:
        """Yield places and images of the first shard."""
        yield from enumerate(images(self.shards[0], 0, min(self.shards[0].count, BLOCK)))


def fitting_workers(most: int) -> int:
    """Return how many workers to start: at most so many, and such that they can share lanes."""
    return max((n for n in range(1, LANES + 1) if n <= most and LANES % n == 0), default=0)


def build_sharded_loader(
    images: ShardedImages, *, num_workers: int, device: torch.device
) -> DataLoader:
    """Return the batches of a rank; call `loaders.set_epoch` before each epoch."""
    workers = fitting_workers(own_workers(num_workers))
    return persistent_loader(images, workers, device, batch_size=None)
