"""The kinds of readout by their commands: what runs leave, draw, resume, choose and refuse."""

import json

import pytest

from tests.scripts.running import FRAME, last_error, refused, result_of, succeed

MAPS = [*FRAME, "--layer", "2", "--use_hypercol", "--batch_size", "4"]
UNTRAINED = [*MAPS, "--random_network"]
KINDS = {
    "published": ["--epochs", "1", "--adam"],
    "ridge": [],
    "finetune": ["--finetune_steps", "3", "--finetune_batch", "4", "--restrict_annos", "4"],
}
FITS = sum((KINDS[kind] for kind in KINDS), [])
AUTO = ["--regressor", "auto", *FITS[:-2], "--restrict_annos", "6", "--model_name", "auto"]


def evaluate(faces, cwd, *flags, maps=UNTRAINED, start=succeed):
    run = [*maps, "--model_path", "runs", "--data_folder", faces]
    return start("eval_face.py", *run, *flags, cwd=cwd)


def draw(faces, cwd, *flags, maps=UNTRAINED, start=succeed):
    return start("vis_face.py", *maps, "--data_folder", faces, "--vis_keypoints", *flags, cwd=cwd)


def assert_drawn(done, run):
    error = last_error(run)
    assert f"6 test images: error {error:.2f} % of" in done.out and "warning" not in done.out


@pytest.fixture(scope="module")
def readouts(faces, tmp_path_factory):
    """The folder of a run with each readout, named after it."""
    cwd = tmp_path_factory.mktemp("readouts")
    for kind, flags in KINDS.items():
        done = evaluate(faces, cwd, "--regressor", kind, "--model_name", kind, *flags)
    return cwd, done


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_resumed_and_drawn(readouts, faces, tmp_path, kind):
    cwd, _ = readouts
    run = cwd / "runs" / kind
    last = result_of(run)["last"]
    flags = ["--regressor", kind, "--model_name", kind, *KINDS[kind], "--resume", "auto"]
    done = evaluate(faces, cwd, *flags)
    assert f"resumed from runs/{kind}/current.pth after epoch 1" in done.out
    assert result_of(run)["last"] == last
    given = ["--regressor", kind, "--ckpt_path", run / "current.pth"]
    if kind == "finetune":  # its checkpoints alone are all that it takes
        assert_drawn(draw(faces, tmp_path, *given, "--vis_PCA", maps=MAPS), run)
        assert (tmp_path / "Visualization/pca_sheet.png").exists()
        given[-1] = run / "resnet18.pth"
    assert_drawn(draw(faces, tmp_path, *given, maps=MAPS if kind == "finetune" else UNTRAINED), run)
    done = draw(faces, tmp_path, *given, "--image_size", "80")
    (warning,) = [line for line in done.out.splitlines() if "warning" in line]
    assert f"{given[-1]} was trained with --image_size 72" in warning


def test_an_untrained_encoder_is_tuned_on_a_few_images(readouts):
    cwd, done = readouts
    assert "4 training, 6 Test images of 64 px; resnet18 (untrained)" in done.out
    assert len((cwd / "runs/finetune/namelist.txt").read_text().split()) == 4
    error = last_error(cwd / "runs/finetune")
    assert f"round 1, the last: Test InterOcularError {error:.2f}" in done.out


@pytest.mark.parametrize(("kind", "other"), [("published", "ridge"), ("ridge", "published")])
def test_a_readout_of_the_other_kind_is_refused(readouts, faces, kind, other):
    cwd, _ = readouts
    path = f"runs/{other}/current.pth"
    said = f"{path}: of --regressor {other}, not {kind}"
    flags = ["--regressor", kind, "--model_name"]
    for more in ((), ("--override",)):
        again = evaluate(faces, cwd, *flags, "x", "--resume", path, *more, start=refused)
        assert said in again
    assert not (cwd / "runs/x").exists()
    assert said in evaluate(faces, cwd, *flags, other, "--resume", "auto", start=refused)
    assert said in draw(faces, cwd, *flags[:2], "--ckpt_path", path, start=refused)


