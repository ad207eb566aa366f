from functools import partial

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.encoders import build_encoder, build_random_encoder, weights_digest
from tests.scripts.running import FRAME, last_error, logged, refused, result_of, run, succeed
from utils.checkpoint import load_checkpoint, save_checkpoint

FIT = [*FRAME, "--layer", "2", "--use_hypercol", "--adam", "--cosine", "--batch_size", "4"]
FIT += ["--learning_rate", "0.01", "--model_path", "runs"]


def evaluate(faces, cwd, *arguments, start=succeed):
    return start("eval_face.py", *FIT, "--data_folder", faces, *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def evaluated(faces, tmp_path_factory):
    """Three epochs on a random encoder; the second one's checkpoint is kept."""
    cwd = tmp_path_factory.mktemp("eval")
    done = evaluate(
        *(faces, cwd, "--random_network", "--epochs", 3, "--save_freq", 2),
        *("--model_name", "whole", "--log_path", "logs/all.txt"),
        start=partial(succeed, start=run),
    )
    return cwd, done


def test_a_run_leaves_the_published_files_and_says_what_it_found(evaluated):
    cwd, done = evaluated
    folder = cwd / "runs" / "whole"
    names = {"resnet18.pth", "ckpt_epoch_2.pth", "ckpt_epoch_3.pth"}
    names |= {"current.pth", "previous_1.pth"}
    assert {p.name for p in folder.glob("*.pth")} == names
    keys = ("opt", "epoch", "regressor", "best_error", "optimizer")
    last = load_checkpoint(folder / "ckpt_epoch_3.pth", keys)
    best = load_checkpoint(folder / "resnet18.pth", keys)
    assert last["epoch"] == 3 and best["epoch"] == last["best_epoch"]
    errors = [epoch["Test_InterOcularError"] for epoch in logged(folder)]
    assert last_error(folder) == errors[-1]
    assert result_of(folder)["best"]["best_error"] == min(errors)
    assert f"after the last epoch (3): Test InterOcularError {errors[-1]:.2f}" in done.out
    assert "mean shape" in done.out and "picked on the Test set" in done.out
    assert (cwd / "logs/all.txt").read_text() == done.out
    # The encoder that seed 0 gives, untouched by the training.
    assert last["encoder_digest"] == weights_digest(build_random_encoder("resnet18", 64, 0))


def test_scalars_are_read_back_by_tensorboard(evaluated):
    events = EventAccumulator(str(evaluated[0] / "runs_tensorboard" / "whole")).Reload()
    assert set(events.Tags()["scalars"]) == {
        "InterOcularError",
        "train_loss",
        "learning_rate",
        "Test_InterOcularError",
        "test_loss",
    }


@pytest.mark.parametrize("use_hypercol", [[], ["--use_hypercol"]])
@pytest.mark.parametrize("layer", ["0", "5"])
def test_every_layer_and_an_hourglass_fit(faces, tmp_path, layer, use_hypercol):
    encoder = build_encoder("hourglass", 64)
    state = {f"module.{k}": v for k, v in encoder.state_dict().items()}
    save_checkpoint(tmp_path / "dve.pth", {"state_dict": state, "epoch": 1})
    plain = [a for a in FIT if a != "--use_hypercol"] + use_hypercol
    arguments = ["--data_folder", faces, "--layer", layer, "--epochs", 1, "--batch_size", 10]
    succeed(
        *("eval_face.py", *plain, *arguments, "--random_network", "--model_name", "r"),
        cwd=tmp_path,
    )
    succeed(
        *("eval_face.py", *plain, *arguments, "--model", "hourglass", "--model_name", "h"),
        *("--trained_model_path", "dve.pth"),
        cwd=tmp_path,
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--random_network", "--layer", "6"], "--layer 6: layers 0 to 5"),
        ([], "give --trained_model_path FILE or imagenet, or --random_network"),
        (["--trained_model_path", "none.pth"], "none.pth: no such checkpoint"),
        (["--trained_model_path", "r34.pth"], "r34.pth: holds another architecture"),
        (
            ["--trained_model_path", "runs/whole/resnet18.pth"],
            "holds no encoder for --model resnet18",
        ),
        (["--random_network", "--restrict_annos", "11"], "--restrict_annos 11: there are 10"),
        (["--on_bad_image", "no"], "argument --on_bad_image: invalid choice: 'no'"),
        (["--random_network", "--dataset", "LFW"], "argument --dataset: invalid choice: 'LFW'"),
        (["--random_network", "--model_name", "whole"], "runs/whole: holds checkpoints already"),
        (
            ["--random_network", "--layer", "3", "--resume", "runs/whole/ckpt_epoch_2.pth"],
            "ckpt_epoch_2.pth: was made with other options: --epochs 1 (was 3), --layer 3 (was 2)",
        ),
    ],
)
def test_mistakes_get_one_line(faces, evaluated, arguments, complaint):
    cwd, _ = evaluated
    if not (cwd / "r34.pth").exists():
        state = build_encoder("resnet34", 64).state_dict()
        save_checkpoint(cwd / "r34.pth", {"model": state})
    if "--model_name" not in arguments:
        arguments = [*arguments, "--model_name", "mistaken"]
    assert complaint in evaluate(faces, cwd, "--epochs", "1", *arguments, start=refused)
    assert not (cwd / "runs" / "mistaken").exists()


def draw(faces, cwd, *arguments, start=succeed):
    frame = [*FRAME, "--layer", "2", "--use_hypercol", "--batch_size", "4"]
    return start("vis_face.py", *frame, "--data_folder", faces, *arguments, cwd=cwd)


def test_vis_face_draws_landmarks_and_components_and_prints_an_error(faces, evaluated):
    cwd, _ = evaluated
    arguments = ["--random_network", "--ckpt_path", "runs/whole/ckpt_epoch_3.pth"]
    done = draw(faces, cwd, *arguments, "--vis_keypoints", "--vis_PCA", "--vis_path", "images")
    error = last_error(cwd / "runs/whole")
    assert f"6 test images: error {error:.2f} % of" in done.out
    names = {p.name for p in (cwd / "images").iterdir()}
    drawn = {*(f"{i}.png" for i in range(6)), "contact_sheet.png"}
    assert names == drawn | {"0", "1", "2", "3", "pca_sheet.png"}
    names = {"orig.png", "rgb.png", "sheet.png", *(f"{c}.png" for c in range(25))}
    assert {p.name for p in (cwd / "images/0").iterdir()} == names
    assert Image.open(cwd / "images/0.png").size == (256, 256)
    assert "another encoder" not in done.out
    other = draw(faces, cwd, *arguments, "--vis_keypoints", "--vis_path", "other", "--seed", 3)
    assert "was trained on the features of another encoder" in other.out


def test_vis_face_needs_no_checkpoint_for_a_random_network(faces, tmp_path):
    done = draw(faces, tmp_path, "--random_network", "--vis_keypoints", "--vis_path", "p")
    assert "the regressor is untrained too" in done.out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--random_network"], "nothing to draw"),
        (["--vis_keypoints", "--trained_model_path", "x.pth"], "give --ckpt_path FILE"),
        (["--vis_PCA"], "give --trained_model_path FILE or imagenet, or --random_network"),
        (["--vis_keypoints", "--random_network", "--ckpt_path", "x"], "x: no such checkpoint"),
    ],
)
def test_vis_face_mistakes_get_one_line(faces, tmp_path, arguments, complaint):
    assert complaint in draw(faces, tmp_path, *arguments, start=refused)
