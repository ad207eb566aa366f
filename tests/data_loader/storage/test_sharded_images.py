"""Every image once an epoch, in an order that only the seed, the epoch, R and B decide."""

import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from PIL import Image

from data_loader import loaders
from data_loader.bad_images import BadImages
from data_loader.data_loaders_animal import InatAve
from data_loader.geometry import resize_square
from data_loader.items import Items
from data_loader.loaders import SeededItems
from data_loader.storage import sharded_images
from data_loader.storage.sharded_images import (
    LANES,
    ShardedCelebA,
    ShardedImages,
    ShardedInatAve,
    build_sharded_loader,
    fitting_workers,
    mixed,
    step_sizes,
)
from data_loader.storage.shards import Shard, find_shards
from tests.data_loader.batches import same
from tests.data_loader.layouts import complaint
from tests.data_loader.shard_files import (
    image,
    number_of,
    write_index,
    write_shards,
    write_tar,
)

CPU = torch.device("cpu")
FRAME = {"imwidth": 8, "crop": 0}
# torch counts this machine's own cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(autouse=True)
def many_cores(monkeypatch):
    """Let tests ask for workers on any machine, and for small blocks."""
    monkeypatch.setattr(loaders, "available_cores", lambda: 12)
    monkeypatch.setattr(sharded_images, "BLOCK", 5)


def images_of(shards, *, squares=True, seed=3, batch_size=4, rank=0, ranks=1, **options):
    if isinstance(shards, str):
        shards = find_shards(shards)
    dataset = ShardedInatAve(shards, **(FRAME | options))
    return ShardedImages(
        dataset, squares=squares, seed=seed, batch_size=batch_size, rank=rank, ranks=ranks
    )


def epoch_of(images, epoch, skip=0, workers=0):
    images.set_epoch(epoch, skip)
    loader = build_sharded_loader(images, num_workers=workers, device=CPU)
    assert len(loader) == len(images)
    batches = list(loader)
    assert len(batches) == len(loader)
    return batches


def notes_of(batch):
    return torch.stack([batch.index, batch.bad], dim=1)


def numbers(images, batches, first_step=0) -> list[list[int]]:
    """Return the numbers of the images in each batch, stand-ins left out."""
    sizes = images.sizes[first_step:].tolist()
    found = [batch.image for batch in batches]
    assert all(len(b) == max(1, n) for b, n in zip(found, sizes, strict=True))
    return [
        [number_of(image) for image in images[:size]]
        for images, size in zip(found, sizes, strict=True)
    ]


def flat(lists) -> list:
    return [value for values in lists for value in values]


# ---- who takes what ----


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 8, 24])
@pytest.mark.parametrize("total", [1, 2, 7, 24, 25, 100, 289])
def test_ranks_divide_each_step_as_chunk_does(total, batch_size, ranks):
    sizes = [step_sizes(total, batch_size, ranks, rank).tolist() for rank in range(ranks)]
    steps = torch.arange(total).split(batch_size)
    for found, step in zip(zip(*sizes, strict=True), steps, strict=True):
        parts = [len(part) for part in step.chunk(ranks)]
        assert list(found) == parts + [0] * (ranks - len(parts))


