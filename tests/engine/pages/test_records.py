import numpy as np
import pytest
import torch
from PIL import Image

from data_loader.data_loaders_animal import CUB
from data_loader.geometry import denormalize_points, normalize_points
from data_loader.keypoints import Keypoints
from data_loader.readers.keypoint_table import KeypointTable
from engine.pages.page import write_page
from engine.pages.records import dataset_records
from tests.data_loader.layouts import write_cub


def two_instances(tmp_path):
    """An image with two instances, one of which lacks a point."""
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    points = np.array([[[20.0, 30], [40, 50]], [[120, 30], [np.nan, np.nan]]])
    boxes = np.array([[9.5, 19.5, 49.5, 59.5], [99.5, 19.5, 139.5, 59.5]])
    return KeypointTable(
        *(["nose", "tail"], ["a.png", "a.png"], points, boxes, np.full(2, np.nan), ["5", "7"]),
        *([], np.array([[200.0, 100]] * 2), np.zeros(2, bool)),
    )


def test_own_images_are_shown_where_the_network_looked_in_their_own_pixels(tmp_path):
    table = two_instances(tmp_path)
    dataset = Keypoints(table, tmp_path, "test", margin=0.0, imwidth=32, crop=4)
    # What was found is the truth, as the network's coordinates have it.
    predicted = torch.stack([dataset.annotated_item(i).points_norm for i in range(2)])
    confidence = torch.tensor([[0.25, 0.5], [0.75, 1]])
    records = list(dataset_records(dataset, predicted, confidence))
    assert [r.label for r in records] == ["5", "7"]
    assert [r.window for r in records] == [(10, 20, 50, 60), (100, 20, 140, 60)]
    for record, points, values in zip(records, table.points, confidence, strict=True):
        assert (record.name, record.image) == ("a.png", tmp_path / "a.png")
        assert record.size == (200, 100)
        np.testing.assert_array_equal(record.truth, points)
        seen = ~np.isnan(points)
        np.testing.assert_allclose(record.points[seen], points[seen], atol=1e-4)
        np.testing.assert_array_equal(record.confidence, values)
    write_page(tmp_path / "page", records, names=["nose", "tail"], title="")
    assert Image.open(tmp_path / "page/images/000/1.jpg").size == (40, 40)


def test_a_benchmark_is_shown_as_the_network_sees_it(tmp_path):
    write_cub(tmp_path / "cub")
    dataset = CUB(tmp_path / "cub", test=True, imwidth=40, crop=6)
    item = dataset.annotated_item(0)
    shifted = normalize_points(item.points_px + torch.tensor([3.0, -4.0]), 28)
    nothing = torch.full((1, dataset.num_landmarks), torch.nan)
    (record,) = dataset_records(dataset, shifted[None], nothing)
    assert (record.size, record.label, record.window) == ((28, 28), "", None)
    assert dataset.point_names[0] == "landmark 1" and dataset.point_names[-1] == "landmark 15"
    seen = dataset.visible(0).numpy()
    assert np.isnan(record.truth[~seen]).all()
    assert record.truth[seen] == pytest.approx(
        denormalize_points(item.points_norm, 28).numpy()[seen], abs=1e-4
    )
    np.testing.assert_allclose(
        (record.points - record.truth)[seen], [[3, -4]] * seen.sum(), atol=1e-4
    )
    pixels = np.asarray(record.image).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(dataset.denormalize(item.image[None])[0].numpy(), pixels, atol=1e-5)
