"""Images that can't be read: left out of annotated sets, replaced in pre-training, and listed."""

import errno
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from data_loader import loaders
from data_loader.bad_images import (
    BadImages,
    leave_out,
    list_left_out,
    replacing,
)
from data_loader.data_loaders_animal import CUB, InatAve
from data_loader.data_loaders_face import AFLW
from data_loader.data_loaders_face import ThreeHundredW as W300
from data_loader.image_set import ImageSet
from data_loader.items import Items, PairItem
from data_loader.loaders import SeededItems, build_loader
from data_loader.readers.images import open_image
from data_loader.storage.image_cache import cache_images
from tests.data_loader.batches import same
from tests.data_loader.layouts import (
    CUB_NAMES,
    FACE_WRITERS,
    NO_IMAGE,
    complaint,
    write_300w,
    write_aflw,
    write_cub,
    write_text,
)
from utils.errors import ImageError, InputError
from utils.script import run_script

COUNT = 300
PAIR = {"imwidth": 16, "crop": 2, "skip_bad": True}
SINGLE = {**PAIR, "pair_image": False, "do_augmentations": False}
CPU = torch.device("cpu")


# What to make of a good file's content, and what is said of it then.
KINDS = {
    "text": (lambda good: b"no image\n" * 9, NO_IMAGE),
    "cut": (lambda good: good[:-40], "unreadable image (image file is truncated"),
    "empty": (lambda good: b"", NO_IMAGE),
    "bomb": (
        lambda good: b"P6 10000 10000 255\n" + bytes(99),
        "unreadable image (100000000 pixels, more than",
    ),
    "absent": (lambda good: None, "no such image"),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of small images, and the list that names them."""
    root, random = tmp_path_factory.mktemp("birds"), np.random.RandomState(0)
    (root / "a").mkdir()
    for i in range(COUNT):
        Image.fromarray(random.randint(256, size=(12, 14, 3), dtype=np.uint8)).save(name(root, i))
    write_text(root / "list.txt", *(f"a/{i:04d}.jpg" for i in range(COUNT)))
    return root


@pytest.fixture
def root(images, tmp_path):
    """A copy to damage."""
    return shutil.copytree(images, tmp_path / "birds")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(loaders, "available_cores", lambda: 2)


def name(root, i):
    return root / f"a/{i:04d}.jpg"


def damage(root, *places, kind="text"):
    for i in places:
        content = KINDS[kind][0](name(root, i).read_bytes())
        name(root, i).unlink() if content is None else name(root, i).write_bytes(content)


def birds(root, count=COUNT, **options):
    write_text(root / "list.txt", *(f"a/{i:04d}.jpg" for i in range(count)))
    return InatAve(root, imagelist=root / "list.txt", **PAIR | options)


def lines(folder):
    path = folder / "bad_images.txt"
    return [line.split("\t") for line in path.read_text().splitlines()] if path.exists() else []


def loaded(items, workers=0, epochs=(1,), batch_size=64, skip=0):
    options = {"batch_size": batch_size, "num_workers": workers, "seed": 3, "device": CPU}
    loader, batches = build_loader(items, shuffle=True, **options), []
    for epoch in epochs:
        loader.batch_sampler.set_epoch(epoch, skip)
        batches += list(loader)
    return batches


def replaced(dataset, squares=False):
    """The items of pre-training."""
    make = dataset.square_item if squares else dataset.pair_item
    return Items(dataset, lambda index: replacing(dataset, make, index))


# ---- annotated sets ----


@pytest.mark.parametrize(
    ("workers", "kinds"), [(0, ["text", "cut", "empty"]), (2, ["bomb", "absent"])]
)
def test_bad_images_of_all_kinds_are_left_out_and_listed(root, tmp_path, workers, kinds):
    places = [7, 100, 299][: len(kinds)]
    for place, kind in zip(places, kinds, strict=True):
        damage(root, place, kind=kind)
    dataset, path = birds(root, **SINGLE), tmp_path / "new/run/bad_images.txt"
    (line,) = list_left_out(leave_out({"Test": dataset}, workers), path.parent)
    assert line == f"{len(kinds)} of 300 test images can't be read, left out: listed in {path}"
    found = lines(path.parent)
    assert [entry[0] for entry in found] == [str(name(root, i)) for i in places]
    for (_, reason), kind in zip(found, kinds, strict=True):
        assert reason.startswith(KINDS[kind][1])
    kept = [str(name(root, i)) for i in range(COUNT) if i not in places]
    assert dataset.filenames == kept


def test_points_stay_with_their_images_when_some_are_left_out(tmp_path):
    write_aflw(tmp_path, [(20 + i, 40) for i in range(100)])
    whole, dataset = (AFLW(tmp_path, **SINGLE) for _ in range(2))
    dataset.path(3).write_bytes(b"no image")
    leave_out({"training": dataset}, 0)
    assert len(dataset) == 99
    for place in (2, 3, 98):
        data, points, _, _ = dataset[place]
        other = place + (place >= 3)
        assert torch.equal(data, whole[other][0]) and torch.equal(points, whole[other][1])


def test_nothing_bad_leaves_the_set_alone_and_takes_an_old_list_away(root, tmp_path):
    (tmp_path / "bad_images.txt").write_text("old\n")
    dataset = birds(root, count=5)
    before = dataset.filenames
    assert list_left_out(leave_out({"Test": dataset}, 0), tmp_path) == []
    assert dataset.filenames is before and not (tmp_path / "bad_images.txt").exists()


def test_one_in_a_hundred_may_be_bad_and_no_more(root):
    damage(root, 250, 30, 140)
    dataset = birds(root)
    assert len(next(iter(leave_out({"Test": dataset}, 0).values()))) == 3 and len(dataset) == 297
    message = complaint(leave_out, {"training": birds(root, count=299)}, 0)
    assert message == (
        "3 of 299 training images can't be read, where --on_bad_image skip allows 2 (1 in 100); "
        f"the first: {name(root, 30)}: {NO_IMAGE}"
    )
    assert "1 of 99 test" in complaint(leave_out, {"Test": birds(root, count=99)}, 0)


def test_each_split_has_its_own_limit_and_stop_reads_nothing(root, monkeypatch):
    damage(root, 30)
    splits = {"a": birds(root, count=200), "b": birds(root, count=20)}
    assert [line.split()[3] for line in leave_out(splits, 0)] == ["a"]
    splits = {"a": birds(root, count=200), "b": birds(root, count=31)}
    assert "1 of 31 b images" in complaint(leave_out, splits, 0)
    monkeypatch.setattr("data_loader.image_set.open_image", None)
    assert leave_out({"a": birds(root, skip_bad=False)}, 0) == {}


@pytest.mark.parametrize("benchmark", [*FACE_WRITERS, "CUB", "native"])
def test_listed_images_may_be_absent_or_damaged_in_all_benchmarks(tmp_path, benchmark):
    kind, write = FACE_WRITERS.get(benchmark, (CUB, write_cub))
    write(tmp_path, **({"native": True} if benchmark == "native" else {}))
    options = {"train": True, "pair_image": False, "skip_bad": True}
    if kind is not CUB:
        options["do_augmentations"] = False
    whole = kind(tmp_path, **options)
    for damage_to in ("text", "absent"):
        path = whole.path(1)
        path.write_bytes(b"no image") if damage_to == "text" else path.unlink()
        dataset = kind(tmp_path, **options)
        assert dataset.filenames == whole.filenames
        assert f"1 of {len(whole)} test" in complaint(leave_out, {"Test": dataset}, 0)
        dataset.select([0, *range(2, len(whole))])
        assert leave_out({"Test": dataset}, 0) == {}
    options["skip_bad"] = False
    assert f"{path}: no such image" in complaint(lambda: kind(tmp_path, **options))


def test_points_that_need_a_size_which_was_not_read_are_not_used(tmp_path):
    write_cub(tmp_path, native=True)
    path = tmp_path / "images" / CUB_NAMES[1]
    good = path.read_bytes()
    path.write_bytes(b"")
    assert f"{path}: not an image" in complaint(CUB, tmp_path, train=True)
    dataset = CUB(tmp_path, train=True, skip_bad=True)
    path.write_bytes(good)  # as on a network that was away for a moment
    assert "could be read only later" in complaint(leave_out, {"Test": dataset}, 0)


def test_annotations_that_do_not_fit_are_no_bad_image(tmp_path):
    write_300w(tmp_path, {"afw": ["1.jpg", "2.jpg"]})
    options = {"train": True, "pair_image": False, "do_augmentations": False, "skip_bad": True}
    dataset = W300(tmp_path, **options)
    Image.new("RGB", (3, 3)).save(dataset.path(0), format="PNG")
    message = complaint(leave_out, {"Test": dataset}, 0)
    assert "can't be that of an image of 3 x 3" in message and "on_bad_image" not in message


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "Too many open files")])
def test_a_machine_short_of_something_says_nothing_about_the_image(root, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(InputError) as caught:
        open_image(name(root, 0))
    assert not isinstance(caught.value, ImageError)


# ---- pre-training: what takes a bad image's place ----


@pytest.mark.parametrize("squares", [False, True])
def test_the_next_good_one_takes_the_place_bit_for_bit(root, squares):
    plain = birds(root)
    wanted = SeededItems(Items(plain, plain.square_item if squares else plain.pair_item))
    expected = {i: wanted[i, 77] for i in (1, 6, 200)}
    damage(root, 5, kind="cut")
    damage(root, 299, 0, kind="absent")
    dataset = birds(root)
    items = SeededItems(replaced(dataset, squares))
    wanted = {5: (6, 1), 299: (1, 2), 0: (1, 1), 6: (6, 0), 200: (200, 0)}
    for place, (taken, bad) in wanted.items():
        assert same([items[place, 77]], [expected[taken]._replace(index=place, bad=bad)])


def test_what_was_drawn_before_the_failure_is_drawn_again():
    class Late(ImageSet):
        def __len__(self):
            return 100

        def item(self, index):
            drawn = torch.randn(2)
            if index == 4:
                raise ImageError("4: bad")
            return PairItem(torch.stack([drawn, torch.randn(2)]), index)

    dataset = Late(16, 2, skip_bad=True)
    items = SeededItems(Items(dataset, lambda index: replacing(dataset, dataset.item, index)))
    assert torch.equal(items[4, 9].views, items[5, 9].views)


def test_batches_do_not_depend_on_workers_cache_nor_where_they_start(root, tmp_path):
    damage(root, 10, 11)
    damage(root, 12, kind="absent")
    for squares in (False, True):
        runs = []
        for workers, cached in ((0, False), (2, False), (0, True), (2, True)):
            dataset = birds(root)
            if cached:
                cache_images(dataset, tmp_path / "cache", workers)
            items = replaced(dataset, squares)
            runs.append(loaded(items, workers, (1, 2)))
            assert same(runs[-1], runs[0])
        assert [len(batch.index) for batch in runs[0]] == 2 * [64, 64, 64, 64, 44]
        assert same(loaded(items, epochs=(2,), skip=128), runs[0][7:])
        notes = torch.cat([torch.stack([b.index, b.bad], dim=1) for b in runs[0][:5]])
        assert sorted(notes[notes[:, 1] > 0].tolist()) == [[10, 3], [11, 2], [12, 1]]


def test_without_bad_images_nothing_changes(root):
    plain = birds(root, skip_bad=False)
    for dataset in (birds(root), plain):
        assert same(loaded(replaced(dataset)), loaded(Items(plain, plain.pair_item)))


def test_more_in_a_row_than_are_allowed_end_the_run(root):
    damage(root, 20, 21, 22)
    dataset = birds(root)
    assert replaced(dataset)[20].bad == 3
    damage(root, 23)
    message = complaint(lambda: replaced(dataset)[20])
    assert message.startswith("4 of 300 images can't be read, where --on_bad_image skip allows 3")
    assert f"the first: {name(root, 20)}: not an image" in message


@pytest.mark.parametrize("workers", [0, 1])
def test_stop_ends_at_the_first_one_in_a_line(root, workers, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    damage(root, 3)
    items = replaced(birds(root, skip_bad=False))
    with pytest.raises(SystemExit):
        run_script(lambda: list(DataLoader(items, num_workers=workers)))
    message = f"train.py: error: {name(root, 3)}: {NO_IMAGE}\n"
    assert capsys.readouterr().err == message


# ---- pre-training: the count and the list ----


def noted(*rows):
    return torch.tensor(rows)


def test_each_is_listed_once_and_the_first_is_said(root, tmp_path):
    damage(root, 5, 299)
    damage(root, 0, kind="bomb")
    log, dataset = [], birds(root)
    bad = BadImages(tmp_path, dataset, False, log.append)
    bad.report()
    bad.note(noted([1, 0], [2, 0]))
    assert log == [] and lines(tmp_path) == []
    bad.note(noted([1, 0], [299, 2], [5, 1]))
    bad.note(noted([5, 1], [0, 1]))
    assert [path for path, _ in lines(tmp_path)] == [str(name(root, i)) for i in (299, 0, 5)]
    assert lines(tmp_path)[1][1].startswith("unreadable image (100000000 pixels")
    (line,) = log
    assert line.startswith(f"{name(root, 299)}: {NO_IMAGE}; the next")
    bad.report()
    path = tmp_path / "bad_images.txt"
    said = f"3 of 300 images can't be read so far, replaced: listed in {path}"
    assert log[1:] == [said]

    again = BadImages(tmp_path, dataset, True, log.append)
    assert log[2:] == [said]
    again.note(noted([5, 1], [299, 2]))
    assert len(lines(tmp_path)) == 3 and len(log) == 3


def test_the_count_stops_past_the_limit_and_at_once(root, tmp_path):
    damage(root, 5, 50, 150, 250)
    bad = BadImages(tmp_path, birds(root), False, print)
    bad.note(noted([5, 1], [50, 1], [150, 1]))  # one in a hundred
    message = complaint(bad.note, noted([250, 1]))
    assert message == (
        "4 of 300 images can't be read, where --on_bad_image skip allows 3 (1 in 100); "
        f"the first: {name(root, 5)}: {NO_IMAGE}"
    )
    assert len(lines(tmp_path)) == 4
    # Repaired ones don't count any more in a run that goes on, but were replaced once.
    resumed = BadImages(tmp_path, birds(root), True, print)
    resumed.note(noted([5, 1], [150, 1], [250, 1]))
    assert [path for path, _ in lines(tmp_path)] == [str(name(root, i)) for i in (5, 50, 150, 250)]
    assert "4 of 300 images" in complaint(resumed.note, noted([50, 1]))


@pytest.mark.parametrize("skip", [True, False])
def test_a_run_from_the_start_begins_a_new_list(root, tmp_path, skip):
    (tmp_path / "bad_images.txt").write_text(f"{name(root, 5)}\tno such image\n")
    dataset, log = birds(root, skip_bad=skip), []
    BadImages(tmp_path, dataset, True, log.append)
    assert lines(tmp_path) and len(log) == skip
    BadImages(tmp_path, dataset, False, log.append)
    assert not lines(tmp_path) and len(log) == skip


def test_odd_names_and_repeated_ones_take_one_line(root, tmp_path):
    for odd in ("a/tab\tand\nline.jpg", "a/not\udce9unicode.jpg"):
        (root / odd).write_bytes(b"")
    dataset, log = InatAve(root, **PAIR), []
    odd = [i for i, path in enumerate(dataset.filenames) if not path[2:6].isdigit()]
    dataset.filenames = [*dataset.filenames, *2 * [dataset.filenames[odd[0]]]]
    bad = BadImages(tmp_path, dataset, False, log.append)
    # Four places, of two images, where three images may be bad.
    bad.note(noted(*([i, 1] for i in odd), [len(dataset) - 2, 2]))
    assert [len(entry) for entry in lines(tmp_path)] == [2, 2] and log[0].isprintable()
    assert BadImages(tmp_path, dataset, True, log.append).reasons == bad.reasons


def test_a_folder_that_cannot_be_written_is_named(root, tmp_path):
    damage(root, 5)
    (tmp_path / "bad_images.txt").mkdir()
    assert "bad_images.txt: can't write" in complaint(
        BadImages, tmp_path, birds(root), False, print
    )
    left_out = leave_out({"Test": birds(root)}, 0)
    assert "bad_images.txt: can't write" in complaint(list_left_out, left_out, tmp_path)


# ---- the image cache ----


def test_a_cache_marks_bad_rows_and_stop_does_not_take_them_for_good(root, tmp_path):
    damage(root, 100, kind="cut")
    damage(root, 7)
    skipping = birds(root)
    said = cache_images(skipping, tmp_path / "cache", 2)
    assert "built 300 images (2 can't be read), " in said
    for options in ({}, {"skip_bad": False}):
        dataset = birds(root, **options)
        assert "found 300 images (2 can't be read), " in cache_images(
            dataset, tmp_path / "cache", 0
        )
        for items in (dataset, Items(dataset, dataset.square_item)):
            message = complaint(lambda items=items: items[100])
            assert message == complaint(lambda: birds(root)[100])
    assert f"{name(root, 7)}: not an" in complaint(loaded, birds(root, skip_bad=False))
    bad = BadImages(tmp_path, skipping, False, print)
    bad.note(noted([7, 1], [100, 1]))
    assert lines(tmp_path)[1][1].startswith(KINDS["cut"][1])


def test_a_repaired_image_makes_another_cache(root, tmp_path):
    damage(root, 5)
    damage(root, 9, kind="absent")
    first, second = birds(root), birds(root)
    cache_images(first, tmp_path / "cache", 0)
    for i in (5, 9):
        shutil.copy(name(root, 50), name(root, i))
    assert "built 300 images, " in cache_images(second, tmp_path / "cache", 0)
    assert second.image_cache.folder != first.image_cache.folder
    assert first.image_cache.bad.keys() == {5, 9} and not second.image_cache.bad


def test_too_many_bad_images_leave_no_cache(root, tmp_path):
    damage(root, 3, 70, 140)
    cache_images(birds(root), tmp_path / "first", 0)
    damage(root, 210)
    message = complaint(cache_images, birds(root), tmp_path / "cache", 0)
    assert message.startswith("4 of 300 images can't be read, where --on_bad_image skip allows 3")
    assert str(name(root, 3)) in message
    assert not [path for path in (tmp_path / "cache").glob("images-*") if path.is_dir()]
