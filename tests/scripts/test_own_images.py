"""One's own images in the scripts: pre-training on a folder, points that were annotated."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.data_loader.own_tables import write_dots, write_long_csv
from tests.scripts.running import FRAME, refused, result_of, succeed
from utils.checkpoint import load_checkpoint
from utils.drawing import GAP, HEADER, part_colours

TRAIN = [*FRAME, "--image_size", "40", "--batch_size", "4", "--model_path", "runs", "--epochs", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight dark images of several sizes at several depths."""
    root = tmp_path_factory.mktemp("own")
    for number in range(8):
        pixels = np.random.RandomState(number).randint(0, 60, (50 + number, 70, 3))
        path = root / f"day{number % 3}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


@pytest.mark.parametrize(
    ("script", "more"), [("train_dense.py", ["--places", 16]), ("train_moco.py", ["--nce_k", 8])]
)
def test_a_folder_is_pretrained_on(folder, tmp_path, script, more):
    own = ["--dataset", "Folder", "--data_folder", folder, "--fit", "pad", "--colours", "measured"]
    done = succeed(script, *TRAIN, *own, *more, "--model_name", "own", cwd=tmp_path)
    assert "8 images of Folder, 32 px" in done.out
    noted = load_checkpoint(tmp_path / "runs/own/current.pth", ("colours",))["colours"]
    assert 0.05 < noted["mean"][0] < 0.12  # about 30 of 255, and a little black above and below


def test_published_data_sets_cant_be_framed_otherwise(faces, tmp_path):
    more = ["--data_folder", faces, "--fit", "crop", "--model_name", "own"]
    done = refused("train_dense.py", *TRAIN, *more, cwd=tmp_path)
    assert "error: --fit crop: only of --dataset Folder" in done
    assert not (tmp_path / "runs").exists()


