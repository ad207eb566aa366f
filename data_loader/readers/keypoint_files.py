"""Reading of files of named points, in whichever of the known formats a file is."""

from pathlib import Path

from data_loader.readers.keypoint_table import KeypointTable


def read_keypoints(
    path: Path, folder: Path, *, y_up: bool = False, category: str | None = None
) -> KeypointTable:
    """Read an annotation file of named points; its content tells the format.

    Formats: COCO keypoints JSON, DeepLabCut's ``CollectedData*.csv``, plain CSV with one line an
    image or one line a point, and tpsDig's ``.tps``.

    Args:
        path: the file.
        folder: the data folder, which the images' names are relative to.
        y_up: a plain CSV's y runs upwards from the lower edge: row = height - y. Always so in
            ``.tps``.
        category: name of the one that is meant, in a COCO file of several.

    Raises:
        InputError: if the file is of no known format, doesn't fit it, or doesn't fit its images.
    """
    raise NotImplementedError
