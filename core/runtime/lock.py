"""Who owns an experiment: a file beside its folder that a run keeps while it lives.

``experiments/x`` is owned through ``experiments/.x.lock``, which stays where it is when a fresh run moves the folder aside.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import UserError
from ..files import reading, temporary_name

BEAT = 15.0
"""Seconds between signs of life."""
SILENCE = 120.0
"""Seconds without a sign of life after which another machine's lock no longer counts."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock.

    Attributes:
        pid, host: number of the process, and host on which it runs.
        machine: what distinguishes machines and containers, whose processes do not see each other's.
        started: time at which the kernel started it, in clock ticks after the boot (0 where the kernel does not say):
            process numbers come again.
        job: job of the cluster, with ``attempt``, the number of its restarts; empty outside.
    """

    pid: int
    host: str
    machine: str
    started: int
    job: str = ""
    attempt: int = 0

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        job = os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID", "")
        attempts = (os.environ.get(k, "0") for k in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
        job = "" if job == "none" else job
        return cls(os.getpid(), socket.gethostname(), _machine(), started(os.getpid()), job, sum(map(int, attempts)))

    @property
    def alive(self) -> bool:
        """Whether this process, of this machine, still runs."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return started(self.pid) == self.started


def lock_path(folder: Path) -> Path:
    """The lock of an experiment folder."""
    return folder.with_name(f".{folder.name}.lock")


def owner(folder: Path) -> Owner | None:
    """The run that owns an experiment folder now; None when nobody does."""
    path = lock_path(folder)
    try:
        holder, age = _read(path)
    except FileNotFoundError:
        return None
    if holder is None:  # just being written, or torn by a full disk
        return Owner(0, "an unknown host", "", 0) if age < SILENCE else None
    if holder.machine == _machine():
        return holder if holder.alive else None
    here = Owner.here()
    superseded = bool(here.job) and here.job == holder.job and here.attempt > holder.attempt
    return None if superseded or age >= SILENCE else holder


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Inside, this process owns an experiment folder.

    Raises:
        UserError: another run does; nothing was touched.
    """
    path = lock_path(folder)
    made = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    while not _take(path):
        if (holder := owner(folder)) is not None:
            raise UserError(_in_use(folder, holder))
        _discard(path)
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, over), daemon=True, name="relume-lock")
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        with contextlib.suppress(FileNotFoundError):
            if _read(path)[0] == Owner.here():
                path.unlink()
        if made:
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # a run that failed before it had anything to keep leaves nothing behind


def _in_use(folder: Path, holder: Owner) -> str:
    said = f"{folder} is in use by process {holder.pid} on {holder.host}"
    if holder.machine != _machine():
        said += f" (another machine's claim ends {SILENCE:.0f} s after its last sign of life)"
    return f"{said}. Give this run another name, or wait"


def _take(path: Path) -> bool:
    """Create the lock; False if there is one.

    It is written aside and linked, so that a process that is killed on the way leaves no lock without an owner.
    """
    aside = temporary_name(path)
    text = json.dumps(asdict(Owner.here()))
    try:
        aside.write_text(text)
        os.link(aside, path)
    except FileExistsError:
        return False
    except OSError as e:
        if e.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        return _take_without_links(path, text)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()
    return True


def _take_without_links(path: Path, text: str) -> bool:
    """`_take` on a file system that has none."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        file.write(text)
    return True


def _read(path: Path) -> tuple[Owner | None, float]:
    """The owner of the lock, None if that cannot be read, and the seconds since the last sign of life."""
    age = _now(path.parent) - path.stat().st_mtime
    try:
        return Owner(**json.loads(reading.text(path, 1 << 20))), age
    except (ValueError, TypeError, RecursionError, OSError):
        return None, age


def _now(folder: Path) -> float:
    """The time by the clock of the file system, which may be another machine's."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _discard(path: Path) -> None:
    """Remove the lock of a run that is gone, unless another run was faster."""
    aside = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        holder, age = _read(aside)
        if holder is not None and holder.machine == _machine() and holder.alive and age < BEAT:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)  # it was taken between our look and the renaming: give it back
        aside.unlink()


def _beat(path: Path, over: threading.Event) -> None:
    """Give signs of life until `over`."""
    while not over.wait(BEAT):
        with contextlib.suppress(OSError):  # a file system that stalls; the next beat may pass
            os.utime(path)


def _machine() -> str:
    """Tells this machine, since it was started, and this container from others."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def started(pid: int) -> int:
    """When the kernel started a process, in clock ticks after the boot; -1 if it is gone, or is a zombie.

    0 for every process where there is no /proc.
    """
    if not Path("/proc/self/stat").exists():
        return 0
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return -1 if fields[0] in "ZX" else int(fields[19])
