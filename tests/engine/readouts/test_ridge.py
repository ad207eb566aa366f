"""The ridge readout on drawn dots: what it finds, chooses, saves and refuses."""

import numpy as np
import pytest
import torch

from data_loader.few_shot import restrict
from engine.readouts.ridge import Ridge
from engine.readouts.ridge_fit import (
    JUDGED_IMAGES,
    NOISES,
    PENALTIES,
    SHARPNESSES,
    WIDTHS,
    Choice,
    assign_folds,
    fit_ridge,
    fit_shape_of,
    mean_distances,
    set_readout,
    solve_without,
    sum_up,
    total,
)
from eval_face import face_task
from models.encoders import build_random_encoder, choose_levels, freeze
from models.hypercolumn import SHAPE
from models.ridge import RidgeReadout
from tests.utils.dots import Dots, encoded, evaluation_settings
from utils.checkpoint import load_checkpoint
from utils.errors import InputError
from utils.log import RunLog

SIDE = 64


@pytest.fixture(scope="module")
def encoder():
    return freeze(build_random_encoder("resnet18", SIDE, seed=0))


@pytest.fixture(scope="module")
def dots(tmp_path_factory):
    return Dots(tmp_path_factory.mktemp("dots"), 40)


@pytest.fixture(scope="module")
def images(encoder, dots):
    return encoded(dots, encoder)


@pytest.fixture(scope="module")
def folds(images):
    return sum_up(images, assign_folds(images, 40), RidgeReadout(960, 3, SIDE, SHAPE))


def fitted(images):
    readout = RidgeReadout(960, 3, SIDE, SHAPE)
    fold_of = assign_folds(images, len(images.annotations()[0]))
    return readout, fit_ridge(readout, images, fold_of, RunLog())


def distance(readout, images):
    """Return the mean distance in pixels."""
    found = [(readout(batch.features)[0] - batch.points).norm(dim=2) for batch in images.batches(0)]
    return float(torch.cat(found).mean()) * (SIDE - 1) / 2


def test_it_finds_dots_that_it_never_saw(images, encoder, tmp_path):
    readout, _ = fitted(images)
    others = Dots(tmp_path, 60)
    others.select(range(40, 60))
    others = encoded(others, encoder)
    # A dot is 5 pixels wide; a cell of the finest map has 4; the mean shape is 12 away.
    assert distance(readout, others) < 2.5


def test_solutions_without_a_fold_are_those_of_the_other_folds(folds):
    assert len(folds) == 5 and sum(len(p) for fold in folds for p in fold.points) == 40
    solutions, shape = solve_without(folds[2], folds, total(folds))
    others = [fold for fold in folds if fold is not folds[2]]
    expected = total(others).solve(PENALTIES)
    for (weight, bias), (other_weight, other_bias) in zip(solutions, expected, strict=True):
        assert torch.allclose(weight, other_weight, atol=1e-4)
        assert torch.allclose(bias, other_bias, atol=1e-4)
    assert torch.equal(shape.weight, fit_shape_of(others).weight)
    points = torch.cat([p for fold in others for p in fold.points])
    assert torch.allclose(shape.mean, points.mean(dim=0))


def test_folds_hold_each_image_once_with_its_own_features(images, folds):
    first = next(images.batches(0))
    maps, points, _ = folds[0].judged()
    assert len(points) == 8 <= JUDGED_IMAGES
    assert torch.equal(maps[0][0], first.features[0][0])
    assert torch.equal(points[0], first.points[0])


def test_choices_are_judged_as_readouts_that_are_applied_to_the_images(folds, monkeypatch):
    everything = total(folds)
    judged = [fold.judged() for fold in folds]
    candidates = [solve_without(fold, folds, everything) for fold in folds]
    choices = [Choice(width, penalty) for width in WIDTHS for penalty in PENALTIES[::2]]
    choices += [Choice(sharpness=s, noise=n) for s in SHARPNESSES for n in NOISES]
    readout, expected = RidgeReadout(960, 3, SIDE, SHAPE), []
    for choice in choices:
        parts = []
        for (maps, points, visible), (solutions, shape) in zip(judged, candidates, strict=True):
            set_readout(readout, solutions[PENALTIES.index(choice.penalty)], shape, choice)
            parts.append((readout(maps)[0] - points).norm(dim=2)[visible])
        expected.append(float(torch.cat(parts).mean()))
    calls, heatmaps = [], RidgeReadout.heatmaps
    monkeypatch.setattr(RidgeReadout, "heatmaps", lambda *a: calls.append(1) or heatmaps(*a))
    found = mean_distances(readout, judged, candidates, choices)
    assert found == pytest.approx(expected, rel=1e-5)  # float32
    # All ways of reading share the heatmaps of a fold.
    assert len(calls) == 5 * (len(WIDTHS) * 3 + 1)


