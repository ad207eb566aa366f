"""`eval_matching.py` as a user starts it."""

import json

import pytest
from PIL import Image

from tests.scripts.running import FRAME, run_inside


def match(faces, cwd, *arguments):
    given = [*FRAME, "--layer", "4", "--use_hypercol", "--data_folder", faces, "--pairs", "8"]
    return run_inside("eval_matching.py", *given, *arguments, cwd=cwd)


def test_a_run_scores_and_draws(faces, tmp_path):
    done = match(faces, tmp_path, "--random_network")
    assert done.status == 0, done.err
    found = json.loads((tmp_path / "Matching/matching.json").read_text())
    assert found["pairs"] == 8
    # The warp is small: an image is found in its own warp even by an untrained encoder.
    assert found["px"]["warped"] < 0.7 * found["px"]["others_copied"]
    assert found["px"]["warped_copied"] < found["px"]["others_copied"]
    assert f"8 pairs of two images: {found['px']['others']:.2f} px" in done.out
    with Image.open(tmp_path / "Matching/matches.png") as sheet:
        assert sheet.width > 6 * 64
    again = match(faces, tmp_path, "--random_network", "--out", "again")
    assert again.status == 0
    assert json.loads((tmp_path / "again/matching.json").read_text()) == found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give --trained_model_path FILE, or --random_network"),
        (("--random_network", "--pairs", "0"), "--pairs: expected an integer from 1"),
    ],
)
def test_mistakes_are_one_line(faces, tmp_path, options, said):
    done = match(faces, tmp_path, *options)
    assert done.status == 2 and said in done.err and len(done.err.splitlines()) == 1, done.err
