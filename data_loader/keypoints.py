"""One's own annotated images: any number of named points, instances cut out by their boxes.

Letters: N instances, A named points, S the side of the square that an instance becomes, W that of
the network input, S - 2 * crop.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from data_loader.folder import OwnImages, count_turned
from data_loader.geometry import denormalize_points
from data_loader.instances import boxes_of, extent_of, flip_order
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.readers.images import oriented_size
from data_loader.readers.keypoint_table import KeypointTable, places_of, shown_list
from utils.errors import ImageError, InputError


class Keypoints(OwnImages, LandmarkDataset):
    """Annotated instances of one's own.

    Args:
        table: the instances.
        folder: of the images.
        split: ``train``, ``val``, ``test`` or ``all``.
        box: ``annotated`` boxes, and whole images where there is none; boxes around the annotated
            ``points``; or always the whole ``image``.
        margin: see `Framing`.
        flip_pairs: names that a mirror swaps, in place of the table's.
        groups: what each instance belongs to; its image if not given.
        mirror: what of training images is mirrored: nothing (``off``), half of the ``views`` that
            fine-tuning makes, or ``copies`` that are images of their own, see `add_copies`.
        imwidth: S.
        crop: pixels cut off each side of the square.
        options: `TPS_aug` and `skip_bad` of `LandmarkDataset`, `fit` of `OwnImages`.

    Attributes:
        annotations: beside those of `LandmarkDataset`, ``boxes`` (N, 4), NaN for whole images;
            ``sizes`` (N, 2), the images' width and height; ``areas`` (N,), as annotated; ``ids``
            (N,); ``groups`` (N,); ``mirrored`` (N,), bool.

    Raises:
        InputError: if an image can't be read, or none has a point.
    """

    def __init__(
        self,
        table: KeypointTable,
        folder: Path,
        split: str,
        *,
        box: str = "annotated",
        margin: float = 0.1,
        flip_pairs: Sequence[tuple[str, str]] | None = None,
        groups: Sequence[str] | None = None,
        mirror: str = "off",
        imwidth: int = 96,
        crop: int = 0,
        **options: Any,
    ) -> None:
        self.table, self.box_kind, self.mirror = table, box, mirror
        self.split_name = split
        self.point_names, self.num_landmarks = table.names, len(table.names)
        self.sigmas, self.groups = table.sigmas, table.images if groups is None else groups
        self.flip_pairs = list(table.flip_pairs if flip_pairs is None else flip_pairs)
        self.flip_order = flip_order(table.names, self.flip_pairs)
        super().__init__(
            folder,
            split == "train",
            pair_image=False,
            imwidth=imwidth,
            crop=crop,
            do_augmentations=False,
            margin=margin,
            **options,
        )
        self._mask_cut_off()

    def read(self, root: Path, train: bool) -> tuple[Path, list[str], dict[str, np.ndarray]]:
        """Take the instances of the table that have a point, see `Keypoints`."""
        table, visible = self.table, ~np.isnan(self.table.points).any(axis=-1)  # (N, A)
        kept = np.flatnonzero(visible.any(axis=1))
        if not len(kept):
            raise InputError(f"{root}: no point of the {self.split_name} images is annotated")
        if len(kept) < len(visible):
            left_out = f"{len(visible) - len(kept):,} of {len(visible):,} instances have no point"
            self.notices.append(f"{self}: {left_out}, left out")
        if not visible[kept].all():
            missing, total = (~visible[kept]).sum(), visible[kept].size
            self.notices.append(f"{self}: {missing:,} of {total:,} points are missing, masked")
        filenames = [table.images[row] for row in kept]
        points = np.where(visible[..., None], table.points, 0.0)[kept]
        annotations = {
            "keypoints": points,
            "visible": visible[kept],
            "boxes": boxes_of(self.box_kind, points, visible[kept], table.boxes[kept]),
            "sizes": self._sizes(root, filenames, kept),
            "areas": np.asarray(table.areas, dtype=np.float64)[kept],
            "ids": np.array(table.ids)[kept],
            "groups": np.array(self.groups)[kept],
            "mirrored": np.zeros(len(kept), dtype=bool),
        }
        is_whole = np.isnan(annotations["boxes"]).any(axis=1)
        whole = Counter(name for name, is_so in zip(filenames, is_whole, strict=True) if is_so)
        if several := sum(count > 1 for count in whole.values()):
            self.notices.append(
                f"{self}: {several:,} images show several instances and are taken whole: which of "
                "them is meant can't be told; give boxes, or --box points"
            )
        return root, filenames, annotations

    def _mask_cut_off(self) -> None:
        """Mask points of training images that the network doesn't see; count those of others."""
        visible, shown = self.annotations["visible"], np.ones_like(self.annotations["visible"])
        for row, (width, height) in enumerate(self.annotations["sizes"].tolist()):
            if not width:  # of a bad image
                continue
            with suppress(ImageError):  # a box beside its image: said when it is needed
                points_px = self.square_points((width, height), row) - self.crop  # (A, 2)
                shown[row] = np.all((points_px > -1) & (points_px < self.side), axis=-1)
        if not (cut_off := int((visible & ~shown).sum())):
            return
        how = f"{cut_off:,} of {visible.sum():,} points lie beyond what the network sees"
        is_training = self.split_name == "train"
        what = ", masked" if is_training else ": judged, but can't be found"
        self.notices.append(f"{self}: {how} (see --fit, --image_crop){what}")
        if is_training:
            self.annotations["visible"] = visible & shown
            kept = np.flatnonzero(self.annotations["visible"].any(axis=1)).tolist()
            if not kept:
                raise InputError(
                    f"{self.folder}: all points lie beyond what the network sees (--fit {self.fit})"
                )
            self.select(kept)

    def _sizes(self, root: Path, filenames: list[str], kept: np.ndarray) -> np.ndarray:
        """Return each image's width and height (N, 2), 0 if it is bad and to be skipped."""
        sizes, turned = self.table.sizes[kept], self.table.turned[kept]
        for row in np.flatnonzero(np.isnan(sizes).any(axis=1)).tolist():
            try:
                sizes[row], turned[row] = oriented_size(root / filenames[row])
            except ImageError as error:
                self.forgive(error)
                sizes[row] = 0, 0
        of_images = dict(zip(filenames, turned.tolist(), strict=True))
        notices = count_turned(sum(of_images.values()), len(of_images))
        self.notices += [f"{self}: {line}" for line in notices]
        return sizes.astype(np.int64)

    def square(self, image: Image.Image, index: int) -> Image.Image:
        """Frame an image; a mirrored copy is mirrored here."""
        square = super().square(image, index)
        if not self.annotations["mirrored"][index]:
            return square
        return square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    def square_points(self, size: tuple[int, int], index: int) -> np.ndarray:
        """Return an instance's points in its square; of a mirrored copy, pairs are swapped."""
        affine = self.framing.affine(size, self.box(index))
        points = affine(self.annotations["keypoints"][index])
        if not self.annotations["mirrored"][index]:
            return points
        assert self.flip_order is not None  # else there is no copy
        return ((self.imwidth - 1, 0) + points * (-1, 1))[self.flip_order]

    def to_original(self, points_norm: np.ndarray | Tensor, index: int) -> np.ndarray:
        """Return points (..., A, 2) in [-1, 1] of an instance's input in its image's pixels."""
        width, height = self.annotations["sizes"][index].tolist()
        affine = self.framing.affine((width, height), self.box(index))
        points_px = denormalize_points(np.asarray(points_norm, dtype=np.float64), self.side)
        return affine.inverse(points_px + self.crop)

    def item_names(self) -> list[str]:
        """Return the instances' names: an image may have several."""
        return self.annotations["ids"].tolist()

    def item_groups(self) -> list[str]:
        """Return what each instance belongs to."""
        return self.annotations["groups"].tolist()

    def add_copies(self) -> None:
        """Add a mirrored copy of each instance where that is asked for."""
        if self.mirror != "copies":
            return
        count = len(self)
        self.select([*range(count), *range(count)])
        self.annotations["mirrored"][count:] = True
        visible = self.annotations["visible"]
        visible[count:] = visible[count:, self.flip_order]

    def checkpoint_notes(self) -> dict[str, object]:
        """Return the entry that says what prediction on other images needs."""
        boxes = self.annotations["boxes"]
        boxed = ~np.isnan(boxes).any(axis=1)  # (N,)
        sides = (boxes[boxed, 2:] - boxes[boxed, :2]).max(axis=1)
        low, high = extent_of(self.annotations["keypoints"], self.annotations["visible"])
        framing = {
            "fit": self.fit,
            "image_size": self.imwidth,
            "image_crop": self.crop,
            "margin": self.margin,
            "box": self.box_kind,
            # What tells boxes of another kind from these.
            "boxed": float(boxed.mean()),
            "box_sides": np.percentile(sides, [10, 90]).tolist() if len(sides) else None,
            "span": float(np.percentile((high - low).max(axis=1), 90)),
        }
        landmarks = {
            "names": list(self.point_names),
            "flip_pairs": [list(pair) for pair in self.flip_pairs],
            "framing": framing,
            "mean": list(self.mean),
            "std": list(self.std),
            "levels": list(self.levels),
        }
        return {"landmarks": landmarks}

    def order_points(self, path: object, content: dict[str, Any]) -> None:
        """Put the points in the order that a checkpoint notes; other names are an `InputError`."""
        noted = content.get("landmarks", {"names": self.point_names})
        names = noted.get("names") if isinstance(noted, dict) else None
        found = [*map(str, names)] if isinstance(names, list) else ["none"]
        if Counter(found) != Counter(self.point_names):
            said, own = (shown_list(each, 20) for each in (found, self.point_names))
            raise InputError(f"{path}: finds the points {said}; annotated are {own}")
        order = places_of(found, self.point_names)  # (A,)
        self.point_names = found
        for entry in ("keypoints", "visible"):
            self.annotations[entry] = self.annotations[entry][:, order]
        if self.flip_order is not None:
            self.flip_order = np.argsort(order)[self.flip_order[order]]
        self.sigmas = None if self.sigmas is None else self.sigmas[order]

    def digested(self, facts: object) -> object:
        """Return what `digest` hashes beside the rest: the framing and the points' names, too."""
        return [self.framing, self.point_names, facts]
