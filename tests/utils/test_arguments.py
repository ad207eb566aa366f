import argparse

import pytest

import eval_animal
import eval_face
import train_moco
import vis_animal
import vis_face
from engine.visualization import TRAINING_FLAGS
from utils.arguments import ignored_notices

RUN = ["--model_path", "m", "--model_name", "n"]


@pytest.mark.parametrize(
    ("script", "flag", "legal", "refused"),
    [
        (train_moco, "alpha", ["0", "0.999", "1"], ["-0.1", "2", "nan"]),
        (train_moco, "nce_t", ["0.07", "1", "5"], ["0", "-1", "inf", "nan"]),
        (train_moco, "momentum", ["0", "0.9"], ["-0.1", "1.5", "nan"]),
        (train_moco, "lr_decay_epochs", ["1", "120,160"], ["0", "-3", "a", ""]),
        (eval_face, "beta1", ["0", "0.5"], ["-0.1", "1", "nan"]),
        (eval_face, "beta2", ["0", "0.999"], ["1", "2", "nan"]),
        (eval_animal, "beta2", ["0", "0.999"], ["1", "2", "nan"]),
    ],
)
def test_numbers_have_the_range_of_what_they_mean(script, flag, legal, refused, capsys):
    parser = script.build_parser()
    required = list(RUN)
    if script is eval_animal:
        required += ["--imagelist", "list.txt"]
    for value in legal:
        assert hasattr(parser.parse_args([*required, f"--{flag}={value}"]), flag)
    for value in refused:
        with pytest.raises(SystemExit) as stop:
            parser.parse_args([*required, f"--{flag}={value}"])
        said = capsys.readouterr().err
        assert stop.value.code == 2 and f"--{flag}" in said and said.count("\n") == 1


@pytest.mark.parametrize("script", [vis_face, vis_animal])
def test_an_ignored_flag_of_the_visualization_scripts_is_named(script):
    required = ["--imagelist", "list.txt"] if script is vis_animal else []
    args = script.build_parser().parse_args([*required, "--epochs", "7", "--adam"])
    assert ignored_notices(args, **TRAINING_FLAGS) == [
        f"--{name} has no effect, as in the published code" for name in ("epochs", "adam")
    ]
    assert ignored_notices(argparse.Namespace(**TRAINING_FLAGS), **TRAINING_FLAGS) == []