POINTS = ["--model", "resnet18", "--image_size", "32", "--image_crop", "0", "--layer", "4"]
POINTS += ["--use_hypercol", "--num_workers", "0", "--batch_size", "4", "--random_network"]
POINTS += ["--dataset", "Keypoints"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The flags of a folder of 10 annotated images."""
    root = tmp_path_factory.mktemp("annotated")
    write_long_csv(root / "points.csv", write_dots(root, 10))
    return ["--data_folder", root, "--annotations", root / "points.csv"]


def test_annotations_are_drawn_before_there_is_a_network(own, tmp_path):
    flags = [*POINTS[:4], "--num_workers", 0, "--dataset", "Keypoints", *own]
    succeed("vis_animal.py", *flags, "--vis_annotations", cwd=tmp_path)
    sheet = Image.open(tmp_path / "Visualization/annotations.png")
    lines = [line.split(",") for line in own[3].read_text().splitlines()[1:]]
    first = sheet.crop((GAP, GAP + HEADER, GAP + 4 * 32, GAP + HEADER + 4 * 32))
    found = 0
    for name in dict.fromkeys(line[0] for line in lines):
        points = [np.array(line[2:4], dtype=float) for line in lines if line[0] == name]
        # Of 120 x 80 pixels, 32 x 32 are shown, 4 times as large.
        places = [(p + 0.5) * (4 * 32 / 120, 4 * 32 / 80) - 0.5 for p in points]
        dots = [first.getpixel(tuple(p.round().astype(int).tolist())) for p in places]
        found += dots == part_colours(3)
    assert found == 1  # whose points the first image of the sheet has
    assert (tmp_path / "Visualization/names.png").is_file()


def test_annotations_without_one_of_the_points_are_drawn_but_not_learnt(own, tmp_path):
    lines = own[3].read_text().splitlines()
    (tmp_path / "few.csv").write_text(
        "\n".join(x for x in lines if ",right_eye" not in x) + "\nday0/0.png,tail,,\n"
    )
    flags = [*POINTS, *own[:3], "few.csv"]
    done = succeed("vis_animal.py", *flags, "--vis_annotations", cwd=tmp_path)
    assert "few.csv: no instance has tail\n" in done.out
    assert "left out, as no training image has them: tail\n" in done.out
    names = Image.open(tmp_path / "Visualization/names.png")
    assert names.height == 2 * HEADER
    fit = [*flags, "--regressor", "ridge", "--model_path", "runs", "--model_name", "a"]
    assert "has tail (1 of 3 points)" in refused("eval_animal.py", *fit, cwd=tmp_path)


def test_a_curve_is_made_of_runs_that_are_judged_alike(own, tmp_path):
    fit = [*POINTS, *own, "--regressor", "ridge", "--normalise_by", "left_eye", "right_eye"]
    run = ["--model_path", "runs", "--model_name", "own"]
    curve = ["--curve", 3, 5, "--curve_seeds", 2]
    succeed("eval_animal.py", *fit, *run, *curve, cwd=tmp_path)
    tests = []
    for count, seed in [(3, 0), (3, 1), (5, 0), (5, 1)]:
        folder = tmp_path / f"runs/own/annotated_{count}_seed_{seed}"
        assert len((folder / "namelist.txt").read_text().splitlines()) == count
        test = result_of(folder)["scores"]["Test"]
        assert test["error_px_low"] <= test["error_px"] <= test["error_px_high"]
        assert "PCK_0.05_of_distance" in test
        lines = (folder / "per_image.csv").read_text().splitlines()[1:]
        tests.append({line.split(",")[1] for line in lines})
    assert len(tests[0]) == 3 and all(images == tests[0] for images in tests)
    assert len((tmp_path / "runs/own/curve.csv").read_text().splitlines()) == 5
    said = refused("eval_animal.py", *fit, *run, "--curve", 30, cwd=tmp_path)
    assert "--curve 30: there are 7 training images" in said


def test_a_readout_is_chosen_for_own_points(own, tmp_path):
    flags = [*POINTS, *own, "--regressor", "auto", "--epochs", 1]
    flags += ["--finetune_steps", 2, "--finetune_batch", 2, "--test_share", 0.3]
    succeed("eval_animal.py", *flags, "--model_path", "runs", "--model_name", "own", cwd=tmp_path)
    choice = json.loads((tmp_path / "runs/own/choice.json").read_text())
    assert choice["taken"] == min(choice["scores"], key=choice["scores"].get)
    runs = (tmp_path / "runs/own/candidates").glob("ridge-untrained-fold*")
    counts = [result_of(run)["images"] for run in runs]
    # Of 10 images 3 are for tests: a fold has 2 or 3 of the others.
    assert sorted(count["Test"] for count in counts) == [2, 2, 3]
    assert all(count["Test"] + count["training"] == 7 for count in counts)
    result = result_of(tmp_path / "runs/own")
    assert result["images"]["Test"] == 3 and "error_px" in result["scores"]["Test"]

    # Fine-tuning alone learns from mirrored images, then the best one is tried the other way.
    usual = ["ridge-untrained", "published-untrained", "finetune-untrained"]
    *first, other = choice["scores"]
    best = min(usual, key=choice["scores"].get)
    assert first == usual
    assert other == f"{best}-{'un' if best.startswith('finetune') else ''}mirrored"
    taken = other if choice["scores"][other] < choice["scores"][best] else best
    assert choice["taken"] == taken

    def mirror(run):
        record = json.loads((tmp_path / "runs/own" / run / "options.json").read_text())
        return record["options"]["mirror"]

    said = [mirror(f"candidates/{name}-fold1") for name in (*usual, other)]
    assert said == ["off", "off", "on", "off" if best.startswith("finetune") else "on"]
    assert mirror(".") == mirror(f"candidates/{taken}-fold1")
    doubled = 2 if mirror(".") == "on" and not taken.startswith("finetune") else 1
    assert result["images"]["training"] == 7 * doubled


def test_folds_are_runs_of_their_own(own, tmp_path):
    fit = [*POINTS, *own, "--regressor", "ridge", "--folds", 2]
    run = ["--model_path", "runs", "--model_name", "own"]
    succeed("eval_animal.py", *fit, *run, cwd=tmp_path)
    summary = result_of(tmp_path / "runs/own")
    folds = [result_of(tmp_path / f"runs/own/fold_{fold}") for fold in (1, 2)]
    for fold in (1, 2):
        record = json.loads((tmp_path / f"runs/own/fold_{fold}/options.json").read_text())
        assert record["options"]["model_name"] == f"own/fold_{fold}"
        assert record["options"]["fold"] == fold
    # The last readout has seen all; the folds have judged each image once, and calibrate it.
    images = [fold["images"]["Test"] for fold in folds]
    assert summary["images"] == {"training": sum(images)}
    errors = [fold["scores"]["Test"]["error_px"] for fold in folds]
    pooled = summary["scores"]["Folds"]
    assert pooled["error_px"] == pytest.approx(np.average(errors, weights=images))
    assert pooled["error_px_low"] < pooled["error_px"] < pooled["error_px_high"]
    for name in ("resnet18", "current"):
        kept = load_checkpoint(tmp_path / f"runs/own/{name}.pth", ())["calibration"]
        assert kept["points"] == summary["calibration"]["points"] == 3 * sum(images)
    drawn = refused("vis_animal.py", *fit, "--vis_keypoints", cwd=tmp_path)
    assert "--folds: give --fold N, too" in drawn
    shutil.rmtree(tmp_path / "runs/own/fold_1")
    said = refused("eval_animal.py", *fit, *run, cwd=tmp_path)
    assert "own: holds checkpoints already" in said and not (tmp_path / "runs/own/fold_1").exists()


def test_few_images_are_judged_by_folds_of_half_the_steps(own, tmp_path):
    fit = [*POINTS, *own, "--regressor", "finetune", "--finetune_steps", 3, "--finetune_batch", 2]
    succeed("eval_animal.py", *fit, "--model_path", "runs", "--model_name", "own", cwd=tmp_path)

    def steps(folder):
        record = json.loads((tmp_path / "runs" / folder / "options.json").read_text())
        return record["options"]["finetune_steps"]

    assert [steps(f"own/{name}") for name in ("fold_1", "fold_2", "fold_3", ".")] == [2, 2, 2, 3]
    lines = (tmp_path / "runs/own/per_image.csv").read_text().splitlines()[1:]
    judged = [line.split(",")[:2] for line in lines]
    assert {split for split, _ in judged} == {"Folds"}
    assert len({image for _, image in judged}) == len(lines) == 10

    alone = ["--folds", 0, "--model_path", "runs", "--model_name", "alone"]
    done = succeed("eval_animal.py", *fit, *alone, cwd=tmp_path)
    assert "no image is held out: the error on new images isn't known" in done.out
    assert "confidence isn't calibrated, and no probability: no image is held out" in done.out
    result = result_of(tmp_path / "runs/alone")
    assert result["images"] == {"training": 10} and not {"scores", "calibration"} & result.keys()
    assert not list((tmp_path / "runs/alone").glob("fold_*")) and steps("alone") == 3


def test_folds_are_taken_up_again_with_points_in_another_order(tmp_path):
    table = write_dots(tmp_path / "own", 10)
    write_long_csv(tmp_path / "points.csv", table)
    fit = [*POINTS, "--data_folder", "own", "--annotations", "points.csv", "--regressor", "ridge"]
    fit += ["--folds", 2, "--model_path", "runs", "--model_name", "own"]
    succeed("eval_animal.py", *fit, cwd=tmp_path)

    def told():
        result = result_of(tmp_path / "runs/own")
        kept = load_checkpoint(tmp_path / "runs/own/resnet18.pth", ())["calibration"]
        return [result["scores"], kept["slopes"], kept["offsets"], kept["error"]]

    before = told()
    turned = table._replace(names=table.names[::-1], points=table.points[:, ::-1])
    write_long_csv(tmp_path / "points.csv", turned)
    succeed("eval_animal.py", *fit, "--resume", "auto", cwd=tmp_path)
    scores, *numbers = told()
    assert scores["Folds"] == pytest.approx(before[0]["Folds"], rel=1e-6)
    for one, other in zip(numbers, before[1:], strict=True):
        assert one == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize(
    ("script", "more"),
    [("eval_animal.py", ["--model_path", "r", "--model_name", "x"]), ("vis_animal.py", [])],
)
def test_benchmarks_refuse_the_flags_of_own_annotations(tmp_path, script, more):
    done = refused(script, "--fit", "pad", "--random_network", *more, cwd=tmp_path)
    assert "error: --fit: only of --dataset Keypoints" in done
