r"""Find landmarks in faces: fit a small regressor on the features of a frozen encoder.

The published run on AFLW_M, and the one with 50 annotated images:

  python eval_face.py --model resnet50 --layer 4 --use_hypercol --image_size 136 --image_crop 20 \
    --dataset AFLW_MTFL --trained_model_path runs/moco_CelebA/ckpt_epoch_800.pth \
    --adam --cosine --learning_rate 0.001 --weight_decay 0.0005 --epochs 200 --batch_size 32 \
    --model_path runs --model_name AFLW_M_regressor
  python eval_face.py ... --restrict_annos 50 --repeat --TPS_aug --epochs 1000 \
    --learning_rate 0.01 --weight_decay 0.05

[spec 5; Cheng et al. 2020, Sec. 4, tables 1 and 2.]
"""

from torch import Tensor

from data_loader.bad_images import image_options
from data_loader.data_loaders_face import add_face_arguments, build_face_dataset
from engine.readouts.automatic import choose_readout
from engine.readouts.evaluation import add_evaluation_arguments, run_evaluation
from engine.readouts.readout import EvaluationSettings
from engine.readouts.task import Task
from engine.run.settings import choose_device
from models.loss import selected_regression_loss
from models.metric import inter_ocular_error, inter_ocular_points
from utils.arguments import ArgumentParser
from utils.process_group import join_process_group
from utils.script import run_script


def build_parser() -> ArgumentParser:
    """Return the parser of all options [spec 8]."""
    parser = ArgumentParser(__doc__)
    add_face_arguments(parser)
    add_evaluation_arguments(parser, batch_size=256, num_workers=32, save_freq=20)
    return parser


def face_task(eyes: tuple[int, int]) -> Task:
    """Return how faces are judged: by their error relative to the distance of the eyes."""

    def error(pred: Tensor, truth: Tensor, visible: Tensor) -> Tensor:
        return inter_ocular_error(pred, truth, eyes, visible)

    def judged_images(truth: Tensor, visible: Tensor) -> Tensor:
        return inter_ocular_points(truth, eyes, visible).sum() / truth.shape[1]

    return Task(
        loss=selected_regression_loss,
        metrics={"InterOcularError": error},
        judged=judged_images,
        best={"best_error": ("Test", "InterOcularError")},
        lower_is_better=True,
        unit="% of the inter-ocular distance",
    )


def main() -> None:
    """Fit and evaluate a regressor on a face benchmark."""
    args = build_parser().parse_args()
    device = choose_device(args.device, args.gpu)
    join_process_group(device)
    frame = image_options(args.image_size, args.image_crop, args.on_bad_image)
    benchmark = args.dataset, args.data_folder, args.on_unannotated
    train_set = build_face_dataset(*benchmark, train=True, TPS_aug=args.TPS_aug, **frame)
    test_set = build_face_dataset(*benchmark, train=False, **frame)
    task = face_task(train_set.eyes)
    settings = choose_readout(EvaluationSettings.from_options(args), device, task, train_set)
    run_evaluation(settings, device, task, train_set, {"Test": test_set})


if __name__ == "__main__":
    run_script(main)
