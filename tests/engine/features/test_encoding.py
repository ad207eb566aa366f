"""Batches of features: the same numbers whether kept in memory, on disk or made anew."""

import json
import os
import shutil
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.features import cache as feature_cache
from engine.features.cache import FeatureCache, features_key, read_features
from engine.features.encoding import store_features
from engine.features.images import Encoding, StoredImages, StreamedImages, find_distinct
from models.encoders import Levels, build_random_encoder, encode, freeze
from tests.utils.dots import Dots, encoded
from utils.errors import InputError
from utils.log import RunLog

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder():
    return freeze(build_random_encoder("resnet18", 64, seed=0))


def flat(images, epoch=1):
    """Return an epoch's maps, points and seconds, each over all images."""
    batches = list(images.batches(epoch))
    maps = [torch.cat(level) for level in zip(*(f for f, _, _ in batches), strict=True)]
    return [*maps, torch.cat([p for _, p, _ in batches]), torch.cat([s for _, _, s in batches])]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ---- equal to the literal way ----


def test_stored_features_are_those_of_the_items(tmp_path, encoder):
    dataset = Dots(tmp_path, 10)
    images = encoded(dataset, encoder, shuffle=True)
    found = flat(images)
    order = images.sampler.keys()[0].tolist()  # of epoch 1, set by batches()
    assert sorted(order) == list(range(10)) != order and len(images) == 3
    for place, index in enumerate(order):
        data, points_px, points_norm, _ = dataset[index]
        for level, wanted in zip(found, encode(encoder, data[None], (5, 4, 3, 2)), strict=False):
            assert torch.allclose(level[place], wanted[0], rtol=1e-3, atol=1e-4)
        assert torch.equal(found[-2][place], points_norm)
        assert found[-1][place].all() and found[-1].dtype == torch.bool
    assert not same(found, flat(images, epoch=2))


def test_on_disk_and_in_memory_are_the_same_bits(tmp_path, encoder):
    dataset = Dots(tmp_path, 6)
    kept = [flat(encoded(dataset, encoder, mode=m, shuffle=True)) for m in ("memory", "disk")]
    found = flat(encoded(dataset, encoder, mode="disk", shuffle=True))
    assert same(kept[0], kept[1]) and same(kept[0], found)


def test_pixels_are_the_only_map(tmp_path, encoder):
    dataset = Dots(tmp_path, 3)
    (pixels,), _, _ = next(encoded(dataset, encoder, layer=0).batches(1))
    assert pixels.shape == (3, 3, 64, 64)
    assert torch.equal(pixels[1], dataset[1][0])


def test_warped_batches_are_the_data_sets_own_items(tmp_path, encoder):
    dataset = Dots(tmp_path, 6, warp=True)
    images = encoded(dataset, encoder, layer=0, shuffle=True)  # layer 0: the pixels themselves
    pixels, points, visible = flat(images, epoch=3)
    for place, (index, seed) in enumerate(zip(*images.sampler.keys(), strict=True)):
        torch.manual_seed(int(seed))
        data, _, points_norm, _ = dataset[int(index)]
        # The batch's products round otherwise: now and then a colour is one step of 255 off.
        difference = (pixels[place] - data).abs() * 255 * 0.23
        assert difference.max() < 1.1 and (difference > 0.1).float().mean() < 0.01
        assert torch.allclose(points[place], points_norm, atol=1e-6)
        assert visible[place].all()
    assert len(images) == 2
    unwarped = Dots(tmp_path, 6).annotation_tensors()
    assert all(torch.equal(a, b) for a, b in zip(images.annotations(), unwarped, strict=True))


def test_warping_leaves_the_trainings_generator_alone(tmp_path, encoder):
    images = encoded(Dots(tmp_path, 4, warp=True), encoder)
    state = torch.get_rng_state()
    flat(images)
    assert torch.equal(torch.get_rng_state(), state)


# ---- once each ----


def test_repeated_images_are_encoded_once(tmp_path, encoder, monkeypatch):
    dataset = Dots(tmp_path, 5)
    dataset.select([3, 1, 3, 3, 1, 3])
    assert find_distinct(dataset)[0] == [0, 1]
    assert find_distinct(dataset)[1].tolist() == [0, 1, 0, 0, 1, 0]
    wanted = flat(encoded(dataset, encoder, mode="off"))
    images = encoded(dataset, encoder)
    assert len(images.stored[0]) == 2 and len(images.annotations()[0]) == 6
    found = flat(images)
    assert [len(part) for part in found] == [6] * len(found)
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_one_image_with_two_annotations_is_two(tmp_path):
    dataset = Dots(tmp_path, 3)
    dataset.filenames = ["0.png", "0.png", "0.png"]
    dataset.annotations["keypoints"][2] = dataset.annotations["keypoints"][0]
    assert find_distinct(dataset)[1].tolist() == [0, 1, 0]


# ---- the disk: never stale, never half written ----


def noted(**found):
    return lambda dataset, encoding: [setattr(dataset, *entry) for entry in found.items()]


