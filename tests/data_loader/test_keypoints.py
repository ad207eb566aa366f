"""One's own annotated images: where points end up, what is masked, mirrored and noted."""

import numpy as np
import pytest
import torch
from PIL import Image

from data_loader import keypoints
from data_loader.few_shot import restrict, save_picks
from data_loader.framing import FITS
from data_loader.geometry import normalize_points
from data_loader.keypoints import Keypoints
from data_loader.readers import keypoint_files
from data_loader.readers.keypoint_files import read_keypoints, read_sizes
from tests.data_loader.layouts import bright_spot, complaint, dot_image, save_image
from tests.data_loader.own_tables import NAMES, SIZE, table_of, write_dots, write_long_csv

FRAME = {"imwidth": 64, "crop": 4}
BOXES = [(20.0, 10.0, 100.0, 70.0), (-30.0, -5.0, 95.0, 90.0)]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("box", [None, *BOXES])
def test_points_lie_where_the_image_shows_them_and_lead_back(tmp_path, fit, box):
    table = write_dots(tmp_path, 3)
    table = table._replace(boxes=np.array([(np.nan,) * 4 if box is None else box] * 3))
    dataset = Keypoints(table, tmp_path, "test", fit=fit, **FRAME)
    for index in range(3):
        item = dataset.annotated_item(index)
        assert item.image.shape == (3, 56, 56) and item.visible.all()
        place = item.points_px[0].numpy()
        if (place > 8).all() and (place < 47).all():  # the whole dot is seen
            assert np.abs(bright_spot(item.image, dataset) - place).max() < 0.15
        assert torch.equal(item.points_norm, normalize_points(item.points_px, 56))
        back = dataset.to_original(item.points_norm, index)
        np.testing.assert_allclose(back, table.points[index], atol=1e-3)


def test_points_of_turned_images_are_those_that_are_shown(tmp_path):
    shown, exif = dot_image((120, 80), (50, 45)), Image.Exif()
    exif[0x0112] = 6
    shown.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "1.jpg", quality=95, exif=exif)
    table = table_of(["1.jpg"], [[(50, 45), (60, 45), (40, 45)]], turned=True)
    dataset = Keypoints(table, tmp_path, "train", **FRAME)
    item = dataset.annotated_item(0)
    assert np.abs(bright_spot(item.image, dataset) - item.points_px[0].numpy()).max() < 0.3
    assert torch.equal(dataset.annotation_tensors()[0][0], item.points_norm)
    assert tuple(dataset.annotations["sizes"][0]) == (120, 80)
    said = "Keypoints train: 1 of 1 images are turned as a note in their file says (EXIF)"
    assert dataset.count_notice() == [said]


def test_missing_points_are_masked_and_instances_without_any_left_out(tmp_path):
    table = write_dots(tmp_path, 3)
    table.points[1] = np.nan
    table.points[2, 1] = np.nan
    dataset = Keypoints(table, tmp_path, "train", **FRAME)
    assert dataset.visible().tolist() == [[True] * 3, [True, False, True]]
    assert dataset.annotations["ids"].tolist() == ["instance 0", "instance 2"]
    item = dataset.annotated_item(1)
    assert item.visible.tolist() == [True, False, True] and item.points_norm.isfinite().all()
    assert dataset.count_notice() == [
        "Keypoints train: 1 of 3 instances have no point, left out",
        "Keypoints train: 1 of 6 points are missing, masked",
    ]


def test_a_point_that_no_training_image_has_is_named(tmp_path):
    table = write_dots(tmp_path, 3)
    table.points[:, 2] = np.nan
    said = "none of the 3 training images has right_eye annotated, or shows it (1 of 3 points)"
    assert said in complaint(Keypoints(table, tmp_path, "train", **FRAME).check_landmarks)
    table.points[:] = np.nan
    said = f"{tmp_path}: no point of the train images is annotated"
    assert complaint(Keypoints, table, tmp_path, "train", **FRAME) == said


