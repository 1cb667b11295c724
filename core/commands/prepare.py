"""Prepare image folders for training, in BasicSR's layouts.

``relume prepare crop  FOLDER OUT [--size 480] [--step 240]``  cut large images into overlapping sub-images
``relume prepare lmdb  FOLDER OUT.lmdb [--kind radiance]``     pack a folder into an LMDB database
``relume prepare meta  FOLDER OUT.txt [--kind radiance]``      list a folder's images and their sizes
``relume prepare hdr   FOLDER OUT [--renditions 4]``           make HDR scenes of photographs, and their pictures
``relume prepare frames FOLDER OUT [--first 0]``               decode videos (X4K1000FPS, ...) to folders of PNG frames
``relume prepare data  [NAME [FOLDER [OUT]]]``                 published data sets: where from, and from download to layout
``relume prepare check LQ GT [--scale 4] [--val LQ GT]``        partners, sizes, damage, pictures that train and val share

A kind is ``images`` (8- and 16-bit), ``radiance`` (.hdr, .exr, .pfm, .npy, .tif) or ``prompts`` (.txt with dgain and gamma).
``hdr`` writes the folders gt (.hdr), lq (.png) and dgain (.txt); FOLDER may be ``skimage:train`` or ``skimage:val`` for the
photographs that come with scikit-image.
"""

from __future__ import annotations

import argparse
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import PurePath
from typing import Any

from rich.progress import track

from ...datasets.camera import PROMPTS, decode_prompt, format_prompt
from ...datasets.hdr_scenes import SyntheticHDRDataset
from ...datasets.radiance import RADIANCE_READERS, read_floats
from ...datasets.sources import Folder, Source, lmdb_key
from ..errors import UserError, printable, require
from ..imaging.image_io import READERS, Readers, imwrite
from ..imaging.storage import first_line, write_bytes
from ..preparation import checks, frames, published
from ..preparation.crops import windows

KINDS: dict[str, Readers] = {"images": READERS, "radiance": RADIANCE_READERS, "prompts": PROMPTS}
"""What folders hold, and how it is read."""


def crop_one(name: str, source: Folder, out: str, size: int, step: int, least: int) -> int:
    """Write the sub-images ``<stem>_s001.png``, ... of one image; how many."""
    image = source.pixels(name)
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise UserError(f"{source.path(name)}: is {height}x{width}, smaller than --size {size}")
    stem = os.path.splitext(name)[0]
    depth = 16 if image.dtype.kind == "f" else 8  # of pictures with 10 or 12 bits, say
    places = [(y, x) for y in windows(height, size, step, least) for x in windows(width, size, step, least)]
    for i, (y, x) in enumerate(places, 1):
        imwrite(os.path.join(out, f"{stem}_s{i:03d}.png"), image[y : y + size, x : x + size], depth)
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


def meta_line(source: Source, name: str) -> str:
    """``name.png (h,w,3)`` of an image, or a prompt file's name. The file is decoded, so that damage is found now."""
    if source.readers is PROMPTS:
        decode_prompt(source.read(name), source.path(name))
        return name
    pixels = read_floats(source, name, 1.0) if source.readers is RADIANCE_READERS else source.pixels(name)
    return f"{name} ({pixels.shape[0]},{pixels.shape[1]},{pixels.shape[2]})"


def meta(folder: str, out: str, kind: str = "images") -> int:
    """List a folder's images with their sizes; how many."""
    source = Folder(folder, KINDS[kind])
    lines = [meta_line(source, name) for name in track(source.files.values(), "Reading", len(source.files))]
    write_bytes(out, ("\n".join(lines) + "\n").encode())
    return len(lines)


def hdr(folder: str, out: str, renditions: int = 1, side: int | None = None) -> int:
    """Write HDR scenes made of photographs, pictures of them, and the cameras' curves; how many.

    The three have the same names, in the folders ``gt`` (Radiance .hdr), ``lq`` (8-bit .png) and ``dgain`` (.txt) of `out`.

    Args:
        folder: photographs, or ``skimage:train``, ``skimage:val``.
        renditions: pictures of each scene, by different cameras.
        side: photographs are first shrunk until their shorter side has so many pixels.

    Raises:
        UserError: no such folder or split, or an unreadable photograph.
    """
    options: dict[str, Any] = {"phase": "val", "shorter_side": side, "renditions": renditions}
    if folder.partition(":")[0] == "skimage":
        split = folder.partition(":")[2] or "train"
        if split not in ("train", "val"):
            raise UserError(f"{folder}: scikit-image's photographs are skimage:train and skimage:val")
        dataset = SyntheticHDRDataset(source="skimage", **{**options, "split": split})
    else:
        dataset = SyntheticHDRDataset(dataroot_gt=folder, **options)
    for i in track(range(len(dataset)), "Writing"):
        shot, _ = dataset.shot(i)
        stem = PurePath(dataset.result_path(i)).relative_to(dataset.photographs[i][0].root).with_suffix("")
        imwrite(os.path.join(out, "gt", f"{stem}.hdr"), shot.radiance)
        imwrite(os.path.join(out, "lq", f"{stem}.png"), shot.picture)
        write_bytes(os.path.join(out, "dgain", f"{stem}.txt"), format_prompt(shot.curve).encode())
    return len(dataset)


