"""Plans synthetic images for each benchmark's folder layout and writes its annotation files."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from datasets.renderer.face import render_scene
from datasets.renderer.sampling import CELEBA_FRAMING, FaceFraming, sample_scene
from datasets.renderer.shape import five_points, sample_identity
from utils.errors import InputError

JPEG_QUALITY = 92


@dataclass(frozen=True)
class Job:
    """One image to draw."""

    path: str  # where to save it, relative to the layout's folder
    key: tuple[int, ...]  # seeds everything but the person
    person: tuple[int, ...]  # seeds the person
    framing: FaceFraming
    split: str  # "unlabelled", "train" or "test"


@dataclass(frozen=True)
class Plan:
    """How many images of how many people to draw; the seed decides everything."""

    images: int  # unlabelled, of the layouts celeba and folder
    train: int  # labelled, of each layout
    test: int  # of each layout
    identities: int  # people; those in test images are in no other ones
    seed: int

    @property
    def test_people(self) -> int:
        """Return how many of the people are in the test images."""
        fraction = self.test / (self.images + self.train + self.test)
        return min(max(1, round(self.identities * fraction)), self.identities - 1)

    def person(self, index: int, test: bool) -> tuple[int, ...]:
        """Return the seed of the person in an image, by its number within its part."""
        known = self.identities - self.test_people
        number = known + index % self.test_people if test else index % known
        return (self.seed, 0, number)

    def job(self, layout: int, index: int, path: str, framing: FaceFraming, split: str) -> Job:
        """Return the job of image ``index`` among the training or test images of a layout."""
        test = split == "test"
        key = (self.seed, 1, layout, int(test), index)
        return Job(path, key, self.person(index, test), framing, split)

    def labelled(self) -> list[tuple[str, int]]:
        """Return each labelled image's split and its number within that, training images first."""
        counts = {"train": self.train, "test": self.test}
        return [(split, index) for split, count in counts.items() for index in range(count)]

    def sizes(self, layout: int, low: int, high: int) -> np.ndarray:
        """Return random sizes in pixels of the training and test images, (train + test, 2)."""
        rng = np.random.default_rng([self.seed, 2, layout])
        return rng.integers(low, high + 1, (self.train + self.test, 2))