def renamed(dataset, encoding):
    shutil.copy(dataset.folder / "2.png", dataset.folder / "other.png")
    dataset.filenames[2] = "other.png"


def moved(dataset, encoding):
    dataset.annotations["keypoints"][1, 0, 0] += 1


def hidden(dataset, encoding):
    dataset.annotations["visible"] = np.arange(9).reshape(3, 3) != 4


def repainted(dataset, encoding):
    """Change one byte of an image, which keeps its size and date."""
    path = dataset.folder / "2.png"
    content, times = bytearray(path.read_bytes()), path.stat()
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


class Others(Dots):
    pass


def other(**fields):
    return lambda dataset, encoding: replace(encoding, **fields)


SMALL = Encoding(torch.nn.Linear(1, 1), "a", Levels((5,), None))
CHANGES = {
    "weights": other(digest="b"),
    "layer": other(levels=Levels((4,), None)),
    "hypercolumn": other(levels=Levels((5, 4, 3, 2, 1), (48, 48))),
    "device": other(encoder=torch.nn.Linear(1, 1, device="meta")),
    "class": lambda dataset, encoding: Others(dataset.folder, 3),
    "side": noted(imwidth=80),
    "crop": noted(crop=5),
    "mean": noted(mean=(0.5, 0.4, 0.3)),
    "deviation": noted(std=(0.5, 0.4, 0.3)),
    "name": renamed,
    "point": moved,
    "visibility": hidden,
    "content": repainted,
    "order": lambda dataset, encoding: dataset.select([1, 0, 2]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_key_notices_whatever_features_depend_on(tmp_path, change):
    dataset, encoding = Dots(tmp_path, 3), SMALL
    keys = [features_key(dataset, range(3), encoding), features_key(dataset, range(3), encoding)]
    changed = CHANGES[change](dataset, encoding)
    dataset = changed if isinstance(changed, Dots) else dataset
    encoding = changed if isinstance(changed, Encoding) else encoding
    keys.append(features_key(dataset, range(3), encoding))
    assert keys[0] == keys[1] != keys[2]


def test_the_key_notices_other_programs_and_other_choices(tmp_path, monkeypatch):
    dataset, encoding = Dots(tmp_path, 3), SMALL
    keys = [features_key(dataset, chosen, encoding) for chosen in ([0, 1, 2], [0, 1], [0, 2])]
    for version in ("1.0", "1.1"):  # of timm
        networks = [SimpleNamespace(version=version)]
        monkeypatch.setattr(feature_cache, "timm_encoders", lambda _, found=networks: found)
        keys.append(features_key(dataset, [0, 1, 2], encoding))
    monkeypatch.setattr(feature_cache, "FORMAT", feature_cache.FORMAT + 1)
    keys.append(features_key(dataset, [0, 1, 2], encoding))
    monkeypatch.setattr(torch, "__version__", "3.0")
    keys.append(features_key(dataset, [0, 1, 2], encoding))
    assert len(set(keys)) == 7


def test_what_was_kept_of_others_is_never_taken(tmp_path, encoder):
    dataset, another = Dots(tmp_path, 6), freeze(build_random_encoder("resnet18", 64, seed=1))
    fewer = Dots(tmp_path, 6)
    fewer.select([0, 1, 2, 3])
    for images, network, layer in [
        (dataset, encoder, 4),
        (dataset, encoder, 3),
        (dataset, another, 4),
        (fewer, encoder, 4),
    ]:
        kept = encoded(images, network, layer=layer, mode="disk")
        assert same(flat(kept), flat(encoded(images, network, layer=layer, mode="memory")))
    assert len(list((tmp_path / "cache").glob("features-*/summary.json"))) == 4


def test_the_second_run_encodes_nothing(tmp_path, encoder, monkeypatch):
    dataset, log = Dots(tmp_path, 6), RunLog()
    wanted = flat(encoded(dataset, encoder, mode="disk", log=log))
    monkeypatch.setattr(
        "engine.features.encoding.gather_rows", lambda *args: pytest.fail("encodes")
    )
    for mode in ("disk", "auto"):
        assert same(flat(encoded(dataset, encoder, mode=mode, log=log)), wanted)
    assert "encoded in" in log.kept[0] and "on disk, in" in log.kept[0]
    assert all("found in" in line and " MB" in line for line in log.kept[1:])


def entries(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


@pytest.mark.parametrize("damage", ["summary", "cut", "missing", "shape", "json"])
def test_a_damaged_set_is_made_again(tmp_path, encoder, damage):
    dataset = Dots(tmp_path, 6)
    wanted = flat(encoded(dataset, encoder, mode="disk"))
    (path,) = (p for p in (tmp_path / "cache").iterdir() if p.is_dir())
    summary = path / "summary.json"
    if damage == "summary":
        summary.unlink()
    elif damage == "cut":
        os.truncate(path / "map1.npy", 1000)
    elif damage == "missing":
        (path / "points.npy").unlink()
    elif damage == "shape":
        np.save(path / "map0.npy", np.zeros((2, 2)))
    else:
        summary.write_text('{"map0": ')
    log = RunLog()
    assert same(flat(encoded(dataset, encoder, mode="disk", log=log)), wanted)
    assert "encoded in" in log.kept[0]
    assert entries(tmp_path / "cache") == [path.name]


def test_what_a_killed_run_left_is_not_used(tmp_path, encoder):
    dataset = Dots(tmp_path, 6)
    wanted = flat(encoded(dataset, encoder, mode="disk"))
    (path,) = (p for p in (tmp_path / "cache").iterdir() if p.is_dir())
    path.rename(path.with_name(f"{path.name}.partial"))
    np.save(path.with_name(f"{path.name}.partial") / "map0.npy", np.zeros(3))
    assert same(flat(encoded(dataset, encoder, mode="disk")), wanted)
    assert entries(tmp_path / "cache") == [path.name]


LIKE = [
    torch.empty(4, 2, device="meta"),
    torch.empty(4, 3, 2, device="meta"),
    torch.empty(4, 3, dtype=torch.bool, device="meta"),
]
BYTES = 32 + 96 + 12


def ones():
    """Yield the features of three images, and of one."""
    for count in (3, 1):
        yield [torch.ones(count, *part.shape[1:], dtype=part.dtype) for part in LIKE]


def store(folder, batches=None):
    cache = FeatureCache("disk", folder, None, CPU)
    batches = ones() if batches is None else batches
    return store_features(LIKE, batches, lambda: "k", cache, RunLog())


def find(folder):
    return read_features(folder / "features-k")


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (KeyboardInterrupt(), pytest.raises(KeyboardInterrupt)),
        (OSError(28, "Full"), pytest.raises(InputError, match="cache: can't hold features .Full")),
    ],
)
def test_a_build_that_fails_leaves_nothing(tmp_path, error, raised):
    def batches():
        yield next(ones())
        raise error

    with raised:
        store(tmp_path / "cache", batches())
    assert entries(tmp_path / "cache") == [] and find(tmp_path / "cache") is None


def test_a_disk_without_room_is_named_before_anything_is_encoded(tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=BYTES - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    batches = (pytest.fail("encodes") for _ in [0])
    with pytest.raises(InputError, match=f"too little space.: needs {BYTES} bytes, 139 are free"):
        store(tmp_path / "cache", batches)


def test_two_runs_at_once_make_one_set(tmp_path):
    calls, found = [], []

    def batches():
        calls.append(1)
        yield from ones()

    def run():
        found.append(store(tmp_path / "cache", batches()))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1] and len(found) == 4
    assert all(torch.equal(stored[0], torch.ones(4, 2)) for stored in found)


def test_training_cannot_change_the_files(tmp_path):
    store(tmp_path / "cache")[0].zero_()
    assert torch.equal(find(tmp_path / "cache")[0], torch.ones(4, 2))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't hold features"):
        store(tmp_path / "file" / "cache")


# ---- places ----


def test_places_by_mode_and_room(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "free_memory", lambda: 100)
    monkeypatch.setattr(feature_cache, "free_disk", lambda folder: 1000)

    def place(mode, needed, gigabytes=None):
        return FeatureCache(mode, tmp_path, gigabytes, CPU).place(needed)

    assert [place("auto", n) for n in (50, 51, 900, 901)] == ["cpu", "disk", "disk", None]
    assert [place("auto", n, 80e-9) for n in (80, 81)] == ["cpu", "disk"]
    assert place("off", 1) is None and place("disk", 1) == "disk" and place("memory", 50) == "cpu"
    with pytest.raises(InputError, match="--feature_cache memory: the features take"):
        place("memory", 51)


def test_the_budget_is_one_for_all_data_sets(tmp_path):
    cache = FeatureCache("auto", tmp_path, (BYTES + 8) * 1e-9, CPU)
    assert cache.place(BYTES) == "cpu"
    assert all(part.eq(1).all() for part in cache.hold(LIKE, ones(), "cpu"))
    assert cache.place(8) == "cpu" and cache.place(9) == "disk"


def test_features_without_any_room_are_encoded_anew(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(feature_cache, "free_memory", lambda: 0)
    monkeypatch.setattr(feature_cache, "free_disk", lambda folder: 0)
    log, dataset = RunLog(), Dots(tmp_path, 5)
    images = encoded(dataset, encoder, mode="auto", log=log)
    assert type(images) is StreamedImages and "encoded anew each epoch" in log.kept[0]
    monkeypatch.undo()
    kept = encoded(dataset, encoder, mode="auto")
    assert type(kept) is StoredImages
    for a, b in zip(flat(images), flat(kept), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_summary_is_readable(tmp_path):
    store(tmp_path)
    summary = json.loads((tmp_path / "features-k" / "summary.json").read_text())
    assert summary == {"map0": [4, 2], "points": [4, 3, 2], "visible": [4, 3]}
