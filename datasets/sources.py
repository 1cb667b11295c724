"""Where images are kept: folders, local or remote, BasicSR's LMDB databases, and archives (see `archives`)."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ..core.errors import UserError, first_line, require
from ..core.imaging.image_io import READERS, Readers
from ..core.imaging.storage import MissingFile, UnreadableFile, is_url, list_files, read_lines
from ..core.registry import unknown_key
from .kept import Pool, Shelf, refuse_beyond_memory
from .source import Source, first_names, with_suffix

__all__ = ["Folder", "IOBackend", "Lmdb", "Source", "as_backend", "first_names", "open_source", "with_suffix"]
log = logging.getLogger("relume")

MOST_HEADERS = 20_000
"""Files whose size is looked at before training."""


@dataclass(frozen=True)
class IOBackend:
    """BasicSR's ``io_backend`` block: ``disk`` also covers remote folders, by URL; ``tar`` are WebDataset's archives, ``zip``
    is one archive on disk.

    Attributes:
        type: how images are kept.
        cache: GiB of decoded images that all loading processes of a rank share; 0 keeps none. When omitted, up to 0.25 of
            a training set of pairs, and nothing of others.
    """

    type: Literal["disk", "lmdb", "tar", "zip"] = "disk"
    cache: float | None = None

    def __post_init__(self) -> None:
        if self.cache is not None:
            if (
                isinstance(self.cache, bool)
                or not isinstance(self.cache, (int, float))
                or not 0 <= self.cache < math.inf
            ):
                raise UserError(f"io_backend: cache is {self.cache!r}; a number of GiB, 0 for none, is expected")
            refuse_beyond_memory(int(self.cache * 2**30))

    @cached_property
    def pool(self) -> Pool | None:
        """Where the decoded images of all sources are that are opened by this block."""
        return None if not self.cache else Pool(int(self.cache * 2**30))


def as_backend(block: IOBackend | Mapping[str, Any] | None, cache: float | None = None) -> IOBackend:
    """The backend that an option block describes; ``disk`` for None.

    Args:
        cache: the size of the cache, for a block that says nothing of it.

    Raises:
        UserError: the block has an unknown key or type.
    """
    if isinstance(block, IOBackend):
        return block
    block = block or {}
    for key in block:
        if key not in ("type", "cache"):
            raise UserError(unknown_key(key, "io_backend", ["type", "cache"]))
    kind = block.get("type", "disk")
    if kind not in ("disk", "lmdb", "tar", "zip"):
        raise UserError(f"io_backend: there is no type '{kind}'; 'disk', 'lmdb', 'tar' and 'zip' are there")
    said = block.get("cache")
    return IOBackend(kind, cache if said is None else said)


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
            shown = first_names(map(repr, strange), 3)
            raise UnreadableFile(f"{meta}: {len(strange)} of {len(self.sizes)} names have no known suffix: {shown}")
        super().__init__(root, self.sizes, readers)

    def read(self, name: str) -> bytes:
        """The bytes of an image in the database.

        Raises:
            MissingFile: the database lists the image and does not have it.
            UnreadableFile: the database is cut, or cannot be read.
        """
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


def open_source(
    root: str, backend: IOBackend, readers: Readers = READERS, recursive: bool = True, part: str = ""
) -> Source:
    """The images under `root`; ``~`` is expanded. In a folder, files that `readers` has no suffix for are left out.

    Args:
        recursive: whether sub-folders are searched, see `Folder`.
        part: the files of a key that are meant, see `Tar`.
    """
    source: Source
    if backend.type == "lmdb":
        source = Lmdb(root, readers)
    elif backend.type in ("tar", "zip"):
        from .archives import Tar, Zip

        source = Tar(root, readers, part) if backend.type == "tar" else Zip(root, readers)
    else:
        source = Folder(root, readers, recursive)
    if backend.pool is not None:
        source.keep(Shelf(backend.pool, len(source.files)))
    return source


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
            f"{first_names(small)}. Lower gt_size (or gt_sizes), or remove them"
        )


def pass_over_missing(root: str, meta: str, wanted: Sequence[str], absent: Sequence[str], on_error: str) -> None:
    """What is done about files that a list has and a source has not: one line in the log where errors are skipped.

    Raises:
        MissingFile: errors are not skipped, or nothing of the list is there; up to ten are named.
    """
    said = f"{root}: lacks {len(absent)} files that {meta} lists: {first_names(absent)}"
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