def pack(folder: str, out: str, batch: int = 5000, kind: str = "images") -> int:
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
    source = Folder(folder, KINDS[kind])
    unfinished = f"{out}.unfinished"
    remove_unfinished(unfinished)
    os.makedirs(unfinished)
    for name in source.files.values():
        if "\n" in name or "\r" in name or _undecodable(name):
            raise UserError(f"{source.path(name)!r}: a list has one name a line, in UTF-8; rename this file")
    lines = []
    total = sum(os.path.getsize(source.path(n)) for n in source.files.values())
    try:
        environment = lmdb.open(unfinished, map_size=2 * total + 4096 * len(source.files) + (1 << 24))
        transaction = environment.begin(write=True)
        for i, name in enumerate(track(source.files.values(), "Packing", len(source.files)), 1):
            transaction.put(lmdb_key(name), source.read(name))
            lines.append(f"{meta_line(source, name)} 1")
            if i % batch == 0:
                transaction.commit()
                transaction = environment.begin(write=True)
        transaction.commit()
        environment.close()
    except lmdb.Error as e:
        raise UserError(f"{out}: cannot be written ({first_line(e)})") from e
    write_bytes(os.path.join(unfinished, "meta_info.txt"), ("\n".join(lines) + "\n").encode())
    os.replace(unfinished, out)
    return len(lines)


UNFINISHED = {"data.mdb", "lock.mdb", "meta_info.txt"}
"""What a database that was never finished has in its folder."""


def remove_unfinished(folder: str) -> None:
    """Remove what an earlier `pack` left, and nothing else.

    Raises:
        UserError: there is something of this name that no `pack` made.
    """
    if not os.path.lexists(folder):
        return
    ours = os.path.isdir(folder) and not os.path.islink(folder) and set(os.listdir(folder)) <= UNFINISHED
    if not ours:
        raise UserError(f"{folder}: is in the way, and was not made here; move it, or choose another name")
    shutil.rmtree(folder)


def _undecodable(name: str) -> bool:
    """Whether a name on disk is in no encoding that is known here."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {"crop": "cut into sub-images", "lmdb": "pack into LMDB", "meta": "list images", "hdr": "make HDR scenes"}
    helps["frames"] = "decode videos to folders of frames"
    pairs = commands.add_parser("check", help="check pairs")
    pairs.add_argument("lq", help="inputs")
    pairs.add_argument("gt", help="targets of the same names")
    pairs.add_argument("--scale", type=int, default=1, help="targets are so many times as large (1)")
    pairs.add_argument("--val", nargs=2, metavar=("LQ", "GT"), help="validation pairs, which shall share no picture")
    pairs.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads")
    data = commands.add_parser("data", help="published data sets: where they come from; from download to layout")
    data.add_argument("name", nargs="?", help="which; all of them in a table when omitted")
    data.add_argument("folder", nargs="?", help="the download; what is known of the data set when omitted")
    data.add_argument("out", nargs="?", help="where the data go, for those that do not stay where they are")
    data.add_argument("--seed", type=int, default=0, help="of the draw of what is held out (0)")
    data.add_argument("--list", help="file with the names of what is held out, one a line, instead")
    for name, what in helps.items():
        command = commands.add_parser(name, help=what)
        command.add_argument("folder", help="videos or images, sub-folders included")
        command.add_argument("out", help="what to write")
        if name in ("lmdb", "meta"):
            command.add_argument("--kind", choices=KINDS, default="images", help="what the folder holds")
        if name == "hdr":
            command.add_argument("--renditions", type=int, default=1, help="pictures of each scene")
            command.add_argument("--side", type=int, help="shorter side to shrink photographs to")
        if name == "frames":
            command.add_argument("--first", type=int, default=0, help="number of a video's first frame (0)")
            command.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="videos at once")
        if name == "crop":
            command.add_argument("--size", type=int, default=480, help="side of a sub-image")
            command.add_argument("--step", type=int, default=240, help="distance between sub-images")
            command.add_argument("--least", type=int, default=0, help="pixels that a last sub-image must add")
            command.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")


def check(arguments: argparse.Namespace) -> None:
    """Say what is wrong with pairs.

    Raises:
        UserError: something is.
    """
    if arguments.scale < 1:
        raise UserError(f"--scale: at least 1, not {arguments.scale}")
    count, found = checks.problems(arguments.lq, arguments.gt, arguments.scale, arguments.val, arguments.workers)
    for line in found:
        print(printable(line, 2000))
    if found or not count:
        raise UserError(f"{count} pairs, {len(found)} problems")
    print(f"{count} pairs, nothing is wrong with them")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    if arguments.command == "check":
        check(arguments)
        return
    if arguments.command == "data":
        a = arguments
        print(published.prepare(a.name, a.folder, a.out, a.seed, a.list))
        return
    if arguments.command == "frames":
        if arguments.first < 0:
            raise UserError(f"--first: at least 0, not {arguments.first}")
        videos, count = frames.decode(arguments.folder, arguments.out, arguments.first, arguments.workers)
        print(f"{count} frames of {videos} videos: {arguments.out}")
        return
    if arguments.command == "crop":
        size, step, least = arguments.size, arguments.step, arguments.least
        count = crop(arguments.folder, arguments.out, size, step, least, arguments.workers)
    elif arguments.command == "hdr":
        count = hdr(arguments.folder, arguments.out, arguments.renditions, arguments.side)
    else:
        make = pack if arguments.command == "lmdb" else meta
        count = make(arguments.folder, arguments.out, kind=arguments.kind)
    what = {"radiance": "radiance files", "prompts": "prompt files"}.get(getattr(arguments, "kind", ""), "images")
    print(f"{count} {what}: {arguments.out}")
