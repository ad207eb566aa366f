"""Batches of features: the same numbers whether kept in memory, on disk or made anew."""

import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.features import cache as feature_cache
from engine.features import images as feature_images
from engine.features.images import Encoding, StoredImages, StreamedImages, features_key
from engine.features.squares import find_distinct
from models.encoders import Levels, build_random_encoder, encode, freeze
from tests.utils.dots import Dots, encoded
from utils.log import RunLog


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


def test_on_disk_and_in_memory_are_the_same_bits_which_later_runs_find(
    tmp_path, encoder, monkeypatch
):
    def features(mode):
        return flat(encoded(Dots(tmp_path, 6), encoder, mode=mode, shuffle=True, log=log))

    log = RunLog()
    wanted = features("memory")
    assert same(wanted, features("disk"))
    fail = "engine.features.images.all_gather_rows"
    monkeypatch.setattr(fail, lambda *args: pytest.fail("encodes"))
    assert same(wanted, features("disk")) and same(wanted, features("auto"))
    words = "in memory (cpu)", "on disk, in", "found in", "found in"
    assert all(word in line for word, line in zip(words, log.kept, strict=True))


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
        monkeypatch.setattr(feature_images, "timm_encoders", lambda _, found=networks: found)
        keys.append(features_key(dataset, [0, 1, 2], encoding))
    monkeypatch.setattr(feature_images, "FORMAT", feature_images.FORMAT + 1)
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
    assert len(list((tmp_path / "cache").glob("features-*/map0.npy"))) == 4


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
