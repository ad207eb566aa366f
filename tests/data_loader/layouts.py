"""Tiny benchmarks that tests write for themselves: images with one bright dot under a landmark.

Each writer returns the places it chose. Dots are Gaussian, on black, so that the centroid of the
light is the dot's centre to a small part of a pixel, also after a resize. Images are PNG inside
whatever the name says, hence without loss; Pillow goes by the content.
"""

import struct
import zlib
from functools import partial

import numpy as np
import pytest
import scipy.io
from PIL import Image

from data_loader.data_loaders_face import (
    AFLW,
    AFLW_MTFL,
    CelebAPrunedAligned_MAFLVal,
    MAFLAligned,
    ThreeHundredW,
)
from tests.recipes import SHARED, sub
from utils.errors import InputError

NO_IMAGE = "not an image of an accepted format (JPEG, PNG, GIF, BMP, WEBP, PPM)"


def complaint(action, *args, **options) -> str:
    """Return the one-line message of the `InputError` that a call raises."""
    with pytest.raises(InputError) as caught:
        action(*args, **options)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def dot_image(size, dot, sigma=3.0) -> Image.Image:
    """Return a black (width, height) image with a white dot at 0-based (x, y)."""
    (width, height), (x, y) = size, dot
    columns, rows = np.arange(width), np.arange(height)[:, None]
    light = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return Image.fromarray(np.repeat(light.round().astype(np.uint8)[..., None], 3, axis=2))


def save_image(path, image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="PNG")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    size, checksum = len(content), zlib.crc32(kind + content)
    return struct.pack(">I", size) + kind + content + struct.pack(">I", checksum)


def huge_png(width, height) -> bytes:
    """Return a small file of a large image, whose pixels aren't all there."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(bytes(100)), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks.items())


def write_text(path, *lines, end="\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())


def bright_spot(data, dataset) -> np.ndarray:
    """Return the centroid (x, y) of a network input's light, in pixels."""
    light = dataset.denormalize(data).mean(dim=0).numpy().astype(np.float64)  # (H, W)
    rows, columns = np.indices(light.shape)
    return np.array([(light * columns).sum(), (light * rows).sum()]) / light.sum()


def assert_published(dataset, start) -> int:
    """Hold some items against the published loaders' [spec 10]; return how many."""
    truth = np.load(SHARED / "golden/loaders.npz", allow_pickle=False)
    assert len(dataset) == truth[f"{start}/len"]
    indices = {k.split("/")[2] for k in truth.files if k.startswith(f"{start}/")} - {"len"}
    for index in indices:
        data, second, points_norm, _ = dataset[int(index)]
        item = f"{start}/{index}"
        if f"{item}/kp" in truth:
            assert np.abs(second.numpy() - truth[f"{item}/kp"]).max() < 1e-3
        else:
            assert np.array_equal(second.numpy(), truth[f"{item}/visible"])
        assert np.abs(points_norm.numpy() - truth[f"{item}/kpn"]).max() < 1e-3
        off = np.abs(sub(data, 6000) - truth[f"{item}/data"])
        assert np.quantile(off, 0.999) < 2 / 255 / 0.22  # two grey levels, standardised
    return len(indices)


# ---- CelebA and MAFL ----

CELEBA_HEADER = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y a_x a_y b_x b_y "
CELEBA_POINTS = np.array([[60, 100], [115, 108], [90, 130], [66, 152], [110, 158]])


def celeba_line(name, points) -> str:
    return f"{name} " + "  ".join(f"{v:4d}" for v in np.ravel(points))


def write_celeba(root, partitions, mafl_train=("x.jpg",), mafl_test=("y.jpg",), images=True):
    """Write CelebA's files; return the points (N, 5, 2), whose i-th image shows dot i % 5.

    ``partitions`` maps names, in the annotation file's order, to 0, 1 or 2.
    """
    points = [CELEBA_POINTS + (i % 7, -(i % 4)) for i in range(len(partitions))]
    write_text(
        root / "Anno/list_landmarks_align_celeba.txt",
        str(len(partitions)),
        CELEBA_HEADER,
        *(celeba_line(name, p) for name, p in zip(partitions, points, strict=True)),
    )
    # The lists stand in another order than the annotations, to tell the two apart.
    write_text(
        root / "Eval/list_eval_partition.txt",
        *(f"{name} {part}" for name, part in sorted(partitions.items())),
    )
    write_text(root / "MAFL/training.txt", *mafl_train)
    write_text(root / "MAFL/testing.txt", *mafl_test)
    folder = root / "Img/img_align_celeba_hq"
    folder.mkdir(parents=True)
    for i, name in enumerate(partitions):
        if images:
            save_image(folder / name, dot_image((178, 218), points[i][i % 5], sigma=5))
        else:
            (folder / name).touch()
    return np.array(points)


