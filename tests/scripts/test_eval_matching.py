"""`eval_matching.py` as a user starts it."""

import json
import shutil

import pytest
from PIL import Image

from tests.scripts.running import FRAME, refused, succeed


def match(faces, cwd, *arguments, start=succeed):
    given = [*FRAME, "--layer", "4", "--use_hypercol", "--data_folder", faces, "--pairs", "8"]
    return start("eval_matching.py", *given, *arguments, cwd=cwd)


def test_a_run_scores_and_draws(faces, tmp_path):
    done = match(faces, tmp_path, "--random_network")
    found = json.loads((tmp_path / "Matching/matching.json").read_text())
    assert found["pairs"] == 8
    # The warp is small: an image is found in its own warp even by an untrained encoder.
    assert found["px"]["warped"] < 0.7 * found["px"]["others_copied"]
    assert found["px"]["warped_copied"] < found["px"]["others_copied"]
    assert f"8 pairs of two images: {found['px']['others']:.2f} px" in done.out
    with Image.open(tmp_path / "Matching/matches.png") as sheet:
        assert sheet.width > 6 * 64
    match(faces, tmp_path, "--random_network", "--out", "again")
    assert json.loads((tmp_path / "again/matching.json").read_text()) == found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give --trained_model_path FILE or imagenet, or --random_network"),
        (("--random_network", "--pairs", "0"), "--pairs: expected an integer from 1"),
        (("--random_network", "--layer", "6"), "--layer 6: layers 0 to 5 have maps"),
        (("--trained_model_path", "none.pth"), "none.pth: no such checkpoint"),
        (("--random_network", "--image_size", "8"), "an image of 8 px has nothing left"),
    ],
)
def test_mistakes_are_one_line(faces, tmp_path, options, said):
    assert said in match(faces, tmp_path, *options, start=refused)
    assert not (tmp_path / "Matching").exists()


def test_one_image_makes_no_pair(faces, tmp_path):
    shutil.copytree(faces, tmp_path / "one")
    listed = tmp_path / "one/MAFL/testing.txt"
    listed.write_text(listed.read_text().splitlines()[0] + "\n")
    done = match(tmp_path / "one", tmp_path, "--random_network", start=refused)
    assert "holds 1 test images, a pair needs two" in done


def test_landmarks_that_no_pair_shows_in_both_images_have_no_distance(faces, tmp_path):
    """Two test images, of which either shows what the other doesn't."""
    shutil.copytree(faces, tmp_path / "two")
    listed = tmp_path / "two/MAFL/testing.txt"
    names = listed.read_text().splitlines()[:2]
    listed.write_text("".join(f"{name}\n" for name in names))
    done = match(tmp_path / "two", tmp_path, "--random_network", "--pairs", 2, "--out", ".")
    assert done.status == 0 and (tmp_path / "matches.png").exists()  # beside what is read
    path = tmp_path / "two/Anno/list_landmarks_align_celeba.txt"
    lines = path.read_text().splitlines()
    for i, line in enumerate(lines):
        name, *numbers = line.split()
        if name in names:
            first, second = numbers[:4], numbers[4:]
            kept = [*first, *["-1"] * 6] if name == names[0] else [*["-1"] * 4, *second]
            lines[i] = " ".join([name, *kept])
    path.write_text("\n".join(lines) + "\n")
    done = match(tmp_path / "two", tmp_path, "--random_network", start=refused)
    assert "--pairs 8: no pair of two images shows a landmark in both" in done
    assert not (tmp_path / "Matching").exists()
