"""Where features are kept: within their budget, never stale, never damaged."""

import os

import numpy as np
import pytest
import torch

from engine.features import cache as feature_cache
from engine.features.cache import FeatureCache
from utils.errors import InputError
from utils.log import RunLog

SHAPES = [(4, 2, 2, 1), (4, 1, 1, 3)]
BYTES = 64 + 48
FOUND, MADE = "features of 4 images, 0 MB: found in", "encoded in"


def ones():
    """Yield the features of three images, and of one."""
    for count in (3, 1):
        yield [torch.ones(count, *shape[1:]) for shape in SHAPES]


def store(folder):
    """Return features and what was said of them."""
    cache, log = FeatureCache("disk", folder, None, torch.device("cpu")), RunLog()
    stored = cache.keep(SHAPES, ones(), lambda: "k", log)
    assert all(part.eq(1).all() for part in stored)
    return stored, log.kept[0]


@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "shape"])
def test_a_damaged_set_is_made_again(tmp_path, damage):
    assert MADE in store(tmp_path)[1] and FOUND in store(tmp_path)[1]
    path = tmp_path / "features-k" / "map1.npy"
    if damage == "missing":
        path.unlink()
    elif damage == "shape":
        np.save(path, np.ones((2, 2), np.float32))
    else:
        os.truncate(path, 150 if damage == "cut" else 0)
    assert MADE in store(tmp_path)[1] and FOUND in store(tmp_path)[1]


def test_training_cannot_change_the_files(tmp_path):
    store(tmp_path)[0][0].zero_()
    assert FOUND in store(tmp_path)[1]


def test_places_by_mode_and_room(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "free_memory", lambda: 100)
    monkeypatch.setattr(feature_cache, "free_disk", lambda folder: 1000)

    def place(mode, needed, gigabytes=None):
        return FeatureCache(mode, tmp_path, gigabytes, torch.device("cpu")).place(needed)

    assert [place("auto", n) for n in (50, 51, 900, 901)] == ["cpu", "disk", "disk", None]
    assert [place("auto", n, 80e-9) for n in (80, 81)] == ["cpu", "disk"]
    assert place("off", 1) is None and place("disk", 1) == "disk" and place("memory", 50) == "cpu"
    with pytest.raises(InputError, match="--feature_cache memory: the features take"):
        place("memory", 51)


def test_the_budget_is_one_for_all_data_sets(tmp_path):
    cache = FeatureCache("auto", tmp_path, (BYTES + 8) * 1e-9, torch.device("cpu"))
    assert cache.place(BYTES) == "cpu"
    assert all(part.eq(1).all() for part in cache.hold(SHAPES, ones(), "cpu"))
    assert cache.place(8) == "cpu" and cache.place(9) == "disk"
