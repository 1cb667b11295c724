"""Files by path or by URL: ``/data/x.png`` is opened directly, ``s3://bucket/x.png`` (any fsspec URL) through fsspec."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import UserError, did_you_mean, expanded, first_line, printable, redacted, require
from ..errors.paths import kind_of
from ..files import reading, replacing


class UnreadableFile(UserError):
    """A file is missing, cannot be opened, or is damaged. Every source of files raises this, and ``on_error: skip`` passes
    over it."""


class MissingFile(UnreadableFile):
    """There is no such file; of one that is there and damaged, `UnreadableFile` is raised."""


def is_url(path: str | Path) -> bool:
    """Whether fsspec, rather than the operating system, opens this path."""
    return "://" in str(path)


PROTOCOLS = ("abfs", "abfss", "az", "file", "gcs", "gs", "hf", "http", "https", "memory", "s3")
"""Protocols of URLs that are read. Others of fsspec's start programs, read environment variables, or read other files."""
VARIABLE = "RELUME_PROTOCOLS"
"""Environment variable with more of them, parted by commas."""


def refuse_protocol(url: str) -> None:
    """Refuse a URL of another protocol than `PROTOCOLS`, also one within another (``zip::s3://...``).

    Raises:
        UserError: a protocol of the URL is not among them.
    """
    more = [p.strip() for p in os.environ.get(VARIABLE, "").split(",")]
    found = [part.partition("://")[0] for part in url.split("::")]
    bad = next((p for p in found if p not in (*PROTOCOLS, *more)), None)
    if bad is not None:
        raise UserError(
            f"{printable(url)}: URLs of the protocol '{printable(bad)}' are not read; {', '.join(PROTOCOLS)} are, "
            f"and those that {VARIABLE} names"
        )