def render_job(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image: uint8 (height, width, 3) and its 68 points in pixels from 0, (68, 2)."""
    person = sample_identity(np.random.default_rng(job.person))
    return render_scene(sample_scene(np.random.default_rng(job.key), person, job.framing))


def draw(root: Path, job: Job) -> np.ndarray:
    """Draw one image and save it below the layout's folder; return its 68 points, (68, 2)."""
    pixels, points = render_job(job)
    # Other formats ignore the quality.
    Image.fromarray(pixels).save(root / job.path, quality=JPEG_QUALITY)
    return points


def square_framing(side: int) -> FaceFraming:
    """Return the framing of a square whose middle 96/136 are kept later, with a small margin."""
    low, high = 0.165 * side, 0.835 * side
    return FaceFraming(
        (side, side), (low, low, high, high), (0.124 * side, 0.28 * side), 0.05 * side
    )


def _plan_celeba(plan: Plan) -> list[Job]:
    images = [("unlabelled", index) for index in range(plan.images)] + plan.labelled()
    jobs = []
    for place, (split, index) in enumerate(images):
        number = index if split == "test" else place  # the people of training images are shared
        path = f"Img/img_align_celeba_hq/{place + 1:06d}.jpg"
        jobs.append(plan.job(0, number, path, CELEBA_FRAMING, split))
    return jobs


def _write_celeba(root: Path, jobs: list[Job], points: list[np.ndarray], plan: Plan) -> None:
    names = [Path(job.path).name for job in jobs]
    lines = [str(len(jobs))]
    parts = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
    lines.append("".join(f"{part}_{axis} " for part in parts for axis in "xy"))
    for name, shape in zip(names, points, strict=True):
        whole = np.rint(five_points(shape)).astype(int).ravel()
        lines.append(name + "".join(f"{value:5d}" for value in whole))
    _text(root / "Anno/list_landmarks_align_celeba.txt", lines)
    split = {name: job.split for name, job in zip(names, jobs, strict=True)}
    partition = [f"{name} {2 * (split[name] == 'test')}" for name in names]
    _text(root / "Eval/list_eval_partition.txt", partition)
    for file, part in (("training", "train"), ("testing", "test")):
        _text(root / f"MAFL/{file}.txt", [name for name in names if split[name] == part])


def _plan_folder(plan: Plan) -> list[Job]:
    # The same images as CelebA's.
    return [replace(job, path=f"images/{Path(job.path).name}") for job in _plan_celeba(plan)]


def _write_folder(root: Path, jobs: list[Job], points: list[np.ndarray], plan: Plan) -> None:
    names = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
    rows = [",".join(["image", *(f"{name}_{axis}" for name in names for axis in "xy")])]
    for job, shape in zip(jobs, points, strict=True):
        if job.split != "unlabelled":
            values = [f"{value:.2f}" for value in five_points(shape).ravel()]
            rows.append(",".join([job.path, *values]))
    _text(root / "points.csv", rows)


def _plan_aflw(plan: Plan) -> list[Job]:
    sides = plan.sizes(1, 80, 200)[:, 0].tolist()
    return [
        plan.job(1, index, f"output/{split}_{index:05d}.jpg", square_framing(side), split)
        for (split, index), side in zip(plan.labelled(), sides, strict=True)
    ]


def _write_aflw(root: Path, jobs: list[Job], points: list[np.ndarray], plan: Plan) -> None:
    for split in ("train", "test"):
        part = [k for k, job in enumerate(jobs) if job.split == split]
        _text(root / f"aflw_{split}_images.txt", [Path(jobs[k].path).name for k in part])
        keypoints = np.stack([five_points(points[k])[:, ::-1] for k in part])  # (N, 5, 2)
        sizes = np.array([jobs[k].framing.size[::-1] for k in part], dtype=np.int64)
        _mat(root / f"aflw_{split}_keypoints.mat", {"gt": keypoints, "hw": sizes})


def _plan_mtfl(plan: Plan) -> list[Job]:
    framing, jobs = square_framing(150), []
    for number, (split, index) in enumerate(plan.labelled()):
        test = f"MTFL/AFLW/{number:04d}-image{10001 + number}.jpg"
        path = test if split == "test" else f"aflw_cropped/crops/{index:05d}.jpg"
        jobs.append(plan.job(2, index, path, framing, split))
    return jobs


def _write_mtfl(root: Path, jobs: list[Job], points: list[np.ndarray], plan: Plan) -> None:
    rows = ["face_id,image_file,crop_file,set,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5"]
    tests = []
    for number, (job, shape) in enumerate(zip(jobs, points, strict=True)):
        five = five_points(shape) + 1  # this benchmark counts pixels from 1
        path = job.path.split("/", 1)[1]
        if job.split == "train":
            values = ",".join(f"{value:.4f}" for value in five.ravel())
            rows.append(f"{number},image{10001 + number}.jpg,{path},1,{values}")
        else:
            values = " ".join(f"{value:.6f}" for value in five.T.ravel())
            tests.append(f"{path} {values} 1 1 2 3")
    _text(root / "aflw_cropped/facedata_cropped.csv", rows, newline="\r\n")
    _text(root / "MTFL/testing.txt", tests)


# Folder of 300-W: name of its images, split, fraction of that split.
_FOLDERS = {
    "afw": ("afw_{:04d}.jpg", "train", 0.12),
    "helen/trainset": ("hele_{:04d}.jpg", "train", 0.60),
    "lfpw/trainset": ("lfpw_{:04d}.jpg", "train", 0.28),
    "helen/testset": ("hele_{:04d}.jpg", "test", 0.45),
    "lfpw/testset": ("lfpw_{:04d}.png", "test", 0.35),
    "ibug": ("image_{:04d}.jpg", "test", 0.20),
}


def _plan_300w(plan: Plan) -> list[Job]:
    if min(plan.train, plan.test) < 3:
        raise InputError("--mafl_train, --mafl_test: 300w needs at least 3 images each")
    sizes = iter(plan.sizes(3, 160, 260).tolist())
    jobs: list[Job] = []
    planned = {"train": 0, "test": 0}
    for folder, (name, split, fraction) in _FOLDERS.items():
        total = plan.train if split == "train" else plan.test
        count = max(1, min(round(fraction * total), total - 2))
        if folder in ("lfpw/trainset", "ibug"):  # the last of their split
            count = total - planned[split]
        for number, (width, height) in zip(range(count), sizes, strict=False):
            side = min(width, height)
            window = (0.22 * width, 0.25 * height, 0.78 * width, 0.78 * height)
            eyes = (0.12 * side, 0.22 * side)
            framing = FaceFraming((width, height), window, eyes, 0.05 * side, whole=True)
            path = f"{folder}/{name.format(number)}"
            jobs.append(plan.job(3, planned[split] + number, path, framing, split))
        planned[split] += count
    return jobs


def _write_300w(root: Path, jobs: list[Job], points: list[np.ndarray], plan: Plan) -> None:
    boxes: dict[str, list[dict]] = {folder: [] for folder in _FOLDERS}
    rng = np.random.default_rng([plan.seed, 3])
    for job, shape in zip(jobs, points, strict=True):
        shape = shape + 1  # MATLAB counts pixels from 1
        lines = [f"{x:.6f} {y:.6f}" for x, y in shape]
        path = (root / job.path).with_suffix(".pts")
        _text(path, ["version: 1", "n_points:  68", "{", *lines, "}"])
        box = np.concatenate([shape.min(0), shape.max(0)])[None]  # (1, 4)
        found = box + rng.normal(0, 0.02 * np.ptp(shape), (1, 4))
        entry = {"imgName": Path(job.path).name, "bb_detector": found, "bb_ground_truth": box}
        boxes[str(Path(job.path).parent)].append(entry)
    for folder, entries in boxes.items():
        cells = np.empty((1, len(entries)), dtype=object)
        cells[0, :] = entries
        file = f"bounding_boxes_{folder.replace('/', '_')}.mat"
        _mat(root / "Bounding Boxes" / file, {"bounding_boxes": cells})


def _text(path: Path, lines: list[str], newline: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="ascii", newline=newline)


def _mat(path: Path, values: dict) -> None:
    """Write a .mat file; its header without the date, so that the same set has the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, values)
    header = b"MATLAB 5.0 MAT-file".ljust(116)
    with path.open("r+b") as file:
        file.write(header)


# Layout: plans its images, writes its annotation files.
LAYOUTS: dict[str, tuple[Callable, Callable]] = {
    "celeba": (_plan_celeba, _write_celeba),
    "aflw": (_plan_aflw, _write_aflw),
    "aflw-mtfl": (_plan_mtfl, _write_mtfl),
    "300w": (_plan_300w, _write_300w),
    "folder": (_plan_folder, _write_folder),  # images and a CSV, as one's own may be
}
