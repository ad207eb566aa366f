"""`--regressor ridge` by its commands: what a run leaves, few images, the other kind of readout."""

import json

import pytest

from tests.scripts.running import FRAME, run_inside

MAPS = [*FRAME, "--layer", "2", "--use_hypercol", "--random_network", "--batch_size", "4"]
RUN = [*MAPS, "--epochs", "1", "--adam", "--model_path", "runs"]
READOUTS = ("published", "ridge")


def evaluate(faces, cwd, *options):
    return run_inside("eval_face.py", *RUN, "--data_folder", faces, *options, cwd=cwd)


def assert_refused(done, said):
    assert done.status == 2 and len(done.err.splitlines()) == 1 and said in done.err, done.err


@pytest.fixture(scope="module")
def readouts(faces, tmp_path_factory):
    """The folder of a run with each readout, named after it."""
    cwd = tmp_path_factory.mktemp("readouts")
    for kind in READOUTS:
        done = evaluate(faces, cwd, "--regressor", kind, "--model_name", kind)
        assert done.status == 0, done.err
    return cwd


def test_a_run_is_resumed_and_drawn(readouts, faces):
    result = json.loads((readouts / "runs/ridge/result.json").read_text())
    done = evaluate(
        faces, readouts, "--regressor", "ridge", "--model_name", "ridge", "--resume=auto"
    )
    assert done.status == 0, done.err
    again = json.loads((readouts / "runs/ridge/result.json").read_text())
    assert again["last"] == result["last"] and "ridge" in result and "ridge" not in again
    given = [*MAPS, "--data_folder", faces, "--vis_keypoints", "--regressor", "ridge"]
    done = run_inside("vis_face.py", *given, "--ckpt_path", "runs/ridge/resnet18.pth", cwd=readouts)
    assert done.status == 0, done.err
    assert f"error {result['last']['Test']['InterOcularError']:.2f} %" in done.out


@pytest.mark.parametrize("kind", READOUTS)
def test_a_readout_of_the_other_kind_is_refused(readouts, faces, kind):
    other = READOUTS[1 - READOUTS.index(kind)]
    path = f"runs/{other}/current.pth"
    said = f"of --regressor {other}, not {kind}"
    for more in ((), ("--override",)):
        done = evaluate(
            *(faces, readouts, "--regressor", kind, "--model_name", "x", "--resume", path), *more
        )
        assert_refused(done, f"{path}: {said}")
    assert not (readouts / "runs/x").exists()
    resume = ("--model_name", other, "--resume", "auto")
    assert_refused(evaluate(faces, readouts, "--regressor", kind, *resume), said)
    given = [*MAPS, "--data_folder", faces, "--vis_keypoints", "--ckpt_path", path]
    done = run_inside("vis_face.py", *given, "--regressor", kind, cwd=readouts)
    assert_refused(done, f"{path}: of --regressor {other}, not {kind}")


def test_a_readout_of_other_maps_is_refused(readouts, faces):
    given = [*MAPS, "--data_folder", faces, "--vis_keypoints", "--regressor", "ridge"]
    given += ["--layer", "1", "--ckpt_path", "runs/ridge/current.pth"]
    done = run_inside("vis_face.py", *given, cwd=readouts)
    assert_refused(done, "holds another architecture than --model resnet18 --layer 1")


def test_flags_that_it_ignores_are_told(faces, tmp_path):
    flags = ["--repeat", "--num_per_epoch", "7", "--learning_rate", "0.01", "--TPS_aug"]
    done = evaluate(faces, tmp_path, "--regressor", "ridge", "--model_name", "ridge", *flags)
    assert done.status == 0, done.err
    told = {line.split()[0] for line in done.out.splitlines() if "with --regressor ridge" in line}
    # `RUN` sets the epochs and Adam.
    assert told == {"--repeat", "--num_per_epoch", "--learning_rate", "--epochs", "--adam"}


@pytest.mark.parametrize(("count", "status"), [(0, 2), (1, 0), (2, 0), (11, 2)])
def test_how_few_images_it_can_be_fitted_to(faces, tmp_path, count, status):
    done = evaluate(
        *(faces, tmp_path, "--regressor", "ridge", "--model_name", "few"),
        *("--restrict_annos", count),
    )
    if status:
        assert_refused(done, f"--restrict_annos {count}: there are 10 annotated images")
    else:
        assert done.status == 0, done.err
        assert f"fitted to {count} images" in done.out


@pytest.mark.parametrize("kind", READOUTS)
def test_a_readout_of_another_frame_is_told(readouts, faces, kind):
    given = [*MAPS, "--data_folder", faces, "--vis_keypoints", "--regressor", kind]
    given += ["--ckpt_path", f"runs/{kind}/current.pth"]
    done = run_inside("vis_face.py", *given, cwd=readouts)
    assert done.status == 0 and "warning" not in done.out, done.err
    done = run_inside("vis_face.py", *given, "--image_size", "80", cwd=readouts)
    assert done.status == 0, done.err
    warnings = [line for line in done.out.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert f"runs/{kind}/current.pth was trained with --image_size 72" in warnings[0]
