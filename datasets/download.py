"""Fetch the data sets and published checkpoints by name; without a name, list what there is.

    python datasets/download.py
    python datasets/download.py cub cub-lists moco-resnet50-celeba

A broken download resumes where it stopped when the same command is given again. What is there
already is left alone.
"""

import argparse
import difflib
import re
import signal
import sys
import textwrap
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.fetching.catalogue import ARCHIVES, CATALOGUE, Item
from datasets.fetching.installation import install, is_in_place, plan
from datasets.fetching.transfer import HASHES, RetryPolicy, direct_address
from utils.arguments import ArgumentParser, finite_float, natural, positive_float
from utils.errors import InputError
from utils.files import writing
from utils.locks import acquire_lock
from utils.script import run_script

ROW = "{:<21} {:<14} {:<8} {}"


def known_item(name: str) -> Item:
    """Parse the name of an item; say what may have been meant if there is none."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    close = difflib.get_close_matches(name.lower(), CATALOGUE, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else "no NAME at all lists them"
    raise argparse.ArgumentTypeError(f"there is nothing called {name!r}; {hint}")


def address(text: str) -> str:
    """Parse a usable http or https address."""
    try:
        parts = urllib.parse.urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
        (parts.hostname or "").encode("idna")
    except ValueError:
        usable = False
    if not usable or re.search(r"[^!-~]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no http or https address")
    return text


def checksum(text: str) -> str:
    """Parse an MD5, SHA-1 or SHA-256 in hexadecimal."""
    if len(text) not in HASHES or not re.fullmatch("[0-9a-fA-F]+", text):
        expected = "MD5, SHA-1 or SHA-256 (32, 40 or 64 hex digits)"
        raise argparse.ArgumentTypeError(f"{text!r} is no {expected}")
    return text


def build_parser() -> ArgumentParser:
    """Return the parser of this script's options."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("items", nargs="*", type=known_item, metavar="NAME", help="what to fetch; none: list all")
    add("--to", type=Path, default=Path("."), metavar="FOLDER", help="root that folders start from")
    source = parser.add_mutually_exclusive_group().add_argument
    source("--url", type=address, help="fetch the one NAME from this address instead")
    source(
        "--mirror",
        type=address,
        metavar="BASE_URL",
        help="fetch the same file names from below this address",
    )
    add(
        "--checksum",
        type=checksum,
        metavar="HEX",
        help="MD5, SHA-1 or SHA-256 that the file of the NAME must have",
    )
    add("--overwrite", action="store_true", help="replace what is there already")
    add("--keep_archive", action="store_true", help=f"keep the archive in {ARCHIVES} when unpacked")
    add(
        "--timeout",
        type=positive_float,
        default=30.0,
        metavar="SECONDS",
        help="longest silence of a server",
    )
    add("--retries", type=natural, default=5, help="attempts in a row that may bring nothing new")
    add(
        "--backoff",
        type=finite_float,
        default=1.0,
        metavar="SECONDS",
        help="wait before the first retry; doubles each time, up to 30 seconds",
    )
    add("--dry_run", action="store_true", help="only say what would be done")
    return parser


def describe(item: Item, steps: bool = True) -> str:
    """Return what there is to say about an item; steps: also what to do by hand, or besides."""
    how = "by name" if item.url else "by hand"
    lines = [ROW.format(item.name, item.size, how, item.folder), item.title]
    lines += [f"licence: {item.licence}", f"page: {item.page}"]
    if item.url:
        lines.append(f"address: {direct_address(item.url)}")
    if item.checksum:
        lines.append(f"checksum: {item.checksum}")
    if steps:
        lines += textwrap.wrap(item.steps, 96, break_long_words=False, break_on_hyphens=False)
    return "\n    ".join(lines)


def obtain(
    item: Item, root: Path, policy: RetryPolicy, overwrite: bool, keep_archive: bool, dry_run: bool
) -> bool:
    """Fetch one item, or say what is to be done; return False if that is up to the user."""
    is_given = item.packed and Path(item.file).exists()
    by_hand = not (item.url or is_given)
    if not overwrite and is_in_place(item):
        print(f"{item.name}: {item.folder} is there already; --overwrite replaces it")
    elif dry_run or by_hand:
        print(describe(item))
        if not by_hand:
            print(f"    would {'use' if is_given else f'fetch {item.url} to'} {item.file}")
            print(f"    would check: {item.checksum or 'nothing, as nothing is known'}")
            print(f"    would {'unpack into' if item.packed else 'leave it in'} {item.folder}")
        return dry_run
    else:
        lock = root / ARCHIVES / f".{item.name}.lock"
        with acquire_lock(lock, f"{item.name}: waiting for another run that fetches it"):
            if overwrite or not is_in_place(item):  # by the other run, now
                install(item, policy, overwrite=overwrite, keep_archive=keep_archive)
        print(f"{item.name}: now in {item.folder}")
        if CATALOGUE[item.name].url and item.steps:
            print(item.steps)
    return True


def main() -> None:
    """Parse the command line; list, or fetch one item after the other."""
    args = build_parser().parse_args()
    for flag in ("url", "checksum"):
        if getattr(args, flag) is not None and len(args.items) != 1:
            raise InputError(f"--{flag} goes with one NAME, not {len(args.items)}")
    if not args.items:
        if hasattr(signal, "SIGPIPE"):  # the list may go into head, which stops reading
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        print(ROW.format("NAME", "SIZE", "FETCHED", "LANDS IN"))
        for item in CATALOGUE.values():
            print(describe(item, steps=False))
        return
    policy = RetryPolicy(args.timeout, args.retries, args.backoff)
    by_hand = []
    for wanted in dict.fromkeys(args.items):
        item = plan(wanted, args.to, args.url, args.mirror, args.checksum)
        with writing(item.folder):
            if not obtain(item, args.to, policy, args.overwrite, args.keep_archive, args.dry_run):
                by_hand.append(item.name)
    if by_hand:
        raise InputError(f"to be fetched by hand, as said above: {', '.join(by_hand)}")


if __name__ == "__main__":
    run_script(main)
