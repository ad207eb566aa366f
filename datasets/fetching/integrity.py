"""Integrity: whether a file is the one published, by its size in bytes and its checksum."""

import argparse
import hashlib
import re
from pathlib import Path

from tqdm import tqdm

from utils.errors import InputError

HASHES = {32: "md5", 40: "sha1", 64: "sha256"}  # by number of hexadecimal digits
CHUNK = 2**20


def checksum(text: str) -> str:
    """Parse an MD5, SHA-1 or SHA-256 in hexadecimal."""
    if len(text) not in HASHES or not re.fullmatch("[0-9a-fA-F]+", text):
        expected = "MD5, SHA-1 or SHA-256 (32, 40 or 64 hex digits)"
        raise argparse.ArgumentTypeError(f"{text!r} is no {expected}")
    return text


def verify(path: Path, *, size: int | None, checksum: str | None) -> None:
    """Check a file's size and its MD5, SHA-1 or SHA-256, told apart by their length.

    Raises:
        InputError: if either differs.
    """
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