def test_several_instances_in_a_whole_image_are_noted(tmp_path):
    table = write_dots(tmp_path, 2)
    table = table._replace(images=[table.images[0]] * 2)
    notices = Keypoints(table, tmp_path, "train", **FRAME).count_notice()
    assert "1 images show several instances" in notices[-1]
    boxed = table._replace(boxes=np.array(BOXES))
    assert Keypoints(boxed, tmp_path, "train", **FRAME).count_notice() == []


def test_a_box_beside_its_image_names_the_file(tmp_path):
    table = write_dots(tmp_path, 1)._replace(boxes=np.array([(200.0, 5.0, 220.0, 15.0)]))
    dataset = Keypoints(table, tmp_path, "test", **FRAME)
    assert complaint(dataset.annotated_item, 0) == (
        f"{tmp_path / 'day0/0.png'}: the box 200, 5, 220, 15 shows nothing of 120 x 80 pixels"
    )


def test_mirrored_copies_swap_pairs(tmp_path):
    table = write_dots(tmp_path, 2)
    table.points[1, 1] = np.nan  # the left eye
    dataset = Keypoints(table, tmp_path, "train", mirror="copies", **FRAME)
    dataset.select([1])  # as few annotations are picked
    for dataset.mirror, count in (("off", 1), ("views", 1), ("copies", 2)):
        dataset.add_copies()
        assert len(dataset) == count
    plain, copy = (dataset.annotated_item(index) for index in range(2))
    assert torch.equal(copy.image, plain.image.flip(-1))
    assert plain.visible.tolist() == [True, False, True]
    assert copy.visible.tolist() == [True, True, False]
    assert copy.points_px[0, 0] == pytest.approx(55 - float(plain.points_px[0, 0]), abs=1e-4)
    assert copy.points_px[1, 0] == pytest.approx(55 - float(plain.points_px[2, 0]), abs=1e-4)
    assert torch.equal(copy.points_px[1, 1], plain.points_px[2, 1])
    assert np.abs(bright_spot(copy.image, dataset) - copy.points_px[0].numpy()).max() < 0.15


def test_points_take_the_order_that_a_checkpoint_notes(tmp_path):
    table = write_dots(tmp_path, 2)._replace(sigmas=np.array([0.1, 0.2, 0.3]))
    table.points[1, 1] = np.nan
    order, names = [2, 0, 1], [NAMES[2], NAMES[0], NAMES[1]]
    plain, moved = (Keypoints(table, tmp_path, "train", **FRAME) for _ in range(2))
    moved.order_points("x.pth", {"landmarks": {"names": names}})
    assert moved.point_names == names and moved.sigmas.tolist() == [0.3, 0.1, 0.2]
    assert moved.flip_order.tolist() == [2, 1, 0]  # the right eye for the left one, as before
    one, other = (dataset.annotated_item(1) for dataset in (plain, moved))
    assert torch.equal(other.points_px, one.points_px[order])
    assert other.visible.tolist() == [True, True, False]
    plain.order_points("x.pth", {})  # of an old one
    assert plain.point_names == NAMES
    for names in (["nose", "left_eye", "tail"], NAMES[:2], 5):
        said = complaint(moved.order_points, "x.pth", {"landmarks": {"names": names}})
        found = ", ".join(["none"] if names == 5 else names)
        assert said == f"x.pth: finds the points {found}; annotated are right_eye, nose, left_eye"


