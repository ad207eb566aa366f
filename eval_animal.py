r"""Find parts of birds: fit a small regressor on the features of a frozen encoder.

The published run on CUB, whose lists of training images give its number of annotations:

  python eval_animal.py --model resnet50 --layer 4 --use_hypercol --image_size 96 --image_crop 0 \
    --dataset CUB --imagelist datasets/CUB_200_2011/split/train.txt \
    --trained_model_path runs/moco_InatAve/ckpt_epoch_800.pth \
    --adam --cosine --learning_rate 0.001 --weight_decay 0.0005 --epochs 2000 --batch_size 32 \
    --model_path runs --model_name CUB_regressor

[spec 5; Cheng et al. 2020, Sec. 4, table 3.] Images of one's own, with any named points:

  python eval_animal.py --dataset Keypoints --data_folder DIR --annotations FILE --test_share 0.3 \
    --model resnet18 --image_size 160 --trained_model_path runs/dense/current.pth \
    --regressor finetune --model_path runs --model_name own
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from data_loader.bad_images import image_options
from data_loader.data_loaders_animal import add_animal_arguments, build_animal_dataset
from data_loader.splits import group_names
from engine.points.curve import CurveSettings, add_curve_arguments, run_curve
from engine.points.scores import ScoreSettings, add_score_arguments, score_splits, sum_up_folds
from engine.points.splits import (
    KeypointSettings,
    Splits,
    add_keypoint_arguments,
    keypoint_splits,
    refuse_keypoint_flags,
)
from engine.readouts.automatic import choose_readout
from engine.readouts.calibration import calibrate_run
from engine.readouts.evaluation import add_evaluation_arguments, run_evaluation
from engine.readouts.readout import EvaluationSettings
from engine.readouts.task import Task
from engine.run.settings import choose_device
from models.loss import selected_regression_loss
from models.metric import calc_pck, pck_points, side_error
from utils.arguments import ArgumentParser
from utils.errors import InputError
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

    def evaluate(self, settings: EvaluationSettings, splits: Splits) -> dict[str, object] | None:
        """Fit a regressor to a split's training images and score it on the others."""
        train, held_out, _ = splits
        self.scoring.check(train.point_names)
        task = keypoint_task("Val" in held_out)
        score = partial(score_splits, held_out, self.scoring)
        groups = group_names(train.filenames, self.own.group_by)
        settings = choose_readout(settings, self.device, task, train, groups)
        calibrate = partial(calibrate_run, held_out, self.own.calibrate_at)
        return run_evaluation(settings, self.device, task, train, held_out, score, calibrate)


def evaluate_keypoints(settings: EvaluationSettings, run: OwnRun, curve: CurveSettings) -> None:
    """Fit and evaluate a regressor on images of one's own: once, for each fold or for a curve."""
    several_folds = run.own.folds is not None and run.own.fold is None
    if world_size() > 1 and (several_folds or curve.curve is not None):
        wish = "--folds under torchrun: give --fold N, too"
        raise InputError(wish if several_folds else "--curve: not under torchrun")
    if curve.curve is not None:
        curve.check(len(next(run.splits()).train))
        run_curve(settings, curve, lambda one: run.evaluate(one, next(run.splits())))
        return
    results = []
    for splits in run.splits():
        one = settings
        if splits.fold is not None:
            name = f"{settings.model_name}/fold_{splits.fold}"
            one = settings.recording(fold=splits.fold).with_options(model_name=name)
        results.append(run.evaluate(one, splits))
    if several_folds:
        sum_up_folds(settings.folder, results)


def main() -> None:
    """Fit and evaluate a regressor on a bird benchmark, or on images of one's own."""
    args = build_parser().parse_args()
    device = choose_device(args.device, args.gpu)
    join_process_group(device)
    settings = EvaluationSettings.from_options(args)
    if args.dataset == "Keypoints":
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
