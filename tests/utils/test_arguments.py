import argparse

import pytest

import eval_animal
import eval_face
import eval_matching
import predict
import reproduce
import train_dense
import train_moco
import vis_animal
import vis_face
from datasets import download, synthetic
from engine.pages.visualization import training_flags
from utils.arguments import ArgumentParser, ignored_notices
from utils.errors import InputError

RUN = ["--model_path", "m", "--model_name", "n"]
EVALS, FITS = [eval_face, eval_animal], [train_moco, eval_face, eval_animal]
TRAINS = [train_dense, *FITS]
ALL = [*TRAINS, vis_face, vis_animal, eval_matching]
HUGE = str(10**31)
# Scripts, flags, what they take and what they refuse beside text, infinity, NaN and 10^31.
RANGES = [
    (ALL, ["image_size"], ["1", "10000"], ["0", "-1", "10001", "1.5"]),
    (ALL, ["image_crop", "num_workers", "gpu", "layer"], ["0", "5"], ["-1", "0.5", "1e3"]),
    (ALL, ["batch_size"], ["1", "1000000"], ["0", "-1", "1.5"]),
    (ALL, ["seed"], ["0", str(2**64 - 1)], ["-1", str(2**64)]),
    (TRAINS, ["epochs", "save_freq", "print_freq"], ["1", "1000000"], ["0", "-1", "1.5"]),
    (TRAINS, ["keep_last"], ["1", "1000"], ["0", "-1", "1001"]),
    (TRAINS, ["learning_rate", "weight_decay"], ["0", "0.1", "1e30"], ["-1", "1e31"]),
    (FITS, ["lr_decay_rate", "momentum"], ["0", "0.9", "1"], ["-0.1", "1.5", "1e30"]),
    (FITS, ["lr_decay_epochs"], ["1", "120,160"], ["0", "-3", "1,", ","]),
    (EVALS, ["beta1", "beta2"], ["0", "0.999"], ["-0.1", "1", "2"]),
    (EVALS, ["restrict_annos"], ["-1", "50"], ["-2", "1.5"]),
    (EVALS, ["num_per_epoch"], ["1", "1000"], ["0", "-1"]),
    (EVALS, ["cache_gb"], ["0.5", "100"], ["0", "-1", "1e300"]),
    ([train_moco], ["nce_k"], ["1", "65536"], ["0", "-1", str(2**24 + 1)]),
    ([train_moco, train_dense], ["nce_t", "save_minutes"], ["0.07", "5"], ["0", "-1", "1e300"]),
    ([train_dense], ["dimensions", "places"], ["1", "65536"], ["0", "-1", "1.5", "65537"]),
    ([train_dense], ["radius"], ["0", "1"], ["-0.1", "1.1"]),
    ([train_dense], ["rotation", "scale", "shift", "aspect"], ["0", "0.5"], ["-0.1"]),
    ([train_dense], ["warmup_steps"], ["0", "50"], ["-1", "0.5"]),
    ([eval_matching], ["pairs"], ["1", "1000000"], ["0", "-1", "1000001", "1.5"]),
    ([train_moco], ["alpha"], ["0", "0.999", "1"], ["-0.1", "2"]),
    ([train_moco], ["crop"], ["0.08", "1"], ["0", "-1", "1.5"]),
    ([train_moco], ["virtual_gpus"], ["1", "4"], ["0", "-1", "1025"]),
]


draw, fetch = synthetic.parse_arguments, download.build_parser().parse_args
repeat = reproduce.build_parser().parse_args
OTHER_RANGES = [
    (draw, ["images", "mafl_train", "mafl_test", "workers"], ["1"], ["0", "-1", "1.5"]),
    (draw, ["identities"], ["2"], ["1", "-1"]),
    (draw, ["seed"], ["0"], ["-1"]),
    (fetch, ["timeout"], ["0.5"], ["0", "-1", "1e30"]),
    (fetch, ["retries"], ["0"], ["-1", "1.5"]),
    (fetch, ["backoff"], ["0"], ["-1", "1e31"]),
    (repeat, ["num_workers"], ["0"], ["-1"]),
    (repeat, ["scale"], ["0.01"], ["0", "-1", "1.5"]),
    (repeat, ["seeds", "num_per_epoch"], ["1"], ["0", "-1"]),
]


def assert_range(parse, flag, legal, refused, capsys):
    for value in legal:
        assert hasattr(parse([f"--{flag}={value}"]), flag)
    for value in [*refused, "", "a", "inf", "nan", HUGE]:
        with pytest.raises(SystemExit) as stop:
            parse([f"--{flag}={value}"])
        said = capsys.readouterr().err
        assert stop.value.code == 2 and f"--{flag}: expected" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "flag", "legal", "refused"),
    [
        (script, flag, legal, refused)
        for scripts, flags, legal, refused in RANGES
        for script in scripts
        for flag in flags
        if hasattr(script.build_parser().parse_known_args(RUN)[0], flag)
    ],
    ids=lambda value: getattr(value, "__name__", value) if not isinstance(value, list) else "",
)
def test_numbers_have_the_range_of_what_they_mean(script, flag, legal, refused, capsys):
    parser = script.build_parser()
    run = [] if script is eval_matching else RUN  # which takes neither
    assert_range(lambda words: parser.parse_args([*run, *words]), flag, legal, refused, capsys)


@pytest.mark.parametrize(("parse", "flags", "legal", "refused"), OTHER_RANGES)
def test_other_scripts_have_ranges_too(parse, flags, legal, refused, capsys):
    for flag in flags:
        assert_range(parse, flag, legal, refused, capsys)


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
    parser.add_argument("--several", nargs="*", default=["one", "two"], help="words")
    parser.add_argument("--text", default="", help="silent")
    parser.add_argument("--flag", action="store_true", help="silent")
    said = parser.format_help()
    assert "a number [0]" in said and "a number [0.0]" in said and "words [one, two]" in said
    assert "silent [" not in said


NEEDED = {eval_matching: [], predict: [], vis_face: [], vis_animal: []}


@pytest.mark.parametrize(
    ("script", "flag"),
    [
        *((eval_animal, n) for n in "model_path resume log_path annotations".split()),
        *((eval_animal, n) for n in "data_folder cache_folder trained_model_path".split()),
        *((predict, n) for n in "out images page windows out_video export boxes ckpt_path".split()),
        *[(vis_animal, "vis_path"), (train_dense, "init"), (eval_matching, "out")],
    ],
)
@pytest.mark.parametrize("length", [250, 300])
def test_paths_that_cannot_be_are_refused_first(script, flag, length):
    words = [*NEEDED.get(script, RUN), f"--{flag}", length * "x"]
    if length == 300 or flag in ("out", "page", "windows", "out_video", "export", "log_path"):
        with pytest.raises(InputError, match=f"^--{flag} x*: File name too long$"):
            script.build_parser().parse_args(words)
    else:
        assert script.build_parser().parse_args(words)


def test_a_folder_of_results_may_hold_inputs_where_it_is_not_replaced():
    parse = eval_matching.build_parser().parse_args
    assert parse(["--out", ".", "--data_folder", "faces", "--log_path", "log"])
    with pytest.raises(InputError, match="--log_path a: is or holds --out a/b"):
        parse(["--out", "a/b", "--log_path", "a"])
