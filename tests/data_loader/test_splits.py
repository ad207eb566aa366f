"""Splits: whole groups, near the share, the same for a seed."""

import numpy as np
import pytest

from data_loader.splits import check_share, folds, group_names, split_off
from tests.data_loader.layouts import complaint

IMAGES = ["m1/d1/a.png", "m1/d2/a.png", "m2/d1/b.png", "m2/d1/b.png"]


def test_what_belongs_together():
    assert group_names(IMAGES, None) == IMAGES
    assert group_names(IMAGES, "folder") == ["m1/d1", "m1/d2", "m2/d1", "m2/d1"]
    assert group_names(IMAGES, r"^(m\d)/") == ["m1", "m1", "m2", "m2"]
    assert group_names(IMAGES, r"d\d") == ["d1", "d2", "d1", "d1"]
    assert group_names(["a.png"], "folder") == ["."]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("(", "no regular expression"), ("x", "doesn't match m1/d1/a.png"), ("(q)?m1", "match m1/d1")],
)
def test_patterns_that_are_none_or_dont_match(pattern, said):
    assert said in complaint(group_names, IMAGES, pattern)


def test_groups_are_never_parted():
    rng = np.random.RandomState(0)
    groups = [f"g{number}" for number in rng.randint(0, 30, 200)]
    for seed in range(5):
        held_out = split_off(groups, 0.3, seed)
        assert abs(held_out.mean() - 0.3) < 0.05
        assert not set(np.array(groups)[held_out]) & set(np.array(groups)[~held_out])
        assert np.array_equal(held_out, split_off(groups, 0.3, seed))
    assert not np.array_equal(held_out, split_off(groups, 0.3, 5))
    assert split_off([str(n) for n in range(58)], 0.3, 0).sum() == 17


@pytest.mark.parametrize("share", [0.01, 0.99, 1.0])
def test_one_group_at_least_is_held_out_and_one_is_left(share):
    held_out = split_off(["a", "b", "b"], share, 0)
    assert held_out.any() and not held_out.all()


def test_folds_are_of_about_equal_sizes_and_part_no_group():
    rng = np.random.RandomState(0)
    groups = np.array([f"g{number}" for number in rng.randint(0, 30, 200)])
    fold_of = folds(groups, 5, 0)
    assert sorted(set(fold_of)) == [0, 1, 2, 3, 4]
    assert np.bincount(fold_of).min() >= 37
    for group in set(groups):
        assert len(set(fold_of[groups == group])) == 1
    assert sorted(folds(["a", "b"], 2, 0)) == [0, 1]


def test_too_few_to_be_split():
    said = "there is 1 annotated image, which can't be split into training and test"
    assert complaint(split_off, ["a"], 0.3, 0).startswith(said)
    said = "the 3 annotated instances are of one image or group, which can't be split"
    assert complaint(split_off, ["a"] * 3, 0.3, 0).startswith(said)
    assert complaint(folds, ["a", "b"], 3, 0) == (
        "--folds 3: there are 2 annotated images or groups"
    )


def test_shares_that_leave_nothing():
    check_share(0.5, 0.4)
    assert "leave nothing to train on" in complaint(check_share, 0.5, 0.5)
