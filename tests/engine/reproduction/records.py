"""What runs leave in their folders when they are finished."""

import json

from engine.reproduction.jobs import Settings, as_words, make_evaluation
from engine.run.settings import plain_options
from reproduce import PARSERS

TEST_IMAGES = {"MAFLAligned": 1000, "AFLW_MTFL": 2995, "AFLW": 2991, "ThreeHundredW": 689}


def finish(script, words, score, *, images=100, test_images=None, best=1.0, done=True):
    """Leave the records of a run as its script does, given its options; return these, parsed.

    It lacks its result unless it is ``done``.
    """
    args = PARSERS[script]().parse_args(words)
    folder = args.out if script == "eval_matching.py" else args.model_path / args.model_name
    folder.mkdir(parents=True, exist_ok=True)
    record = {"options": vars(plain_options(args)), "derived": {"images": images}}
    (folder / "options.json").write_text(json.dumps(record))
    counts = {"training": 1241, "Test": test_images or TEST_IMAGES.get(args.dataset, 383)}
    if not done:
        return args
    if script == "eval_matching.py":
        px = {"warped": score, "warped_copied": 5.0, "others": 3 * score, "others_copied": 9.0}
        result = {"pairs": args.pairs, "images": counts, "px": px}
        (folder / "matching.json").write_text(json.dumps(result))
    elif script.startswith("eval_"):
        birds = script == "eval_animal.py"
        metric = "PCK" if birds else "InterOcularError"
        entry = {"best_val_pck": 9.0, "best_test_pck": best} if birds else {"best_error": best}
        result = {
            "epochs": args.epochs,
            "images": counts,
            "last": {"Test": {"loss": 1.0, metric: score}},
            "mean_shape": {metric: 30.0 + args.seed},
        }
        if args.regressor == "published":
            result["best"] = {**entry, "best_epoch": 7}
        if args.regressor == "finetune":
            steps = args.finetune_steps
            result |= {"epochs": 12, "finetune": {"steps": steps, "best_round": 11}}
        (folder / "result.json").write_text(json.dumps(result))
    return args


def leave(out, run, score, *, scale=1.0, random_network=False, images=100, **others):
    """Leave a finished run of an experiment, after its pre-trainings; return its folder."""
    given = [(run.model, "encoder.pth")]
    settings = Settings(out, out, given, given, random_network, scale, 1000, 0, "cpu")
    *before, job = make_evaluation(run, settings).chain()
    for pretraining in before:
        finish(pretraining.script, as_words(pretraining.options), 0.0, images=images)
    finish(job.script, as_words(job.options), score, **others)
    return job.folder
