"""One command in a forked process, with limits, and what became of it."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from relume.core import cli

SPACE = 3 << 30
"""Bytes of addresses that a trial may have beyond those of this process."""
PATIENCE = 5
"""Times as long as its limit a trial may take by the clock."""
LINE, MESSAGE = 2_000, 50_000
"""Characters that a line of a message, and the whole, may have."""
OWN = ("lq", "gt", "gt2", "clips", "eyes", "notes.txt", "pipe", "fuzz.yml", "stdout", "stderr")
"""Names of what `cases.data` and a trial itself put into its folder."""
FORMATTING = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Categories of Unicode that a terminal, or a reader, takes for something else than text."""


class Outcome(NamedTuple):
    """What became of a command: a kind of `KINDS`, and what it said on standard error."""

    kind: str
    said: str
    seconds: float
    """Seconds of processor time."""


KINDS = ("ran", "refused", "vague", "control characters", "endless", "traceback", "killed", "hang", "slow", "poisoned")
DEFECTS = KINDS[2:]


def attempt(
    arguments: Sequence[str], folder: Path, limit: float, names: Sequence[str] = (), kept: Collection[str] = OWN
) -> Outcome:
    """Run ``relume`` with these arguments in a fork, with `folder` as its current one, emptied of an earlier run.

    Args:
        limit: seconds of processor time after which it is ended; of the clock, it gets `PATIENCE` times as many, for it may
            share the machine.
        names: what a refusal must quote, all of them.
        kept: names in `folder` that belong there. Others are of an earlier trial, whatever that called its files.
    """
    for leftover in folder.iterdir():
        if leftover.name not in kept:
            shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _run(arguments, folder)
    status, seconds = _ended(child, limit)
    said = (folder / "stderr").read_bytes().decode("utf-8", "surrogateescape")
    printed = (folder / "stdout").read_bytes().decode("utf-8", "surrogateescape")
    return Outcome(_kind(status, said, printed, folder, names), said, seconds)


_compile_in_place = nn.Module.compile


def _compile(network: nn.Module, *_: Any, backend: str, **__: Any) -> None:
    _compile_in_place(network, backend=backend)


def _run(arguments: Sequence[str], folder: Path) -> None:
    """The forked process; it does not return."""
    os.setsid()
    os.chdir(folder)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPACE, used + SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Networks are traced as ever, but no gradients and no C++ are made of it, which takes torch's compiler minutes.
    nn.Module.compile = functools.partialmethod(_compile, backend="eager")  # type: ignore[assignment]
    try:
        code = cli.main(arguments)
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _ended(child: int, limit: float) -> tuple[int | None, float]:
    """The exit status of a child and its seconds of processor time. The status is negative for a signal, and None when the
    child went beyond `limit`, and is no more."""
    pause, began = 0.002, time.monotonic()
    while True:
        found, status, used = os.wait4(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        if time.monotonic() > began + PATIENCE * limit or (pause >= 0.1 and _processor_time(child) > limit):
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None, limit
        time.sleep(pause)
        pause = min(pause * 1.3, 0.1)


def _processor_time(process: int) -> float:
    """Seconds that a process and those of its children that have ended have used."""
    found = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return sum(map(int, found[11:15])) / os.sysconf("SC_CLK_TCK")


def _kind(status: int | None, said: str, printed: str, folder: Path, names: Sequence[str]) -> str:
    if status is None:
        return "hang"
    if status < 0:
        return "killed"
    if status == 1 or "Traceback (most recent call last)" in said:
        return "traceback"
    lines = said.splitlines()
    if len(said) > MESSAGE or any(len(line) > LINE for line in lines):
        return "endless"
    if unprintable(said) or unprintable(printed):
        return "control characters"
    if status == 0:
        return "poisoned" if poisoned(folder) else "ran"
    if not said.strip() or not all(name in said for name in names):
        return "vague"
    return "refused"


def unprintable(text: str) -> bool:
    """Whether some character would do something to a terminal, or would not be seen."""
    return any(unicodedata.category(c) in FORMATTING and c not in "\n\t" for c in text)


def poisoned(folder: Path) -> bool:
    """Whether a run that says it went well left weights or scores behind that are no numbers."""
    import torch

    for path in folder.glob("experiments/*/models/*.pth"):
        content = torch.load(path, weights_only=True)
        for entry in content.values():
            tensors = [t for t in getattr(entry, "values", list)() if isinstance(t, torch.Tensor)]
            if any(t.is_floating_point() and not t.isfinite().all() for t in tensors):
                return True
    logs = "".join(p.read_text(errors="replace") for p in folder.glob("experiments/*/metrics.jsonl"))
    return re.search(r"\b(NaN|Infinity)\b", logs) is not None
