"""Fine-tuning as a user starts it: one file holds all that drawing needs."""

import json

import pytest

from tests.scripts.running import FRAME, run_inside

FIT = [*FRAME, "--model_path", "runs", "--batch_size", "4"]
TUNE = ["--regressor", "finetune", "--finetune_steps", "3", "--finetune_batch", "4"]


def evaluate(faces, cwd, name, *arguments):
    flags = [*FIT, "--data_folder", faces, "--model_name", name, *arguments]
    return run_inside("eval_face.py", *flags, cwd=cwd)


def draw(faces, cwd, *arguments):
    flags = [*FRAME, "--batch_size", "4", "--data_folder", faces, "--vis_keypoints"]
    return run_inside("vis_face.py", *flags, *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def tuned(faces, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("tuned")
    arguments = [*TUNE, "--random_network", "--restrict_annos", 4, "--epochs", 9]
    done = evaluate(faces, cwd, "tuned", *arguments)
    assert done.status == 0, done.err
    return cwd, done


def test_an_untrained_encoder_is_tuned_on_a_few_images(tuned):
    cwd, done = tuned
    assert "4 training, 6 Test images of 64 px; resnet18 (untrained)" in done.out
    assert "--epochs has no effect, with --regressor finetune" in done.out
    assert len((cwd / "runs/tuned/namelist.txt").read_text().split()) == 4
    result = json.loads((cwd / "runs/tuned/result.json").read_text())
    error = result["last"]["Test"]["InterOcularError"]
    assert f"round 1, the last: Test InterOcularError {error:.2f}" in done.out


@pytest.mark.parametrize("name", ["resnet18", "current"])
def test_the_checkpoint_alone_draws_with_the_same_score(faces, tuned, tmp_path, name):
    cwd, _ = tuned
    path = cwd / f"runs/tuned/{name}.pth"
    flags = ["--regressor", "finetune", "--ckpt_path", path]
    done = draw(faces, tmp_path, *flags, "--vis_PCA", "--layer", 2, "--use_hypercol")
    assert done.status == 0, done.err
    result = json.loads((cwd / "runs/tuned/result.json").read_text())
    error = result["last"]["Test"]["InterOcularError"]
    assert f"6 test images: error {error:.2f} % of" in done.out
    assert (tmp_path / "Visualization/pca_sheet.png").exists()


def test_a_tuned_encoder_serves_other_readouts(faces, tuned, tmp_path):
    path = tuned[0] / "runs/tuned/resnet18.pth"
    ridge = ["--regressor", "ridge", "--layer", 4, "--use_hypercol", "--trained_model_path", path]
    done = evaluate(faces, tmp_path, "ridge", *ridge)
    assert done.status == 0, done.err
    ridge_path = tmp_path / "runs/ridge/resnet18.pth"
    for flags, complaint in (
        (["finetune", "--ckpt_path", ridge_path], "of --regressor ridge, not finetune"),
        (["ridge", "--ckpt_path", path, "--random_network"], "of --regressor finetune, not ridge"),
        (["finetune", "--random_network"], "--regressor finetune: give its checkpoint by --ckpt_"),
    ):
        refused = draw(faces, tmp_path, "--regressor", *flags)
        assert refused.status == 2 and complaint in refused.err, refused.err
        assert len(refused.err.strip().splitlines()) == 1


def test_a_run_resumes_by_itself(faces, tuned, tmp_path):
    for _ in range(2):
        flags = [*TUNE, "--random_network", "--restrict_annos", 4, "--resume", "auto"]
        done = evaluate(faces, tmp_path, "a", *flags)
        assert done.status == 0, done.err
    assert "resumed from runs/a/current.pth after epoch 1" in done.out
    lasts = [
        json.loads((cwd / folder / "result.json").read_text())["last"]
        for cwd, folder in ((tuned[0], "runs/tuned"), (tmp_path, "runs/a"))
    ]
    assert lasts[0] == lasts[1]
