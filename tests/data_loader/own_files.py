"""A few images of one's own, and the same points of them in each format that is read."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data_loader.layouts import save_image, write_text

SIZE = (40, 30)
NAMES = ["left_eye", "right_eye", "beak"]
IMAGES = ["a.png", "sub/b c.png", "sub/d.jpg"]
NAN = float("nan")
POINTS = np.array(
    [
        [[3, 4], [10, 4.5], [7, 20]],
        [[0, 0], [NAN, NAN], [39, 29]],
        [[12.25, 1], [13, 2], [NAN, NAN]],
    ]
)


def write_images(folder: Path, images=IMAGES, size=SIZE) -> None:
    for name in images:
        save_image(folder / name, Image.new("RGB", size))


def write_boxes(path: Path, boxes) -> Path:
    """Write COCO's JSON of (image, (left, top, right, bottom))."""
    names = list(dict.fromkeys(name for name, _ in boxes))
    annotations = [
        {"id": number, "image_id": names.index(name), "bbox": [left, top, right - left, low - top]}
        for number, (name, (left, top, right, low)) in enumerate(boxes)
    ]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": []}
    path.write_text(json.dumps(content))
    return path


def cell(number: float, missing: str = "") -> str:
    return missing if np.isnan(number) else f"{number:g}"


def turned(points: np.ndarray = POINTS) -> np.ndarray:
    """Return points with y upwards."""
    return points * [1, -1] + [0, SIZE[1]]


def wide_lines(points=POINTS) -> list[str]:
    lines = ["image," + ",".join(f"{name}_x,{name}_y" for name in NAMES)]
    for image, row in zip(IMAGES, points, strict=True):
        lines.append(",".join([image, *(cell(number) for number in row.flatten())]))
    return lines


def write_wide(folder: Path, points=POINTS) -> Path:
    write_images(folder)
    write_text(folder / "points.csv", *wide_lines(points))
    return folder / "points.csv"


def write_wide_between(folder: Path, between: str, *first: str) -> Path:
    """Write the table with its cells parted by something else than commas, below other lines."""
    write_images(folder)
    lines = (line.replace(",", between) for line in wide_lines())
    write_text(folder / "points.csv", *first, *lines)
    return folder / "points.csv"


def write_several(folder: Path) -> Path:
    """Write a file of each image into a folder, each of another format; return it."""
    write_images(folder)
    header, first, second, _ = wide_lines()
    write_text(folder / "parts/a.csv", header, first)
    write_text(folder / "parts/b.tsv", *(line.replace(",", "\t") for line in (header, second)))
    content = coco_content()
    for entries in (content["images"], content["annotations"]):
        del entries[:2]
    (folder / "parts/c.json").write_text(json.dumps(content))
    return folder / "parts"


def write_long(folder: Path) -> Path:
    write_images(folder)
    lines = ["image,point,x,y,visible"]
    for image, row in zip(IMAGES, POINTS, strict=True):
        for name, (x, y) in zip(NAMES, row, strict=True):
            lines.append(f"{image},{name},{cell(x, '5')},{cell(y, '5')},{int(not np.isnan(x))}")
    write_text(folder / "points.csv", *lines)
    return folder / "points.csv"


def dlc_lines(parts: bool = False) -> list[str]:
    """Return DeepLabCut's table; its newer index has three columns."""
    pad = ",," if parts else ""
    lines = [
        f"scorer{pad}" + ",me" * 6,
        f"bodyparts{pad}," + ",".join(f"{name},{name}" for name in NAMES),
        f"coords{pad}" + ",x,y" * 3,
    ]
    for image, row in zip(IMAGES, POINTS, strict=True):
        image = f"labeled-data/v1/{image.rpartition('/')[2]}"
        lines.append(
            ",".join([image.replace("/", "," if parts else "/"), *map(cell, row.flatten())])
        )
    return lines


