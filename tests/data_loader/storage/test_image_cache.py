"""The image cache: the same items as without it, never stale, never half written."""

import os
import pickle
import shutil
from functools import partial

import numpy as np
import pytest
import torch

from data_loader import loaders
from data_loader.data_loaders_face import CelebAPrunedAligned_MAFLVal
from data_loader.storage.image_cache import cache_images, cache_key
from tests.data_loader.batches import same
from tests.data_loader.layouts import (
    CELEBA_PARTS,
    NO_IMAGE,
    complaint,
    dot_image,
    save_image,
    write_celeba,
)
from utils.errors import InputError

PAIR = {"imwidth": 32, "crop": 4}


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "celeba"
    write_celeba(root, CELEBA_PARTS)
    return root


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "new" / "cache"


@pytest.fixture
def no_decoding(monkeypatch):
    """Return a function from whose call on no image may be opened."""

    def opened(path, *_):
        raise AssertionError(f"{path} was opened")

    return lambda: monkeypatch.setattr("data_loader.image_set.open_image", opened)


def celeba(root, **options):
    return CelebAPrunedAligned_MAFLVal(root, **PAIR | options)


def items(dataset):
    torch.manual_seed(4)
    return [dataset[i] for i in range(len(dataset))]


def names(folder):
    """Return what is in the folder but for locks, which filelock may leave or take away."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def built(dataset, folder):
    """Cache a data set; return the cache's folder."""
    cache_images(dataset, folder, 0)
    return dataset.image_cache.folder


# ---- the same items ----


@pytest.mark.parametrize("workers", [0, 2])
def test_items_are_those_without_a_cache(root, folder, no_decoding, workers, monkeypatch):
    monkeypatch.setattr(loaders, "available_cores", lambda: 2)
    monkeypatch.setattr(loaders, "BATCH", 2)
    plain, cached = items(celeba(root)), celeba(root)
    state = torch.get_rng_state()
    notice = cache_images(cached, folder, workers)
    assert torch.equal(torch.get_rng_state(), state)
    assert notice.startswith("image cache: built 5 images, 0.0 GB, in ")
    assert notice.endswith(f" s: {cached.image_cache.folder}")
    no_decoding()
    assert same(items(cached), plain)
    again = celeba(root)
    notice = cache_images(again, folder, workers)
    assert notice == f"image cache: found 5 images, 0.0 GB: {cached.image_cache.folder}"
    assert same(items(again), plain)
    assert names(folder) == [cached.image_cache.folder.name]


def test_a_cached_data_sets_squares_may_be_changed(root, folder):
    dataset = celeba(root)
    cache_images(dataset, folder, 0)
    before = items(dataset)
    dataset.read_square(0).paste((0, 0, 0), (0, 0, 32, 32))
    assert same(items(dataset), before)


def test_other_images_are_not_read_from_the_cache(root, folder):
    dataset, plain = celeba(root), celeba(root)
    first = built(dataset, folder)
    for each in (dataset, plain):
        each.select([3, 1, 1])
    assert dataset.image_cache is None
    assert same(items(dataset), items(plain))
    assert built(dataset, folder) != first
    assert same(items(dataset), items(plain))


def test_the_cache_is_pickled_by_its_place(root, folder, no_decoding):
    dataset = celeba(root, imwidth=200)
    cache_images(dataset, folder, 0)
    wanted = items(dataset)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 20_000 < dataset.image_cache.images.nbytes
    no_decoding()
    assert same(items(pickle.loads(pickled)), wanted)


@pytest.mark.parametrize("cached", [False, True])
def test_square_items_are_the_squares_and_a_draw(root, folder, cached):
    dataset = celeba(root)
    if cached:
        cache_images(dataset, folder, 0)
    torch.manual_seed(3)
    items = [dataset.square_item(i) for i in range(5)]
    torch.manual_seed(3)
    for i, (image, draw, index, bad) in enumerate(items):
        assert (index, bad) == (i, 0) and torch.equal(draw, torch.randint(2**62, ()))
        wanted = torch.from_numpy(np.array(dataset.read_square(i))).permute(2, 0, 1)
        assert image.dtype == torch.uint8 and image.is_contiguous() and torch.equal(image, wanted)
    image.zero_()
    assert dataset.read_square(4).getbbox() is not None


