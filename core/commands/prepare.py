"""Prepare image folders for training, in BasicSR's layouts.

``relume prepare crop  FOLDER OUT [--size 480] [--step 240]``  cut large images into overlapping sub-images
``relume prepare pairs FOLDER OUT [--scale 4] [--jpeg 40]``    make inputs of sharp images: blurred, shrunk, noisy, compressed
``relume prepare lmdb  FOLDER OUT.lmdb [--kind radiance]``     pack a folder into an LMDB database
``relume prepare tar   FOLDER OUT [--gt FOLDER]``              pack a folder, or pairs, into tar files as WebDataset reads them
``relume prepare index FOLDER``                              note where each file lies in a folder (or URL) of tar files
``relume prepare meta  FOLDER OUT.txt [--kind radiance]``      list a folder's images and their sizes
``relume prepare hdr   FOLDER OUT [--renditions 4]``           make HDR scenes of photographs, and their pictures
``relume prepare frames FOLDER OUT [--first 0]``               decode videos (X4K1000FPS, ...) to folders of PNG frames
``relume prepare data  [NAME [FOLDER [OUT]]]``                 published data sets: where from, and from download to layout
``relume prepare check LQ GT [--scale 4] [--val LQ GT]``        partners, sizes, damage, pictures that train and val share

All work on several files at once (``--workers``). Those that write say with ``--dry_run`` what they would write, and go on
where they were interrupted when they are given again.

A kind is ``images`` (8- and 16-bit), ``radiance`` (.hdr, .exr, .pfm, .npy, .tif) or ``prompts`` (.txt with dgain and gamma).
``hdr`` writes the folders gt (.hdr), lq (.png) and dgain (.txt); FOLDER may be ``skimage:train`` or ``skimage:val`` for the
photographs that come with scikit-image.
"""

from __future__ import annotations

import argparse
import os

from ...datasets.archives import INDEX, write_index
from ..errors import UserError, printable
from ..imaging.storage import join
from ..preparation import checks, frames, published
from ..preparation.crops import windows
from ..preparation.degraded import Recipe, pairs
from ..preparation.images import KINDS, crop, hdr, meta
from ..preparation.packing import pack, shards

__all__ = ["add_arguments", "crop", "meta", "pack", "run", "windows"]

MAKERS = {
    "crop": "cut into sub-images", "pairs": "make inputs of sharp images", "lmdb": "pack into LMDB",
    "tar": "pack into tar files", "meta": "list images", "hdr": "make HDR scenes",
    "frames": "decode videos to folders of frames",
}  # fmt: skip
"""What each command that turns a folder into something is there for."""


