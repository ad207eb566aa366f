r"""Find parts of birds: fit a small regressor on the features of a frozen encoder.

The published run on CUB, whose lists of training images give its number of annotations:

  python eval_animal.py --model resnet50 --layer 4 --use_hypercol --image_size 96 --image_crop 0 \
    --dataset CUB --imagelist datasets/CUB_200_2011/split/train.txt \
    --trained_model_path runs/moco_InatAve/ckpt_epoch_800.pth \
    --adam --cosine --learning_rate 0.001 --weight_decay 0.0005 --epochs 2000 --batch_size 32 \
    --model_path runs --model_name CUB_regressor

[spec 5; Cheng et al. 2020, Sec. 4, table 3.]
"""

from torch import Tensor

from data_loader.data_loaders_animal import add_animal_arguments, build_animal_dataset
from engine.evaluation import add_evaluation_arguments, run_evaluation
from engine.regressor_run import EvaluationSettings
from engine.regressor_training import Task
from engine.run import choose_device
from models.loss import selected_regression_loss
from models.metric import calc_pck, pck_points
from utils.arguments import ArgumentParser
from utils.process_group import join_process_group
from utils.script import run_script

PCK_BOX = 48  # [spec 6]


def build_parser() -> ArgumentParser:
    """Return the parser of all options [spec 8]."""
    parser = ArgumentParser(__doc__)
    add_animal_arguments(parser)
    add_evaluation_arguments(parser, batch_size=32, num_workers=32, save_freq=5)
    return parser


def animal_task() -> Task:
    """Return how birds are judged: by the fraction of their visible parts that is right."""

    def pck(pred: Tensor, truth: Tensor, visible: Tensor) -> Tensor:
        return calc_pck(pred, truth, visible, PCK_BOX)

    def exact_pck(pred: Tensor, truth: Tensor, visible: Tensor) -> Tensor:
        return calc_pck(pred, truth, visible, PCK_BOX, truncate=False)

    def judged_images(truth: Tensor, visible: Tensor) -> Tensor:
        # All of a batch or none of it: published scores are weighted by the batch's size.
        return len(truth) * pck_points(truth, visible).any()

    return Task(
        loss=selected_regression_loss,
        metrics={"PCK": pck, "PCK_exact": exact_pck},
        judged=judged_images,
        best={"best_val_pck": ("Val", "PCK"), "best_test_pck": ("Test", "PCK")},
        lower_is_better=False,
        unit="% of the visible parts; PCK truncates distances to pixels, as published",
    )


def main() -> None:
    """Fit and evaluate a regressor on a bird benchmark."""
    args = build_parser().parse_args()
    device = choose_device(args.device, args.gpu)
    join_process_group(device)
    frame = {
        "image_size": args.image_size,
        "image_crop": args.image_crop,
        "skip_bad": args.on_bad_image == "skip",
    }
    train_set = build_animal_dataset(
        args.data_folder, "train", imagelist=args.imagelist, TPS_aug=args.TPS_aug, **frame
    )
    held_out = {
        split: build_animal_dataset(args.data_folder, split.lower(), **frame)
        for split in ("Val", "Test")
    }
    settings = EvaluationSettings.from_options(args)
    run_evaluation(settings, device, animal_task(), train_set, held_out)


if __name__ == "__main__":
    run_script(main)
