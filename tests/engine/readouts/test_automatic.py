"""The choice of a readout: how images are split, and what is tried."""

import numpy as np
import pytest

from engine.readouts.automatic import FOLDS, split
from tests.data_loader.layouts import complaint


@pytest.mark.parametrize("seed", range(5))
def test_every_image_is_in_one_fold_with_all_of_its_group(seed):
    groups = [*"aabcccdefggggh"]
    folds = split(groups, seed)
    assert sorted(np.concatenate(folds)) == list(range(len(groups)))
    assert len(folds) == FOLDS
    for fold in folds:
        inside = {groups[place] for place in fold}
        assert not inside & {groups[place] for place in range(len(groups)) if place not in fold}


@pytest.mark.parametrize("groups", ["abc", "aaaaaa"])
def test_too_few_images_or_groups_are_refused(groups):
    said = complaint(split, groups, 0)
    assert f"{len(groups)} annotated images in {len(set(groups))} groups" in said