CELEBA_PARTS = {
    "000009.jpg": 0,
    "000002.jpg": 0,
    "000007.jpg": 1,
    "000008.jpg": 2,
    "000001.jpg": 0,
    "000006.jpg": 2,
    "000005.jpg": 0,
    "000004.jpg": 2,
    "000003.jpg": 0,
}
CELEBA_MAFL = {
    "mafl_train": ["000001.jpg", "000009.jpg"],
    "mafl_test": ["000005.jpg", "000004.jpg"],
}


# ---- AFLW_R ----

AFLW_SIZES = [(90, 140), (200, 120), (110, 110), (80, 170), (160, 100)]


def write_aflw(root, sizes=AFLW_SIZES):
    """Write both splits of AFLW_R; return {split: names} and the points (N, 5, 2) as x, y."""
    fractions = np.array([[0.4, 0.36], [0.62, 0.4], [0.52, 0.55], [0.42, 0.66], [0.6, 0.7]])
    points = np.array([(fractions + 0.008 * i) * size for i, size in enumerate(sizes)])
    names = {}
    for split in ("train", "test"):
        # Not sorted: the order is the list's.
        names[split] = [f"{split}_{9 - i}.jpg" for i in range(len(sizes))]
        write_text(root / f"aflw_{split}_images.txt", *names[split])
        hw = np.array(sizes, dtype=np.uint16)[:, ::-1]
        scipy.io.savemat(root / f"aflw_{split}_keypoints.mat", {"gt": points[:, :, ::-1], "hw": hw})
        for i, name in enumerate(names[split]):
            save_image(root / "output" / name, dot_image(sizes[i], points[i][i % 5]))
    return names, points


# ---- AFLW_M ----

CSV_HEADER = "face_id,image_file,crop_file,set,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5"
MTFL_POINTS = np.array([[55.25, 62.5], [92.0, 70.5], [75.5, 85.0], [60.0, 101.25], [88.5, 105.0]])


def write_mtfl(root, sets=(1, 2, 1, 1, 1, 1), tests=5):
    """Write AFLW_M's files; return the 1-based points (N, 5, 2) of all rows and of the tests."""
    train_points = np.array([MTFL_POINTS + (i, -i) for i in range(len(sets))])
    test_points = np.array([MTFL_POINTS + (-i, i / 2) for i in range(tests)])
    lines = [CSV_HEADER]
    for i, group in enumerate(sets):
        numbers = ",".join(f"{v:.4f}" for v in train_points[i].ravel())  # x1, y1, x2, y2, ...
        lines.append(f"{i},image{90 - i}.jpg,crops/{i:05d}.jpg,{group},{numbers}")
        dot = train_points[i][i % 5] - 1
        save_image(root / f"aflw_cropped/crops/{i:05d}.jpg", dot_image((150, 150), dot))
    write_text(root / "aflw_cropped/facedata_cropped.csv", *lines)
    lines = []
    for i in range(tests):
        numbers = " ".join(f"{v:.4f}" for v in test_points[i].T.ravel())  # x1 ... x5, y1 ... y5
        name = f"AFLW/{9 - i}-image{20 + i}.jpg"
        lines.append(f"{name} {numbers} 1 1 2 3")
        save_image(root / "MTFL" / name, dot_image((150, 150), test_points[i][i % 5] - 1))
    write_text(root / "MTFL/testing.txt", *lines)
    return train_points, test_points


# ---- 300-W ----

PARTS_300W = ("afw", "helen/trainset", "lfpw/trainset", "helen/testset", "lfpw/testset", "ibug")


def box_cells(boxes) -> np.ndarray:
    """Return MATLAB's 1xN cell of structs of {name: (xmin, ymin, xmax, ymax)}."""
    cells = np.empty((1, len(boxes)), dtype=object)
    for i, (name, box) in enumerate(boxes.items()):
        detector = np.array([[1.0, 2.0, 3.0, 4.0]])  # not to be read
        cells[0, i] = {
            "imgName": name,
            "bb_detector": detector,
            "bb_ground_truth": np.array([box], dtype=np.float64),
        }
    return cells


def pts_lines(points) -> list[str]:
    points = [f"{x:.6f} {y:.6f}" for x, y in points]
    return ["version: 1", f"n_points: {len(points)}", "{", *points, "}"]


