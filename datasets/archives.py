"""Images in archives, which are read at their places, in any order: tar files as WebDataset has them, and zip files."""

from __future__ import annotations

import json
import logging
import os
import posixpath
import tarfile
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..core.errors import UserError, first_line
from ..core.files.ceilings import refuse_total
from ..core.imaging import ceilings
from ..core.imaging.image_io import READERS, Readers
from ..core.imaging.storage import (
    MissingFile,
    UnreadableFile,
    is_hidden,
    is_url,
    join,
    list_files,
    opened,
    read_bytes,
    read_part,
    write_bytes,
)
from .source import ArchivePlace, Source, with_suffix

log = logging.getLogger("relume")

INDEX = "index.json"
"""File beside tar files: what is in each and where, so that they need not be looked through (see `write_index`)."""
BLOCK = tarfile.BLOCKSIZE
"""Bytes of the header right before a file's own bytes."""


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
        part: the files of a key that are meant, ``lq`` or ``gt``; where no file has this part in its name, all are.

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
        found = listed(root, archives) if archives != [root] else None
        if found is None:
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
        """The bytes of an image, read at its place in the archive.

        Raises:
            UnreadableFile: the archive is cut, or has changed since its index was made.
        """
        entry = self.entries[name]
        ceilings.refuse_entry(entry.size, self.path(name))
        data = read_part(entry.archive, entry.start - BLOCK, BLOCK + entry.size)
        if len(data) < BLOCK + entry.size:
            raise UnreadableFile(f"{join(entry.archive, entry.name)}: the archive is cut")
        try:
            before = tarfile.TarInfo.frombuf(data[:BLOCK], "utf-8", "surrogateescape").size
        except tarfile.TarError:
            before = -1
        if before != entry.size:
            said = f"the archive has changed, or {INDEX} beside it is of another one"
            raise UnreadableFile(f"{join(entry.archive, entry.name)}: is not at its place: {said}")
        return data[BLOCK:]

    def place(self, name: str) -> ArchivePlace:
        entry = self.entries[name]
        return ArchivePlace(entry.archive, entry.start)

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


def listed(root: str, archives: Sequence[str]) -> list[Entry] | None:
    """What the index in a folder says of its archives, in their order; None without one, or where it is of others.

    Raises:
        UnreadableFile: it is damaged.
    """
    path = join(root, INDEX)
    try:
        data = read_bytes(path)
    except MissingFile:
        return None
    try:
        found = json.loads(data)
        if sorted(join(root, name) for name in found) != sorted(archives):
            log.warning("%s: is of other archives than those in this folder, which are looked through", path)
            return None
        return [
            Entry(join(root, archive), *as_entry(*line)) for archive, lines in sorted(found.items()) for line in lines
        ]
    except (ValueError, TypeError, AttributeError, RecursionError) as e:
        raise UnreadableFile(f"{path}: is damaged; remove it, or write it anew ({first_line(e)})") from e


def as_entry(name: Any, start: Any, size: Any) -> tuple[str, int, int]:
    """A line of an index.

    Raises:
        ValueError: it is none.
    """
    numbers = all(isinstance(n, int) and not isinstance(n, bool) for n in (start, size))
    if not isinstance(name, str) or not numbers or start < BLOCK or size < 0:
        raise ValueError(f"{[name, start, size]!r:.80} is no name, first byte and size")
    if posixpath.normpath(name) != name or name.startswith(("/", "../")):
        raise ValueError(f"the name {name!r:.80} leads out of the archive")
    return name, start, size


def write_index(root: str) -> tuple[int, int]:
    """Look through the archives of a folder, local or remote, and write where each file lies; how many files and archives.

    Raises:
        UserError: there are no archives, one cannot be read, or the index cannot be written.
    """
    archives = [name for name in list_files(root) if name.lower().endswith(".tar")]
    if not archives:
        raise UserError(f"{root}: there are no .tar files in this folder")
    found = {name: [[e.name, e.start, e.size] for e in entries(join(root, name))] for name in archives}
    data = (json.dumps(found, separators=(",", ":")) + "\n").encode()
    try:
        if not _is(join(root, INDEX), data):
            write_bytes(join(root, INDEX), data)
    except OSError as e:
        raise UserError(f"{join(root, INDEX)}: cannot be written ({e.strerror or first_line(e)})") from e
    return sum(map(len, found.values())), len(found)


def _is(path: str, data: bytes) -> bool:
    """Whether a file has this content already."""
    try:
        return read_bytes(path) == data
    except UnreadableFile:
        return False


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


class Zip(Source):
    """The images in a zip file, opened when it is first read, once in every process."""

    def __init__(self, root: str, readers: Readers = READERS) -> None:
        self._archive: tuple[int, zipfile.ZipFile] | None = None
        root = os.path.expanduser(root)
        try:
            with zipfile.ZipFile(root) as archive:
                entries = archive.infolist()
        except Exception as e:  # a damaged directory makes zipfile trip over whatever it says
            raise UnreadableFile(f"{root}: cannot be read as a zip file ({first_line(e)})") from e
        refuse_total((e.file_size for e in entries), root, UnreadableFile)
        # Old programs for Windows write its separator, against the specification.
        named = ((e.filename.replace("\\", "/"), e) for e in entries if not e.is_dir())
        self.entries = {name: e for name, e in named if not is_hidden(name)}
        super().__init__(root, with_suffix(root, self.entries, readers), readers)

    def read(self, name: str) -> bytes:
        """The bytes of a file in the zip file.

        Raises:
            MissingFile: there is no such file in it.
            UnreadableFile: the file cannot be unpacked.
        """
        if name not in self.entries:
            raise MissingFile(f"{self.path(name)}: there is no such file in this zip file")
        try:
            if self._archive is None or self._archive[0] != os.getpid():  # a position in a file is not to be shared
                self._archive = os.getpid(), zipfile.ZipFile(self.root)
            archive, entry = self._archive[1], self.entries[name]
            return ceilings.unpacked(lambda: archive.open(entry), entry.file_size, self.path(name))
        except UserError:
            raise
        except Exception as e:  # a password, an unknown compression, what each decompressor says of damage, ...
            raise UnreadableFile(f"{self.path(name)}: cannot be read ({first_line(e)})") from e

    def size(self, name: str) -> tuple[int, int] | None:
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_archive": None}
