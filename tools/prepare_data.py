"""Prepare image folders for training, in BasicSR's layouts.

``python tools/prepare_data.py crop  FOLDER OUT [--size 480] [--step 240]``  cut large images into overlapping sub-images
``python tools/prepare_data.py lmdb  FOLDER OUT.lmdb``                       pack a folder into an LMDB database
``python tools/prepare_data.py meta  FOLDER OUT.txt``                        list a folder's images and their sizes
"""

import sys
from pathlib import Path

# Python puts this folder on sys.path; its list.py must not shadow anything.
sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]

import argparse
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from rich.progress import track

from relume.core.errors import UserError, require
from relume.core.image_io import imwrite
from relume.core.storage import write_bytes
from relume.datasets.sources import Folder


def windows(length: int, size: int, step: int, least: int) -> list[int]:
    """Where windows along one side begin: every `step`, and one more at the end if it adds more than `least` pixels.

    >>> windows(1000, 480, 240, 0), windows(964, 480, 240, 10)
    ([0, 240, 480, 520], [0, 240, 480])
    """
    starts = list(range(0, length - size + 1, step))
    if length - (starts[-1] + size) > least:
        starts.append(length - size)
    return starts


def crop_one(name: str, source: Folder, out: str, size: int, step: int, least: int) -> int:
    """Write the sub-images ``<stem>_s001.png``, ... of one image; how many."""
    image = source.pixels(name)
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise UserError(f"{source.path(name)}: is {height}x{width}, smaller than --size {size}")
    stem = os.path.splitext(name)[0]
    places = [(y, x) for y in windows(height, size, step, least) for x in windows(width, size, step, least)]
    for i, (y, x) in enumerate(places, 1):
        imwrite(os.path.join(out, f"{stem}_s{i:03d}.png"), image[y : y + size, x : x + size])
    return len(places)


def crop(folder: str, out: str, size: int = 480, step: int = 240, least: int = 0, workers: int = 1) -> int:
    """Cut every image into sub-images of `size` x `size` pixels; how many were written.

    Raises:
        UserError: an image is smaller, or unreadable.
    """
    source = Folder(folder)
    work = partial(crop_one, source=source, out=out, size=size, step=step, least=least)
    names = list(source.files.values())
    if workers <= 1:
        return sum(track(map(work, names), "Cropping", len(names)))
    with ProcessPoolExecutor(workers) as pool:
        return sum(track(pool.map(work, names), "Cropping", len(names)))


def meta_lines(source: Folder, names: Iterable[str]) -> Iterator[str]:
    """``name.png (h,w,3)`` of each image; every one is decoded, so that damaged ones are found now."""
    for name in names:
        height, width, channels = source.pixels(name).shape
        yield f"{name} ({height},{width},{channels})"


def meta(folder: str, out: str) -> int:
    """List a folder's images with their sizes; how many."""
    source = Folder(folder)
    lines = list(track(meta_lines(source, source.files.values()), "Reading", len(source.files)))
    write_bytes(out, ("\n".join(lines) + "\n").encode())
    return len(lines)


def pack(folder: str, out: str, batch: int = 5000) -> int:
    """Pack a folder into an LMDB database, files as they are (no precision is lost); how many.

    The database appears under its name when it is complete.

    Raises:
        UserError: `out` exists, does not end in .lmdb, or an image is damaged.
    """
    if not out.endswith(".lmdb"):
        raise UserError(f"{out}: the name of an LMDB folder ends in .lmdb")
    if os.path.exists(out):
        raise UserError(f"{out}: is there already; remove it first")
    lmdb = require("lmdb", "packing an LMDB database")
    source = Folder(folder)
    unfinished = f"{out}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    os.makedirs(unfinished)
    lines = []
    total = sum(os.path.getsize(source.path(n)) for n in source.files.values())
    environment = lmdb.open(unfinished, map_size=2 * total + 4096 * len(source.files) + (1 << 24))
    transaction = environment.begin(write=True)
    for i, (key, name) in enumerate(track(source.files.items(), "Packing"), 1):
        transaction.put(key.encode(), source.read(name))
        lines += [f"{line} 1" for line in meta_lines(source, [name])]
        if i % batch == 0:
            transaction.commit()
            transaction = environment.begin(write=True)
    transaction.commit()
    environment.close()
    write_bytes(os.path.join(unfinished, "meta_info.txt"), ("\n".join(lines) + "\n").encode())
    os.replace(unfinished, out)
    return len(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("crop", "cut into sub-images"), ("lmdb", "pack into LMDB"), ("meta", "list images")):
        command = commands.add_parser(name, help=what)
        command.add_argument("folder", help="images, sub-folders included")
        command.add_argument("out", help="what to write")
        if name == "crop":
            command.add_argument("--size", type=int, default=480, help="side of a sub-image")
            command.add_argument("--step", type=int, default=240, help="distance between sub-images")
            command.add_argument("--least", type=int, default=0, help="pixels that a last sub-image must add")
            command.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "crop":
            size, step, least = arguments.size, arguments.step, arguments.least
            count = crop(arguments.folder, arguments.out, size, step, least, arguments.workers)
        else:
            count = {"lmdb": pack, "meta": meta}[arguments.command](arguments.folder, arguments.out)
    except UserError as e:
        print(e, file=sys.stderr)
        return e.code
    print(f"{count} images: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
