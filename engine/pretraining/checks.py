"""What pre-training refuses, or warns of, before it starts."""

from engine.pretraining.checkpoint import Position
from models.encoders import DEEPEST_STRIDE, RESNETS
from models.parallel import DataParallel
from utils.collectives import chunk_size, split_over_ranks
from utils.errors import InputError
from utils.process_group import world_size


def check_side(image_size: int, image_crop: int, model: str) -> None:
    """Raise an `InputError` unless a ResNet's last map pools to a single vector [spec 2].

    A network of timm has a rule of its own: see `build_timm_encoder`.
    """
    side = image_size - 2 * image_crop
    # Without any pixels, the data set says so.
    if model in RESNETS and side > 0 and side % DEEPEST_STRIDE:
        raise InputError(
            f"--image_size {image_size} and --image_crop {image_crop} leave {side} pixels: the "
            f"embedding needs a multiple of {DEEPEST_STRIDE}, such as 96 (--image_size 136 "
            "--image_crop 20)"
        )


def check_rows(model: DataParallel, side: int, position: Position, views: int = 1) -> None:
    """Raise an `InputError` if BatchNorm would get a single value per channel.

    That is one row, of which the last map is a single pixel.

    Args:
        model: on its device; in eval mode, batches aren't what BatchNorm normalises by.
        side: of the images, in pixels; a multiple of 32.
        position: where the run begins; within an epoch that began with another batch size, maybe.
        views: of an image, that are normalised together.
    """
    images, taken, batch_size = position.images_an_epoch, position.images, position.batch_size
    begun = f", {taken} of them taken" if taken else ""
    lefts = [left for left in (images, images - taken) if left > 0]
    totals = [size for n in lefts for size in (min(batch_size, n), n % batch_size or batch_size)]
    for total in totals:
        # A rank without any image takes the step with one that stands in.
        rows = {views * max(own, 1) for own in split_over_ranks(total).sizes}
        sizes = {chunk_size(own, model.chunks, i) for own in rows for i in range(model.chunks)}
        if side == DEEPEST_STRIDE and 1 in sizes and model.training:
            raise InputError(
                f"--batch_size {batch_size} with {images} images{begun}: BatchNorm would get a "
                f"single image of {side} pixels (a batch of {total} over {world_size()} processes, "
                f"{model.chunks} GPUs each), which it can't normalise; choose another "
                "--batch_size, or more pixels (--image_size, --image_crop)"
            )


def harm_notices(encoder: DataParallel, nce_k: int, images: int) -> list[str]:
    """Return a line for each setting that makes the task easier or the negatives wrong."""
    notices = []
    if nce_k > images:
        notices.append(
            f"warning: --nce_k {nce_k} is more than the {images} images: an image's own old keys "
            "are among its negatives"
        )
    if encoder.chunks * world_size() == 1:
        notices.append(
            "one device and --virtual_gpus 1: ShuffleBN has no effect, since each batch is "
            "normalised as a whole"
        )
    return notices
