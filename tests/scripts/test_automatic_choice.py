"""--regressor auto as a user starts it."""

import json

import pytest

from tests.scripts.running import FRAME, run_inside

FIT = [*FRAME, "--model_path", "runs", "--batch_size", "4", "--epochs", "2", "--adam"]
FIT += ["--layer", "4", "--use_hypercol", "--finetune_steps", "3", "--finetune_batch", "4"]
AUTO = ["--regressor", "auto", "--restrict_annos", "6", "--random_network"]


def evaluate(faces, cwd, *arguments):
    flags = [*FIT, "--data_folder", faces, *arguments]
    return run_inside("eval_face.py", *flags, cwd=cwd)


@pytest.fixture(scope="module")
def chosen(faces, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("auto")
    done = evaluate(faces, cwd, *AUTO, "--model_name", "auto")
    assert done.status == 0, done.err
    return cwd, done, json.loads((cwd / "runs/auto/choice.json").read_text())


def test_the_best_in_cross_validation_is_taken(chosen):
    cwd, done, choice = chosen
    scores = choice["scores"]
    assert list(scores) == ["ridge-untrained", "published-untrained", "finetune-untrained"]
    assert choice["taken"] == min(scores, key=scores.get)
    assert f"takes {choice['taken']}" in done.out
    for name, score in scores.items():
        runs = [cwd / f"runs/auto/candidates/{name}-fold{fold}" for fold in (1, 2, 3)]
        results = [json.loads((run / "result.json").read_text()) for run in runs]
        assert [result["images"]["training"] for result in results] == [4, 4, 4]
        errors = [result["last"]["Test"]["InterOcularError"] for result in results]
        assert score == pytest.approx(sum(errors) / 3)


def test_the_run_is_that_of_the_readout_that_was_taken(faces, chosen):
    cwd, _, choice = chosen
    kind = choice["taken"].split("-")[0]
    own = ["--regressor", kind, "--restrict_annos", 6, "--random_network", "--model_name", "own"]
    assert evaluate(faces, cwd, *own).status == 0
    first, second = (
        json.loads((cwd / f"runs/{n}/result.json").read_text()) for n in ("auto", "own")
    )
    assert first["last"] == second["last"]


def test_a_second_start_needs_a_wish_and_repeats_no_candidate(faces, chosen):
    cwd, _, choice = chosen
    again = [*AUTO, "--model_name", "auto"]
    refused = evaluate(faces, cwd, *again)
    assert refused.status == 2 and "holds checkpoints already" in refused.err
    results = sorted((cwd / "runs/auto/candidates").glob("*/result.json"))
    times = [path.stat().st_mtime_ns for path in results]
    done = evaluate(faces, cwd, *again, "--resume", "auto")
    assert done.status == 0, done.err
    assert [path.stat().st_mtime_ns for path in results] == times
    assert f"takes {choice['taken']}" in done.out


@pytest.mark.parametrize("flag", ["--TPS_aug", "--repeat"])
def test_what_belongs_to_one_readout_is_refused(faces, tmp_path, flag):
    done = evaluate(faces, tmp_path, *AUTO, flag, "--model_name", "a")
    assert done.status == 2 and f"not with {flag}" in done.err
    assert not (tmp_path / "runs").exists()


def test_drawing_takes_the_kind_that_the_checkpoint_holds(faces, chosen, tmp_path):
    cwd, _, _ = chosen
    result = json.loads((cwd / "runs/auto/result.json").read_text())
    flags = ["--layer", 4, "--use_hypercol", "--random_network", "--batch_size", 4]
    done = run_inside(
        *("vis_face.py", *FRAME, "--data_folder", faces, *flags, "--regressor", "auto"),
        *("--ckpt_path", cwd / "runs/auto/resnet18.pth", "--vis_keypoints"),
        cwd=tmp_path,
    )
    assert done.status == 0, done.err
    assert f"error {result['last']['Test']['InterOcularError']:.2f} %" in done.out
    flags += ["--regressor", "auto", "--ckpt_path", cwd / "runs/auto/options.json"]
    assert run_inside("vis_face.py", *flags, "--vis_keypoints", cwd=tmp_path).status == 2
