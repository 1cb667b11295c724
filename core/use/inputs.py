"""What ``-i`` names: a picture, a folder, a glob, a list, a clip, or standard input; and what each result is called."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...datasets.sources import with_suffix
from ...datasets.videos import VIDEOS
from ..errors import UserError, did_you_mean
from ..imaging.naming import fitting
from ..imaging.storage import is_url, join, list_files, read_lines
from .pictures import PICTURES

LISTS = (".txt", ".lst")
"""Suffixes of lists of files, one on a line."""
STANDARD = "-"


@dataclass(frozen=True)
class Input:
    """One file.

    Attributes:
        path: path as it is opened; ``-`` for standard input.
        name: path relative to the folder that it was found in, ``night/b.png``.
    """

    path: str
    name: str

    @property
    def is_clip(self) -> bool:
        """Whether it is a video, by its suffix."""
        return self.path.lower().endswith(VIDEOS)


def find(path: str) -> list[Input]:
    """The files that a path means, in the order of their names, or of the list.

    Raises:
        UserError: there is nothing, or nothing that is a picture or a clip.
    """
    if path == STANDARD:
        return [Input(STANDARD, "stdin")]
    place = path if is_url(path) else os.path.expanduser(path)
    if is_url(place):
        if PurePosixPath(place).suffix.lower() in (*PICTURES, *VIDEOS):
            return [Input(place, PurePosixPath(place).name)]
        return in_folder(place)
    if os.path.isdir(place):
        return in_folder(place)
    if os.path.isfile(place):
        if place.lower().endswith(LISTS):
            return in_list(place)
        return [Input(place, os.path.basename(place))]
    if glob.has_magic(place):
        return in_glob(place)
    parent = Path(place).absolute().parent
    siblings = [p.name for p in parent.iterdir()] if parent.is_dir() else []
    hint = did_you_mean(Path(place).name, siblings, files=True) if siblings else ""
    raise UserError(f"{path}: there is no such file or folder.{hint}")


def in_folder(folder: str) -> list[Input]:
    """Pictures and clips in a folder, sub-folders included.

    Raises:
        UserError: the folder has no pictures or clips.
    """
    readers = dict.fromkeys((*PICTURES, *VIDEOS))
    names = with_suffix(folder, list_files(folder), readers)  # type: ignore[arg-type] # only its keys are looked at
    if not names:
        raise UserError(f"{folder}: has no pictures or clips (looked for {', '.join(readers)})")
    return [Input(join(folder, name), name) for name in names]


def in_glob(pattern: str) -> list[Input]:
    """The files that match a pattern such as ``photos/**/*.png``.

    Raises:
        UserError: no file matches, or none that does is a picture or a clip.
    """
    found = sorted(p for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
    if not found:
        raise UserError(f"{pattern}: no file matches")
    known = [p for p in found if p.lower().endswith((*PICTURES, *VIDEOS))]
    if not known:
        raise UserError(
            f"{pattern}: none of the {len(found)} files that match is a picture or a clip ({found[0]}, ...)"
        )
    return below_common(known)


def in_list(file: str) -> list[Input]:
    """The files that a list names, one on a line, relative to the working directory, else to the list's own folder.

    Raises:
        UserError: the list names no file, or a folder.
    """
    paths = []
    for number, line in read_lines(file):
        if line.startswith("#"):
            continue
        path = line if is_url(line) else os.path.expanduser(line)
        beside = os.path.join(os.path.dirname(file), path)
        if not is_url(path) and not os.path.exists(path) and os.path.exists(beside):
            path = beside
        if os.path.isdir(path):
            raise UserError(
                f"{file}:{number}: {line} is a folder; a list names files, and a folder is given to -i itself"
            )
        paths.append(path)
    if not paths:
        raise UserError(f"{file}: this list names no file")
    return below_common(list(dict.fromkeys(paths)))


def below_common(paths: Sequence[str]) -> list[Input]:
    """Inputs whose names are relative to the folder that all of them are in."""
    if len(paths) == 1 or any(map(is_url, paths)):
        return [Input(p, PurePosixPath(p).name) for p in paths]
    whole = [os.path.abspath(p) for p in paths]
    root = os.path.commonpath([os.path.dirname(p) for p in whole])
    return [Input(p, os.path.relpath(w, root).replace(os.sep, "/")) for p, w in zip(paths, whole, strict=True)]


def result_names(inputs: Sequence[Input], suffixes: Sequence[str], ending: str) -> list[str]:
    """Name of each result in the output folder: the input's stem, `ending`, and its own suffix, as far as it fits.

    Where two inputs would give the same, their own suffixes distinguish them, then their numbers.

    >>> result_names([Input("x/a.png", "a.png"), Input("x/a.jpg", "a.jpg")], [".png", ".png"], "_x2")
    ['a_png_x2.png', 'a_jpg_x2.png']
    """
    stems = [str(PurePosixPath(i.name).with_suffix("")) for i in inputs]
    more = [PurePosixPath(i.name).suffix.replace(".", "_") for i in inputs]
    for added in (more, [f"_{n + 1:05d}" for n in range(len(inputs))]):
        # Some file systems take names that differ in capitals for one.
        counts = Counter((stem + suffix).lower() for stem, suffix in zip(stems, suffixes, strict=True))
        stems = [
            stem + extra if counts[(stem + suffix).lower()] > 1 else stem
            for stem, suffix, extra in zip(stems, suffixes, added, strict=True)
        ]
    return [fitting(f"{stem}{ending}{suffix}") for stem, suffix in zip(stems, suffixes, strict=True)]
