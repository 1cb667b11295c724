"""Files that are replaced as a whole, through temporary files whose names nobody can foresee."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LONGEST = 200
"""Bytes of a file's own name that its temporary file's name repeats; of a longer one it has a digest."""
OURS = re.compile(r"\..+\.(?:[0-9a-f]{16}|\d+)\.tmp(?:\.[a-z0-9]{1,5})?", re.DOTALL)
"""Names that `temporary_name` gives, and that versions before it gave."""


def temporary_name(path: Path, suffix: str = "") -> Path:
    """A name beside `path` for what will replace it: hidden, random, ending in ``.tmp`` and then `suffix`."""
    name = path.name
    if len(os.fsencode(name)) > LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return path.with_name(f".{name}.{secrets.token_hex(8)}.tmp{suffix}")


def is_temporary(path: Path, folder: bool = False) -> bool:
    """Whether this is a plain file (or a `folder`), and no link, whose name is one of `temporary_name`'s."""
    try:
        mode = path.lstat().st_mode
        return OURS.fullmatch(path.name) is not None and (stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode))
    except OSError:
        return False


@contextlib.contextmanager
def replacing(path: Path, over: bool = True) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when the block ends, and is removed when an error ends it.

    It is created anew: a file or a link of its name is never followed. A link at `path` itself is replaced, not followed.

    Args:
        over: take the place of a file that is there; else that one stays.

    Raises:
        OSError: it cannot be written.
    """
    temporary = temporary_name(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(temporary, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
        if over:
            temporary.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)  # whole or not at all, and never over another's
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
