"""Files that are read where somebody else may have put something into their place that is no file."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import IO, BinaryIO

INHERITED = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""Where a shell puts pipes that the user has asked for: ``<(ls)``."""


def opened(path: str | os.PathLike[str]) -> BinaryIO:
    """A plain file to read. A pipe, which could be waited for for ever, and a device, which may never end, are none.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            kind = errno.EISDIR if stat.S_ISDIR(os.fstat(handle).st_mode) else errno.EINVAL
            raise OSError(kind, "Is a directory" if kind == errno.EISDIR else "No plain file", os.fspath(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def content(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """The bytes of a plain file, see `opened`.

    Args:
        most: bytes that it may have; any number when None.

    Raises:
        OSError: as `opened`; or it is larger.
    """
    with opened(path) as file:
        if most is not None and os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"More than {most:,} bytes", os.fspath(path))
        return file.read()


def text(path: Path, most: int | None = None) -> str:
    """The text of a plain file in UTF-8, in which what is none is replaced. Arguments and errors as `content`."""
    return content(path, most).decode("utf-8", errors="replace")


def checksum(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a plain file, in hexadecimal. Errors as `opened`."""
    with opened(path) as file:
        return checksum_of(file)


def checksum_of(file: IO[bytes]) -> str:
    """SHA-256 of what is left to read of an open file, in hexadecimal."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
