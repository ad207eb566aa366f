"""The choice of a readout: how images are split, and what is tried."""

from dataclasses import replace

import numpy as np
import pytest

from engine.readouts import automatic
from engine.readouts.automatic import (
    FOLDS,
    choose_readout,
    cross_validate,
    list_candidates,
    split,
)
from eval_animal import animal_task
from eval_face import face_task
from tests.data_loader.layouts import complaint
from tests.utils.dots import evaluation_settings
from utils.log import RunLog


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


class Images:
    """A data set of so many images, as the choice sees it."""

    flip_order = None

    def __init__(self, count):
        self.filenames = [f"{i}.png" for i in range(count)]

    def __len__(self):
        return len(self.filenames)


@pytest.fixture
def settings(tmp_path):
    return evaluation_settings(tmp_path, "--regressor auto --trained_model_path e.pth")


def candidates_of(settings, mirror=False):
    return [candidate.name for candidate in list_candidates(settings, mirror)]


def test_what_is_tried(settings):
    own = ["ridge-encoder", "published-encoder", "finetune-encoder"]
    assert candidates_of(settings) == candidates_of(settings, True) == [*own, "finetune-untrained"]
    assert candidates_of(replace(settings, projection="p.pth")) == own[:2]
    untrained = replace(settings, random_network=True)
    assert candidates_of(untrained) == [f"{name.split('-')[0]}-untrained" for name in own]


@pytest.mark.parametrize(
    ("task", "taken"), [(face_task((0, 1)), "ridge"), (animal_task(), "finetune")]
)
def test_the_least_error_or_the_highest_pck_is_taken(settings, monkeypatch, task, taken):
    scores = {"ridge-encoder": 1.0, "published-encoder": 2.0, "finetune-encoder": 9.0}
    monkeypatch.setattr(
        automatic, "cross_validate", lambda _, one, *rest: scores.get(one.name, 5.0)
    )
    chosen = choose_readout(settings, None, task, Images(6))
    assert chosen.regressor == taken and chosen.trained_model_path == "e.pth"


def test_folds_weigh_as_many_images_as_they_have(settings, monkeypatch):
    of_folds = iter([1.0, 4.0])
    monkeypatch.setattr(
        automatic, "judge", lambda *_: {"last": {"Test": {"InterOcularError": next(of_folds)}}}
    )
    parts = [np.arange(3), np.arange(1)]
    one = list_candidates(settings, False)[0]
    task = face_task((0, 1))
    assert cross_validate(settings, one, None, task, Images(4), parts, RunLog()) == 1.75