def test_a_tuned_encoder_serves_other_readouts(readouts, faces, tmp_path):
    cwd, _ = readouts
    path, ridge = cwd / "runs/finetune/resnet18.pth", cwd / "runs/ridge/current.pth"
    flags = ["--regressor", "ridge", "--model_name", "a", "--trained_model_path", path]
    evaluate(faces, tmp_path, *flags, maps=MAPS)
    for flags, said in (
        (["finetune", "--ckpt_path", ridge], "of --regressor ridge, not finetune"),
        (["ridge", "--ckpt_path", path], "of --regressor finetune, not ridge"),
        (["finetune", "--ckpt_path", path, "--projection", path], ": not with --regressor fine"),
        (["finetune"], "--regressor finetune: give its checkpoint by --ckpt_"),
        (["ridge", "--layer", "1", "--ckpt_path", ridge], "another architecture than --model resn"),
        (["auto", "--ckpt_path", ridge.parent / "options.json"], "options.json"),
    ):
        assert said in draw(faces, tmp_path, "--regressor", *flags, start=refused)


@pytest.mark.parametrize("kind", ["ridge", "finetune"])
def test_flags_that_it_ignores_are_told(faces, tmp_path, kind):
    flags = ["--repeat", "--num_per_epoch", "7", "--learning_rate", "0.01", "--TPS_aug"]
    flags += [*KINDS["published"], *KINDS["finetune"]]
    done = evaluate(faces, tmp_path, "--regressor", kind, "--model_name", kind, *flags)
    told = {line.split()[0] for line in done.out.splitlines() if f"with --regressor {kind}" in line}
    expected = {"--repeat", "--num_per_epoch", "--learning_rate", "--epochs", "--adam"}
    assert told == expected | ({"--TPS_aug"} if kind == "finetune" else set())


@pytest.mark.parametrize("count", [1, 2])
def test_how_few_images_it_can_be_fitted_to(faces, tmp_path, count):
    flags = ["--regressor", "ridge", "--model_name", "few", "--restrict_annos", count]
    assert f"fitted to {count} images" in evaluate(faces, tmp_path, *flags).out


# ---- the choice of one ----


@pytest.fixture(scope="module")
def chosen(faces, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("auto")
    done = evaluate(faces, cwd, *AUTO)
    return cwd, done, json.loads((cwd / "runs/auto/choice.json").read_text())


def test_the_best_in_cross_validation_is_taken(faces, chosen, tmp_path):
    cwd, done, choice = chosen
    scores = choice["scores"]
    assert list(scores) == ["ridge-untrained", "published-untrained", "finetune-untrained"]
    assert choice["taken"] == min(scores, key=scores.get)
    assert f"takes {choice['taken']}" in done.out
    for name, score in scores.items():
        runs = [cwd / f"runs/auto/candidates/{name}-fold{fold}" for fold in (1, 2, 3)]
        results = [result_of(run) for run in runs]
        assert [result["images"]["training"] for result in results] == [4, 4, 4]
        assert score == pytest.approx(sum(map(last_error, runs)) / 3)
    # The run is that of the readout that was taken, and drawn as such.
    kind = choice["taken"].split("-")[0]
    own = ["--regressor", kind, *AUTO[2:-1], "own"]
    evaluate(faces, cwd, *own)
    assert result_of(cwd / "runs/own")["last"] == result_of(cwd / "runs/auto")["last"]
    flags = ["--regressor", "auto", "--ckpt_path", cwd / "runs/auto/current.pth"]
    assert_drawn(draw(faces, tmp_path, *flags), cwd / "runs/auto")


def test_a_second_start_needs_a_wish_and_repeats_no_candidate(faces, chosen):
    cwd, _, choice = chosen
    assert "holds checkpoints already" in evaluate(faces, cwd, *AUTO, start=refused)
    results = sorted((cwd / "runs/auto/candidates").glob("*/result.json"))
    times = [path.stat().st_mtime_ns for path in results]
    done = evaluate(faces, cwd, *AUTO, "--resume", "auto")
    assert [path.stat().st_mtime_ns for path in results] == times
    assert f"takes {choice['taken']}" in done.out


@pytest.mark.parametrize("flag", ["--TPS_aug", "--repeat"])
def test_what_belongs_to_one_readout_is_refused(faces, tmp_path, flag):
    assert f"not with {flag}" in evaluate(faces, tmp_path, *AUTO, flag, start=refused)
    assert not (tmp_path / "runs").exists()
