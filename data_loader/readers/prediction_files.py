"""Writing of points that were found, in the formats that `keypoint_files` reads.

Predictions are taken one by one, so that no more than one is held; the file takes its place when
all are written. Letters: A points.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from data_loader.framing import Box
from utils.errors import InputError
from utils.files import write_file

SCORER = "contrastlandmark"  # who labelled, in DeepLabCut's tables
# By the ending of the file's name; of those that fit, the longest one counts.
ENDINGS = {
    ".csv": "wide",
    "_long.csv": "long",
    ".dlc.csv": "deeplabcut",
    ".json": "coco",
    ".tps": "tps",
}
ONE_INSTANCE = ("deeplabcut", "tps")  # formats without several instances of an image


class Prediction(NamedTuple):
    """The points found in an image, or in one instance that it shows; or that it can't be read.

    Attributes:
        image: its name, as `quoted` makes it.
        size: its width and height.
        points: (A, 2), x before y, in its pixels, y downwards; NaN where there is none.
        confidence: (A,) in [0, 1].
        instance: which of the image's instances; empty if it shows one.
        box: of the instance, in pixels.
        number: of the image in its source.
        bad: why it can't be read, and has neither size nor points; empty if it can.
        scale: units of length per pixel, if they are known.
        errors: (A,), how many pixels from the truth its points are expected to be; NaN where there
            is none, empty if that isn't known.
    """

    image: str
    size: tuple[int, int]
    points: np.ndarray
    confidence: np.ndarray
    instance: str = ""
    box: Box | None = None
    number: int = 0
    bad: str = ""
    scale: float | None = None
    errors: np.ndarray | Sequence[float] = ()

    @property
    def certainty(self) -> float:
        """The mean confidence."""
        return float(sum(self.confidence)) / len(self.confidence)


def prediction_format(path: Path, instances: bool = False) -> str:
    """Return the format that a file's ending asks for, one of the values of `ENDINGS`.

    Args:
        path: of the file that is to be written.
        instances: whether images show several.

    Raises:
        InputError: if there is none, or it has no place for instances.
    """
    fits = [ending for ending in ENDINGS if path.name.lower().endswith(ending)]
    if not fits:
        raise InputError(f"{path}: ends in none of {', '.join(ENDINGS)}, which say the format")
    form = ENDINGS[max(fits, key=len)]
    if instances and form in ONE_INSTANCE:
        raise InputError(
            f"{path}: this format has one instance an image; {', '.join(list(ENDINGS)[:2])} and "
            ".json take several"
        )
    return form


def write_predictions(
    path: Path,
    names: list[str],
    predictions: Iterable[Prediction],
    instances: bool = False,
    errors: bool = False,
) -> None:
    """Write points in the format of the file's ending.

    ``.csv`` has one line an image, ``_long.csv`` one line a point, ``.dlc.csv`` is DeepLabCut's
    table with likelihoods, ``.json`` COCO's and ``.tps`` tpsDig's, y upwards. All give places and
    confidences but for ``.tps``, which has the latter as a comment and numbers for names; the two
    first and COCO's the expected errors, too.

    Args:
        path: is replaced if it is there.
        names: of the A points.
        predictions: each one's points and confidences; taken one by one.
        instances: images may show several, each a prediction that names its ``instance``.
        errors: each prediction has expected errors.

    Raises:
        InputError: if there is no such format (`prediction_format`), or it can't be written.
    """
    form = prediction_format(path, instances)

    def write(file: BinaryIO) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        if form == "coco":
            text.writelines(_coco_parts(names, predictions))
        elif form == "tps":
            text.writelines(f"{line}\n" for line in _tps_lines(predictions))
        else:
            rows = _rows(form, names, predictions, instances, errors)
            csv.writer(text, lineterminator="\n").writerows(rows)
        text.detach()  # the file stays open

    write_file(path, write)


def _place(number: float) -> str:
    """Return a coordinate to a thousandth of a pixel; nothing if there is none."""
    return "" if np.isnan(number) else f"{number:.3f}"


def _rows(
    form: str,
    names: list[str],
    predictions: Iterable[Prediction],
    instances: bool,
    errors: bool,
) -> Iterator[list[str]]:
    """Yield the rows of a table: wide, long or DeepLabCut's."""
    if form == "deeplabcut":
        yield ["scorer", *[SCORER] * (3 * len(names))]
        yield ["bodyparts", *(name for name in names for _ in range(3))]
        yield ["coords", *["x", "y", "likelihood"] * len(names)]
    else:
        columns = ["point", "x", "y", "confidence", *(["error_px"] if errors else [])]
        if form == "wide":
            columns = [f"{name}_{column}" for name in names for column in columns[1:]]
        yield ["image", *(["instance"] if instances else []), *columns]
    for prediction in predictions:
        begin = [prediction.image, *([prediction.instance] if instances else [])]
        found = zip(prediction.points, prediction.confidence, strict=True)
        cells = [[_place(x), _place(y), f"{sure:.4f}"] for (x, y), sure in found]
        if errors and form != "deeplabcut":
            off = map(_place, prediction.errors)
            cells = [[*cell, error] for cell, error in zip(cells, off, strict=True)]
        if form == "long":
            yield from ([*begin, name, *row] for name, row in zip(names, cells, strict=True))
        else:
            yield [*begin, *(cell for row in cells for cell in row)]


