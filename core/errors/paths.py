"""Paths as users write them: the one place where they are expanded, and where what is wrong with one is put into words."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .base import UserError
from .text import printable

NOT_THERE = "no such file"
FILE, FOLDER = "a file", "a folder"
KINDS = {FILE: stat.S_ISREG, FOLDER: stat.S_ISDIR, "a pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK}
LONGEST = 255
"""Bytes that a file system takes for one name."""


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with ``~`` and ``~user`` expanded.

    Raises:
        UserError: no file system can have a file of this name, or there is no such user.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise UserError(f"'{printable(text)}': a path cannot contain the character NUL")
    try:
        name = max((len(os.fsencode(part)) for part in text.split("/")), default=0)
    except UnicodeEncodeError:
        raise UserError(f"'{printable(text)}': a path cannot contain half of a surrogate pair") from None
    if name > LONGEST or len(text) > 4000:
        raise UserError(f"'{printable(text)}': too long for a path (a name has at most {LONGEST} bytes)")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = text.split("/", 1)[0]
        raise UserError(f"'{printable(text)}': there is no user '{printable(user[1:])}' here") from None


def real(path: Path) -> Path:
    """A path with its links followed; of links that lead to each other, over which `Path.resolve` raises, one of them."""
    return Path(os.path.realpath(path))


def unreadable(path: Path) -> str | None:
    """Why `path` is not a plain file that can be read, in a few words; None when it is one."""
    try:
        kind = kind_of(path)
        if kind == FILE:
            path.open("rb").close()
            return None
    except OSError as e:
        return reason(e)
    return f"{kind}, not a file"


def kind_of(path: Path) -> str:
    """What stands at `path`: ``FILE``, ``FOLDER``, or something that would wait, or never end, when it was read.

    Raises:
        OSError: nothing does, or nobody may look.
    """
    mode = path.stat().st_mode
    return next((name for name, test in KINDS.items() if test(mode)), "a device")


def reason(error: OSError) -> str:
    """What the system says against a path, in lower case: ``permission denied``."""
    if isinstance(error, FileNotFoundError):
        return NOT_THERE
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]