@pytest.mark.parametrize("mode", ["memory", "off"])
def test_a_group_is_in_one_fold_whatever_the_order(encoder, tmp_path, mode):
    images = encoded(Dots(tmp_path, 12), encoder, mode=mode, shuffle=True)
    groups = [f"image {place % 6}" for place in range(12)]  # as mirrored copies follow all images
    fold_of = assign_folds(images, 12, groups)
    assert len(fold_of.unique()) == 5
    order = images.order(epoch=0)
    truth = torch.cat([batch.points for batch in images.batches(epoch=0)])
    assert torch.equal(truth, images.annotations()[0][order])
    in_folds = dict.fromkeys(groups)
    for place, fold in zip(order.tolist(), fold_of.tolist(), strict=True):
        assert in_folds[groups[place]] in (None, fold)
        in_folds[groups[place]] = fold
    # Without groups, or with one an image, folds are as they always were.
    assert torch.equal(assign_folds(images, 12), torch.arange(12) % 5)
    assert torch.equal(assign_folds(images, 12, [str(i) for i in range(12)]), torch.arange(12) % 5)
    assert not assign_folds(images, 12, ["one"] * 12).any()


def test_a_landmark_that_one_image_alone_shows_is_no_obstacle(images, encoder, tmp_path):
    dataset = Dots(tmp_path, 10)
    dataset.annotations["visible"] = np.ones((10, 3), bool)
    dataset.annotations["visible"][1:, 2] = False
    readout, _ = fitted(encoded(dataset, encoder))
    assert all(buffer.isfinite().all() for buffer in readout.buffers())
    assert distance(readout, images) < 40


@pytest.mark.parametrize(("shape", "cells"), [(SHAPE, 48), (None, 2)])
def test_one_map_is_judged_as_it_is_fitted(encoder, tmp_path, shape, cells):
    """A hypercolumn of it has 48 rows and columns, the map itself its own."""
    images = encoded(Dots(tmp_path, 10), encoder, layer=1)
    readout = RidgeReadout(512, 3, SIDE, shape)
    fold = sum_up(images, assign_folds(images, 10), readout)[0]
    maps, _, _ = fold.judged()
    assert fold.equations.cells == cells
    assert readout.heatmaps(maps)[0].shape[2] == cells**2


@pytest.mark.parametrize(
    "liked", [Choice(WIDTHS[2], PENALTIES[1], SHARPNESSES[2], NOISES[3]), None]
)
def test_cross_validation_takes_what_judges_best(images, monkeypatch, liked):
    """Of each penalty, and then of each reading, the first one if a judge likes all of them."""

    def judge(readout, judged, candidates, choices):
        return [sum(a != b for a, b in zip(one, liked or one, strict=True)) for one in choices]

    monkeypatch.setattr("engine.readouts.ridge_fit.mean_distances", judge)
    _, choice = fitted(images)
    assert choice == (liked or Choice(WIDTHS[0], PENALTIES[0], SHARPNESSES[0], NOISES[0]))


def test_few_images_leave_the_defaults(encoder, tmp_path):
    for count in (1, 4):
        dataset = Dots(tmp_path, 6)
        restrict(dataset, count, repeat=False, num_per_epoch=0, seed=0, noted_in=None)
        readout, choice = fitted(encoded(dataset, encoder))
        assert choice == Choice()
        assert all(buffer.isfinite().all() for buffer in readout.buffers())


@pytest.fixture
def settings(tmp_path):
    return evaluation_settings(tmp_path, "--random_network --regressor ridge")


def start(settings, encoder, dots, found=None):
    readout = Ridge(encoder, choose_levels(encoder, 4, True), 3, SIDE)
    readout.begin(settings, face_task((0, 1)), torch.device("cpu"), dots, found)
    return readout


def test_a_landmark_that_no_image_shows_is_refused(images, encoder, dots, settings, monkeypatch):
    points, visible = images.annotations()
    visible = visible.clone()
    visible[:, 1] = False
    monkeypatch.setattr(images, "annotations", lambda: (points, visible))
    with pytest.raises(InputError, match="no training image shows landmark 2"):
        start(settings, encoder, dots).fit(images, {"Test": images}, RunLog())


def test_a_run_saves_what_it_fitted_and_resumes_it(images, encoder, dots, settings):
    first = start(settings, encoder, dots)
    result = first.fit(images, {"Test": images}, RunLog())
    assert set(result["ridge"]) == set(Choice._fields)
    path = settings.folder / "current.pth"
    found = path, load_checkpoint(path, Ridge.keys)
    again = start(settings, encoder, dots, found)
    resumed = again.fit(images, {"Test": images}, RunLog())
    assert resumed["last"] == result["last"] and "ridge" not in resumed
    assert distance(again.module, images) == distance(first.module, images)
    assert {path.name for path in settings.folder.glob("*.pth")} == {
        *("current.pth", "previous_1.pth", "resnet50.pth")
    }