def imagej_lines(points=POINTS, labels=IMAGES, between=",") -> list[str]:
    """Return ImageJ's Results, where a line is a point; without labels if none are given."""
    lines = [between.join([" ", *(["Label"] if labels else []), "Area", "X", "Y"])]
    for label, row in zip(labels or [""] * len(points), points, strict=True):
        for x, y in row:
            cells = [str(len(lines)), *([label] if labels else []), "0", cell(x, "NaN")]
            lines.append(between.join([*cells, cell(y, "NaN")]))
    return lines


def write_imagej(folder: Path, between=",") -> Path:
    write_images(folder)
    write_text(folder / "points.csv", *imagej_lines(POINTS, between=between))
    return folder / "points.csv"


def write_imagej_files(folder: Path) -> Path:
    """Write ImageJ's Results of one image each into a folder; return it."""
    write_images(folder)
    for image, row in zip(IMAGES, POINTS, strict=True):
        write_text(folder / f"parts/{Path(image).stem}.csv", *imagej_lines([row], []))
    return folder / "parts"


def write_dlc(folder: Path, parts: bool = False) -> Path:
    write_images(folder, [f"labeled-data/v1/{image.rpartition('/')[2]}" for image in IMAGES])
    path = folder / "labeled-data/v1/CollectedData_me.csv"
    write_text(path, *dlc_lines(parts))
    return path


# Two animals, in the second frame one, in the third none.
INDIVIDUALS = [
    "scorer,me,me,me,me,me,me,me,me",
    "individuals,one,one,one,one,two,two,two,two",
    "bodyparts,nose,nose,tail,tail,nose,nose,tail,tail",
    "coords,x,y,x,y,x,y,x,y",
    "a.png,1,2,3,4,11,12,13,14",
    "sub/b c.png,,,,,5,6,,",
    "sub/d.jpg,,,,,,,,",
]


def write_individuals(folder: Path) -> Path:
    write_images(folder)
    write_text(folder / "points.csv", *INDIVIDUALS)
    return folder / "points.csv"


def tps_lines() -> list[str]:
    lines = []
    for number, (image, row) in enumerate(zip(IMAGES, turned(), strict=True)):
        lines += ["LM=3", *(f"{cell(x, '-1')} {cell(y, '-1')}" for x, y in row)]
        lines += [f"IMAGE={image}", f"ID={number}", "SCALE=0.01"]
    return lines


def write_tps(folder: Path) -> Path:
    write_images(folder)
    write_text(folder / "points.tps", *tps_lines())
    return folder / "points.tps"


def write_tps_of_others(folder: Path) -> Path:
    """Write one with decimal commas and a comment, whose names aren't quite those of the files."""
    path = write_tps(folder)
    text = path.read_text().replace(".", ",").replace("IMAGE=a,png\nID=0", "ID=a")
    text = text.replace("b c,png", "B C.PNG").replace("d,jpg", "d\nCOMMENT=\xb5m")
    path.write_text(text)
    return path


def coco_content() -> dict:
    """Return COCO's JSON of the same images, each with one instance."""
    annotations = []
    for number, row in enumerate(POINTS):
        triples = [[0, 0, 0] if np.isnan(x) else [x, y, 2] for x, y in row]
        annotations.append(
            {
                **{"id": number + 100, "image_id": number, "category_id": 7, "iscrowd": 0},
                **{"keypoints": sum(triples, []), "bbox": [1, 2, 30, 20], "area": 250.5},
            }
        )
    return {
        "images": [
            {"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
            for number, name in enumerate(IMAGES)
        ],
        "annotations": annotations,
        "categories": [{"id": 7, "name": "bird", "keypoints": list(NAMES)}],
    }


def write_coco(folder: Path, content: dict | None = None) -> Path:
    write_images(folder)
    path = folder / "points.json"
    path.write_text(json.dumps(coco_content() if content is None else content))
    return path


def write_coco_without_names(folder: Path) -> Path:
    content = coco_content()
    del content["categories"][0]["keypoints"]
    return write_coco(folder, content)
