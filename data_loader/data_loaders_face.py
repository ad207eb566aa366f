"""The face benchmarks, each read from its own layout on disk [spec 6].

`LandmarkDataset` says what their arguments and items are. Letters: N images, A landmarks.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_loader.bad_images import add_image_arguments
from data_loader.geometry import FaceWindow, resize_square
from data_loader.image_set import ImageSet
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.readers.annotation_files import (
    check_points,
    check_unique,
    parse_coordinate,
    parse_table,
    read_lines,
    read_names,
)
from data_loader.readers.keypoint_csv import Csv
from data_loader.readers.matlab_files import check_face_box, read_face_boxes, read_mat, read_pts
from utils.errors import InputError

# Width and height of the files, in pixels [spec 6].
CELEBA_SIZE, MTFL_SIZE = (178, 218), (150, 150)
# [spec 6] CelebA's rows above and below this square show background.
CELEBA_TOP, CELEBA_SIDE = 30, 178
VAL_IMAGES = 2000  # [spec 6] CelebA's validation set is the first ones of its test partition


class FaceDataset(LandmarkDataset):
    """Annotated faces; ``eyes`` are the landmarks whose distance is the unit of the error."""

    eyes = (0, 1)
    num_landmarks = 5


class AlignedFaces(ImageSet):
    """CelebA's aligned images, whose middle becomes the square."""

    file_size = CELEBA_SIZE

    def square(self, image: Image.Image, index: int) -> Image.Image:
        """Cut out the middle of the image and resize it."""
        box = (0, CELEBA_TOP, CELEBA_SIDE, CELEBA_TOP + CELEBA_SIDE)
        return resize_square(image.crop(box), self.imwidth)


class CelebA(AlignedFaces, FaceDataset):
    """What CelebA and MAFL have in common: one annotation file and the aligned 178x218 images."""

    image_folder = "Img/img_align_celeba_hq"
    annotation_file = "Anno/list_landmarks_align_celeba.txt"
    points_origin, points_frame = (0, CELEBA_TOP), (CELEBA_SIDE, CELEBA_SIDE)

    def read(self, root: Path, train: bool) -> tuple[Path, list[str], dict[str, np.ndarray]]:
        """Read the annotation file, and take the rows of the split."""
        path, folder = root / self.annotation_file, root / self.image_folder
        lines = read_lines(path)
        if len(lines) < 3 or not lines[0].isdecimal() or len(lines[1].split()) != 10:
            raise InputError(f"{path}: expected a count, a header of 10 names, and a line an image")
        if lines[0].lstrip("0") != str(len(lines) - 2):  # digits may be too many for int()
            raise InputError(
                f"{path}: says {lines[0][:20]} images, has {len(lines) - 2} lines of points"
            )
        names, numbers = parse_table(path, lines[2:], 10, 3, parse_coordinate)
        rows = self.split(root, names, train)
        filenames = self.check_listed(folder, [names[row] for row in rows], path)
        keypoints = numbers[rows].reshape(-1, 5, 2)
        check_points(path, filenames, keypoints, CELEBA_SIZE)
        return folder, filenames, {"keypoints": keypoints}

    def split(self, root: Path, names: list[str], train: bool) -> list[int]:
        """Return the rows of the annotation file that belong to the split."""
        raise NotImplementedError


class CelebAPrunedAligned_MAFLVal(CelebA):  # noqa: N801 (published name)
    """CelebA without MAFL, for pre-training.

    ``train=False`` gives the first 2,000 of partition 2 without MAFL (``val_split='celeba'``) or
    MAFL's test images (``'mafl'``).
    """

    def __init__(self, *positional: Any, val_split: str = "celeba", **options: Any) -> None:
        self.val_split = val_split
        super().__init__(*positional, **options)

    def split(self, root: Path, names: list[str], train: bool) -> list[int]:
        """Return the rows of partition 0 or 2 that MAFL doesn't use."""
        mafl_lists = [root / f"MAFL/{part}.txt" for part in ("testing", "training")]
        if not train and self.val_split == "mafl":
            return rows_listed(names, mafl_lists[0])
        path = root / "Eval/list_eval_partition.txt"
        partition = dict(zip(*parse_table(path, read_lines(path), 1, first_line=1), strict=True))
        unlisted = next((name for name in names if name not in partition), None)
        if unlisted is not None:
            raise InputError(f"{path}: {unlisted} of {self.annotation_file} isn't listed there")
        mafl = {name for mafl_list in mafl_lists for name in read_names(mafl_list, once=True)}
        wanted = 0 if train else 2
        rows = [
            row for row, name in enumerate(names) if partition[name] == wanted and name not in mafl
        ]
        return rows if train else rows[:VAL_IMAGES]


