"""Where images are kept: folders, local or remote, and BasicSR's LMDB databases."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..core.errors import UserError, require
from ..core.imaging.image_header import image_size
from ..core.imaging.image_io import READERS, Readers, read_pixels
from ..core.imaging.storage import UnreadableFile, is_url, join, list_files, read_bytes
from ..core.registry import unknown_key

MOST_HEADERS = 20_000
"""Files whose size is looked at before training."""


@dataclass(frozen=True)
class IOBackend:
    """BasicSR's ``io_backend`` block: ``disk`` also covers remote folders, by URL."""

    type: Literal["disk", "lmdb"] = "disk"


def as_backend(block: IOBackend | Mapping[str, Any] | None) -> IOBackend:
    """The backend that an option block describes; ``disk`` for None."""
    if block is None or isinstance(block, IOBackend):
        return block or IOBackend()
    for key in block:
        if key != "type":
            raise UserError(unknown_key(key, "io_backend", ["type"]))
    kind = block.get("type", "disk")
    if kind not in ("disk", "lmdb"):
        raise UserError(f"io_backend: there is no type '{kind}'; 'disk' and 'lmdb' are there")
    return IOBackend(kind)


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
            raise UserError(f"{root}: files that differ in their suffix only cannot be told apart: {listing(twice)}")
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

    def pixels(self, name: str) -> np.ndarray:
        """The image, (H, W, 3) RGB at the file's own precision. Errors as `read_pixels`."""
        return read_pixels(self.read(name), self.path(name), self.root, self.readers)

    def size(self, name: str) -> tuple[int, int] | None:
        """(height, width) without decoding, where that is cheap; else None."""
        if is_url(self.root):
            return None
        try:
            with open(self.path(name), "rb") as f:
                return image_size(f.read(65536))
        except OSError:
            return None  # reading the sample will say so


class Folder(Source):
    """The images in a folder and its sub-folders, on disk (``~`` is expanded) or behind an fsspec URL."""

    def __init__(self, root: str, readers: Readers = READERS) -> None:
        root = root if is_url(root) else os.path.expanduser(root)
        names = list_files(root)
        super().__init__(root, [n for n in names if os.path.splitext(n)[1].lower() in readers], readers)


class Lmdb(Source):
    """BasicSR's LMDB layout: ``x.lmdb/data.mdb`` with encoded images, ``x.lmdb/meta_info.txt`` listing their names.

    The database is opened when it is first read, once in every process.
    """

    def __init__(self, root: str, readers: Readers = READERS) -> None:
        root = os.path.expanduser(root)
        if is_url(root) or not os.path.isfile(os.path.join(root, "data.mdb")):
            raise UserError(
                f"{root}: is not an LMDB folder on disk (there is no data.mdb in it); io_backend type is lmdb"
            )
        lines = read_bytes(os.path.join(root, "meta_info.txt")).decode().splitlines()
        self.sizes = dict(parse_meta_line(line) for line in lines if line.strip())
        super().__init__(root, self.sizes, readers)

    def read(self, name: str) -> bytes:
        with _database(os.path.realpath(self.root)).begin() as transaction:
            value = transaction.get(os.path.splitext(name)[0].encode())
        if value is None:
            raise UnreadableFile(f"{self.path(name)}: meta_info.txt lists it, but the database does not have it")
        return bytes(value)

    def size(self, name: str) -> tuple[int, int] | None:
        return self.sizes[name]


_databases: dict[str, Any] = {}
"""Opened LMDB environments: a process may open each only once, and must not use one opened before it was forked."""


def _database(root: str) -> Any:
    if root not in _databases:
        lmdb = require("lmdb", "io_backend type lmdb")
        _databases[root] = lmdb.open(root, readonly=True, lock=False, readahead=False, meminit=False)
    return _databases[root]


def _close_databases() -> None:
    while _databases:
        _databases.popitem()[1].close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_databases)  # both processes open them again when they next read


def open_source(root: str, backend: IOBackend, readers: Readers = READERS) -> Source:
    """The images under `root`; ``~`` is expanded. In a folder, files that `readers` has no suffix for are left out."""
    return Lmdb(root, readers) if backend.type == "lmdb" else Folder(root, readers)


def refuse_small(files: Sequence[tuple[Source, str]], patch: int) -> None:
    """Check, from the files' headers, that images are large enough for a training patch.

    Formats whose headers are not understood, and remote files, are left to be found out when they are loaded. Of very many
    files, evenly spaced ones are looked at.

    Raises:
        UserError: some are smaller; up to ten are named.
    """
    small = []
    for source, name in files[:: -(-len(files) // MOST_HEADERS)]:
        found = source.size(name)
        if found is not None and min(found) < patch:
            small.append(f"{source.path(name)} ({found[0]}x{found[1]})")
    if small:
        raise UserError(
            f"the patch gt_size {patch} is larger than {len(small)} of {len(files)} images (height x width): "
            f"{listing(small)}. Lower gt_size (or gt_sizes), or remove them"
        )


def parse_meta_line(line: str) -> tuple[str, tuple[int, int] | None]:
    """Name and (height, width) from a line of BasicSR's meta files: ``0001.png (480,480,3) 1``; size and rest are optional.

    >>> parse_meta_line("a b.png (48,64,3) 1")
    ('a b.png', (48, 64))
    >>> parse_meta_line("baby.png")
    ('baby.png', None)
    """
    match = re.fullmatch(r"\s*(.+?)\s+\((\d+)\s*,\s*(\d+)\s*(?:,\s*\d+\s*)?\).*", line)
    if match is None:
        return line.strip(), None
    return match[1], (int(match[2]), int(match[3]))


def listing(names: Iterable[str], most: int = 10) -> str:
    """Up to `most` names, and how many more there are.

    >>> listing(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
