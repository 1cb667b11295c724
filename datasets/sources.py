"""Where images are kept: folders and tar files, local or remote, and BasicSR's LMDB databases."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import os
import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from ..core.errors import UserError, require
from ..core.files.ceilings import refuse_total
from ..core.imaging import ceilings
from ..core.imaging.conventions import shown_size
from ..core.imaging.image_io import READERS, Readers, read_pixels
from ..core.imaging.storage import (
    MissingFile,
    UnreadableFile,
    first_line,
    is_hidden,
    is_url,
    join,
    list_files,
    opened,
    read_bytes,
    read_lines,
    read_part,
)
from ..core.registry import unknown_key
from .kept import Pool, Shelf, refuse_beyond_memory

log = logging.getLogger("relume")

MOST_HEADERS = 20_000
"""Files whose size is looked at before training."""
HEADER = 65536
"""Bytes in which a header is looked for."""


@dataclass(frozen=True)
class IOBackend:
    """BasicSR's ``io_backend`` block: ``disk`` also covers remote folders, by URL; ``tar`` are WebDataset's archives.

    Attributes:
        type: how images are kept.
        cache: GiB of decoded images that all loading processes of a rank share; none when omitted.
    """

    type: Literal["disk", "lmdb", "tar"] = "disk"
    cache: float | None = None

    def __post_init__(self) -> None:
        if self.cache is not None:
            if (
                isinstance(self.cache, bool)
                or not isinstance(self.cache, (int, float))
                or not 0 < self.cache < math.inf
            ):
                raise UserError(f"io_backend: cache is {self.cache!r}; a number of GiB above 0 is expected")
            refuse_beyond_memory(int(self.cache * 2**30))

    @cached_property
    def pool(self) -> Pool | None:
        """Where the decoded images of all sources are that are opened by this block."""
        return None if self.cache is None else Pool(int(self.cache * 2**30))


def as_backend(block: IOBackend | Mapping[str, Any] | None) -> IOBackend:
    """The backend that an option block describes; ``disk`` for None."""
    if block is None or isinstance(block, IOBackend):
        return block or IOBackend()
    for key in block:
        if key not in ("type", "cache"):
            raise UserError(unknown_key(key, "io_backend", ["type", "cache"]))
    kind = block.get("type", "disk")
    if kind not in ("disk", "lmdb", "tar"):
        raise UserError(f"io_backend: there is no type '{kind}'; 'disk', 'lmdb' and 'tar' are there")
    return IOBackend(kind, block.get("cache"))


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
        self._shelf: Shelf | None = None
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


class Entry(NamedTuple):
    """Where a file lies in a tar file: the archive, its own name there, the first byte, and how many there are."""

    archive: str
    name: str
    start: int
    size: int


class Tar(Source):
    """The images in tar files, which are read at their places, in any order: nothing is unpacked.

    An archive as WebDataset has it may hold several files of one key, ``scene/01.lq.png`` and ``scene/01.gt.png``.

    Args:
        root: a ``.tar`` file or a folder of such, local or remote.
        part: which files of a key are meant, ``lq`` or ``gt``; where no file has this part in its name, all are.

    Raises:
        UserError: there are none, an archive cannot be read, or two have a file of the same name.
    """

    def __init__(self, root: str, readers: Readers = READERS, part: str = "") -> None:
        root = root if is_url(root) else os.path.expanduser(root)
        archives = [root]
        if not root.lower().endswith(".tar"):
            archives = [join(root, name) for name in list_files(root) if name.lower().endswith(".tar")]
        if not archives:
            raise UserError(f"{root}: there are no .tar files in this folder; io_backend type is tar")
        found = [entry for archive in archives for entry in entries(archive)]
        refuse_total((entry.size for entry in found), root, UnreadableFile)
        names = set(with_suffix(root, [entry.name for entry in found], readers))
        self.entries: dict[str, Entry] = {}
        for entry in of_part([entry for entry in found if entry.name in names], part):
            name = without_part(entry.name, part)
            if name in self.entries:
                raise UserError(f"{entry.name}: is in {self.entries[name].archive} and in {entry.archive}")
            self.entries[name] = entry
        super().__init__(root, self.entries, readers)

    def path(self, name: str) -> str:
        return join(self.entries[name].archive, name) if name in self.entries else super().path(name)

    def read(self, name: str) -> bytes:
        entry = self.entries[name]
        ceilings.refuse_entry(entry.size, self.path(name))
        data = read_part(entry.archive, entry.start, entry.size)
        if len(data) < entry.size:
            raise UnreadableFile(f"{join(entry.archive, entry.name)}: the archive is cut")
        return data

    def beginning(self, name: str, size: int) -> bytes:
        entry = self.entries[name]
        return read_part(entry.archive, entry.start, min(entry.size, size))


def entries(archive: str) -> list[Entry]:
    """The files in a tar file, hidden ones left out; only the headers between them are read.

    Raises:
        UnreadableFile: it cannot be read, is compressed or cut, or a name leads out of it.
    """
    try:
        with opened(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            members = [member for member in tar if member.isfile()]
            end = file.seek(0, os.SEEK_END)
    except UserError:
        raise
    except OSError as e:
        raise UnreadableFile(f"{archive}: cannot be read ({e.strerror or first_line(e)})") from e
    except (
        Exception
    ) as e:  # a damaged header makes tarfile trip over whatever it says; protocols have errors of their own
        raise UnreadableFile(f"{archive}: cannot be read as a tar file without compression ({first_line(e)})") from e
    found = [Entry(archive, posixpath.normpath(m.name), m.offset_data, m.size) for m in members if not m.issparse()]
    for entry in found:
        if entry.name.startswith(("/", "../")):
            raise UnreadableFile(f"{archive}: the name of its entry {entry.name!r} leads out of the archive")
        if entry.start + entry.size > end:
            raise UnreadableFile(f"{archive}: is cut: its entry {entry.name!r} goes on beyond the end")
    return [entry for entry in found if not is_hidden(entry.name)]


def of_part(found: Sequence[Entry], part: str) -> Sequence[Entry]:
    """The entries that have `part` before their suffix; all of them where none has."""
    return [e for e in found if without_part(e.name, part) != e.name] or found


def without_part(name: str, part: str) -> str:
    """A name without the part before its suffix.

    >>> without_part("s/01.lq.png", "lq"), without_part("s/01.lq.png", "gt"), without_part("lq.png", "lq")
    ('s/01.png', 's/01.lq.png', 'lq.png')
    """
    stem, suffix = os.path.splitext(name)
    shorter = stem.removesuffix(f".{part}") if part else stem
    return f"{shorter}{suffix}" if os.path.basename(shorter) else name


def open_source(
    root: str, backend: IOBackend, readers: Readers = READERS, recursive: bool = True, part: str = ""
) -> Source:
    """The images under `root`; ``~`` is expanded. In a folder, files that `readers` has no suffix for are left out.

    Args:
        recursive: see `Folder`.
        part: see `Tar`.
    """
    source: Source
    if backend.type == "tar":
        source = Tar(root, readers, part)
    elif backend.type == "lmdb":
        source = Lmdb(root, readers)
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