def shared(command: argparse.ArgumentParser) -> None:
    """What all commands take that write."""
    command.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="files at once (all cores)")
    command.add_argument("--dry_run", action="store_true", help="say what would be written, and write nothing")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    commands = parser.add_subparsers(dest="command", required=True)
    # Commands that write nothing, or whole data sets.
    looks = commands.add_parser("check", help="check pairs")
    looks.add_argument("lq", help="inputs")
    looks.add_argument("gt", help="targets of the same names")
    looks.add_argument("--scale", type=int, default=1, help="targets are so many times as large (1)")
    looks.add_argument("--val", nargs=2, metavar=("LQ", "GT"), help="validation pairs, which shall share no picture")
    looks.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads")
    data = commands.add_parser("data", help="published data sets: where they come from; from download to layout")
    data.add_argument("name", nargs="?", help="which; all of them in a table when omitted")
    data.add_argument("folder", nargs="?", help="the download; what is known of the data set when omitted")
    data.add_argument("out", nargs="?", help="folder to write, for data sets that are not used in place")
    data.add_argument("--seed", type=int, default=0, help="seed of the draw of the held-out files (0)")
    data.add_argument("--list", help="file with the names of what is held out, one a line, instead")
    shared(data)
    index = commands.add_parser("index", help="note where each file lies in tar files, so that data begin at once")
    index.add_argument("folder", help="folder of tar files, local or remote")
    index.set_defaults(workers=1)
    # Commands that make something of a folder, and the options of each.
    every = {}
    for name, what in MAKERS.items():
        command = every[name] = commands.add_parser(name, help=what)
        command.add_argument("folder", help="videos or images, sub-folders included")
        command.add_argument("out", help="file or folder to write")
        shared(command)
    for name in ("lmdb", "meta", "tar"):
        every[name].add_argument("--kind", choices=KINDS, default="images", help="kind of files in the folder")
    every["tar"].add_argument("--gt", help="targets of the same names, to pack pairs")
    every["tar"].add_argument("--samples", type=int, default=1000, help="images or pairs in each file (1000)")
    every["hdr"].add_argument("--renditions", type=int, default=1, help="pictures of each scene")
    every["hdr"].add_argument("--side", type=int, help="shorter side to shrink photographs to")
    every["frames"].add_argument("--first", type=int, default=0, help="number of a video's first frame (0)")
    every["crop"].add_argument("--size", type=int, default=480, help="side of a sub-image")
    every["crop"].add_argument("--step", type=int, default=240, help="distance between sub-images")
    every["crop"].add_argument("--least", type=int, default=0, help="pixels that a last sub-image must add")
    degrading = every["pairs"]
    degrading.add_argument(
        "--blur", type=float, default=0.0, help="deviation of a Gaussian in pixels, before shrinking"
    )
    degrading.add_argument("--scale", type=int, default=1, help="inputs are so many times smaller, by Matlab's bicubic")
    degrading.add_argument("--noise", type=float, default=0.0, help="deviation of Gaussian noise in grey levels of 255")
    degrading.add_argument("--jpeg", type=int, help="quality of JPEG compression, 1 to 100")
    degrading.add_argument("--seed", type=int, default=0, help="seed of the noise (0)")


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
    """Do what the command line asks for.

    Raises:
        UserError: ``--workers`` is below 1.
    """
    if arguments.workers < 1:
        raise UserError(f"--workers: at least 1, not {arguments.workers}")
    if arguments.command == "check":
        check(arguments)
    elif arguments.command == "index":
        files, count = write_index(arguments.folder)
        print(f"{files} files in {count} tar files: {join(arguments.folder, INDEX)}")
    elif arguments.command == "data":
        a = arguments
        print(published.prepare(a.name, a.folder, a.out, a.seed, a.list, a.workers, a.dry_run))
    else:
        would = "would be written: " if arguments.dry_run else ""
        print(f"{would}{made(arguments)}: {arguments.out}")


def made(a: argparse.Namespace) -> str:
    """Turn a folder into what the command is for; what there is now, in words.

    Raises:
        UserError: ``--first`` is negative.
    """
    both = {"workers": a.workers, "dry": a.dry_run}
    if a.command == "frames":
        if a.first < 0:
            raise UserError(f"--first: at least 0, not {a.first}")
        videos, count = frames.decode(a.folder, a.out, a.first, **both)
        return f"{count} frames of {videos} videos"
    if a.command == "crop":
        return f"{crop(a.folder, a.out, a.size, a.step, a.least, **both)} images"
    if a.command == "pairs":
        return f"{pairs(a.folder, a.out, Recipe(a.blur, a.scale, a.noise, a.jpeg, a.seed), **both)} pairs"
    if a.command == "hdr":
        return f"{hdr(a.folder, a.out, a.renditions, a.side, **both)} images"
    what = {"radiance": "radiance files", "prompts": "prompt files"}.get(a.kind, "images")
    if a.command == "tar":
        count, files = shards(a.folder, a.out, a.gt, a.samples, a.kind, **both)
        return f"{count} {'pairs' if a.gt else what} in {files} tar files"
    make = pack if a.command == "lmdb" else meta
    return f"{make(a.folder, a.out, kind=a.kind, **both)} {what}"
