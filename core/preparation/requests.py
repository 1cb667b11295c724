"""What `relume prepare data` is asked for, and what the ways to prepare a data set do in common."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from ...datasets.sources import Folder, first_names
from ..errors import UserError
from ..imaging.image_header import image_size
from ..imaging.image_io import read_pixels
from ..imaging.storage import read_part, write_bytes
from . import crops, journal

UNFINISHED = ".unfinished"
"""Ending of the folder in which data are made; it gets its name when all are there."""
T = TypeVar("T")


class Request(NamedTuple):
    """What the command line asks for.

    Args:
        folder: the download.
        out: folder that the data go to; None for data sets that stay where they are.
        seed: what draws those that are held out.
        names: file with their names instead, one a line.
        workers: files at once.
        dry: only count.
    """

    folder: Path
    out: Path | None
    seed: int = 0
    names: str | None = None
    workers: int = 1
    dry: bool = False

    def refuse_out(self) -> Path:
        """Where the data go, which must be given and be empty.

        Raises:
            UserError: it is not.
        """
        if self.out is None:
            raise UserError("OUT: say where the data shall go, as `relume prepare data` shows")
        if os.path.lexists(self.out) and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UserError(f"{self.out}: is not empty; remove it first, or choose another folder")
        return self.out

    @property
    def target(self) -> Path:
        """Where the data are made, beside `out`. Errors as `refuse_out`.

        Raises:
            UserError: an earlier call made something else there, and was interrupted.
        """
        out = self.refuse_out()
        unfinished = out.with_name(out.name + UNFINISHED)
        if unfinished.is_symlink() or (unfinished.exists() and not (unfinished / journal.FILE).is_file()):
            raise UserError(f"{unfinished}: is in the way, and was not made here; move it, or choose another folder")
        journal.begin(unfinished, "data", self.folder, {"seed": self.seed, "names": self.names}, self.dry)
        return unfinished

    def finish(self) -> None:
        """Give what was made its name."""
        unfinished = None if self.out is None else self.out.with_name(self.out.name + UNFINISHED)
        if unfinished is not None and self.out is not None and unfinished.is_dir() and not self.dry:
            (unfinished / journal.FILE).unlink()
            os.replace(unfinished, self.out)

    def each(self, work: Callable[[T], int], items: list[T]) -> int:
        """The sum of what `work` gives, several at once: reading and writing images holds no lock."""
        return sum(journal.each(work, items, self.workers, "Preparing"))

    def write(self, path: Path, lines: list[str]) -> None:
        """Write a list."""
        if not self.dry:
            write_bytes(path, ("\n".join(lines) + "\n").encode())

    def link(self, source: str | Path, target: Path) -> None:
        """The same file under another name, or where a file system has no such links, a copy."""
        if self.dry or target.is_file():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(os.path.realpath(source), target)
        except OSError:
            partly = target.with_name(f".{target.name}.part")
            shutil.copy2(source, partly)
            os.replace(partly, target)

    def crop_pair(self, root: Path, out: Path, side: int, step: int, pair: tuple[str, str, str]) -> int:
        """Write the crops of one pair into ``input`` and ``target``, but those that are there; how many there are.

        Args:
            pair: names of both images inside `root`, and the stem that their crops get.

        Raises:
            UserError: the images differ in size, or are smaller than a crop.
        """
        names = {"input": pair[0], "target": pair[1]}
        sizes = {kind: file_size(root / name) for kind, name in names.items()}
        height, width = sizes["input"]
        if sizes["target"] != sizes["input"] or min(height, width) < side:
            raise UserError(
                f"{root / pair[0]}: is {height}x{width}; both images of a pair are equally large, and at least {side}"
            )
        places = crops.places((height, width), side, step, 0)
        for kind, name in () if self.dry else names.items():
            begins = {out / kind / f"{pair[2]}_s{i:03d}.png": place for i, place in enumerate(places, 1)}
            if left := journal.missing(begins, goes_on=True):
                crops.write(read_pixels(root / name), {path: begins[path] for path in left}, side)
        return len(places)

    def crop_pairs(self, root: Path, out: Path, side: int, step: int, pairs: list[tuple[str, str, str]]) -> int:
        """The crops of several pairs; how many there are. Errors as `crop_pair`."""
        return self.each(partial(self.crop_pair, root, out, side, step), pairs)


def file_size(path: Path) -> tuple[int, int]:
    """Height and width of an image: by its header, which for PNG is what decoding gives.

    Raises:
        UserError: it cannot be read.
    """
    found = image_size(read_part(path, 0, 64)) if path.suffix.lower() == ".png" else None
    shape = found or read_pixels(path).shape
    return shape[0], shape[1]


def partners(inputs: Folder, targets: Folder) -> list[str]:
    """The keys of two folders' files.

    Raises:
        UserError: some have no partner.
    """
    alone = sorted(set(inputs.files) ^ set(targets.files))
    if alone:
        raise UserError(f"{inputs.root}, {targets.root}: files without a partner: {first_names(alone)}")
    return list(inputs.files)


def first_folder(root: Path, *names: str) -> Folder:
    """The first of some sub-folders that is there.

    Raises:
        UserError: none is.
    """
    for name in names:
        if (root / name).is_dir():
            return Folder(str(root / name))
    there = sorted(p.name for p in root.iterdir() if p.is_dir())
    raise UserError(f"{root}: has no folder {' or '.join(names)}. There is: {first_names(there) or 'nothing'}")
