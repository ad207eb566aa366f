"""Errors against numbers worked out by hand, a literal loop and COCO's own code."""

import math

import numpy as np
import pytest

from engine.points.errors import (
    INTERVAL,
    OKS_LEVELS,
    RESAMPLES,
    average_precision,
    mean_and_median,
    mean_of,
    object_keypoint_similarity,
    percentage_right,
)

NAN = math.nan


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_bootstrap_is_a_literal_loop_over_groups(count):
    rng = np.random.RandomState(count)
    groups = [f"image {n // 2}" for n in range(2 * count)]  # two instances an image
    distances = rng.exponential(5, (2 * count, 3))
    distances[0, 0] = distances[-1] = NAN
    mean, median = mean_and_median(distances, groups, seed=4)

    drawer, means, medians = np.random.RandomState(4), [], []
    for _ in range(RESAMPLES):
        values = []
        for drawn in drawer.randint(count, size=count):
            rows = distances[2 * drawn : 2 * drawn + 2].ravel()
            values += rows[~np.isnan(rows)].tolist()
        means.append(np.mean(values))
        medians.append(np.median(values))
    seen = distances[~np.isnan(distances)]
    assert mean == pytest.approx((seen.mean(), *np.percentile(means, INTERVAL)))
    assert median == pytest.approx((np.median(seen), *np.percentile(medians, INTERVAL)))


def test_the_interval_holds_the_mean_as_often_as_it_says():
    rng, held = np.random.RandomState(0), 0
    for seed in range(100):
        values = rng.exponential(1.0, (60, 1))
        mean, _ = mean_and_median(values, [str(n) for n in range(60)], seed)
        held += mean.low <= 1.0 <= mean.high
    assert held >= 86  # 95 of 100; fewer than 86 with a probability of 0.0002, skew aside


def test_pck_counts_distances_up_to_what_is_allowed():
    distances = np.array([[1.0, 2.0], [3.0, NAN], [0.0, 0.0]])
    assert percentage_right(distances, np.array([1.0, 3.0, NAN])) == pytest.approx(100 * 2 / 3)
    assert math.isnan(percentage_right(distances, np.full(3, NAN)))
    assert math.isnan(mean_of(np.empty(0))) and mean_of(np.array([1, NAN, 2])) == 1.5


def test_oks_by_hand():
    sigmas = np.array([0.05, 0.1])
    # 2 * 200 * 0.1^2 = 4 and 2 * 200 * 0.2^2 = 16
    distances = np.array([[2.0, 4.0], [0.0, NAN], [0.0, 0.0], [NAN, NAN]])
    found = object_keypoint_similarity(distances, np.array([200, 200, NAN, 200.0]), sigmas)
    np.testing.assert_allclose(found, [math.exp(-1), 1, NAN, NAN])


def test_average_precision_by_hand():
    oks, confidence = np.array([0.9, 0.2, 0.6, NAN, 0.7]), np.array([0.9, 0.8, 0.7, 1, 0.6])
    # Right, wrong, right, right: precisions of 1, 1/2, 2/3, 3/4 at recalls of 1/4, 1/4, 2/4, 3/4.
    # 26 of the 101 recalls are up to 1/4; 50 up to 3/4, where 3/4 is the best that is to come.
    expected = 100 * (26 * 1 + 50 * 0.75) / 101
    assert average_precision(oks, confidence, 0.5) == pytest.approx(expected)
    assert average_precision(oks, confidence, 0.95) == 0
    assert average_precision(np.ones(3), np.ones(3), 0.95) == 100
    assert math.isnan(average_precision(np.full(2, NAN), np.ones(2), 0.5))


def test_average_precision_is_cocos():
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools isn't installed")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    rng, count = np.random.RandomState(0), 40
    truth = rng.uniform(10, 90, (count, 17, 2))
    visible = rng.rand(count, 17) < 0.7
    areas = rng.uniform(500, 4000, count)
    predicted = truth + rng.normal(0, 4, truth.shape) * rng.uniform(0.2, 3, (count, 1, 1))
    confidence = rng.permutation(count) / count
    flags = np.where(visible, 2, 0)[..., None]
    annotations = [
        {
            **{"id": n + 1, "image_id": n + 1, "category_id": 1, "iscrowd": 0},
            **{"area": areas[n], "bbox": [0, 0, 100, 100], "num_keypoints": int(visible[n].sum())},
            "keypoints": np.concatenate([truth[n], flags[n]], axis=1).ravel().tolist(),
        }
        for n in range(count)
    ]
    results = [
        {
            **{"image_id": n + 1, "category_id": 1, "score": confidence[n]},
            "keypoints": np.concatenate([predicted[n], flags[n]], axis=1).ravel().tolist(),
        }
        for n in range(count)
    ]
    whole = coco.COCO()
    whole.dataset = {
        "info": {},
        "images": [{"id": n + 1} for n in range(count)],
        "categories": [{"id": 1}],
        "annotations": annotations,
    }
    whole.createIndex()
    judge = evaluation.COCOeval(whole, whole.loadRes(results), "keypoints")
    judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
    judge.evaluate()
    judge.accumulate()
    distances = np.where(visible, np.linalg.norm(predicted - truth, axis=-1), NAN)
    oks = object_keypoint_similarity(distances, areas, judge.params.kpt_oks_sigmas)
    for place, level in enumerate(OKS_LEVELS):
        theirs = judge.eval["precision"][place, :, 0, 0, 0].mean()
        assert average_precision(oks, confidence, level) == pytest.approx(100 * theirs)
