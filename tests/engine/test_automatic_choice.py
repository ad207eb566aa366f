"""The choice of a readout: how images are split, and what is tried."""

import numpy as np
import pytest

from engine.automatic_choice import FOLDS, split_in_folds
from tests.data_loader.layouts import complaint


@pytest.mark.parametrize("seed", range(5))
def test_every_image_is_in_one_fold_with_all_of_its_group(seed):
    groups = [name for name in "aabcccdefggggh"]
    folds = split_in_folds(groups, seed)
    assert sorted(np.concatenate(folds)) == list(range(len(groups)))
    assert len(folds) == FOLDS
    for fold in folds:
        inside = {groups[place] for place in fold}
        outside = {groups[place] for place in range(len(groups)) if place not in fold}
        assert not inside & outside
    # A group goes to the smallest fold: no fold is ahead of another by more than one group.
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 4


def test_folds_are_of_equal_size_without_groups_and_differ_by_seed():
    folds = split_in_folds(range(11), 0)
    assert sorted(map(len, folds)) == [3, 4, 4]
    other = split_in_folds(range(11), 1)
    assert any(a.tolist() != b.tolist() for a, b in zip(folds, other, strict=True))


@pytest.mark.parametrize("groups", [range(3), "aaaaaa"])
def test_too_few_images_or_groups_are_refused(groups):
    said = complaint(split_in_folds, groups, 0)
    assert f"{len(groups)} annotated images in {len(set(groups))} groups" in said
