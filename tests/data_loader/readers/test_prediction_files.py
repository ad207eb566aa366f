"""Predictions in each format: read again they are the same, and nothing is half written."""

import json

import numpy as np
import pytest

from data_loader.readers.keypoint_files import read_keypoints
from data_loader.readers.prediction_files import (
    ENDINGS,
    Prediction,
    prediction_format,
    write_predictions,
)
from tests.data_loader import own_files as own
from tests.data_loader.layouts import complaint

SURE = np.array([[0.9, 0.25, 1], [0.12345, 0, 0.5], [0, 1, 0.75]])
OFF = np.array([[0.5, 2.25, np.nan], [12.3456, np.nan, 1], [0, 1, 0.75]])  # expected errors
HALF = 5e-4 + 1e-9  # of a coordinate's last digit


def predictions():
    """Yield the points of `own_files`, as of photographs."""
    for image, points, sure in zip(own.IMAGES, own.POINTS + 1 / 3, SURE, strict=True):
        yield Prediction(image, own.SIZE, np.minimum(points, np.array(own.SIZE) - 1), sure)


def with_errors():
    """Yield the same with expected errors."""
    for prediction, off in zip(predictions(), OFF, strict=True):
        yield prediction._replace(errors=off)


def several():
    """Yield two instances of one image, and one of another."""
    for image, instance, shift in (("a.png", "1", 0), ("a.png", "2", 3), ("sub/d.jpg", "1", 1)):
        points = np.array([[1, 2], [3, 4], [np.nan, np.nan]]) + shift
        yield Prediction(image, own.SIZE, points, SURE[0], instance, (0.5, 1, 20, 25))


@pytest.mark.parametrize("kind", [predictions, with_errors])
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_is_read_again(tmp_path, ending, kind):
    own.write_images(tmp_path)
    path = tmp_path / f"points{ending}"
    write_predictions(path, own.NAMES, kind(), errors=kind is with_errors)
    table = read_keypoints(path, tmp_path)
    expected = np.stack([prediction.points for prediction in predictions()])
    assert np.array_equal(np.isnan(table.points), np.isnan(expected))
    assert np.nanmax(np.abs(table.points - expected)) < HALF
    assert table.names == (own.NAMES if ending != ".tps" else ["1", "2", "3"])
    assert table.images == own.IMAGES and table.notices == []
    assert [file.name for file in tmp_path.glob("*points*")] == [path.name]


@pytest.mark.parametrize("ending", [".csv", "_long.csv", ".json"])
def test_instances_are_read_again(tmp_path, ending):
    own.write_images(tmp_path)
    path = tmp_path / f"points{ending}"
    write_predictions(path, own.NAMES, several(), instances=True)
    table = read_keypoints(path, tmp_path)
    assert table.images == ["a.png", "a.png", "sub/d.jpg"]
    assert table.points[:, 1].tolist() == [[3, 4], [6, 7], [4, 5]]
    if ending == ".json":
        assert table.boxes.tolist() == [[0.5, 1, 20, 25]] * 3 and table.areas[0] == 19.5 * 24
    else:
        assert table.ids == ["a.png#1", "a.png#2", "sub/d.jpg#1"]


def test_the_lines_themselves(tmp_path):
    def lines(ending, kind=predictions, **options):
        write_predictions(tmp_path / f"p{ending}", own.NAMES, kind(), **options)
        return (tmp_path / f"p{ending}").read_text().splitlines()

    header, first, second, _ = lines(".csv")
    columns = [f"{name}_{kind}" for name in own.NAMES for kind in ("x", "y", "confidence")]
    assert header == "image," + ",".join(columns)
    assert first == "a.png,3.333,4.333,0.9000,10.333,4.833,0.2500,7.333,20.333,1.0000"
    assert second == "sub/b c.png,0.333,0.333,0.1235,,,0.0000,39.000,29.000,0.5000"
    assert lines(".csv", several, instances=True)[0].startswith("image,instance,left_eye_x")
    assert lines("_long.csv")[:2] == [
        "image,point,x,y,confidence",
        "a.png,left_eye,3.333,4.333,0.9000",
    ]
    assert lines(".dlc.csv")[2:4] == ["coords" + ",x,y,likelihood" * 3, first]
    header, first, second, _ = lines(".csv", with_errors, errors=True)
    kinds = ("x", "y", "confidence", "error_px")
    assert header == "image," + ",".join(f"{name}_{kind}" for name in own.NAMES for kind in kinds)
    assert first.startswith("a.png,3.333,4.333,0.9000,0.500,10.333,4.833,0.2500,2.250,7.333")
    assert first.endswith(",1.0000,") and ",0.1235,12.346,,,0.0000,,39.000" in second
    assert lines("_long.csv", with_errors, errors=True)[:2] == [
        "image,point,x,y,confidence,error_px",
        "a.png,left_eye,3.333,4.333,0.9000,0.500",
    ]
    for ending in (".dlc.csv", ".tps"):  # have no place for them
        assert lines(ending, with_errors, errors=True) == lines(ending)
    tps = lines(".tps")
    assert tps[:3] == ["LM=3", "3.333 25.667", "10.333 25.167"]  # 30 - y
    assert tps[4:7] == ["IMAGE=a.png", "ID=0", "COMMENT=confidence 0.9000 0.2500 1.0000"]
    assert tps[9] == "-1 -1"
    scaled = lines(".tps", lambda: (found._replace(scale=1 / 3) for found in predictions()))
    assert scaled[6:8] == ["SCALE=0.3333333333333333", tps[6]] and len(scaled) == len(tps) + 3


