import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from data_loader.readers.keypoint_files import read_keypoints
from datasets.renderer.layouts import LAYOUTS, Plan, render_job
from datasets.renderer.shape import five_points
from datasets.synthetic import generate, parse_arguments
from utils.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
# More of CelebA's than a worker is given at once, so that two workers share them.
SIZES = {"images": 11, "mafl_train": 3, "mafl_test": 3, "identities": 6, "seed": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All layouts, drawn by one process."""
    out = tmp_path_factory.mktemp("one")
    generate(out, **SIZES, workers=1, layouts=LAYOUTS)
    return out


def truth(layout):
    """Image's path -> its job, image and 68 points, as drawn anew."""
    jobs = LAYOUTS[layout][0](Plan(*SIZES.values()))
    return {job.path: (job, *render_job(job)) for job in jobs}


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def assert_same_image(path, pixels, tolerance=12):
    with Image.open(path) as image:
        found = np.asarray(image.convert("RGB"), dtype=float)
    assert found.shape == pixels.shape
    assert np.abs(found - pixels).mean() < tolerance


def test_the_number_of_processes_changes_no_byte(made, tmp_path):
    generate(tmp_path, **SIZES, workers=2)
    assert digests(tmp_path / "celeba") == digests(made / "celeba")


def test_another_seed_gives_other_images(made, tmp_path):
    generate(tmp_path, **{**SIZES, "seed": 4, "images": 1, "mafl_train": 1}, workers=1)
    name = "celeba/Img/img_align_celeba_hq/000001.jpg"
    assert (tmp_path / name).read_bytes() != (made / name).read_bytes()


def test_celeba(made):
    root, drawn = made / "celeba", truth("celeba")
    lines = (root / "Anno/list_landmarks_align_celeba.txt").read_text().splitlines()
    assert int(lines[0]) == 17 == len(lines) - 2
    assert lines[1].split()[:4] == ["lefteye_x", "lefteye_y", "righteye_x", "righteye_y"]
    for line in lines[2:]:
        name, *values = line.split()
        _, pixels, points = drawn[f"Img/img_align_celeba_hq/{name}"]
        assert pixels.shape == (218, 178, 3)
        assert_same_image(root / "Img/img_align_celeba_hq" / name, pixels)
        written = np.array([int(value) for value in values]).reshape(5, 2)
        assert np.abs(written - five_points(points)).max() <= 0.5
    partition = dict(
        line.split() for line in (root / "Eval/list_eval_partition.txt").read_text().splitlines()
    )
    train, test = ((root / f"MAFL/{n}.txt").read_text().split() for n in ("training", "testing"))
    assert len(partition) == 17 and len(train) == 3 and len(test) == 3
    assert partition == {Path(path).name: "02"[Path(path).name in test] for path in drawn}
    assert {*train} <= partition.keys() - {*test}
    people = {name: drawn[f"Img/img_align_celeba_hq/{name}"][0].person for name in partition}
    shown = {people[name] for name in test}
    assert not shown & {people[name] for name in partition if name not in test}
    assert len(set(people.values())) == 6


def test_folder_of_images_and_a_csv(made):
    root, drawn = made / "folder", truth("folder")
    faces = digests(made / "celeba/Img/img_align_celeba_hq")
    assert digests(root / "images") == faces and len(faces) == 17
    table = read_keypoints(root / "points.csv", root)
    assert table.names == ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"]
    assert table.flip_pairs == [("left_eye", "right_eye"), ("left_mouth", "right_mouth")]
    assert table.images == [path for path in drawn if drawn[path][0].split != "unlabelled"]
    for image, points in zip(table.images, table.points, strict=True):
        np.testing.assert_allclose(points, five_points(drawn[image][2]), atol=0.0051)


def test_aflw(made):
    root, drawn = made / "aflw", truth("aflw")
    for split, count in (("train", 3), ("test", 3)):
        names = (root / f"aflw_{split}_images.txt").read_text().split()
        keypoints = loadmat(root / f"aflw_{split}_keypoints.mat")
        assert len(names) == count and keypoints["gt"].shape == (count, 5, 2)
        assert keypoints["hw"].shape == (count, 2)
        for name, shape, size in zip(names, keypoints["gt"], keypoints["hw"], strict=True):
            _, pixels, points = drawn[f"output/{name}"]
            assert_same_image(root / "output" / name, pixels)
            assert tuple(size) == pixels.shape[:2] and size[0] == size[1]
            np.testing.assert_allclose(shape[:, ::-1], five_points(points))
            inner = 136 / size[0] * shape
            assert inner.min() > 20 and inner.max() < 116


def test_aflw_mtfl(made):
    root, drawn = made / "aflw-mtfl", truth("aflw-mtfl")
    with open(root / "aflw_cropped/facedata_cropped.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:6] == ["face_id", "image_file", "crop_file", "set", "x1", "y1"]
    assert len(rows) == 4
    assert {row[3] for row in rows[1:]} == {"1"}
    tests = [line.split() for line in (root / "MTFL/testing.txt").read_text().splitlines()]
    assert not {row[1] for row in rows[1:]} & {name.split("-")[-1] for name, *_ in tests}
    written = {f"aflw_cropped/{row[2]}": np.reshape(row[4:14], (5, 2)) for row in rows[1:]}
    written |= {f"MTFL/{name}": np.reshape(values[:10], (2, 5)).T for name, *values in tests}
    assert len(tests) == 3 and written.keys() == drawn.keys()
    for path, shape in written.items():
        _, pixels, points = drawn[path]
        assert pixels.shape == (150, 150, 3)
        assert_same_image(root / path, pixels)
        np.testing.assert_allclose(shape.astype(float) - 1, five_points(points), atol=1e-4)


def test_300w(made):
    root, drawn = made / "300w", truth("300w")
    files = sorted((root / "Bounding Boxes").glob("*.mat"))
    assert len(files) == 6
    seen = []
    for file in files:
        folder = file.stem.removeprefix("bounding_boxes_").replace("_", "/")
        boxes = loadmat(file)["bounding_boxes"]
        assert boxes.shape[0] == 1
        for cell in boxes[0]:
            entry = cell[0, 0]
            path = f"{folder}/{entry['imgName'][0]}"
            _, pixels, points = drawn[path]
            seen.append(path)
            assert_same_image(root / path, pixels, 0.1 if path.endswith("png") else 12)
            text = (root / path).with_suffix(".pts").read_text().splitlines()
            assert text[:3] == ["version: 1", "n_points:  68", "{"] and text[-1] == "}"
            written = np.array([line.split() for line in text[3:-1]], dtype=float)
            np.testing.assert_allclose(written - 1, points, atol=1e-5)
            box = entry["bb_ground_truth"].ravel()
            np.testing.assert_allclose(box, [*written.min(0), *written.max(0)], atol=1e-5)
            assert np.abs(entry["bb_detector"].ravel() - box).max() < 0.2 * np.ptp(written)
            assert points.min() >= 0 and (points.max(0) <= np.array(pixels.shape[1::-1]) - 1).all()
    assert sorted(seen) == sorted(drawn)
    assert all(Path(p).name.startswith("image") for p in seen if p.startswith("ibug"))


def test_a_finished_set_is_left_alone_and_another_one_refused(tmp_path, capsys):
    sizes = {"images": 1, "mafl_train": 1, "mafl_test": 1, "workers": 1}
    (folder,) = generate(tmp_path, **sizes)
    before = digests(tmp_path)
    marked = (folder / "MAFL/testing.txt").stat().st_mtime_ns
    generate(tmp_path, **sizes)
    assert "already" in capsys.readouterr().out
    assert (folder / "MAFL/testing.txt").stat().st_mtime_ns == marked
    with pytest.raises(InputError, match="celeba: holds a set with other options"):
        generate(tmp_path, **{**sizes, "images": 2})
    assert digests(tmp_path) == before
    (folder / "synthetic.json").unlink()
    with pytest.raises(InputError, match="celeba: holds an unfinished"):
        generate(tmp_path, **sizes)
    generate(tmp_path, **{**sizes, "images": 2}, overwrite=True)
    assert json.loads((folder / "synthetic.json").read_text())["images"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["celeba"]


def test_an_interrupted_set_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(root, job):
        raise KeyboardInterrupt

    monkeypatch.setattr("datasets.synthetic.draw", fail)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, images=1, mafl_train=1, mafl_test=1, workers=1)
    assert not list(tmp_path.iterdir())


def test_other_layouts_are_refused(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--layouts=cats"])
    assert "argument --layouts: invalid choice: 'cats'" in capsys.readouterr().err


def test_too_few_images_are_named(tmp_path):
    with pytest.raises(InputError, match="--mafl_test"):
        generate(tmp_path / "new", **{**SIZES, "mafl_test": 2}, layouts=["300w"])
    assert not (tmp_path / "new").exists()


def test_a_sheet_that_cannot_be_written_is_named(tmp_path):
    sizes = {"images": 1, "mafl_train": 1, "mafl_test": 1, "workers": 1}
    for sheet in (tmp_path / "no/such/folder.png", tmp_path / "of_no.format"):
        with pytest.raises(InputError, match=f"--sheet: {sheet} cannot be written"):
            generate(tmp_path / "out", **sizes, sheet=str(sheet))


def test_git_ignores_the_default_folder_but_not_the_packages_beside_it():
    def is_ignored(path):
        command = ["git", "check-ignore", "--quiet", "--no-index", path]
        status = subprocess.run(command, cwd=ROOT, capture_output=True).returncode
        if status > 1:
            pytest.skip("this is not a git repository")
        return status == 0

    assert is_ignored(f"{parse_arguments([]).out}/celeba/Img/000001.jpg")
    assert not is_ignored("datasets/renderer/face.py")
    assert not is_ignored("datasets/fetching/web.py")


def test_as_a_script(tmp_path):
    command = [sys.executable, "datasets/synthetic.py", "--out", str(tmp_path / "out")]
    command += ["--images", "1", "--mafl_train", "1", "--mafl_test", "1", "--workers", "2"]
    sheet = tmp_path / "sheet.png"
    done = subprocess.run(
        [*command, "--sheet", str(sheet)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "images/s" in done.stdout and Image.open(sheet).width > 1000
    wrong = subprocess.run([*command, "--seed", "1"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1
    assert str(tmp_path / "out/celeba") in wrong.stderr
