"""Images under one root, whatever keeps them: what the kinds in `sources` and `archives` share."""

from __future__ import annotations

import itertools
import logging
import os
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ..core.errors import UserError
from ..core.imaging.conventions import shown_size
from ..core.imaging.image_io import READERS, Readers, decode_integer_image, read_pixels
from ..core.imaging.partial import Undecoded, undecoded
from ..core.imaging.storage import UnreadableFile, is_url, join, read_bytes, read_part
from .kept import Shelf

log = logging.getLogger("relume")
HEADER = 65536
"""Bytes in which a header is looked for."""


class ArchivePlace(NamedTuple):
    """Where a file lies in an archive: its path or URL, and the file's first byte there."""

    archive: str
    start: int


class Source:
    """Images (or what else `readers` are for) under one root.

    Attributes:
        root: folder, URL or LMDB folder.
        files: name of each file by its key, sorted by key. The key is the name without suffix, ``scene1/0001``.
    """

    def __init__(self, root: str, names: Iterable[str], readers: Readers = READERS) -> None:
        self.root = root
        self.readers = readers
        by_key = sorted((os.path.splitext(n)[0], n) for n in names)
        self.files = dict(by_key)
        if len(self.files) < len(by_key):
            twice = [f"{a[1]} and {b[1]}" for a, b in itertools.pairwise(by_key) if a[0] == b[0]]
            raise UserError(
                f"{root}: files that differ in their suffix only cannot be distinguished: {first_names(twice)}"
            )
        self._shelf: Shelf | None = None
        self._numbers: dict[str, int] = {}
        if not self.files:
            raise UserError(f"{root}: there are no files to read in this folder (looked for {', '.join(readers)})")

    def path(self, name: str) -> str:
        """The file's path, URL, or the like: what items and messages call it."""
        return join(self.root, name)

    def read(self, name: str) -> bytes:
        """The file's bytes.

        Raises:
            UnreadableFile: it cannot be read.
        """
        return read_bytes(self.path(name))

    def keep(self, shelf: Shelf) -> None:
        """Keep images there once they are decoded."""
        self._shelf = shelf
        self._numbers = {name: number for number, name in enumerate(self.files.values())}

    def pixels(self, name: str) -> np.ndarray:
        """The image, (H, W, 3) RGB at the file's own precision. Errors as `read_pixels`."""
        if self._shelf is None or name not in self._numbers:
            return self._decoded(name)
        return self._shelf.get(self._numbers[name], lambda: self._decoded(name))

    def to_cut(self, name: str) -> np.ndarray | Undecoded:
        """As `pixels`, for a patch: of a JPEG file that is not to be kept, no more is decoded than that takes."""
        decodes = self.readers.get(os.path.splitext(name)[1].lower()) is decode_integer_image
        if not decodes or (self._shelf is not None and not self._shelf.pool.full):
            return self.pixels(name)
        number = self._numbers.get(name)
        if self._shelf is not None and number is not None and (kept := self._shelf.find(number)) is not None:
            return kept
        data = self.read(name)
        return undecoded(data, self.path(name)) or read_pixels(data, self.path(name), self.root, self.readers)

    def _decoded(self, name: str) -> np.ndarray:
        return read_pixels(self.read(name), self.path(name), self.root, self.readers)

    def size(self, name: str) -> tuple[int, int] | None:
        """(height, width) without decoding, where that is cheap; else None."""
        if is_url(self.root):
            return None
        try:
            return shown_size(self.beginning(name, HEADER))
        except UnreadableFile:
            return None  # reading the sample will say so

    def beginning(self, name: str, size: int) -> bytes:
        """The first bytes of a file, `size` at most. Errors as `read_part`."""
        return read_part(self.path(name), 0, size)

    def place(self, name: str) -> ArchivePlace | None:
        """Where the file lies in a larger one that is read from its beginning to its end; None where it is one itself."""
        return None


_told_of_others: set[str] = set()
NOTES = frozenset({"", ".txt", ".json", ".jsonl", ".md", ".yml", ".yaml", ".csv", ".html", ".db", ".ini", ".sha256"})
"""Suffixes of files that are expected beside images and tell nobody anything when they are left out."""


def with_suffix(root: str, names: Iterable[str], readers: Readers) -> list[str]:
    """The names that `readers` has a suffix for; the others are counted, by suffix, in one line, once for each root."""
    by_suffix = [(os.path.splitext(n)[1].lower(), n) for n in names]
    found = [n for suffix, n in by_suffix if suffix in readers]
    others = Counter(suffix for suffix, _ in by_suffix if suffix not in readers and suffix not in NOTES)
    if found and others and root not in _told_of_others:
        _told_of_others.add(root)
        counts = first_names(f"{count} {suffix}" for suffix, count in others.most_common())
        log.warning("%s: left out are files that are not read here, by suffix: %s", root, counts)
    return found


def first_names(names: Iterable[str], most: int = 10) -> str:
    """Up to `most` names, and how many more there are.

    >>> first_names(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
