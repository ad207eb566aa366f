r"""Find parts of birds, or named points in images of one's own: fit a readout, and judge it.

The published run on CUB, whose lists of training images give its number of annotations:

  python eval_animal.py --model resnet50 --layer 4 --use_hypercol --image_size 96 --image_crop 0 \
    --dataset CUB --imagelist datasets/CUB_200_2011/split/train.txt \
    --trained_model_path runs/moco_InatAve/ckpt_epoch_800.pth \
    --adam --cosine --learning_rate 0.001 --weight_decay 0.0005 --epochs 2000 --batch_size 32 \
    --model_path runs --model_name CUB_regressor

[spec 5; Cheng et al. 2020, Sec. 4, table 3.] Images of one's own, with any named points:

  python eval_animal.py --annotations FILE --data_folder DIR \
    --trained_model_path runs/dense/current.pth --model_path runs --model_name own
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from data_loader.bad_images import image_options
from data_loader.data_loaders_animal import add_animal_arguments, build_animal_dataset
from data_loader.splits import group_names
from engine.features.images import EncodedImages
from engine.points.curve import CurveSettings, add_curve_arguments, run_curve
from engine.points.defaults import choose_own_defaults, is_own
from engine.points.scores import (
    Judged,
    ScoreSettings,
    add_score_arguments,
    judge,
    pool,
    score_splits,
)
from engine.points.splits import (
    KeypointSettings,
    Splits,
    add_keypoint_arguments,
    keypoint_splits,
    refuse_keypoint_flags,
)
from engine.readouts.automatic import choose_readout
from engine.readouts.calibration import calibrate_by_folds, calibrate_run
from engine.readouts.evaluation import Calibrate, add_evaluation_arguments, run_evaluation
from engine.readouts.finetune import plan_fit
from engine.readouts.readout import EvaluationSettings, Readout
from engine.readouts.task import Task, find_landmarks
from engine.run.settings import choose_device, find_held
from models.loss import selected_regression_loss
from models.metric import calc_pck, pck_points, side_error
from utils.arguments import ArgumentParser
from utils.errors import InputError
from utils.log import RunLog
from utils.process_group import join_process_group, world_size
from utils.script import run_script

PCK_BOX = 48  # [spec 6]


def build_parser() -> ArgumentParser:
    """Return the parser of all options [spec 8]."""
    parser = ArgumentParser(__doc__)
    add_animal_arguments(parser)
    add_keypoint_arguments(parser)
    group = parser.add_argument_group("scores on own annotations (--dataset Keypoints)")
    add_score_arguments(group)
    add_curve_arguments(group)
    add_evaluation_arguments(parser, batch_size=32, num_workers=32, save_freq=5)
    choose_own_defaults(parser, "trained_model_path")
    return parser


def animal_task() -> Task:
    """Return how birds are judged: by the fraction of their visible parts that is right."""

    def judged_images(truth: Tensor, visible: Tensor) -> Tensor:
        # All of a batch or none of it: published scores are weighted by the batch's size.
        return len(truth) * pck_points(truth, visible).any()

    return Task(
        loss=selected_regression_loss,
        metrics={
            "PCK": partial(calc_pck, boxsize=PCK_BOX),
            "PCK_exact": partial(calc_pck, boxsize=PCK_BOX, truncate=False),
        },
        judged=judged_images,
        best={"best_val_pck": ("Val", "PCK"), "best_test_pck": ("Test", "PCK")},
        lower_is_better=False,
        unit="% of the visible parts; PCK truncates distances to pixels, as published",
    )


def keypoint_task(has_validation: bool) -> Task:
    """Return how one's own points are judged within a run: by their distance."""
    return Task(
        loss=selected_regression_loss,
        metrics={"error": side_error},
        judged=lambda truth, visible: visible.sum(),  # points, in place of images
        # Without validation images no epoch is picked: on the test images it would flatter them.
        best={"best_val_error": ("Val", "error")} if has_validation else {},
        lower_is_better=True,
        unit="% of the network input's side, mean over the annotated points",
    )