def _tps_lines(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yield the lines of tpsDig's records."""
    for number, prediction in enumerate(predictions):
        yield f"LM={len(prediction.points)}"
        for x, y in prediction.points:
            yield "-1 -1" if np.isnan(x) else f"{x:.3f} {prediction.size[1] - y:.3f}"
        yield f"IMAGE={prediction.image}"
        yield f"ID={number}"
        if prediction.scale is not None:
            yield f"SCALE={prediction.scale}"
        yield "COMMENT=confidence " + " ".join(f"{sure:.4f}" for sure in prediction.confidence)


def _coco_parts(names: list[str], predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yield COCO's JSON; of each image the name and the size are held until the end."""
    category = {"id": 1, "name": "object", "keypoints": names}
    yield f'{{"categories": [{json.dumps(category)}],\n"annotations": ['
    images: dict[str, dict] = {}
    for number, prediction in enumerate(predictions, start=1):
        width, height = prediction.size
        entry = {"file_name": prediction.image, "width": width, "height": height}
        image = images.setdefault(prediction.image, {"id": len(images) + 1, **entry})
        annotation = {"id": number, "image_id": image["id"], **_coco_instance(prediction)}
        yield (",\n" if number > 1 else "\n") + json.dumps(annotation)
    listed = ",\n".join(map(json.dumps, images.values()))
    yield f'],\n"images": [\n{listed}]}}\n'


def _coco_instance(prediction: Prediction) -> dict:
    """Return what COCO's JSON says of an instance, its ids aside."""
    points, sure = prediction.points, np.asarray(prediction.confidence, dtype=np.float64)
    found = ~np.isnan(points).any(axis=1)  # (A,)
    off = [None if np.isnan(number) else _rounded(number) for number in prediction.errors]
    triples = np.where(found[:, None], np.column_stack([points, np.full(len(points), 2)]), 0)
    left, top, right, bottom = prediction.box or (
        *np.nanmin(points, axis=0, initial=np.inf),
        *np.nanmax(points, axis=0, initial=-np.inf),
    )
    box = [left, top, right - left, bottom - top] if found.any() or prediction.box else [0] * 4
    return {
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": int(found.sum()),
        "keypoints": [_rounded(number) for number in triples.flatten()],
        "keypoint_scores": [round(float(number), 4) for number in sure],
        **({"keypoint_errors_px": off} if off else {}),
        "score": round(float(sure.mean()), 4),
        "bbox": [_rounded(number) for number in box],
        "area": _rounded(box[2] * box[3]),
    }


def _rounded(number: float) -> float:
    """Return a number to a thousandth of a pixel."""
    return round(float(number), 3)