# ---- never stale ----


def change_image(root, dataset, size, later):
    """Write another image, or the same one later."""
    path = dataset.path(2)
    stat = path.stat()
    if size:
        save_image(path, dot_image((178, 218), (50, 90), sigma=9))
        assert path.stat().st_size != stat.st_size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + later))
    return celeba(root)


def move(root, dataset):
    root.rename(root.with_name("elsewhere"))
    return celeba(root.with_name("elsewhere"))


CHANGES = {
    "image": partial(change_image, size=True, later=0),
    "time": partial(change_image, size=False, later=1000),
    "place": move,
    "side": lambda root, dataset: celeba(root, imwidth=33),
    "split": lambda root, dataset: celeba(root, train=False),
    "kind": lambda root, dataset: type("Other", (CelebAPrunedAligned_MAFLVal,), {})(root, **PAIR),
    "order": lambda root, dataset: dataset.select([1, 0, 2, 3, 4]) or dataset,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_squares_depend_on_changes_the_key(root, change):
    first = celeba(root)
    key = cache_key(first)
    assert cache_key(celeba(root, crop=9, smallest_scale=0.5)) == key  # these come later
    assert cache_key(CHANGES[change](root, first)) != key


@pytest.mark.parametrize("name", ["PIL.__version__", "data_loader.storage.image_cache.FORMAT"])
def test_the_versions_change_the_key(root, name, monkeypatch):
    key = cache_key(celeba(root))
    monkeypatch.setattr(name, "99")
    assert cache_key(celeba(root)) != key


def test_annotations_change_the_key(root):
    dataset = celeba(root)
    key = cache_key(dataset)
    dataset.annotations["keypoints"][3, 1, 0] += 1
    assert cache_key(dataset) != key
    dataset.annotations["keypoints"][3, 1, 0] -= 1
    assert cache_key(dataset) == key
    dataset.annotations["boxes"] = np.zeros(5)
    assert cache_key(dataset) != key


# ---- never half written ----


def leave_partial(path):
    partial = path.with_name(path.name + ".partial")
    path.rename(partial)
    (partial / "manifest.json").unlink()
    (partial / "other").write_text("of a run that was killed")


def cut(name, bytes_left):
    return lambda path: os.truncate(path / name, bytes_left)


def other_shape(path):
    """Write a cache that is whole, but of other images."""
    np.save(path / "images.npy", np.zeros((5, 31, 31, 3), np.uint8))


DAMAGES = {
    "partial": leave_partial,
    "images cut": cut("images.npy", 5 * 32 * 32 * 3),
    "images empty": cut("images.npy", 0),
    "manifest cut": cut("manifest.json", 7),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "no images": lambda path: (path / "images.npy").unlink(),
    "header": lambda path: (path / "images.npy").write_bytes(b"x" * (128 + 5 * 32 * 32 * 3)),
    "other images": other_shape,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_built_anew(root, folder, damage):
    path = built(celeba(root), folder)
    DAMAGES[damage](path)
    dataset = celeba(root)
    assert cache_images(dataset, folder, 0).startswith("image cache: built 5 images")
    assert same(items(dataset), items(celeba(root)))
    assert names(folder) == [path.name]
    assert cache_images(celeba(root), folder, 0).startswith("image cache: found")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_and_no_cache_remains(root, folder, workers):
    dataset = celeba(root)
    path = dataset.path(3)
    path.write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        cache_images(dataset, folder, workers)
    # A worker process's message has its traceback before it; scripts drop that.
    assert str(caught.value).strip().endswith(f"{path}: {NO_IMAGE}")
    assert names(folder) == [] and dataset.image_cache is None
    path.unlink()
    assert complaint(cache_images, dataset, folder, workers) == f"{path}: no such image"
    save_image(path, dot_image((178, 218), (50, 90)))
    assert cache_images(dataset, folder, 0).startswith("image cache: built")


def test_too_little_space_is_said_before_anything_is_decoded(
    root, folder, no_decoding, monkeypatch
):
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=15_359))
    no_decoding()
    message = complaint(cache_images, celeba(root), folder, 0)
    # 5 squares of 32 x 32 x 3.
    assert str(folder) in message and "15,360 bytes" in message and "15,359 are free" in message
    assert names(folder) == []
