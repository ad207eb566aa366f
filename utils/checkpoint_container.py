"""The container of a checkpoint: whether the file is one of PyTorch's two, and whole.

Since PyTorch 1.6 it is a ZIP file that is not packed, whose checksums PyTorch itself leaves aside
when it reads. Before, it was a series of pickles without any: there a changed number goes
unnoticed, unless it is no longer finite.
"""

import zipfile
from pathlib import Path

ZIP, PICKLE = b"PK\x03\x04", b"\x80"


def check_container(path: Path) -> None:
    """Look at a file before PyTorch does; nothing in it is unpickled.

    Raises:
        ValueError: if it is neither, packed (perhaps to a thousandth), or a part of it is damaged.
        zipfile.BadZipFile: if it is cut short.
    """
    with path.open("rb") as file:
        head = file.read(len(ZIP))
    if head.startswith(PICKLE):
        return
    if head != ZIP:
        raise ValueError("neither of PyTorch's formats")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError("an entry stands there twice")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its entries are packed")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its entries overlap")
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {damaged} differs")