class MAFLAligned(CelebA):
    """MAFL: the two lists of annotated CelebA images, in the annotation file's order."""

    published_counts = {"train": 19_000, "test": 1_000}

    def split(self, root: Path, names: list[str], train: bool) -> list[int]:
        """Return the rows that the split's list names."""
        return rows_listed(names, root / "MAFL" / ("training.txt" if train else "testing.txt"))


def rows_listed(names: list[str], path: Path) -> list[int]:
    """Return the places of the names in a list; all must be annotated."""
    wanted = set(read_names(path, once=True))
    rows = [row for row, name in enumerate(names) if name in wanted]
    if len(rows) < len(wanted):
        missing = min(wanted - set(names))
        raise InputError(f"{path}: {missing} has no line in the annotation file")
    return rows


class AFLW(FaceDataset):
    """AFLW_R, the recropped AFLW with 5 points."""

    published_counts = {"train": 10_122, "test": 2_991}

    def read(self, root: Path, train: bool) -> tuple[Path, list[str], dict[str, np.ndarray]]:
        """Read the split's list, and its .mat file of points and image sizes."""
        split = "train" if train else "test"
        list_path = root / f"aflw_{split}_images.txt"
        names = read_names(list_path)
        mat_path = root / f"aflw_{split}_keypoints.mat"
        mat = read_mat(mat_path, {"gt": (len(names), 5, 2), "hw": (len(names), 2)}, absent={"gt"})
        names = self.check_listed(root / "output", names, list_path)
        keypoints = mat["gt"][:, :, ::-1]  # stored y before x
        check_points(mat_path, names, keypoints, mat["hw"][:, ::-1])
        faces = dict.fromkeys(zip(names, (face.tobytes() for face in mat["gt"]), strict=True))
        check_unique(mat_path, [name for name, _ in faces])  # with other points, that is
        return root / "output", names, {"keypoints": keypoints, "hw": mat["hw"]}

    def expected_size(self, index: int) -> tuple[int, int]:
        """Return the width and height that the file of the points has for an image."""
        height, width = self.annotations["hw"][index].tolist()
        return width, height


class AFLW_MTFL(FaceDataset):  # noqa: N801 (published name)
    """AFLW_M: 150x150 crops of AFLW for training, the AFLW part of MTFL for testing."""

    published_counts = {"train": 10_122, "test": 2_995}
    file_size = points_frame = MTFL_SIZE
    points_origin = (1, 1)  # of MATLAB

    def read(self, root: Path, train: bool) -> tuple[Path, list[str], dict[str, np.ndarray]]:
        """Read the split's table; an image both trained and tested on is an error."""
        test_path = root / "MTFL/testing.txt"
        names, numbers = parse_table(test_path, read_lines(test_path), 10, 1, parse_coordinate)
        path, points = test_path, numbers.reshape(-1, 2, 5).transpose(0, 2, 1)  # all x, then all y
        if train:
            tested = {name.rsplit("-", 1)[-1] for name in names}  # without folder and number
            path = root / "aflw_cropped/facedata_cropped.csv"
            table = Csv(path, read_lines(path))
            header = table.rows[0].cells
            if header[1:4] != ["image_file", "crop_file", "set"] or len(header) < 14:
                raise InputError(
                    f"{path}: expected a header ..., image_file, crop_file, set, x1, y1, ..."
                )
            rows = [(row.cells, table.numbers(row, range(3, 14))) for row in table.below(1)]
            used = [(cells, numbers) for cells, (kind, *numbers) in rows if kind == 1]
            overlap = next((cells[1] for cells, _ in used if cells[1] in tested), None)
            if overlap is not None:
                raise InputError(f"{path}: training image {overlap} is in {test_path} too")
            names = [cells[2] for cells, _ in used]
            check_unique(path, names)
            points = np.reshape([numbers for _, numbers in used], (-1, 5, 2))
        names = self.check_listed(path.parent, names, path)
        check_points(path, names, points, MTFL_SIZE)
        return path.parent, names, {"keypoints": points}


