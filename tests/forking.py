"""Fork processes from one that has imported everything: a start takes a fraction of a second then, not several."""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

PRELOADED = (
    "cv2",
    "relume.core.commands.train",
    "relume.core.pipeline",
    "relume.core.imaging.opencv",
    "relume.datasets.paired",
    "torch._dynamo",
    "torch.distributed.nn.functional",
    "torch.distributed.checkpoint.state_dict",
    "torch.utils.tensorboard",
)
"""What a run imports that takes long. Optimizers ask for the compiler."""


def preload(*more: str) -> None:
    """Import all that, and more modules; what is there then is not looked at by the garbage collector of any fork."""
    for module in (*PRELOADED, *more):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


def wait_for_no_disk() -> None:
    """Have this process, and its forks, leave to the system when files reach the disk: what that keeps from is a power cut."""
    os.fsync = lambda _: None  # type: ignore[assignment]


def become(command: Sequence[str]) -> None:
    """What ``python SCRIPT ...``, ``python -m MODULE ...`` and ``python -c PROGRAM ...`` do, in this process."""
    if command[0] == "-m":
        sys.argv = [*command[1:]]
        sys.path[0] = os.getcwd()
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    elif command[0] == "-c":
        sys.argv = ["-c", *command[2:]]
        exec(compile(command[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [*command]
        sys.path[0] = str(Path(command[0]).parent)
        runpy.run_path(command[0], run_name="__main__")


def forked(
    work: Callable[[], int],
    folder: str | Path,
    env: Mapping[str, str],
    out: str | Path | None = None,
    err: str | Path | None = None,
) -> int:
    """A process of its own group that does `work` in a folder; its number. What it says is added to two files, if there are.

    It ends with what `work` returns, or exits with, and with 1 after an error, whose traceback it prints.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        for number, name in ((1, out), (2, err)):
            if name is not None:
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        os.environ.update(env)
        code = work()
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Fork:
    """A fork of this process that runs a Python script, as the ``subprocess.Popen`` for which torchrun takes it."""

    def __init__(self, args: Sequence[str], env: Mapping[str, str]) -> None:
        after = next(i for i, a in enumerate(args) if i and (a == "-m" or not a.startswith("-")))  # python -u SCRIPT
        self.pid = forked(partial(self._work, args[after:]), ".", env)
        self.returncode: int | None = None

    @staticmethod
    def _work(command: Sequence[str]) -> int:
        become(command)
        return 0

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode

    def wait(self, timeout: float) -> int:
        """The exit code, when there is one."""
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("a fork", timeout)
            time.sleep(0.01)
        return code
