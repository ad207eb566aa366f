"""The image cache: the same items as without it, never stale, never half written."""

import json
import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest
import torch

from data_loader import loaders
from data_loader.data_loaders_animal import CUB, InatAve
from data_loader.data_loaders_face import AFLW, CelebAPrunedAligned_MAFLVal
from data_loader.items import Items
from data_loader.storage import image_cache
from data_loader.storage.image_cache import ImageCache, cache_images, cache_key
from tests.data_loader.batches import same
from tests.data_loader.layouts import (
    CELEBA_PARTS,
    NO_IMAGE,
    complaint,
    dot_image,
    save_image,
    write_aflw,
    write_celeba,
    write_cub,
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

    def opened(path):
        raise AssertionError(f"{path} was opened")

    return lambda: monkeypatch.setattr("data_loader.named_images.open_image", opened)


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


@pytest.mark.parametrize("benchmark", ["AFLW", "CUB", "InatAve"])
def test_all_kinds_of_data_sets_can_be_cached(tmp_path, folder, no_decoding, benchmark):
    root, options = tmp_path / benchmark, dict(PAIR)
    if benchmark == "AFLW":
        write_aflw(root)
        kind = AFLW
    elif benchmark == "CUB":
        write_cub(root)
        options, kind = PAIR | {"train": True, "pair_image": True}, CUB
    else:
        for i in range(3):
            save_image(root / f"a/{i}.jpg", dot_image((50 + i, 40), (20, 10 * i)))
        kind = InatAve
    plain, cached = kind(root, **options), kind(root, **options)
    wanted = items(plain)
    cache_images(cached, folder, 0)
    no_decoding()
    assert same(items(cached), wanted)


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


def test_started_processes_read_the_cache(root, folder, monkeypatch):
    monkeypatch.setattr(loaders, "available_cores", lambda: 2)
    dataset = celeba(root)
    cache_images(dataset, folder, 0)
    context = multiprocessing.get_context("spawn")
    options = {"batch_size": None, "num_workers": 1, "multiprocessing_context": context}
    loader = torch.utils.data.DataLoader(Items(dataset, dataset.square_item), **options)
    found = [item.image for item in loader]
    assert all(torch.equal(a, dataset.square_item(i).image) for i, a in enumerate(found))


# ---- squares alone ----


@pytest.mark.parametrize("cached", [False, True])
def test_base_images_are_the_squares_and_a_draw(root, folder, cached):
    dataset = celeba(root)
    if cached:
        cache_images(dataset, folder, 0)
    images = Items(dataset, dataset.square_item)
    assert len(images) == 5
    torch.manual_seed(3)
    draws = []
    for i in range(5):
        image, draw, index, bad = images[i]
        assert (index, bad) == (i, 0)
        assert image.dtype == torch.uint8 and image.is_contiguous()
        wanted = torch.from_numpy(np.array(dataset.read_square(i))).permute(2, 0, 1)
        assert image.shape == (3, 32, 32) and torch.equal(image, wanted)
        assert draw.shape == () and draw.dtype == torch.int64
        draws.append(draw.item())
    torch.manual_seed(3)
    assert draws == [torch.randint(2**62, ()).item() for _ in range(5)]
    image.zero_()
    assert dataset.read_square(4).getbbox() is not None


# ---- never stale ----


def change_image(root, dataset):
    path = dataset.folder / dataset.filenames[2]
    stat = path.stat()
    save_image(path, dot_image((178, 218), (50, 90), sigma=9))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size != stat.st_size
    return celeba(root)


def touch_image(root, dataset):
    path = dataset.folder / dataset.filenames[0]
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1000))
    return celeba(root)


def change_point(root, dataset):
    path = root / "Anno/list_landmarks_align_celeba.txt"
    text = path.read_text()
    path.write_text(text.replace("  108  ", "  107  ", 1))
    assert path.read_text() != text
    return celeba(root)


def move(root, dataset):
    root.rename(root.with_name("elsewhere"))
    return celeba(root.with_name("elsewhere"))


def other_pillow(root, dataset, monkeypatch):
    monkeypatch.setattr("PIL.__version__", "1.0")
    return celeba(root)


def other_format(root, dataset, monkeypatch):
    monkeypatch.setattr(image_cache, "FORMAT", 99)
    return celeba(root)


CHANGES = {
    "image": change_image,
    "time": touch_image,
    "place": move,
    "side": lambda root, dataset: celeba(root, imwidth=33),
    "split": lambda root, dataset: celeba(root, train=False),
    "kind": lambda root, dataset: type("Other", (CelebAPrunedAligned_MAFLVal,), {})(root, **PAIR),
    "order": lambda root, dataset: dataset.select([1, 0, 2, 3, 4]) or dataset,
    "Pillow": other_pillow,
    "format": other_format,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_squares_depend_on_changes_the_key(root, change, monkeypatch):
    first = celeba(root)
    key = cache_key(first)
    assert cache_key(celeba(root, crop=9, smallest_scale=0.5)) == key  # these come later
    needs_patch = change in ("Pillow", "format")
    assert cache_key(CHANGES[change](root, first, *[monkeypatch] * needs_patch)) != key


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


def edit_manifest(**changes):
    def edit(path):
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps(manifest | changes))

    return edit


def other_shape(path):
    """Write a cache that is whole, but of other images."""
    np.save(path / "images.npy", np.zeros((5, 31, 31, 3), np.uint8))
    (path / "manifest.json").write_text(json.dumps(ImageCache(path).manifest()))


DAMAGES = {
    "partial": leave_partial,
    "images cut": cut("images.npy", 5 * 32 * 32 * 3),
    "images empty": cut("images.npy", 0),
    "manifest cut": cut("manifest.json", 40),
    "manifest other": edit_manifest(bytes={}),
    "manifest format": edit_manifest(format=0),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "no images": lambda path: (path / "images.npy").unlink(),
    "header": lambda path: (path / "images.npy").write_bytes(b"x" * (128 + 5 * 32 * 32 * 3)),
    "empty": lambda path: [file.unlink() for file in path.iterdir()],
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
def test_a_damaged_image_is_named_and_no_cache_remains(root, folder, workers):
    dataset = celeba(root)
    path = dataset.folder / dataset.filenames[3]
    path.write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        cache_images(dataset, folder, workers)
    # A worker process's message has its traceback before it; scripts drop that.
    assert str(caught.value).strip().endswith(f"{path}: {NO_IMAGE}")
    assert names(folder) == [] and dataset.image_cache is None
    save_image(path, dot_image((178, 218), (50, 90)))
    assert cache_images(dataset, folder, 0).startswith("image cache: built")


def test_an_absent_image_is_named(root, folder):
    dataset = celeba(root)
    path = dataset.folder / dataset.filenames[3]
    path.unlink()
    assert complaint(cache_images, dataset, folder, 0) == f"{path}: no such image"
    assert not folder.exists()


def test_an_interruption_leaves_nothing(root, folder, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("utils.files.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache_images(celeba(root), folder, 0)
    assert names(folder) == []


# ---- folders that can't hold it ----


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