def test_what_a_checkpoint_notes(tmp_path):
    cutting = {"fit": "pad", "box": "points", "margin": 0.25}
    table = table_of(["a.png"], [[(10, 20), (30, 24), (20, 60)]])
    save_image(tmp_path / "a.png", dot_image(SIZE, (10, 20)))
    dataset = Keypoints(table, tmp_path, "train", **cutting, **FRAME)
    dataset.standardise_by((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (7, 4095))
    framing = {"fit": "pad", "image_size": 64, "image_crop": 4, "margin": 0.25, "box": "points"}
    framing |= {"boxed": 1.0, "box_sides": [40.0, 40.0], "span": 40.0}
    assert dataset.checkpoint_notes() == {
        "landmarks": {
            "names": NAMES,
            "flip_pairs": [["left_eye", "right_eye"]],
            "framing": framing,
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "levels": [7, 4095],
        }
    }


def test_framing_and_names_are_part_of_the_digest(tmp_path):
    table = write_dots(tmp_path, 2)
    others = [
        Keypoints(table, tmp_path, "train", **FRAME),
        Keypoints(table, tmp_path, "train", fit="pad", **FRAME),
        Keypoints(table, tmp_path, "train", margin=0.2, **FRAME),
        Keypoints(table._replace(names=["a", "b", "c"]), tmp_path, "train", flip_pairs=[], **FRAME),
    ]
    assert len({dataset.digest() for dataset in others}) == 4


def test_unreadable_images_stop_or_wait_to_be_left_out(tmp_path):
    table = write_dots(tmp_path, 2)
    (tmp_path / table.images[1]).write_bytes(b"no image")
    sizes, turned = read_sizes(tmp_path, table.images)
    table = table._replace(sizes=sizes, turned=turned)
    assert "not an image" in complaint(Keypoints, table, tmp_path, "train", **FRAME)
    dataset = Keypoints(table, tmp_path, "train", skip_bad=True, **FRAME)
    assert "not an image" in complaint(dataset.annotated_item, 1)
    assert dataset.annotated_item(0).visible.all()


def test_headers_are_read_once(tmp_path, monkeypatch):
    folder = tmp_path / "own"
    table = write_dots(folder, 3)
    write_long_csv(tmp_path / "points.csv", table)
    opened, real = [], keypoint_files.oriented_size
    for module in (keypoint_files, keypoints):
        monkeypatch.setattr(module, "oriented_size", lambda path: opened.append(path) or real(path))
    dataset = Keypoints(read_keypoints(tmp_path / "points.csv", folder), folder, "train", **FRAME)
    assert len(opened) == 3 and dataset.annotations["sizes"].tolist() == [list(SIZE)] * 3


def test_absent_folders_are_named(tmp_path):
    save_image(tmp_path / "1.png", dot_image((8, 8), (4, 4)))
    table = table_of(["1.png"], [[(4, 4)] * 3])
    assert "no such folder" in complaint(Keypoints, table, tmp_path / "x", "train", **FRAME)


def test_points_that_are_cut_off_are_masked_in_training_alone(tmp_path):
    table = write_dots(tmp_path, 3)
    table.points[0, 2] = 5, 40  # `crop` begins at column 20
    table.points[1] = 3, 40
    train = Keypoints(table, tmp_path, "train", fit="crop", imwidth=64)
    assert train.visible().tolist() == [[True, True, False], [True] * 3]
    assert len(train) == 2 and train.filenames[1] == table.images[2]
    said = "4 of 9 points lie beyond what the network sees (see --fit, --image_crop)"
    assert train.count_notice() == [f"Keypoints train: {said}, masked"]
    test = Keypoints(table, tmp_path, "test", fit="crop", imwidth=64)
    assert len(test) == 3 and test.visible().all()
    assert test.count_notice() == [f"Keypoints test: {said}: judged, but can't be found"]
    np.testing.assert_allclose(
        test.to_original(test.annotated_item(1).points_norm, 1), table.points[1], atol=1e-3
    )
    table.points[:] = 3, 40
    said = complaint(Keypoints, table, tmp_path, "train", fit="crop", imwidth=64)
    assert said == f"{tmp_path}: all points lie beyond what the network sees (--fit crop)"


def test_picks_are_found_again_where_images_have_several_instances(tmp_path):
    table = write_dots(tmp_path, 4)
    table = table._replace(images=[table.images[0]] * 4, boxes=np.array([BOXES[0]] * 4))
    picked = []
    for noted_in in (None, tmp_path):
        dataset = Keypoints(table, tmp_path, "train", **FRAME)
        how = {"repeat": False, "num_per_epoch": 1, "seed": noted_in is None}
        save_picks(tmp_path, restrict(dataset, 2, **how, noted_in=noted_in))
        picked.append(dataset.annotations["ids"].tolist())
    assert picked[0] == picked[1] and len(set(picked[0])) == 2
