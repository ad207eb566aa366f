"""What points' names tell: mirrored pairs and COCO's sigmas."""

import pytest

from data_loader.readers.keypoint_table import COCO_SIGMAS, find_flip_pairs, shown


@pytest.mark.parametrize(
    "left, right",
    [
        *[("left_eye", "right_eye"), ("leftear", "rightear"), ("LeftPaw", "RightPaw")],
        *[("eye left", "eye right"), ("LEFT", "RIGHT"), ("L_Eye", "R_Eye"), ("l_eye", "r_eye")],
        *[("eyeL", "eyeR"), ("forelegL1", "forelegR1"), ("eye_l", "eye_r"), ("L1", "R1")],
        *[("LEye", "REye"), ("LF_paw", "RF_paw"), ("wing.l.tip", "wing.r.tip"), ("l-1", "r-1")],
    ],
)
def test_sides_in_names(left, right):
    assert find_flip_pairs(["nose", right, left]) == [(left, right)]


@pytest.mark.parametrize(
    "names",
    [
        *[["left_eye", "eye"], ["leg", "reg"], ["tail", "tair"], ["ll", "rr"], ["Leg", "Reg"]],
        *[["left_eye", "Right_eye"], ["1", "2"], ["legL", "legr"]],
    ],
)
def test_names_that_arent_pairs(names):
    assert find_flip_pairs(names) == []


def test_a_point_is_in_one_pair():
    names = ["l_l", "l_r", "r_l", "r_r"]
    pairs = find_flip_pairs(names)
    assert sorted(sum(pairs, ())) == names


def test_cocos_sigmas():
    """The sum is that of pycocotools' array."""
    assert sum(COCO_SIGMAS.values()) == pytest.approx(1.138)


def test_long_names_and_those_with_control_characters_are_shown_in_one_line():
    assert shown("a\n" + "b" * 1000) == "a\\n" + "b" * 197 + "..."
    assert shown("\ud800") == "\\ud800"
