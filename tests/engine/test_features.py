"""Batches of features: the same numbers whether kept in memory, on disk or made anew."""

import json
import os
import threading

import numpy as np
import pytest
import torch

from engine import feature_cache
from engine.encoded_images import StoredImages, StreamedImages, find_distinct
from engine.feature_cache import FeatureCache, Stored, features_key
from engine.features import store_features
from models.encoders import build_random_encoder, encode, freeze
from tests.utils.dots import Dots, encoded
from utils.errors import InputError
from utils.log import RunLog

CPU = torch.device("cpu")


class Lines(RunLog):
    def __init__(self):
        super().__init__()
        self.lines = []

    def line(self, text):
        self.lines.append(text)


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
    assert len(images.stored.maps[0]) == 2 and len(images.annotations()[0]) == 6
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


def keys(dataset, digest="a", **how):
    return features_key(dataset, range(len(dataset)), digest, **{"layer": 4, **how})


def test_the_key_notices_whatever_features_depend_on(tmp_path):
    dataset = Dots(tmp_path, 3)
    first = keys(dataset)
    assert keys(Dots(tmp_path, 3)) == first
    others = [keys(dataset, "b"), keys(dataset, layer=3), keys(dataset, use_hypercol=True)]
    dataset.annotations["keypoints"][1, 0, 0] += 1
    others.append(keys(dataset))
    dataset = Dots(tmp_path, 3)
    dataset.crop = 5
    others.append(keys(dataset))
    dataset = Dots(tmp_path, 3)
    dataset.filenames = dataset.filenames[::-1]
    others.append(keys(dataset))
    # One byte of one image, with its old size and date.
    dataset = Dots(tmp_path, 3)
    path = tmp_path / "2.png"
    content, times = bytearray(path.read_bytes()), path.stat()
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    others.append(keys(dataset))
    assert len({first, *others}) == 8


def test_the_second_run_encodes_nothing(tmp_path, encoder, monkeypatch):
    dataset, log = Dots(tmp_path, 6), Lines()
    wanted = flat(encoded(dataset, encoder, mode="disk", log=log))
    monkeypatch.setattr("engine.features.encode_into", lambda *args: pytest.fail("encodes"))
    for mode in ("disk", "auto"):
        assert same(flat(encoded(dataset, encoder, mode=mode, log=log)), wanted)
    assert "encoded in" in log.lines[0] and "on disk, in" in log.lines[0]
    assert all("found in" in line and " MB" in line for line in log.lines[1:])


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
    log = Lines()
    assert same(flat(encoded(dataset, encoder, mode="disk", log=log)), wanted)
    assert "encoded in" in log.lines[0]
    assert entries(tmp_path / "cache") == [path.name]


def test_what_a_killed_run_left_is_not_used(tmp_path, encoder):
    dataset = Dots(tmp_path, 6)
    wanted = flat(encoded(dataset, encoder, mode="disk"))
    (path,) = (p for p in (tmp_path / "cache").iterdir() if p.is_dir())
    path.rename(path.with_name(f"{path.name}.partial"))
    np.save(path.with_name(f"{path.name}.partial") / "map0.npy", np.zeros(3))
    assert same(flat(encoded(dataset, encoder, mode="disk")), wanted)
    assert entries(tmp_path / "cache") == [path.name]


LIKE = Stored(
    [torch.empty(4, 2, device="meta")],
    torch.empty(4, 3, 2, device="meta"),
    torch.empty(4, 3, dtype=torch.bool, device="meta"),
)


def fill_ones(stored):
    for tensor in (*stored.maps, *stored[1:]):
        tensor.fill_(1)


def store(folder, fill=fill_ones, mode="disk"):
    cache = FeatureCache(mode, folder, None, CPU)
    return store_features(fill, LIKE, 32, "k", cache, RunLog())


def find(folder):
    return FeatureCache("disk", folder, None, CPU).find("k")


def test_an_interrupted_build_leaves_nothing(tmp_path):
    def fill(stored):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store(tmp_path / "cache", fill)
    assert entries(tmp_path / "cache") == [] and find(tmp_path / "cache") is None


def test_two_runs_at_once_make_one_set(tmp_path):
    calls, found = [], []

    def fill(stored):
        calls.append(1)
        fill_ones(stored)

    def run():
        found.append(store(tmp_path / "cache", fill))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1] and len(found) == 4
    assert all(torch.equal(s.maps[0], torch.ones(4, 2)) for s in found)


def test_training_cannot_change_the_files(tmp_path):
    store(tmp_path / "cache").maps[0].zero_()
    assert torch.equal(find(tmp_path / "cache").maps[0], torch.ones(4, 2))


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_cache, "reserve", full)
    with pytest.raises(InputError, match="cache: can't hold features .No space left"):
        store(tmp_path / "cache")
    assert entries(tmp_path / "cache") == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't hold features"):
        store(tmp_path / "file" / "cache")


def test_reserving_takes_the_room_of_a_file_with_holes(tmp_path):
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    before = path.stat().st_blocks
    feature_cache.reserve(path)
    assert path.stat().st_size == 1 << 20
    assert path.stat().st_blocks >= before


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
    with pytest.raises(InputError, match="are free"):
        place("disk", 901)


def test_the_budget_is_one_for_all_data_sets(tmp_path, encoder):
    cache = FeatureCache("auto", tmp_path, 40e-9, CPU)
    assert cache.place(32) == "cpu"
    cache.allocate(LIKE, 32, "cpu")
    assert cache.place(8) == "cpu" and cache.place(9) == "disk"


def test_features_without_any_room_are_encoded_anew(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(feature_cache, "free_memory", lambda: 0)
    monkeypatch.setattr(feature_cache, "free_disk", lambda folder: 0)
    log, dataset = Lines(), Dots(tmp_path, 5)
    images = encoded(dataset, encoder, mode="auto", log=log)
    assert type(images) is StreamedImages and "encoded anew each epoch" in log.lines[0]
    monkeypatch.undo()
    kept = encoded(dataset, encoder, mode="auto")
    assert type(kept) is StoredImages
    for a, b in zip(flat(images), flat(kept), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_summary_is_readable(tmp_path):
    store(tmp_path)
    summary = json.loads((tmp_path / "features-k" / "summary.json").read_text())
    assert summary == {"map0": [4, 2], "points": [4, 3, 2], "visible": [4, 3]}
