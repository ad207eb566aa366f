"""What all benchmarks have in common: from one annotated image to the item the training loops take.

Letters: A landmarks; S the side of the square a benchmark makes of its image
(``imwidth``), W the side of the network input, S - 2 * crop.
"""

import argparse
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_loader.geometry import Square, centre_crop, normalize_points
from data_loader.image_set import ImageSet
from data_loader.items import AnnotatedItem, PairItem, SquareItem
from data_loader.readers.annotation_files import check_images, find_annotated, replace_backslashes
from data_loader.readers.images import check_size, image_size, looks_dark, open_image
from data_loader.views.random_view import channels
from utils.arguments import integer, natural
from utils.errors import ImageError, InputError
from utils.tps import WarperSingle

INSPECTED = 8  # images, spread over a data set, that are looked at when it is opened


def add_image_arguments(
    parser: argparse._ActionsContainer,
    *,
    image_size: int,
    image_crop: int | None,
    default_crop: str = "",
) -> None:
    """Declare the frame of the network input, on a parser or one of its groups.

    ``default_crop`` says in words what the crop is by default, where that depends on other options.
    """
    parser.add_argument(
        "--image_size",
        type=integer(1, 10_000),
        default=image_size,
        metavar="PX",
        help="side of the square that an image is resized to",
    )
    parser.add_argument(
        "--image_crop",
        type=natural,
        default=image_crop,
        metavar="PX",
        help=f"pixels cut off each side of that square; the network sees the rest{default_crop}",
    )


