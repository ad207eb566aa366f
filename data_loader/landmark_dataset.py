"""What all benchmarks have in common: from one annotated image to the item the training loops take.

Letters: A landmarks; S the side of the square a benchmark makes of its image
(``imwidth``), W the side of the network input, S - 2 * crop.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_loader.geometry import centre_crop, normalize_points
from data_loader.items import AnnotatedItem
from data_loader.named_images import NamedImages
from data_loader.readers.annotation_files import find_annotated
from data_loader.views.random_view import channels
from utils.errors import InputError
from utils.tps import WarperSingle


class LandmarkDataset(NamedImages):
    """Annotated images as (data, keypoints, keypoints_normalized, index) [spec 6].

    In a pair item ``data`` is (6, W, W), two views, and both kinds of points are -1; else see
    `AnnotatedItem`.

    Args:
        root: the benchmark's folder.
        train: as `pair_image`, `imwidth`, `crop`, `do_augmentations` and `options`, see
            `NamedImages`.
        TPS_aug: warp a single image and its points by a random thin-plate spline.
        skip_unannotated: leave out annotated images without any point, else they are an error.

    Attributes:
        annotations: among them ``keypoints`` (N, A, 2), x before y, in the file's pixels; and
            ``visible`` (N, A) bool, if some points are missing, which are 0 then.
    """

    num_landmarks: int  # A
    # What of an image becomes its square, in the unit of the file's points: where it begins, and
    # its width and height, which are the image's as a rule.
    points_origin: tuple[float, float] = (0, 0)
    points_frame: tuple[float, float] | None = None
    published_counts: dict[str, int] | None = None  # by split
    flip_order: np.ndarray | None = None  # (A,), which point of a mirror image each point is
    second_field = "points_px"  # of `AnnotatedItem`: what an image's tuple has in second place
    mirror = "off"  # what of training images is mirrored, see `Keypoints`

    def __init__(
        self,
        root: str | Path,
        train: bool = True,
        pair_image: bool = True,
        imwidth: int = 100,
        crop: int = 15,
        do_augmentations: bool = True,
        TPS_aug: bool = False,  # noqa: N803 (published name)
        *,
        skip_unannotated: bool = False,
        **options: Any,
    ) -> None:
        if do_augmentations and not pair_image:
            raise ValueError("augmenting a single annotated image would leave its points behind")
        super().__init__(root, train, pair_image, imwidth, crop, do_augmentations, **options)
        if "visible" not in self.annotations and not pair_image:  # whose points aren't used
            self._mask_missing(skip_unannotated)
        self.warper = WarperSingle(imwidth, imwidth) if TPS_aug and not pair_image else None

    def count_notice(self) -> list[str]:
        """Return lines on what was left out or masked, and on how many images are published."""
        published = (self.published_counts or {}).get(self.split_name)
        if published is None or len(self) == published:
            return self.notices
        here = f"{self}: {len(self):,} images here, {published:,} in the published benchmark"
        return [*self.notices, here]

    def _mask_missing(self, skip: bool) -> None:
        """Find the points that aren't annotated; ``skip`` images without any, or refuse them."""
        visible = find_annotated(self.annotations["keypoints"])  # (N, A)
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
            visible = visible[~empty]
        if visible.all():
            return
        points = np.where(visible[..., None], self.annotations["keypoints"], 0)
        self.annotations |= {"keypoints": points, "visible": visible}
        if self.split_name == "train":
            self.check_landmarks()
        self.notices.append(
            f"{self}: {(~visible).sum():,} of {visible.size:,} points aren't annotated, masked"
        )

    def check_landmarks(self) -> None:
        """Raise an `InputError` if no training image has, or shows, one of the landmarks."""
        seen = self.visible().any(dim=0).tolist()  # (A,)
        if missing := [n for n, is_seen in zip(self.point_names, seen, strict=True) if not is_seen]:
            raise InputError(
                f"{self.folder}: none of the {len(self):,} training images has "
                f"{', '.join(missing[:3])} annotated, or shows it ({len(missing)} of {len(seen)} "
                "points)"
            )

    @cached_property
    def point_names(self) -> list[str]:
        """The landmarks' names; numbers of a benchmark's, which say no names."""
        return [f"landmark {number}" for number in range(1, self.num_landmarks + 1)]

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

    def order_points(self, path: object, content: dict[str, Any]) -> None:
        """Put the points in a checkpoint's order; see `Keypoints`, as others have no names."""

    def square_points(self, size: tuple[int, int], index: int) -> np.ndarray:
        """Return an image's points (A, 2) in pixels of its square, given its width and height."""
        points = self.annotations["keypoints"][index] - np.array(self.points_origin, np.float64)
        return points * (self.imwidth / np.array(self.points_frame or size))

    def base_item(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """Return an image's square and its points there: what isn't random about an item."""
        image = self.open(index)
        return self.square(image, index), self.square_points(image.size, index)

    def base_tensors(self, index: int) -> tuple[Tensor, Tensor]:
        """Return `base_item` as a square (S, S, 3), uint8, and its points (A, 2), float64."""
        image, points = self.base_item(index)
        return torch.from_numpy(np.array(image)), torch.from_numpy(np.array(points, np.float64))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, int]:
        if self.pair_image:
            return super().__getitem__(index)
        item = self.annotated_item(index)
        return item.image, getattr(item, self.second_field), item.points_norm, item.index

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

    def visible(self, places: int | slice = slice(None)) -> Tensor:
        """Return which landmarks are annotated, bool: (A,) of an image, (N, A) of several."""
        if "visible" in self.annotations:
            return torch.from_numpy(self.annotations["visible"][places])
        return torch.ones(self.annotations["keypoints"][places].shape[:-1], dtype=torch.bool)

    def annotation_tensors(self) -> tuple[Tensor, Tensor]:
        """Return all unwarped points (N, A, 2) in [-1, 1] and which are annotated, (N, A) bool."""
        points_px = [
            torch.as_tensor(self.square_points(self.size(i), i) - self.crop, dtype=torch.float32)
            for i in range(len(self))
        ]
        return normalize_points(torch.stack(points_px), self.side), self.visible()