def _remote(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it. Not kept: fsspec caches it per process, safely across forks."""
    refuse_protocol(url)
    fsspec = require("fsspec.core", f"the URL {url}", "pip install 'relume[remote]'")
    try:
        filesystem, inner = fsspec.url_to_fs(url)
        return filesystem, str(inner)
    except (ImportError, ValueError) as e:  # the protocol's own package is missing, or no such protocol
        raise UserError(f"{redacted(url)}: {redacted(first_line(e))}") from e


def join(root: str, name: str) -> str:
    """``root/name``, for paths and URLs alike."""
    return f"{root.rstrip('/')}/{name}" if is_url(root) else os.path.join(root, name)


def read_bytes(path: str | Path) -> bytes:
    """The whole file.

    Raises:
        UnreadableFile: naming the path and the reason; `MissingFile` where there is none.
    """
    try:
        if is_url(path):
            filesystem, inner = _remote(str(path))
            return bytes(filesystem.cat_file(inner))
        plain = expanded(path)
        return plain.read_bytes() if str(plain).startswith(reading.INHERITED) else reading.content(plain)
    except UserError:
        raise
    except FileNotFoundError as e:
        raise MissingFile(f"{path}: cannot be read ({e.strerror or 'No such file'})") from e
    except Exception as e:  # each remote protocol has errors of its own; locally it is OSError, or ValueError for a NUL
        raise UnreadableFile(f"{path}: cannot be read ({getattr(e, 'strerror', None) or first_line(e)})") from e


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[IO[bytes]]:
    """A file on disk or behind a URL, to be read in parts. Errors are those of the protocol, or of `reading.opened`."""
    if is_url(path):
        filesystem, inner = _remote(str(path))
        with filesystem.open(inner, "rb") as file:
            yield file
    else:
        with reading.opened(expanded(path)) as file:
            yield file


def read_part(path: str | Path, start: int, size: int) -> bytes:
    """`size` bytes of a file from byte `start` on; fewer where it ends before.

    Raises:
        UnreadableFile: naming the path and the reason.
    """
    try:
        if is_url(path):
            filesystem, inner = _remote(str(path))
            data = bytes(filesystem.cat_file(inner, start=start, end=start + size))
            return (
                data[start:][:size] if len(data) > size else data
            )  # a server that knows no parts sends the whole file
        with reading.opened(expanded(path)) as file:
            file.seek(start)
            return file.read(size)
    except UserError:
        raise
    except Exception as e:  # each remote protocol has errors of its own
        raise UnreadableFile(f"{path}: cannot be read ({getattr(e, 'strerror', None) or first_line(e)})") from e


def decode_text(data: bytes, name: str) -> str:
    """Text that a user wrote: UTF-8, with or without a byte order mark (RFC 3629), or UTF-16 with one.

    Args:
        data: the file's bytes.
        name: name of the file, for messages.

    Raises:
        UnreadableFile: it is not text.
    """
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as e:
        raise UnreadableFile(f"{name}: is not a text file in UTF-8 (byte {e.start})") from e
    if "\0" in text:
        raise UnreadableFile(f"{name}: is not a text file (it has zero bytes)")
    return text


def read_lines(path: str | Path) -> list[tuple[int, str]]:
    """Numbers, from 1, and contents of a text file's lines; blank ones are left out, and white space around the others.

    Lines end as editors end them, with LF, CR LF or CR; the rarer separators of Unicode may be part of a file's name.

    Raises:
        UnreadableFile: it cannot be read, or is not text.
    """
    lines = re.split(r"\r\n|\n|\r", decode_text(read_bytes(path), str(path)))
    return [(number, line.strip(" \t")) for number, line in enumerate(lines, 1) if line.strip()]


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write the whole file or nothing: readers, and a run that dies in the middle, never see half of it."""
    if is_url(path):
        filesystem, inner = _remote(str(path))
        filesystem.pipe_file(inner, data)
        return
    target = expanded(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as file:
        file.write(data)


# ------------------------------------------------------------------ what is in a folder
SYSTEMS = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"})
"""Folders that are the systems' own."""


def is_hidden(name: str) -> bool:
    """Whether a file, by its name relative to a root, is none of the user's: what systems hide in folders and archives.

    That is what begins with a dot, and what macOS (``__MACOSX`` in archives), Synology's servers (``@eaDir``) and file systems
    put beside pictures.
    """
    return any(part.startswith(".") or part in SYSTEMS for part in name.split("/"))


def list_files(root: str) -> list[str]:
    """Names of all files inside `root`, relative to it, with ``/`` between folders, sorted. Hidden ones are left out.

    Raises:
        UserError: there is no such folder, or one below cannot be listed.
    """
    if not is_url(root):
        return sorted(f"{folder}{name}" for folder, names in walk(root) for name in names)
    return sorted(name for name in _remote_files(root) if not is_hidden(name))


def walk(root: str) -> Iterator[tuple[str, list[str]]]:
    """Each folder inside `root`, itself first, as ``"a/b/"`` relative to it (``""`` for itself), and the files' names in it.

    Links to folders are followed, except for those that a folder is inside of already: they lead nowhere new. Hidden folders
    and files are left out.

    Raises:
        UserError: there is no such folder, or one cannot be listed.
    """
    if not os.path.isdir(root):
        parent = expanded(root).absolute().parent
        if os.path.exists(root):
            raise UserError(f"{printable(root)}: is {kind_of(Path(root))}, not a folder.")
        siblings = [p.name for p in parent.iterdir()] if parent.is_dir() else []
        hint = did_you_mean(Path(root).name, siblings, files=True)
        raise UserError(f"{printable(root)}: there is no such folder.{hint}")
    # Depth first: a folder, and those it is inside of.
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        relative, above = waiting.pop()
        try:
            status = os.stat(os.path.join(root, relative))
            identity = status.st_dev, status.st_ino
            if identity in above:
                continue
            with os.scandir(os.path.join(root, relative)) as found:
                entries = sorted((e.name, e.is_dir()) for e in found if not is_hidden(e.name))
        except OSError as e:
            where = f"its folder {relative} " if relative else ""
            raise UnreadableFile(f"{root}: {where}cannot be listed ({e.strerror or e})") from e
        waiting += [(f"{relative}{name}/", above | {identity}) for name, is_folder in reversed(entries) if is_folder]
        yield relative, [name for name, is_folder in entries if not is_folder]


def _remote_files(root: str) -> Iterator[str]:
    filesystem, inner = _remote(root)
    inner = inner.rstrip("/")
    try:
        if not filesystem.isdir(inner):
            raise UserError(f"{root}: there is no such folder.")
        return (path.removeprefix(inner).lstrip("/") for path in filesystem.find(inner))
    except UserError:
        raise
    except Exception as e:  # each protocol has errors of its own
        raise UnreadableFile(f"{root}: cannot be listed ({first_line(e)})") from e