class LandmarkDataset(ImageSet):
    """Annotated images as (data, keypoints, keypoints_normalized, index) [spec 6].

    In a pair item ``data`` is (6, W, W), two views, and both kinds of points are -1; else see
    `AnnotatedItem`.

    Args:
        root: the benchmark's folder.
        train: its training split, else its test split.
        pair_image: two views of an image for contrastive training, without points.
        imwidth: as `crop`, `smallest_scale` and `skip_bad`, see `ImageSet`.
        do_augmentations: the views of a pair are random.
        TPS_aug: warp a single image and its points by a random thin-plate spline.
        skip_unannotated: leave out annotated images without any point, else they are an error.

    Attributes:
        annotations: arrays of N rows: ``keypoints`` (N, A, 2), x before y, in the file's pixels;
            ``visible`` (N, A) bool, if some points are missing, which are 0 then; and others.

    Raises:
        InputError: if a file of the benchmark is absent or doesn't fit.
    """

    num_landmarks: int  # A; none where images have no annotation
    published_counts: dict[str, int] | None = None  # by split
    split_name = ""  # "train" or "test" if a subclass says nothing
    flip_order: np.ndarray | None = None  # (A,), which point of a mirror image each point is
    mirror = "off"  # what of training images is mirrored, see `Keypoints`
    image_cache: Any = None  # an `ImageCache`, see `image_cache.cache_images`

    def __init__(
        self,
        root: str | Path,
        train: bool = True,
        pair_image: bool = True,
        imwidth: int = 100,
        crop: int = 15,
        do_augmentations: bool = True,
        TPS_aug: bool = False,  # noqa: N803 (published name)
        smallest_scale: float = 0.2,
        skip_bad: bool = False,
        skip_unannotated: bool = False,
    ) -> None:
        if do_augmentations and not pair_image:
            raise ValueError("augmenting a single annotated image would leave its points behind")
        super().__init__(imwidth, crop, smallest_scale if do_augmentations else None, skip_bad)
        if not Path(root).is_dir():
            raise InputError(f"{root}: no such folder; --data_folder names the benchmark's root")
        self.pair_image, self.notices = pair_image, list[str]()
        self.split_name = self.split_name or ("train" if train else "test")
        self.filenames: Sequence[str]
        self.folder, self.filenames, self.annotations = self.read(Path(root), train)
        if not len(self.filenames):
            raise InputError(f"{root}: the lists name no image for {type(self).__name__}")
        if "visible" not in self.annotations:
            self._mask_missing(skip_unannotated)
        self._inspect_some_files()
        self.warper = WarperSingle(imwidth, imwidth) if TPS_aug and not pair_image else None

    def count_notice(self) -> list[str]:
        """See `ImageSet.count_notice`: also on how many images are published."""
        published = (self.published_counts or {}).get(self.split_name)
        if published is None or len(self) == published:
            return self.notices
        here = f"{self}: {len(self):,} images here, {published:,} in the published benchmark"
        return [*self.notices, here]

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.split_name}"

    def _mask_missing(self, skip: bool) -> None:
        """Find the points that aren't annotated; ``skip`` images without any, or refuse them."""
        visible = find_annotated(self.annotations["keypoints"])  # (N, A)
        if visible.all():
            return
        points = self.annotations["keypoints"]
        self.annotations["keypoints"] = np.where(visible[..., None], points, 0)
        self.annotations["visible"] = visible
        if self.pair_image:  # points aren't used
            return
        empty = np.logical_not(visible.any(axis=1))  # (N,)
        if empty.any():
            count = f"{empty.sum():,} of {len(empty):,} images have no annotated point"
            if empty.all() or not skip:
                raise InputError(
                    f"{self.path(int(empty.argmax()))}: no point of it is annotated (all are 0, -1 "
                    f"or NaN); {count}, which --on_unannotated skip leaves out"
                )
            self.notices.append(f"{self}: {count}, left out")
            self.select(np.flatnonzero(~empty).tolist())
        visible = self.annotations["visible"]
        if visible.all():
            del self.annotations["visible"]
            return
        if self.split_name == "train":
            self.check_landmarks()
        self.notices.append(
            f"{self}: {(~visible).sum():,} of {visible.size:,} points aren't annotated, masked"
        )

    def check_landmarks(self) -> None:
        """Raise an `InputError` if no image has one of the landmarks: none could teach it."""
        seen = self.visible().any(dim=0)  # (A,)
        if not seen.all():
            raise InputError(
                f"{self.folder}: none of the {len(self):,} training images has landmark "
                f"{int(seen.byte().argmin()) + 1} annotated"
            )

    def item_names(self) -> list[str]:
        """Return a name of each item, such as its image's, by which it can be found again."""
        return list(self.filenames)

    def item_groups(self) -> list[str] | None:
        """Return what each item belongs to, which no split parts; None if all are their own."""
        return None

    def add_copies(self) -> None:
        """Add what a training set has beside the images that were picked: nothing as a rule."""

    def checkpoint_notes(self) -> dict[str, object]:
        """Return entries of a readout's checkpoint that say which points it finds, if named."""
        return {}

    def _inspect_some_files(self) -> None:
        """Check the size of some images, and note if 16-bit values make them nearly black."""
        for index in dict.fromkeys(np.linspace(0, len(self) - 1, INSPECTED, dtype=int).tolist()):
            path = self.path(index)
            try:
                check_size(path, image_size(path), self.expected_size(index))
                if looks_dark(path):
                    self.notices.append(
                        f"{path}: its 16-bit values stay below 12 bits: nearly black, as the upper "
                        "8 bits count; scale such images to the full range"
                    )
                    return
            except ImageError:
                continue  # said when the image is needed

    def expected_size(self, index: int) -> tuple[int, int] | None:
        """Return the width and height that an image must have; None if any will do."""
        return self.file_size

    def read(self, root: Path, train: bool) -> tuple[Path, Sequence[str], dict[str, np.ndarray]]:
        """Read the benchmark's files.

        Returns:
            The folder of the images; their N names in it; and arrays of N rows, among them
            ``keypoints`` (N, A, 2), x before y, in the file's pixels.
        """
        raise NotImplementedError

    def check_listed(self, folder: Path, filenames: list[str], source: Path) -> list[str]:
        """Replace Windows' separators in names; unless bad images are skipped, all must exist."""
        filenames = replace_backslashes(folder, filenames)
        if not self.skip_bad:
            check_images(folder, filenames, source)
        return filenames

    def __len__(self) -> int:
        return len(self.filenames)

    def path(self, index: int) -> Path:
        """Return where an image lies."""
        return self.folder / self.filenames[index]

    def base_item(self, index: int) -> Square:
        """See `ImageSet.base_item`."""
        if self.image_cache is not None:
            pixels, points = self.cached(index)
            return Image.frombytes("RGB", (self.imwidth, self.imwidth), pixels), points
        image = open_image(self.path(index), oriented=self.oriented)
        check_size(self.path(index), image.size, self.expected_size(index))
        points_orig = np.asarray(self.annotations["keypoints"][index], dtype=np.float64)
        return self.square(image, points_orig, index)

    def base_tensors(self, index: int) -> tuple[Tensor, Tensor]:
        """Return `base_item` as a square (S, S, 3), uint8, and its points (A, 2), float64."""
        image, points = self.base_item(index)
        return torch.from_numpy(np.array(image)), torch.from_numpy(np.array(points, np.float64))

    def cached(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what the image cache holds of an image; raise its `ImageError` if that is bad."""
        if index in self.image_cache.bad:
            raise ImageError(f"{self.path(index)}: {self.image_cache.bad[index]}")
        return self.image_cache[index]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, int]:
        if self.pair_image:
            nothing = torch.tensor(-1)
            pair = self.pair_item(index)
            return pair.views, nothing, nothing, pair.index
        item = self.annotated_item(index)
        return item.image, item.points_px, item.points_norm, item.index

    def annotated_item(self, index: int) -> AnnotatedItem:
        """Return an image with its points, warped if asked for."""
        base, points = self.base_item(index)
        image = channels(base).float() / 255  # (3, S, S)
        if self.warper is None:
            image, points = centre_crop(image, self.crop), points - self.crop
        else:
            warped, points = self.warper(image * 255, keypts=points, crop=self.crop)
            image = warped.to(torch.uint8).float() / 255
        points_px = torch.as_tensor(points, dtype=torch.float32)
        points_norm = normalize_points(points_px, self.side)
        visible = self.visible(index)
        return AnnotatedItem(self.normalize(image), points_px, visible, points_norm, index)

    def pair_item(self, index: int) -> PairItem:
        """Return two views of an image."""
        return self.make_pair(self.base_item(index)[0], index)

    def square_item(self, index: int) -> SquareItem:
        """Return an image's square."""
        cached = self.image_cache is not None
        pixels = self.cached(index)[0] if cached else np.asarray(self.base_item(index)[0])
        return self.make_square(pixels, index)

    def visible(self, places: int | slice = slice(None)) -> Tensor:
        """Return which landmarks are annotated, bool: (A,) of an image, (N, A) of several."""
        if "visible" in self.annotations:
            return torch.from_numpy(self.annotations["visible"][places])
        return torch.ones(self.annotations["keypoints"][places].shape[:-1], dtype=torch.bool)

    def annotation_tensors(self) -> tuple[Tensor, Tensor]:
        """Return all unwarped points (N, A, 2) in [-1, 1] and which are annotated, (N, A) bool."""
        points_px = [
            torch.as_tensor(self.base_item(i)[1] - self.crop, dtype=torch.float32)
            for i in range(len(self))
        ]
        return normalize_points(torch.stack(points_px), self.side), self.visible()

    def digested(self, facts: object) -> object:
        """Return what `digest` hashes beside names and annotations: the facts that are given."""
        return facts

    def digest(
        self,
        facts: object = None,
        places: Sequence[int] | None = None,
        describe_file: Callable[[Path], bytes] = lambda path: b"",
    ) -> str:
        """Return a hash of images' names and annotations, and of what else is given.

        Args:
            facts: anything whose `repr` is to be hashed.
            places: of the images; all if None.
            describe_file: what to hash of an image's file, given its path.
        """
        chosen = list(range(len(self.filenames)) if places is None else places)
        digest = hashlib.sha256(repr(self.digested(facts)).encode())
        for name, rows in sorted(self.annotations.items()):
            digest.update(f"{name} {rows.dtype} {len(chosen)} {rows.shape[1:]}\0".encode())
            digest.update(np.ascontiguousarray(rows[chosen]).tobytes())
        for place in chosen:
            filename = self.filenames[place]
            described = describe_file(self.folder / filename)
            digest.update(f"{filename!r} {len(described)}\0".encode() + described)
        return digest.hexdigest()

    def select(self, indices: Sequence[int]) -> None:
        """Keep the images at these places, in this order, repeats included."""
        self.image_cache = None  # which holds the others too, in their old order
        self.filenames = [self.filenames[i] for i in indices]
        chosen = np.asarray(indices, dtype=np.int64)
        self.annotations = {name: rows[chosen] for name, rows in self.annotations.items()}
