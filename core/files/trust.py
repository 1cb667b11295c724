"""Whose code may run: plug-ins of the working directory and of the user's own files; others where the user says so."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from ..errors import UserError, printable
from ..errors.paths import real

VARIABLE = "RELUME_TRUST_PLUGINS"
"""Environment variable: files and folders whose plug-ins may run, parted as in ``PATH``; ``all`` for every one."""
FLAG = "--trust_plugins"
_own: ContextVar[tuple[Path, ...]] = ContextVar("own", default=())
_looking: ContextVar[bool] = ContextVar("looking", default=False)
_commanded: ContextVar[bool] = ContextVar("commanded", default=False)


class NotTrusted(UserError):
    """A plug-in that was not run, because a file from elsewhere names it."""


@contextlib.contextmanager
def trusting(folder: Path) -> Iterator[None]:
    """While this is entered, what a folder holds is the user's own: a command was given it as code to run."""
    token = _own.set((*_own.get(), folder.resolve()))
    try:
        yield
    finally:
        _own.reset(token)


@contextlib.contextmanager
def command_line(everything: bool, runs: bool = False) -> Iterator[None]:
    """Inside, option files are what a command was given, and plug-ins are asked about.

    Args:
        everything: the user trusts all plug-ins; processes that are started inside are told.
        runs: the command is there to run what the option file that it is given describes, and not to look at it: what that
            very file names is asked for, and runs.
    """
    token, before = _commanded.set(not runs), os.environ.get(VARIABLE)
    if everything:
        os.environ[VARIABLE] = "all"
    try:
        yield
    finally:
        _commanded.reset(token)
        if everything:
            os.environ.pop(VARIABLE) if before is None else os.environ.update({VARIABLE: before})


@contextlib.contextmanager
def looking() -> Iterator[None]:
    """Inside, what option files say is shown, and plug-ins that may not run are read instead (`options.plugins.look_at`)."""
    token = _looking.set(True)
    try:
        yield
    finally:
        _looking.reset(token)


def is_looking() -> bool:
    """Whether this is inside of `looking`."""
    return _looking.get()


def require_trust(plugin: str, code: Path | None, folder: Path, first: bool) -> None:
    """Refuse to run a plug-in that a stranger's file names.

    Code inside the working directory runs, and what a file inside it names. Where Python code, or a command that
    runs it, was given an option file, what that very file names runs as well.

    Args:
        plugin: plug-in, as the file names it.
        code: file or folder of the plug-in; None for an installed module.
        folder: folder of the file that names it.
        first: whether that is the option file itself, not one that it is based on.

    Raises:
        NotTrusted: with what to do.
    """
    here = Path.cwd().resolve()
    own = [real(p) for p in (code, folder) if p is not None]
    if any(p.is_relative_to(root) for p in own for root in (here, *_own.get())) or (first and not _commanded.get()):
        return
    said = [p for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p]
    if "all" in said or any(p.is_relative_to(real(Path(s).expanduser())) for s in said for p in own):
        return
    raise NotTrusted(
        f"{printable(plugin)} was not run: it and the file that names it lie outside the working directory, {printable(here)}. "
        f"If you trust {printable(code or plugin)}: {FLAG}, or {VARIABLE}={printable(code or folder)}"
    )