def write_300w(root, names):
    """Write 300-W of {folder: names}, not only of existing ones; return points by file.

    The i-th image of a folder shows point 0, 36, 45 or 67 as a dot; points are 1-based.
    """
    folder = root / "Bounding Boxes"
    folder.mkdir(parents=True)
    chosen, points = (0, 36, 45, 67), {}
    for part in PARTS_300W:
        boxes, mat = {}, part.replace("/", "_")
        for i, name in enumerate(names.get(part, ())):
            width, height = 210 + 9 * i, 150 + 5 * i
            box_width, x, y = (52, 104, 70, 61.5)[i % 4], 61.25 + i, 48.5 - i
            boxes[name] = (x, y, x + box_width - 1, y + 0.9 * box_width)
            grid = np.stack(np.meshgrid(np.linspace(0.1, 0.9, 17), (0.2, 0.45, 0.6, 0.85)), -1)
            p = grid.reshape(68, 2) * box_width + (x, y)
            points[f"{part}/{name}"] = p
            sigma = 2.5 * box_width / 52
            image = dot_image((width, height), p[chosen[i % 4]] - 1, sigma)
            save_image(root / part / name, image)
            write_text((root / part / name).with_suffix(".pts"), *pts_lines(p))
        scipy.io.savemat(folder / f"bounding_boxes_{mat}.mat", {"bounding_boxes": box_cells(boxes)})
    return points


# Of each face benchmark: its class, and what writes a tiny one into a folder.
FACE_WRITERS = {
    "MAFL": (MAFLAligned, partial(write_celeba, partitions=CELEBA_PARTS, **CELEBA_MAFL)),
    "CelebA": (CelebAPrunedAligned_MAFLVal, partial(write_celeba, partitions=CELEBA_PARTS)),
    "AFLW": (AFLW, write_aflw),
    "MTFL": (AFLW_MTFL, write_mtfl),
    "300W": (ThreeHundredW, partial(write_300w, names={"afw": ["1.jpg", "2.jpg"]})),
}


# ---- CUB ----

CUB_SIZES = [(90, 140), (200, 120), (120, 120), (77, 150), (160, 101)]


def torch7(value, taken=None) -> bytes:
    """Return Torch7's binary form of numbers, byte strings and (nested) tables."""
    taken = [0] if taken is None else taken
    if isinstance(value, bytes):
        return struct.pack("<ii", 2, len(value)) + value
    if isinstance(value, dict):
        taken[0] += 1
        head = struct.pack("<iii", 3, taken[0], len(value))
        return head + b"".join(torch7(k, taken) + torch7(v, taken) for k, v in value.items())
    return struct.pack("<id", 1, value)


def cub_parts(count):
    """Return parts (N, 15, 3) as x and y shares and visibility; invisible ones are anywhere."""
    parts = np.zeros((count, 15, 3))
    for i in range(count):
        parts[i, :, 0] = 0.25 + 0.03 * np.arange(15) + 0.01 * i
        parts[i, :, 1] = 0.75 - 0.025 * np.arange(15)
        parts[i, :, 2] = (np.arange(15) + i) % 3 != 0
    return parts


def dat_table(names, parts) -> dict:
    """Return CUB's table of base names to parts '1' to '15'."""
    return {
        name.rsplit("/", 1)[-1].encode(): {
            str(a + 1).encode(): dict(enumerate(row, 1)) for a, row in enumerate(image.tolist())
        }
        for name, image in zip(names, parts, strict=True)
    }


CUB_NAMES = [
    "002.Owl/z_1.jpg",
    "001.Tern/b_2.jpg",
    "003.Wren/a_3.jpg",
    "001.Tern/a_4.jpg",
    "002.Owl/c_5.jpg",
]
CUB_SPLITS = {"train": [0, 1, 2], "val": [3], "test": [4]}
PREFIX = "/mnt/other/person/CUB_200_2011/images/"


def write_cub(root, native=False):
    """Write CUB with Torch7 or its own annotations; return parts (N, 15, 3) of `CUB_NAMES`.

    The i-th image shows part `shown_part(i)` as a dot.
    """
    parts = cub_parts(len(CUB_NAMES))
    for i, (name, size) in enumerate(zip(CUB_NAMES, CUB_SIZES, strict=True)):
        dot = parts[i, shown_part(i), :2] * size
        save_image(root / "images" / name, dot_image(size, dot))
    for split, rows in CUB_SPLITS.items():
        write_text(root / f"split/{split}.txt", *(PREFIX + CUB_NAMES[i] for i in rows))
    if native:
        # Ids aren't in the order of the images, nor are the lines of the parts.
        ids = [40, 7, 23, 1, 5]
        names = zip(ids, CUB_NAMES, strict=True)
        write_text(root / "images.txt", *(f"{n} {name}" for n, name in sorted(names)))
        lines = [
            f"{ids[i]} {a + 1} {x * CUB_SIZES[i][0]:.6f} {y * CUB_SIZES[i][1]:.6f} {int(visible)}"
            for a in range(15)
            for i, (x, y, visible) in enumerate(parts[:, a])
        ]
        write_text(root / "parts/part_locs.txt", *lines)
    else:
        (root / "anno").mkdir()
        for file, rows in {"train.dat": [2, 0, 1], "val.dat": [4, 3]}.items():
            table = dat_table([CUB_NAMES[i] for i in rows], parts[rows])
            (root / "anno" / file).write_bytes(torch7(table))
    return parts


def shown_part(i: int) -> int:
    """Return the part (0-based, visible) under the dot of the i-th image."""
    return 2 * i + 1
