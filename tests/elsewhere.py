"""``python elsewhere.py COMMAND ...``: Relume's command line as far as this system can be made to look like Windows.

What Windows' Python does not have is taken away: modules, fork and what goes with it, flags of files, signals. Processes are
spawned, folders cannot be opened (nor synchronised), and open files cannot be replaced or removed. Paths and line ends stay
this system's.
"""

from __future__ import annotations

import builtins
import multiprocessing
import os
import signal
import sys
import weakref
from pathlib import Path
from typing import Any

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "syslog", "readline")
OF_OS = (
    *(
        "fork",
        "forkpty",
        "register_at_fork",
        "sysconf",
        "getuid",
        "geteuid",
        "getgid",
        "getloadavg",
        "statvfs",
        "mkfifo",
    ),
    *("chown", "sched_getaffinity", "wait3", "wait4", "setsid", "killpg", "uname"),
    *("O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK"),
)
SIGNALS = ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGALRM", "SIGKILL", "SIGSTOP", "sigpending", "sigwait")


def take_away() -> None:
    """Make this process look like one of Windows."""
    import torch  # noqa: F401 - and the libraries below it, which are others on Windows

    for name in (*MODULES, "triton"):
        sys.modules[name] = None  # type: ignore[assignment]
    for owner, names in ((os, OF_OS), (signal, SIGNALS)):
        for name in names:
            if hasattr(owner, name):
                delattr(owner, name)
    multiprocessing.set_start_method("spawn", force=True)
    guard_files()


def guard_files() -> None:
    """Refuse to open folders, and to replace or remove files that are open."""
    opened: weakref.WeakSet[Any] = weakref.WeakSet()
    real_open, real_os_open, real_fdopen = builtins.open, os.open, os.fdopen
    plain = {name: getattr(os, name) for name in ("replace", "rename", "remove", "unlink")}

    def remembered(file: Any) -> Any:
        opened.add(file)
        return file

    def os_open(path: Any, *arguments: Any, **more: Any) -> int:
        if isinstance(path, (str, os.PathLike)) and Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        return real_os_open(path, *arguments, **more)

    def refuse_open(*paths: Any) -> None:
        numbers = {f.fileno() for f in list(opened) if not f.closed}
        there = {os.path.realpath(f"/proc/self/fd/{n}") for n in numbers}
        for path in paths:
            if os.path.realpath(path) in there:
                raise PermissionError(13, "The process cannot access the file because it is being used", str(path))

    def guarded(name: str) -> Any:
        def call(*arguments: Any, **more: Any) -> None:
            refuse_open(*[a for a in arguments if isinstance(a, (str, os.PathLike))])
            plain[name](*arguments, **more)

        return call

    builtins.open = lambda *a, **k: remembered(real_open(*a, **k))  # type: ignore[assignment]
    os.open, os.fdopen = os_open, lambda *a, **k: remembered(real_fdopen(*a, **k))
    for name in plain:
        setattr(os, name, guarded(name))


if __name__ == "__main__":
    take_away()
    from relume.core.cli import main

    sys.exit(main(sys.argv[1:]))