def test_cocos_entries(tmp_path):
    path = tmp_path / "p.json"
    write_predictions(path, own.NAMES, predictions())
    content = json.loads(path.read_text())
    assert content["images"][1] == {"id": 2, "file_name": "sub/b c.png", "width": 40, "height": 30}
    assert content["categories"] == [{"id": 1, "name": "object", "keypoints": own.NAMES}]
    second = content["annotations"][1]
    assert second["keypoints"] == [0.333, 0.333, 2, 0, 0, 0, 39, 29, 2]
    assert second["keypoint_scores"] == [0.1235, 0, 0.5] and second["num_keypoints"] == 2
    assert second["bbox"] == [0.333, 0.333, 38.667, 28.667]
    assert second["score"] == pytest.approx(0.2078) and "keypoint_errors_px" not in second
    write_predictions(path, own.NAMES, with_errors(), errors=True)
    told = [entry["keypoint_errors_px"] for entry in json.loads(path.read_text())["annotations"]]
    assert told == [[0.5, 2.25, None], [12.346, None, 1], [0, 1, 0.75]]


@pytest.mark.parametrize("ending", ENDINGS)
def test_of_no_image(tmp_path, ending):
    write_predictions(tmp_path / f"p{ending}", own.NAMES, iter(()))
    if ending == ".json":
        assert json.loads((tmp_path / "p.json").read_text())["annotations"] == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_points_that_arent_there(tmp_path, ending):
    nothing = Prediction("a.png", own.SIZE, np.full((3, 2), np.nan), np.zeros(3))
    write_predictions(tmp_path / f"p{ending}", own.NAMES, [nothing])
    assert "nan" not in (tmp_path / f"p{ending}").read_text().lower()


@pytest.mark.parametrize("ending", ENDINGS)
def test_names_with_commas_and_quotes(tmp_path, ending):
    images = ['a, "b".png', "\u00fc.png"]
    own.write_images(tmp_path, images)
    found = [Prediction(name, own.SIZE, np.full((1, 2), 2.0), np.ones(1)) for name in images]
    path = tmp_path / f"p{ending}"
    write_predictions(path, ['the "left", eye'], found)
    table = read_keypoints(path, tmp_path)
    assert table.images == images
    assert ending == ".tps" or table.names == ['the "left", eye']


@pytest.mark.parametrize("ending", ENDINGS)
def test_one_prediction_is_held_at_a_time(tmp_path, ending):
    """Each is gone when the next but one is taken: `alive` counts those that are left."""
    alive = set()

    class Points(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    most = 0

    def stream():
        nonlocal most
        for number in range(50):
            points = np.full((3, 2), 5.0).view(Points)
            alive.add(id(points))
            yield Prediction(f"{number}.png", own.SIZE, points, SURE[0])
            del points
            most = max(most, len(alive))

    write_predictions(tmp_path / f"p{ending}", own.NAMES, stream())
    assert 0 < most < 10


def test_what_was_there_stays_if_the_predictions_end_in_an_error(tmp_path):
    def broken():
        yield next(predictions())
        raise KeyboardInterrupt

    for ending in ENDINGS:
        path = tmp_path / f"p{ending}"
        path.write_text("before")
        with pytest.raises(KeyboardInterrupt):
            write_predictions(path, own.NAMES, broken())
        assert path.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == len(ENDINGS)


def test_endings(tmp_path):
    for name, form in (
        *[("a.csv", "wide"), ("a.CSV", "wide"), ("a_long.csv", "long"), ("x/a.tps", "tps")],
        *[("a.dlc.csv", "deeplabcut"), ("a.json", "coco"), ("long.csv", "wide")],
    ):
        assert prediction_format(tmp_path / name) == form
    for name in ("a.h5", "a", "csv", "a.csv.gz"):
        assert "ends in none of .csv" in complaint(prediction_format, tmp_path / name)
    for name in ("a.tps", "a.dlc.csv"):
        message = complaint(write_predictions, tmp_path / name, own.NAMES, several(), True)
        assert "this format has one instance an image" in message
    assert "can't write it" in complaint(write_predictions, tmp_path / "no/a.csv", [], [])