@pytest.mark.parametrize(
    ("counts", "batch_size", "ranks"),
    [
        ([1], 4, 1),
        ([1], 4, 3),  # all but one rank are left with a stand-in
        ([7, 30, 1, 12, 50], 8, 1),
        ([7, 30, 1, 12, 50], 8, 3),  # 3, 3 and 2; then 2, 2 and 0
        ([100, 3], 6, 4),  # 2, 2, 2 and never any
        ([61] * 3, 10, 2),
    ],
)
def test_each_image_once_an_epoch(tmp_path, counts, batch_size, ranks):
    shards = find_shards(write_shards(tmp_path, counts))
    for epoch in (1, 2):
        ranks_numbers = []
        for rank in range(ranks):
            images = images_of(shards, batch_size=batch_size, rank=rank, ranks=ranks)
            ranks_numbers.append(numbers(images, epoch_of(images, epoch)))
        steps = [flat(step) for step in zip(*ranks_numbers, strict=True)]  # as long for each
        sizes = [len(step) for step in torch.arange(sum(counts)).split(batch_size)]
        assert [len(step) for step in steps] == sizes
        assert sorted(flat(steps)) == list(range(sum(counts)))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_same_batches_whatever_the_workers_also_after_a_resumption(tmp_path, workers):
    """Views, too, to the bit; the workers live on from one epoch to the next."""
    pattern = write_shards(tmp_path, [20, 31, 2])
    alone = images_of(pattern, squares=False, batch_size=7, rank=1, ranks=2)
    images = images_of(pattern, squares=False, batch_size=7, rank=1, ranks=2)
    loader = build_sharded_loader(images, num_workers=workers, device=CPU)
    assert loader.num_workers == workers and loader.persistent_workers
    for epoch, skip in ((1, 0), (2, 0), (2, 21), (3, 7), (2, 53), (1, 49), (1, 0)):
        images.set_epoch(epoch, skip)
        expected = epoch_of(alone, epoch, skip)
        assert len(expected) == len(loader) == 8 - -(-skip // 7)
        found = list(loader)
        assert same(found, expected) if expected else found == []
    assert expected[0][0].shape == (3, 6, 8, 8)


def test_an_epoch_left_half_way_does_not_reach_into_the_next(tmp_path):
    pattern = write_shards(tmp_path, [20, 31])
    images = images_of(pattern)
    loader = build_sharded_loader(images, num_workers=2, device=CPU)
    images.set_epoch(1)
    for _ in zip(range(3), loader):  # noqa: B905
        pass
    images.set_epoch(2, 8)
    assert len(loader) == 11
    assert same(list(loader), epoch_of(images_of(pattern), 2, 8))


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_resumed_run_gets_the_rest_of_the_same_batches(tmp_path, ranks):
    pattern = write_shards(tmp_path, [20, 9, 18, 26])
    for rank in range(ranks):
        images = images_of(pattern, batch_size=5, rank=rank, ranks=ranks)
        whole = epoch_of(images, 4)
        for step in range(len(whole) + 1):
            skip = min(step * 5, 73)
            rest = epoch_of(images, 4, skip)
            assert same(rest, whole[step:]) if step < len(whole) else rest == []


def test_skipping_takes_whole_steps(tmp_path):
    images = images_of(write_shards(tmp_path, [10]))
    for skip in (1, 9, 11, 12, -4):
        with pytest.raises(ValueError, match="no whole steps"):
            images.set_epoch(1, skip)
    images.set_epoch(1, 10)
    assert len(images) == 0 and list(images) == []


def test_how_many_workers_fit():
    wanted = [0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 18]
    assert [*map(fitting_workers, wanted)] == [0, 1, 2, 3, 4, 4, 6, 6, 6, 12, 12]


# ---- the order ----


def test_epochs_and_seeds_have_their_own_order_and_draws(tmp_path):
    shards = find_shards(write_shards(tmp_path, [30, 31]))

    def content(seed, epoch):
        images = images_of(shards, seed=seed)
        batches = epoch_of(images, epoch)
        order = torch.tensor(flat(numbers(images, batches)))
        return order, torch.cat([batch[1] for batch in batches])[order.argsort()]

    runs = [content(seed, epoch) for seed in (0, 1, 2**64 - 1, -1) for epoch in (0, 1)]
    for i, (order, draws) in enumerate(runs):
        assert len(set(draws.tolist())) == 61
        for other_order, other_draws in runs[:i]:
            assert not torch.equal(order, other_order)
            assert (draws != other_draws).all()


def test_an_images_draws_depend_on_neither_ranks_nor_batches(tmp_path):
    shards = find_shards(write_shards(tmp_path, [13, 20]))
    found = []
    for ranks, batch_size in ((1, 4), (2, 6)):
        draws = {}
        for rank in range(ranks):
            images = images_of(shards, batch_size=batch_size, rank=rank, ranks=ranks)
            for batch in epoch_of(images, 1):
                draws |= zip(batch.index.tolist(), batch.seed.tolist(), strict=True)
        found.append(draws)
    assert found[0] == found[1] and len(found[0]) == 33


def test_the_order_is_well_mixed(tmp_path, monkeypatch):
    monkeypatch.setattr(sharded_images, "BLOCK", 64)
    images = images_of(write_shards(tmp_path, [30] * 80), batch_size=32)
    for epoch in (1, 2):
        order = np.array(flat(numbers(images, epoch_of(images, epoch))))
        assert abs(np.corrcoef(np.arange(2400), order)[0, 1]) < 0.3
        # Any LANES steps show images of many shards: one to four a step.
        for window in order[: 2400 // 384 * 384].reshape(-1, 384):
            assert LANES <= len(set(window // 30)) <= LANES * 4
        # A step's aren't in the order of the file.
        apart = np.diff(order.reshape(-1, 32), axis=1)
        assert (apart == 1).mean() < 0.1 and 0.4 < (apart > 0).mean() < 0.6


def test_mixed_numbers_are_all_different():
    keys = [(a,) for a in range(50)] + [(a, b) for a in (0, 1, -1, 2**70) for b in range(50)]
    drawn = {mixed(*key) for key in keys}
    assert len(drawn) == len(keys) and all(0 <= n < 2**62 for n in drawn)


# ---- what is read ----


def test_shards_that_a_resumed_run_does_not_need_are_not_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(sharded_images, "BLOCK", 2)
    shards = find_shards(write_shards(tmp_path, [4] * 30))
    images = images_of(shards, batch_size=5)
    whole = epoch_of(images, 1)
    left = {number // 4 for number in flat(numbers(images, whole[12:], 12))}
    read, touched = sharded_images.images, set()

    def noted(shard, first, stop):
        touched.add(shards.index(shard))
        return read(shard, first, stop)

    monkeypatch.setattr(sharded_images, "images", noted)
    assert same(epoch_of(images, 1, 60), whole[12:])
    # A lane has ten places, and goes on in its third block. Half of the lanes begin with a shard.
    assert left <= touched and len(touched) <= 24
    for i in set(range(30)) - touched:
        shards[i].path.unlink()
    assert same(epoch_of(images, 1, 60), whole[12:])


def test_a_stand_in_is_the_first_image(tmp_path):
    images = images_of(write_shards(tmp_path, [9]), batch_size=8, rank=2, ranks=4)
    batches = epoch_of(images, 1)
    assert images.sizes.tolist() == [2, 0]
    assert len(batches[1][0]) == 1 and number_of(batches[1][0][0]) == 0


def test_items_are_those_of_the_benchmarks(tmp_path):
    """Of the same images in folders, drawn from the same seed."""
    (tmp_path / "a").mkdir()
    for i in range(3):
        (tmp_path / "a" / f"{i}.jpg").write_bytes(image(i * 1000, (30, 20)))
    members = [(f"{i}.jpg", image(i * 1000, (30, 20))) for i in range(3)]
    shards = [Shard(write_tar(tmp_path / "x.tar", members), 3)]
    frame = {"imwidth": 16, "crop": 4, "smallest_scale": 0.5}
    plain = InatAve(tmp_path, **frame)
    for squares, items in (
        (False, SeededItems(Items(plain, plain.pair_item))),
        (True, SeededItems(Items(plain, plain.square_item))),
    ):
        images = images_of(shards, squares=squares, batch_size=1, **frame)
        batches = epoch_of(images, 5)
        assert len(batches) == 3
        for batch in batches:
            index = batch.index.item()
            assert not squares or index == number_of(batch.image[0]) // 1000
            expected = items[index, mixed(3, 5, index)]
            assert same([part[0] for part in batch], expected)
    dataset = images.dataset
    assert (len(dataset), dataset.side, dataset.mean) == (3, 8, plain.mean)
    assert dataset.count_notice() == []


def test_celeba_is_cut_as_from_its_folder(tmp_path):
    values = np.random.RandomState(0).randint(0, 256, (218, 178, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    image.save(tmp_path / "0.png")
    write_tar(tmp_path / "a.tar", [("0.png", (tmp_path / "0.png").read_bytes())])
    dataset = ShardedCelebA(find_shards(str(tmp_path / "a.tar")), imwidth=50, crop=5)
    images = ShardedImages(dataset, squares=True, seed=0, batch_size=4)
    ((squares, seeds, _, _),) = epoch_of(images, 1)
    expected = np.asarray(resize_square(image.crop((0, 30, 178, 208)), 50))
    assert np.array_equal(squares[0].permute(1, 2, 0).numpy(), expected)
    assert seeds.dtype == torch.int64 and dataset.side == 40


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_named(tmp_path, workers):
    members = [(f"{i}.jpg", image(i)) for i in range(9)]
    members[5] = ("5.jpg", b"text")
    path = write_tar(tmp_path / "a.tar", members)
    images = images_of(str(path))
    if workers:
        loader = build_sharded_loader(images, num_workers=workers, device=CPU)
        with pytest.raises(ValueError, match=f"{path}/5.jpg: not an image"):
            list(loader)
        loader._iterator._shutdown_workers()  # now, not when the garbage is collected
        return
    assert f"{path}/5.jpg: not an image" in complaint(epoch_of, images, 1)
    for count in (8, 10):
        index = write_index(tmp_path / "i.json", (path.name, count))
        assert str(path) in complaint(epoch_of, images_of(index), 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_moves_no_generator_of_the_training(tmp_path, workers):
    images = images_of(write_shards(tmp_path, [9]), squares=False)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    epoch_of(images, 1, workers=workers)
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_can_be_made_in_a_spawned_process(tmp_path):
    images = images_of(write_shards(tmp_path, [9]))
    again = pickle.loads(pickle.dumps(images.dataset))
    assert len(again) == 9
    assert ForkingPickler.dumps(images)


# ---- images that can't be read ----


def write_damaged(folder, *bad) -> list[Shard]:
    """Write 200 numbered images into two shards, of which some are text."""
    files = [(f"{i:03}.jpg", b"text" if i in bad else image(i)) for i in range(200)]
    for name, part in (("a", files[:90]), ("b", files[90:])):
        write_tar(folder / f"{name}.tar", part)
    return find_shards(f"{folder}/{{a,b}}.tar")


def test_a_good_image_of_the_block_takes_a_bad_ones_place(tmp_path):
    whole = epoch_of(images_of(write_damaged(tmp_path)), 1)
    shards = write_damaged(tmp_path, 7, 150)
    images = images_of(shards, skip_bad=True)
    batches = epoch_of(images, 1)
    for workers in (0, 2):
        assert same(epoch_of(images, 1, workers=workers), batches)
    assert same(epoch_of(images, 1, skip=28), batches[7:])
    wanted, found = (flat(numbers(images, b)) for b in (whole, batches))
    replaced = {a: b for a, b in zip(wanted, found, strict=True) if a != b}
    assert replaced.keys() == {7, 150} and not replaced.keys() & set(replaced.values())
    notes = torch.cat([notes_of(batch) for batch in batches])
    assert notes[:, 0].tolist() == wanted
    assert sorted(notes[notes[:, 1] > 0].tolist()) == [[7, 1], [150, 1]]
    seeds = [torch.cat([batch.seed for batch in b]) for b in (whole, batches)]
    assert torch.equal(*seeds)  # of the draws: those that the bad one would have had


def test_bad_images_of_shards_are_listed_once_and_limited(tmp_path):
    images = images_of(write_damaged(tmp_path, 7, 150), skip_bad=True)
    said = []
    for resumed in (False, True):
        bad_images = BadImages(tmp_path, images.dataset, resumed, said.append)
        for epoch in (1, 2):
            for batch in epoch_of(images, epoch):
                bad_images.note(notes_of(batch))
        listed = (tmp_path / "bad_images.txt").read_text().splitlines()
        paths = [line.split("\t")[0] for line in listed]
        assert sorted(paths) == [f"{tmp_path}/a.tar/007.jpg", f"{tmp_path}/b.tar/150.jpg"]
        assert all("not an image" in line for line in listed)
    images = images_of(write_damaged(tmp_path, 7, 150, 151), skip_bad=True)
    notes = torch.cat([notes_of(batch) for batch in epoch_of(images, 1)])
    assert "3 of 200 images can't be read" in complaint(bad_images.note, notes)