class OwnRun(NamedTuple):
    """How runs on images of one's own are made."""

    own: KeypointSettings
    scoring: ScoreSettings
    device: torch.device
    warped: bool

    def splits(self) -> Iterator[Splits]:
        """Yield the splits anew: a run takes images out of its data sets."""
        return keypoint_splits(self.own, TPS_aug=self.warped)

    def evaluate(
        self,
        settings: EvaluationSettings,
        splits: Splits,
        folds: Judged | None = None,
        calibrate: Calibrate | None = None,
    ) -> dict[str, object] | None:
        """Fit a regressor to a split's training images and score it on the others.

        Args:
            settings: of the fit.
            splits: the images.
            folds: what the folds' readouts were worth, if this one has seen all images.
            calibrate: in place of `calibrate_run`.
        """
        train, held_out, _ = splits
        held_out = {split: images for split, images in held_out.items() if split != "All"}
        self.scoring.check(train.point_names)
        task = keypoint_task("Val" in held_out)
        score = partial(score_splits, held_out, folds, self.scoring)
        groups = group_names(train.filenames, self.own.group_by)
        settings = choose_readout(settings, self.device, task, train, groups)
        calibrate = calibrate or partial(calibrate_run, held_out, self.own.calibrate_at)
        return run_evaluation(settings, self.device, task, train, held_out, score, calibrate)


def evaluate_keypoints(settings: EvaluationSettings, run: OwnRun, curve: CurveSettings) -> None:
    """Fit and evaluate a regressor on images of one's own: for each fold, for all, or a curve."""
    if world_size() > 1 and (run.own.folds or curve.curve) and run.own.fold is None:
        wish = "--folds under torchrun: give --fold N, too"
        raise InputError(wish if run.own.folds else "--curve: not under torchrun")
    if world_size() > 1 or curve.curve is not None:
        run = run._replace(own=run.own.without_folds())
    if curve.curve is not None:
        curve.check(len(next(run.splits()).train))
        run_curve(settings, curve, lambda one: run.evaluate(one, next(run.splits())))
        return
    find_held(settings)  # refused before the folds, not after them
    judged = list[Judged]()
    for splits in run.splits():
        if splits.fold is None:
            fit_to_all(settings, run, splits, judged)
        else:
            judge_fold(settings, run, splits, judged)


def fit_to_all(
    settings: EvaluationSettings, run: OwnRun, splits: Splits, judged: list[Judged]
) -> None:
    """Fit a regressor to all images that aren't test images, which folds may have judged."""
    if not judged:
        run.evaluate(settings, splits)
        return
    folds = pool(splits.train, judged)
    run.evaluate(settings, splits, folds, partial(calibrate_by_folds, folds, run.own.calibrate_at))


def judge_fold(
    settings: EvaluationSettings, run: OwnRun, splits: Splits, judged: list[Judged]
) -> None:
    """Fit a regressor to all images but a fold's; note how far off it is in those."""

    def note(readout: Readout, held_out: dict[str, EncodedImages], log: RunLog) -> dict:
        found = find_landmarks(readout.with_confidence, held_out["Test"])
        judged.append(judge(splits.held_out["Test"], found))
        return {}

    one = settings.recording(fold=splits.fold).with_options(
        model_name=f"{settings.model_name}/fold_{splits.fold}"
    )
    if run.own.folds is None:  # shorter, as they are fitted for their error alone
        one = one.with_options(finetune_steps=-(-plan_fit(one, splits.train).steps // 2))
    run.evaluate(one, splits, calibrate=note if run.own.fold is None else None)


def main() -> None:
    """Fit and evaluate a regressor on a bird benchmark, or on images of one's own."""
    args = build_parser().parse_args()
    device = choose_device(args.device, args.gpu)
    join_process_group(device)
    settings = EvaluationSettings.from_options(args)
    if is_own(args):
        own, scoring = KeypointSettings.from_options(args), ScoreSettings.from_options(args)
        run = OwnRun(own, scoring, device, args.TPS_aug)
        evaluate_keypoints(settings, run, CurveSettings.from_options(args))
        return
    refuse_keypoint_flags(vars(args), add_score_arguments, add_curve_arguments)
    frame = image_options(args.image_size, args.image_crop, args.on_bad_image)
    train_set = build_animal_dataset(
        args.data_folder, "train", imagelist=args.imagelist, TPS_aug=args.TPS_aug, **frame
    )
    held_out = {
        split: build_animal_dataset(args.data_folder, split.lower(), **frame)
        for split in ("Val", "Test")
    }
    task = animal_task()
    settings = choose_readout(settings, device, task, train_set)
    run_evaluation(settings, device, task, train_set, held_out)


if __name__ == "__main__":
    run_script(main)
