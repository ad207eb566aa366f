import os
import subprocess
import sys

import pytest

import eval_animal
import eval_face
import eval_matching
import predict
import train_dense
import train_moco
import vis_animal
import vis_face
from tests.recipes import ROOT
from utils.arguments import changeable_options, neutral_options

SCRIPTS = [
    *(train_moco, train_dense, eval_face, eval_animal, vis_face, vis_animal, eval_matching),
    predict,
]

# [spec 8] name to default, of the flags that have one.
COMMON = {
    "print_freq": 10,
    "tb_freq": 500,
    "save_freq": 20,
    "momentum": 0.9,
    "beta1": 0.5,
    "beta2": 0.999,
    "cosine": False,
    "crop": 0.2,
    "image_crop": 15,
    "image_size": 100,
    "resume": "",
    "model": "resnet50",
    "gpu": None,
    "seed": 0,
    "device": "auto",
}
EVAL = COMMON | {
    "batch_size": 256,
    "num_workers": 32,
    "epochs": 60,
    "learning_rate": 0.1,
    "lr_decay_epochs": (30, 40, 50),
    "lr_decay_rate": 0.2,
    "weight_decay": 0,
    "layer": 3,
    "dataset": "MAFLAligned",
    "restrict_annos": -1,
    "repeat": False,
    "num_per_epoch": 1000,
    "TPS_aug": False,
    "bn": False,
    "multistep": False,
    "adam": False,
    "amsgrad": False,
    "use_hypercol": False,
    "trained_model_path": None,
}
BIRDS = {
    "save_freq": 5,
    "batch_size": 32,
    "image_crop": 0,
    "image_size": 96,
    "dataset": "CUB",
    "imagelist": None,
}
VIS = {
    "save_freq": 5,
    "batch_size": 32,
    "random_network": False,
    "ckpt_path": None,
    "vis_keypoints": False,
    "vis_PCA": False,
}
DEFAULTS = {
    train_moco: COMMON
    | {
        "batch_size": 128,
        "num_workers": 18,
        "epochs": 240,
        "learning_rate": 0.03,
        "lr_decay_epochs": (120, 160, 200),
        "lr_decay_rate": 0.1,
        "weight_decay": 1e-4,
        "dataset": "CelebA",
        "data_folder": "./datasets/celeba",
        "imagelist": None,
        "nce_k": 4096,
        "nce_t": 0.07,
        "nce_m": 0.5,
        "alpha": 0.999,
    },
    # A script of ours, whose flags that the published one has, too, take its values where they
    # mean the same.
    train_dense: {
        "print_freq": 10,
        "save_freq": 20,
        "image_crop": 15,
        "image_size": 100,
        "dataset": "CelebA",
        "data_folder": "./datasets/celeba",
        "model": "resnet50",
        "seed": 0,
    },
    eval_face: EVAL,
    eval_animal: EVAL | BIRDS,
    eval_matching: {"image_crop": 15, "image_size": 100, "model": "resnet50", "seed": 0},
    vis_face: EVAL | VIS,
    vis_animal: EVAL | VIS | BIRDS,
    predict: {"ckpt_path": None, "trained_model_path": None, "device": "auto", "gpu": None},
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_flags_have_the_published_defaults(script):
    required = (
        []
        if script in (vis_face, vis_animal, eval_matching, predict)
        else ["--model_path", "m", "--model_name", "n"]
    )
    args = vars(script.build_parser().parse_args(required))
    for name, default in DEFAULTS[script].items():
        if script in (vis_face, vis_animal) and name == "lr_decay_epochs":
            default = "30,40,50"  # parsed and ignored
        assert args[name] == default, name


@pytest.mark.parametrize("script", [train_moco, train_dense], ids=lambda s: s.__name__)
def test_nothing_is_cut_off_images_of_a_folder_by_default(script):
    def crop(*flags):
        parser = script.build_parser()
        return parser.parse_args(["--model_path", "m", "--model_name", "n", *flags]).image_crop

    assert crop() == crop("--dataset", "InatAve") == 15
    assert crop("--dataset", "Folder") == 0
    assert crop("--dataset", "Folder", "--image_crop", "15") == 15


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_every_flag_is_explained_and_spelled_like_its_attribute(script):
    for action in script.build_parser()._actions:
        assert action.help, action.dest
        if action.dest != "help":
            assert action.option_strings == [f"--{action.dest}"]


# The hourglass can't be pre-trained here, auto isn't drawn; out is a folder or a file; the default
# of the crop depends on the data set in pre-training.
OF_THE_SCRIPT = {"model", "regressor", "out", "image_crop", "amp"}
OF_THE_SCRIPT |= {"help", "dataset", "data_folder", "imagelist"}


def test_flags_that_scripts_share_mean_the_same():
    seen = {}
    for script in SCRIPTS:
        for action in script.build_parser()._actions:
            if action.help == "no effect" or action.dest in OF_THE_SCRIPT:
                continue
            meaning = (action.type, action.choices, action.help, action.nargs)
            assert seen.setdefault(action.dest, meaning) == meaning, action.dest


HELP = """
import runpy, sys
for path in sys.argv[1:]:
    sys.argv = [path, "--help"]
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as stop:
        print("status", stop.code)
"""


def test_help_needs_no_data(tmp_path):
    """In one process for all scripts, since importing torch takes seconds."""
    paths = [str(ROOT / f"{script.__name__}.py") for script in SCRIPTS]
    done = subprocess.run(
        [sys.executable, "-c", HELP, *paths],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = done.stdout.split("status 0\n")
    assert len(pages) == len(SCRIPTS) + 1 and pages[-1] == ""
    for script, page in zip(SCRIPTS, pages, strict=False):
        assert page.startswith(f"usage: {script.__name__}.py")
        assert "--model" in page or script is predict
        assert "--layer" in page or script in (train_moco, train_dense, predict)
    assert list(tmp_path.iterdir()) == []


def test_what_a_resumed_run_may_change_are_flags():
    flags = {action.dest for script in SCRIPTS for action in script.build_parser()._actions}
    assert neutral_options() < changeable_options() < flags
    assert {"learning_rate", "seed", "batch_size", "amp"}.isdisjoint(changeable_options())
    inputs = {"data_folder", "trained_model_path", "projection", "on_bad_image"}
    assert changeable_options() - neutral_options() == inputs
