"""Integrity: whether a file is the one published, by its size in bytes and its checksum."""

import hashlib
import re
from pathlib import Path

from tqdm import tqdm

from utils.errors import InputError

HASHES = {32: "md5", 40: "sha1", 64: "sha256"}  # by number of hexadecimal digits
CHUNK = 2**20


def check_checksum(checksum: str | None) -> None:
    """Raise InputError unless this is None or could be an MD5, SHA-1 or SHA-256."""
    if checksum is not None and not (
        len(checksum) in HASHES and re.fullmatch("[0-9a-fA-F]+", checksum)
    ):
        raise InputError(f"{checksum!r} is no MD5, SHA-1 or SHA-256 (32, 40 or 64 hex digits)")


def verify(path: str | Path, *, size: int | None = None, checksum: str | None = None) -> None:
    """Check a file's size and its MD5, SHA-1 or SHA-256, told apart by their length.

    Raises:
        InputError: if either differs, or ``checksum`` is none of the three.
    """
    check_checksum(checksum)
    path = Path(path)
    found = path.stat().st_size
    if size is not None and found != size:
        raise InputError(f"{path} has {found} bytes; expected {size}")
    if checksum is None:
        return
    digest = hashlib.new(HASHES[len(checksum)], usedforsecurity=False)
    bar = tqdm(desc=f"checking {path.name}", total=found, unit="B", unit_scale=True, disable=None)
    with path.open("rb") as file, bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    if digest.hexdigest() != checksum.lower():
        kind = digest.name.upper()
        raise InputError(f"{path} has {kind} {digest.hexdigest()}; expected {checksum.lower()}")
