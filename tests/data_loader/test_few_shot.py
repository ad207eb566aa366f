"""Training on a few annotated images: which ones, how often, and the same on resume."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
import torch

from data_loader.data_loaders_face import AFLW
from data_loader.few_shot import (
    Picks,
    load_picks,
    restrict,
    save_picks,
)
from data_loader.readers.matlab_files import read_mat
from tests.data_loader.layouts import complaint, write_aflw, write_text

SINGLE = {"pair_image": False, "do_augmentations": False, "imwidth": 40, "crop": 2}
SIZES = [(30 + i, 50 - i) for i in range(9)]


@pytest.fixture
def root(tmp_path):
    write_aflw(tmp_path, SIZES)
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


# ---- the files ----


def test_saved_picks_can_be_read_and_come_back(root, folder):
    dataset = AFLW(root, **SINGLE)
    save_picks(folder, None)
    assert list(folder.iterdir()) == []
    save_picks(folder, Picks([4, 0, 7], [dataset.filenames[i] for i in (4, 0, 7)]))
    assert (folder / "datalist.txt").read_text() == "4\n0\n7\n"
    assert (folder / "namelist.txt").read_text() == "train_5.jpg\ntrain_9.jpg\ntrain_2.jpg\n"
    assert load_picks(folder, dataset).tolist() == [4, 0, 7]


def test_picks_may_have_any_name(folder):
    names = ["a\nb.png", " a.png", os.fsdecode(b"\xe9.png")]
    save_picks(folder, Picks([2, 0, 1], [names[i] for i in (2, 0, 1)]))
    dataset = SimpleNamespace(item_names=lambda: names)
    assert load_picks(folder, dataset).tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("train_5.jpg\nother.jpg\n", "other.jpg"),
        ("test_5.jpg\n", "test_5.jpg"),
        ("", "empty"),
        (None, "no such file"),
        (b"\xff\xff", "not a text file"),
    ],
)
def test_name_lists_that_do_not_fit(root, folder, content, said):
    path = folder / "namelist.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = complaint(load_picks, folder, AFLW(root, **SINGLE))
    assert str(path) in message and said in message


# ---- all together ----


def restricted(root, count, *, noted_in=None, repeat=False, num_per_epoch=1000, seed=1):
    dataset = AFLW(root, **SINGLE)
    options = {"repeat": repeat, "num_per_epoch": num_per_epoch, "seed": seed}
    picks = restrict(dataset, count, **options, noted_in=noted_in)
    return dataset, picks


def test_restricting_keeps_the_picks_with_their_points(root):
    whole, (dataset, picks) = AFLW(root, **SINGLE), restricted(root, 3)
    assert len(dataset) == 3 == len(set(dataset.filenames))
    assert picks.names == dataset.filenames == [whole.filenames[i] for i in picks.places]
    assert any(restricted(root, 3, seed=seed)[1] != picks for seed in range(2, 6))
    for place, i in enumerate(picks.places):
        data, points, _, index = dataset[place]
        assert index == place
        assert torch.equal(data, whole[i][0]) and torch.equal(points, whole[i][1])


def test_picks_follow_the_seed_alone_and_leave_the_other_generators(root):
    np.random.seed(0)
    first = restricted(root, 5, seed=5)[1]
    assert len(set(first.places)) == 5
    np.random.seed(1)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    assert restricted(root, 5, seed=5)[1] == first
    assert len(restricted(root, 5, seed=2**40)[1].places) == 5
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("count", [0, 10, 1000])
def test_picks_that_are_not_there_are_refused(root, count):
    message = complaint(restricted, root, count)
    assert message == f"--restrict_annos {count}: there are 9 annotated images"


def test_restricting_by_minus_one_keeps_all(root):
    dataset, picks = restricted(root, -1, repeat=True)
    assert dataset.filenames == AFLW(root, **SINGLE).filenames
    assert picks is None


def test_repeats_are_many_to_train_on_and_few_to_note(root):
    dataset, picks = restricted(root, 2, repeat=True)
    assert len(picks.names) == len(picks.places) == 2
    assert dataset.filenames == picks.names * 4  # floor(min(1000, 9) / 2)
    for most, rounds in ((5, 2), (4, 2), (1, 1)):  # at least once
        kept, _ = restricted(root, 2, repeat=True, num_per_epoch=most)
        assert kept.filenames == picks.names * rounds
    assert torch.equal(dataset[0][0], dataset[2][0])
    assert not torch.equal(dataset[0][1], dataset[1][1])


def test_a_resumed_run_keeps_its_images_whatever_the_seed_and_the_order(root, folder):
    _, first = restricted(root, 4, seed=3)
    save_picks(folder, first)
    # The list of the benchmark now has another order; the .mat follows.
    names = (root / "aflw_train_images.txt").read_text().split()
    write_text(root / "aflw_train_images.txt", *names[::-1])
    path = root / "aflw_train_keypoints.mat"
    mat = {
        name: rows[::-1] for name, rows in read_mat(path, {"gt": (9, 5, 2), "hw": (9, 2)}).items()
    }
    scipy.io.savemat(path, mat)
    dataset, again = restricted(root, 4, seed=8, noted_in=folder)
    assert dataset.filenames == again.names == first.names
    assert again.places == [8 - place for place in first.places]
    repeated, _ = restricted(root, 4, seed=8, noted_in=folder, repeat=True, num_per_epoch=8)
    assert repeated.filenames == first.names * 2


def test_a_resumed_run_without_a_name_list_draws_by_its_seed(root, folder):
    assert restricted(root, 4, seed=3, noted_in=folder)[1] == restricted(root, 4, seed=3)[1]
    assert restricted(root, 4, seed=3, noted_in=folder / "gone")[1].places
