"""The unlabelled images of pre-training, and who draws their random views [SPEC 6]."""

from data_loader.bad_images import add_bad_image_argument
from data_loader.data_loaders_animal import InatAve
from data_loader.data_loaders_face import CelebAPrunedAligned_MAFLVal
from data_loader.landmark_dataset import LandmarkDataset, add_image_arguments
from utils.arguments import share


def add_unlabelled_arguments(parser) -> None:
    """Declare which images to pre-train on, and how their views are drawn."""
    group = parser.add_argument_group("images")
    group.add_argument(
        "--dataset",
        choices=["CelebA", "InatAve"],
        default="CelebA",
        help="CelebA without MAFL, or the birds of iNaturalist",
    )
    group.add_argument(
        "--data_folder", default="./datasets/celeba", metavar="DIR", help="root of the data set"
    )
    group.add_argument(
        "--imagelist",
        metavar="FILE",
        help="InatAve: file with one image path a line; all of --data_folder/*/*.jpg without it",
    )
    group.add_argument(
        "--crop",
        type=share,
        default=0.2,
        help="smallest share of an image's area that a random view shows",
    )
    group.add_argument(
        "--augment",
        choices=["pillow", "device"],
        default="pillow",
        help="draw the random views one by one in the reader processes, as published, or a batch "
        "at a time on the model's device, with the same distribution",
    )
    group.add_argument(
        "--image_cache",
        nargs="?",
        const="",
        metavar="DIR",
        help="decode, crop and resize each image once, into one file in DIR ({model_path}_cache "
        "if not named), and read it from there from then on",
    )
    add_image_arguments(group, image_size=100, image_crop=15)
    add_bad_image_argument(group)


def build_unlabelled_dataset(
    name: str,
    root: str,
    imagelist: str | None,
    image_size: int,
    image_crop: int,
    crop: float,
    skip_bad: bool = False,
) -> LandmarkDataset:
    """Return the pairs of views of a data set.

    Args:
        name: of ``--dataset``.
        root: its folder.
        imagelist: for ``InatAve``.
        image_size: side of the square that an image is resized to, in pixels.
        image_crop: pixels cut off each side of that square.
        crop: smallest share of an image's area that a view shows.
        skip_bad: see `LandmarkDataset`.
    """
    frame = {"imwidth": image_size, "crop": image_crop, "smallest_scale": crop}
    frame["skip_bad"] = skip_bad
    if name == "InatAve":
        return InatAve(root, imagelist=imagelist, **frame)
    return CelebAPrunedAligned_MAFLVal(root, **frame)
