"""Ways to damage a file: a few at a time, of bytes or of the words of a text."""

import gzip
import io
import struct
import zipfile
import zlib

from hypothesis import strategies as st

NUMBERS = [-(2**31), -1, 0, 1, 2, 127, 255, 256, 2**16, 2**28, 2**31 - 1]
WORDS = """nan inf -inf 1e999 1e300 -1e300 0 -5 1_0 0x10 1,5 99999 "" , ;
    ../../x /nowhere/x.jpg NaN() { } \u0663 \u00e9 \u2028 \0 \x1b[31m""".split(" ")
WORDS = [word.strip() for word in WORDS] + ["a" * 300, "a/" * 2500, "9" * 5000]


@st.composite
def damaged_bytes(draw, whole: bytes) -> bytes:
    """Return bytes with one to four kinds of damage."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        end = min(len(data), place + draw(st.sampled_from([1, 4, 8, 64, 10**9])))
        match draw(st.sampled_from(["flip", "number", "cut", "drop", "again", "insert", "fill"])):
            case "flip" if data:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "number":
                order = draw(st.sampled_from("<>"))
                value = draw(st.sampled_from(NUMBERS) | st.integers(-(2**31), 2**31 - 1))
                data[place : place + 4] = struct.pack(f"{order}i", value)
            case "cut":
                del data[place:]
            case "drop":
                del data[place:end]
            case "again":
                data[place:place] = data[place:end]
            case "insert":
                data[place:place] = draw(st.binary(max_size=40))
            case "fill":
                data[place:end] = bytes([draw(st.integers(0, 255))]) * (end - place)
    return bytes(data)


@st.composite
def damaged_text(draw, whole: bytes) -> bytes:
    """Return a text with other words or lines, or in another encoding."""
    lines = whole.decode().split("\n")
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(lines) - 1)))
        kind = draw(st.sampled_from(["word", "drop", "again", "swap", "blank", "longer", "all"]))
        line = lines[place] if lines else ""
        between = max(" ,;\t", key=line.count)
        words = line.split(between) if lines else []
        if kind == "word" and words:
            words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(WORDS) | st.text())
            lines[place] = between.join(words)
        elif kind == "drop":
            del lines[place : place + 1]
        elif kind == "again":
            lines[place:place] = lines[place : place + 1] * draw(st.integers(1, 3))
        elif kind == "swap":
            lines[place : place + 2] = lines[place : place + 2][::-1]
        elif kind == "blank" and lines:
            lines[place] = draw(st.sampled_from(["", " ", "\t"]))
        elif kind == "longer" and lines:
            lines[place] += draw(st.sampled_from([" 1", ",", " x y", "  "]))
        elif kind == "all" and draw(st.integers(0, 9)) == 0:
            lines = draw(st.lists(st.text(), max_size=5))
    text = draw(st.sampled_from(["\n", "\n", "\n", "\r\n", "\r"])).join(lines)
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"]))
    return text.encode(encoding, errors="replace")


def damaged(whole: bytes, text: bool = False) -> st.SearchStrategy[bytes]:
    """Return ways to damage a file, or to replace it."""
    others = damaged_bytes(whole) | st.binary(max_size=200)
    return damaged_text(whole) | damaged_text(whole) | others if text else others


# ---- damage within what a checksum guards ----


def png_sealed(data: bytes, whole: bytes) -> bytes:
    """Return a PNG whose chunks have the checksums of what they hold."""
    result, at = bytearray(data[:8]), 8
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        content = data[at + 4 : at + 8 + size]
        result += data[at : at + 4] + content + struct.pack(">I", zlib.crc32(content))
        at += 12 + size
    return bytes(result)


def mat_packed(data: bytes, whole: bytes) -> bytes:
    """Return a .mat file with its variables packed, however damaged, each by itself."""
    end = 128 + 8 + int.from_bytes(whole[132:136], "little")  # of the first one, if undamaged
    packed = [zlib.compress(part) for part in (data[128:end], data[end:]) if part]
    return data[:128] + b"".join(struct.pack("<II", 15, len(part)) + part for part in packed)


def pickle_inside(whole: bytes) -> bytes:
    """Return the pickle of a checkpoint."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith("/data.pkl")))


def with_pickle(data: bytes, whole: bytes) -> bytes:
    """Return a checkpoint with another pickle, and the right checksums."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(result, "w") as new:
        for name in old.namelist():
            new.writestr(name, data if name.endswith("/data.pkl") else old.read(name))
    return result.getvalue()


def gzipped(data: bytes, whole: bytes) -> bytes:
    """Return data packed by gzip."""
    return gzip.compress(data, compresslevel=1)
