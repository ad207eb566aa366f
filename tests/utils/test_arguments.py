import argparse

import pytest

import eval_animal
import eval_face
import train_moco
import vis_animal
import vis_face
from engine.visualization import training_flags
from utils.arguments import ArgumentParser, ignored_notices

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
    assert ignored_notices(args, **training_flags()) == [
        f"--{name} has no effect, as in the published code" for name in ("epochs", "adam")
    ]
    assert ignored_notices(argparse.Namespace(**training_flags()), **training_flags()) == []


def test_the_help_names_the_defaults_that_say_something():
    parser = ArgumentParser("")
    parser.add_argument("--zero", type=int, default=0, help="a number")
    parser.add_argument("--nought", type=float, default=0.0, help="a number")
    parser.add_argument("--text", default="", help="silent")
    parser.add_argument("--flag", action="store_true", help="silent")
    said = parser.format_help()
    assert "a number [0]" in said and "a number [0.0]" in said and "silent [" not in said


@pytest.mark.parametrize(("flag", "value"), [("--epochs", "many"), ("--alpha", "half")])
def test_what_is_no_number_is_answered_as_one_out_of_range(flag, value, capsys):
    with pytest.raises(SystemExit):
        train_moco.build_parser().parse_args([*RUN, flag, value])
    assert f"argument {flag}: expected " in capsys.readouterr().err