class ThreeHundredW(FaceDataset):
    """300-W: 68 points; a window around each face box [spec 6]."""

    eyes = (36, 45)
    num_landmarks = 68
    published_counts = {"train": 3_148, "test": 689}
    # Folder of the images, after which the face boxes' file is named; start of the names used.
    train_parts = (("afw", ""), ("helen/trainset", ""), ("lfpw/trainset", ""))
    test_parts = (("helen/testset", ""), ("lfpw/testset", ""), ("ibug", "image"))

    def read(self, root: Path, train: bool) -> tuple[Path, list[str], dict[str, np.ndarray]]:
        """Read the lists of face boxes, which say which images there are, and their points."""
        filenames: list[str] = []
        boxes: list[np.ndarray] = []
        for folder, start in self.train_parts if train else self.test_parts:
            path = root / f"Bounding Boxes/bounding_boxes_{folder.replace('/', '_')}.mat"
            part_boxes = {k: v for k, v in read_face_boxes(path).items() if k.startswith(start)}
            filenames += self.check_listed(root, [f"{folder}/{name}" for name in part_boxes], path)
            boxes += part_boxes.values()
        points = [read_pts((root / name).with_suffix(".pts"), 68) for name in filenames]
        return root, filenames, {"keypoints": np.array(points), "face_box": np.array(boxes)}

    def window(self, size: tuple[int, int], index: int) -> FaceWindow:
        """Return what of an image becomes the square; a box far outside the image is an error."""
        box = self.annotations["face_box"][index]
        check_face_box(self.path(index), box, size)
        return FaceWindow(box, self.imwidth)

    def square(self, image: Image.Image, index: int) -> Image.Image:
        """Cut out the window around the face."""
        return self.window(image.size, index).cut_out(image)

    def square_points(self, size: tuple[int, int], index: int) -> np.ndarray:
        """Return an image's points in its square; one far outside the image is an error."""
        path, points = self.path(index), self.annotations["keypoints"][index]
        check_points(path.with_suffix(".pts"), [path.name], points[None], size)
        return self.window(size, index)(points)


# Name of --dataset to the class and its default root [spec 8].
FACE_BENCHMARKS: dict[str, tuple[type[FaceDataset], str]] = {
    "MAFLAligned": (MAFLAligned, "datasets/celeba"),
    "AFLW_MTFL": (AFLW_MTFL, "datasets/face_datasets/aflw-mtfl"),
    "AFLW": (AFLW, "datasets/face_datasets/aflw/aflw_release-2"),
    "ThreeHundredW": (ThreeHundredW, "datasets/face_datasets/300w/300w"),
}


def add_face_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which benchmark to read, and from where."""
    group = parser.add_argument_group("images")
    group.add_argument(
        "--dataset",
        choices=list(FACE_BENCHMARKS),
        default="MAFLAligned",
        help="the benchmark: MAFL, AFLW_M, AFLW_R or 300-W",
    )
    group.add_argument(
        "--data_folder",
        metavar="DIR",
        help="root of the benchmark; by default where README.md puts it below datasets/",
    )
    add_image_arguments(group, image_size=100, image_crop=15)
    group.add_argument(
        "--on_unannotated",
        choices=["stop", "skip"],
        default="stop",
        help="stop at an image without any point (all its numbers are 0, -1 or NaN), or leave such "
        "images out of training and test set; points missing one by one are masked in any case",
    )


def build_face_dataset(
    name: str, root: str | None, on_unannotated: str, **options: Any
) -> FaceDataset:
    """Return a benchmark's annotated images, one by one; ``options`` are `LandmarkDataset`'s."""
    benchmark, default_root = FACE_BENCHMARKS[name]
    return benchmark(
        root or default_root,
        pair_image=False,
        do_augmentations=False,
        skip_unannotated=on_unannotated == "skip",
        **options,
    )
