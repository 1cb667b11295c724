"""Where images are kept: folders, local or remote, and BasicSR's LMDB databases."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..core.errors import UserError, require
from ..core.imaging.conventions import shown_size
from ..core.imaging.image_io import READERS, Readers, read_pixels
from ..core.imaging.storage import (
    MissingFile,
    UnreadableFile,
    first_line,
    is_url,
    join,
    list_files,
    read_bytes,
    read_lines,
)
from ..core.registry import unknown_key

log = logging.getLogger("relume")

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
                return shown_size(f.read(65536))
        except OSError:
            return None  # reading the sample will say so


class Folder(Source):
    """The images in a folder and its sub-folders, on disk (``~`` is expanded) or behind an fsspec URL.

    Args:
        recursive: whether sub-folders are searched though the folder has files of its own.
    """

    def __init__(self, root: str, readers: Readers = READERS, recursive: bool = True) -> None:
        root = root if is_url(root) else os.path.expanduser(root)
        found = with_suffix(root, list_files(root), readers)
        own = [name for name in found if "/" not in name]
        more = len(found) - len(own)
        if not recursive and more and own:
            log.info("%s: %d files in sub-folders are left out (recursive: true takes them too)", root, more)
            found = own
        elif not recursive and more:
            log.info("%s: has no files to read itself; those in its sub-folders are taken", root)
        super().__init__(root, found, readers)


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
        counts = listing(f"{count} {suffix}" for suffix, count in others.most_common())
        log.warning("%s: left out are files that are not read here, by suffix: %s", root, counts)
    return found


MAX_KEY = 511
"""Bytes in a key of an LMDB database, unless it was compiled otherwise."""


def lmdb_key(name: str) -> bytes:
    """The key of a file in an LMDB database: its name without suffix, as BasicSR has it; of a longer one, a digest."""
    key = os.path.splitext(name)[0].encode()
    return key if len(key) <= MAX_KEY else b"sha256:" + hashlib.sha256(key).hexdigest().encode()


class Lmdb(Source):
    """BasicSR's LMDB layout: ``x.lmdb/data.mdb`` with encoded images, ``x.lmdb/meta_info.txt`` listing their names.

    The database is opened when it is first read, once in every process.

    Raises:
        UserError: there is no such database, or its list is damaged.
    """

    def __init__(self, root: str, readers: Readers = READERS) -> None:
        root = os.path.expanduser(root)
        if is_url(root) or not os.path.isfile(os.path.join(root, "data.mdb")):
            raise UserError(
                f"{root}: is not an LMDB folder on disk (there is no data.mdb in it); io_backend type is lmdb"
            )
        meta = os.path.join(root, "meta_info.txt")
        self.sizes = dict(parse_meta_line(line) for _, line in read_lines(meta))
        strange = [n for n in self.sizes if os.path.splitext(n)[1].lower() not in readers]
        if strange:
            shown = listing(map(repr, strange), 3)
            raise UnreadableFile(f"{meta}: {len(strange)} of {len(self.sizes)} names have no known suffix: {shown}")
        super().__init__(root, self.sizes, readers)

    def read(self, name: str) -> bytes:
        path = os.path.realpath(os.path.join(self.root, "data.mdb"))
        try:
            database = _database(os.path.dirname(path))
            # What is mapped into memory and no longer in the file would kill the process when it is touched.
            if (size := os.path.getsize(path)) < database.size:
                raise UnreadableFile(f"{self.path(name)}: data.mdb is cut: {size} of {database.size} bytes are there")
            with database.environment.begin() as transaction:
                value = transaction.get(lmdb_key(name))
        except UserError:
            raise
        except Exception as e:  # lmdb has a class for each of some thirty errors
            raise UnreadableFile(f"{self.path(name)}: the database cannot be read ({first_line(e)})") from e
        if value is None:
            raise MissingFile(f"{self.path(name)}: meta_info.txt lists it, but the database does not have it")
        return bytes(value)

    def size(self, name: str) -> tuple[int, int] | None:
        return self.sizes[name]


@dataclass(frozen=True)
class Database:
    """An opened LMDB environment, and how many bytes its file must have."""

    environment: Any
    size: int


_databases: dict[str, Database] = {}
"""Opened LMDB environments: a process may open each only once, and must not use one opened before it was forked."""


def _database(root: str) -> Database:
    if root not in _databases:
        lmdb = require("lmdb", "io_backend type lmdb")
        environment = lmdb.open(root, readonly=True, lock=False, readahead=False, meminit=False)
        pages = environment.info()["last_pgno"] + 1
        _databases[root] = Database(environment, pages * environment.stat()["psize"])
    return _databases[root]


def _close_databases() -> None:
    while _databases:
        _databases.popitem()[1].environment.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_databases)  # both processes open them again when they next read


def open_source(root: str, backend: IOBackend, readers: Readers = READERS, recursive: bool = True) -> Source:
    """The images under `root`; ``~`` is expanded. In a folder, files that `readers` has no suffix for are left out.

    Args:
        recursive: see `Folder`.
    """
    return Lmdb(root, readers) if backend.type == "lmdb" else Folder(root, readers, recursive)


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


def pass_over_missing(root: str, meta: str, wanted: Sequence[str], absent: Sequence[str], on_error: str) -> None:
    """What is done about files that a list has and a source has not: one line in the log where errors are skipped.

    Raises:
        MissingFile: errors are not skipped, or nothing of the list is there; up to ten are named.
    """
    said = f"{root}: lacks {len(absent)} files that {meta} lists: {listing(absent)}"
    if absent and (on_error != "skip" or len(absent) == len(wanted)):
        raise MissingFile(said)
    if absent:
        log.warning("skipped: %s", said)


def parse_meta_line(line: str) -> tuple[str, tuple[int, int] | None]:
    """Name and (height, width) from a line of BasicSR's meta files: ``0001.png (480,480,3) 1``; size and rest are optional.

    >>> parse_meta_line("a b.png (48,64,3) 1")
    ('a b.png', (48, 64))
    >>> parse_meta_line("baby.png"), parse_meta_line("a.txt 1")
    (('baby.png', None), ('a.txt', None))
    """
    match = re.fullmatch(r"\s*(.+)\s+\((\d+)\s*,\s*(\d+)\s*(?:,\s*\d+\s*)?\).*", line)
    if match is None:
        bare = re.fullmatch(r"\s*(.+\.[A-Za-z0-9]+)\s+\d+\s*", line)
        return bare[1] if bare else line.strip(), None
    return match[1], (int(match[2]), int(match[3]))


def listing(names: Iterable[str], most: int = 10) -> str:
    """Up to `most` names, and how many more there are.

    >>> listing(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
