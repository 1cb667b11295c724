"""Run the command line as several ranks, without the seconds that each of them would take to import torch.

`Ranks` starts one process, a fork of one that has imported everything, which forks the ranks of every run.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import yaml
from forking import forked, wait_for_no_disk
from runs import imported


@dataclass
class Rank:
    """One process: arguments of ``relume``, working directory, environment besides the usual, and what happens to it."""

    arguments: Sequence[str]
    folder: str
    env: Mapping[str, str] = field(default_factory=dict)
    after: float = 0.0
    """Seconds after the first rank's start at which this one starts."""
    signals: Mapping[float, int] = field(default_factory=dict)
    """What it is sent, by seconds after its start."""


@dataclass
class Ended:
    """How a rank ended: exit code (negative for a signal), the seconds it lived, and its output."""

    code: int
    seconds: float
    out: str
    err: str


def free_port() -> int:
    """A port that nobody has at this moment."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def by_hand(rank: int, world: int, port: int, **more: str) -> dict[str, str]:
    """What ranks that are started by hand must be told."""
    told = {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "MASTER_ADDR": "localhost"}
    return {**told, "MASTER_PORT": str(port), **more}


def written(folder: Path, opt: Mapping[str, Any], name: str = "opt.yml") -> str:
    """An option file in a folder, which is created; its name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(yaml.safe_dump(dict(opt), sort_keys=False))
    return name


class Ranks:
    """The process that forks ranks."""

    def __init__(self) -> None:
        self._asked, there = multiprocessing.Pipe()
        self._process = imported().Process(target=_serve, args=(there, dict(os.environ)))
        self._process.start()
        there.close()

    def run(self, ranks: Sequence[Rank], seconds: float = 120.0, *, for_first: bool = False) -> list[Ended]:
        """Start ranks and wait for all; those that still live after some seconds are killed, which is code -9.

        With `for_first`, the others are killed when the first one has ended.
        """
        self._asked.send((ranks, seconds, for_first))
        return [Ended(*e) for e in self._asked.recv()]

    def train(self, folder: Path, opts: Sequence[Mapping[str, Any]], **env: str) -> list[Ended]:
        """One run, of as many ranks by hand as there are options, which are a file for each."""
        port = free_port()
        ranks = []
        for i, opt in enumerate(opts):
            name = written(folder, opt, f"opt_{i}.yml")
            arguments = ["train", "-opt", name, "--launcher", "pytorch"]
            ranks.append(Rank(arguments, str(folder), by_hand(i, len(opts), port, **env)))
        return self.run(ranks)

    def close(self) -> None:
        """End the process."""
        self._asked.close()
        self._process.join(30)


def _command(arguments: list[str]) -> NoReturn:
    """What each rank does."""
    from relume.core import cli

    cli.as_process(lambda: cli.main(arguments))


def _run(ranks: Sequence[Rank], seconds: float, for_first: bool, folder: Path) -> list[tuple[int, float, str, str]]:
    began = time.monotonic()
    started: dict[int, int] = {}
    ends: dict[int, tuple[int, float]] = {}
    sent: set[tuple[int, float]] = set()
    waiting = list(enumerate(ranks))
    files = [(str(folder / f"{i}.out"), str(folder / f"{i}.err")) for i in range(len(ranks))]
    while waiting or len(ends) < len(ranks):
        now = time.monotonic() - began
        for i, rank in [w for w in waiting if w[1].after <= now]:
            for file in files[i]:
                Path(file).unlink(missing_ok=True)
            work = partial(_command, list(rank.arguments))
            started[forked(work, rank.folder, rank.env, *files[i])] = i
            waiting.remove((i, rank))
        for pid, i in list(started.items()):
            if i in ends:
                continue
            due = [s for s in ranks[i].signals if s + ranks[i].after <= now and (i, s) not in sent]
            for moment in due:
                sent.add((i, moment))
                os.kill(pid, ranks[i].signals[moment])
            if over := now > seconds or (for_first and 0 in ends):
                os.killpg(pid, signal.SIGKILL)
            done, status = os.waitpid(pid, 0 if over else os.WNOHANG)
            if done:
                ends[i] = (os.waitstatus_to_exitcode(status), time.monotonic() - began - ranks[i].after)
        time.sleep(0.01)
    texts = [(Path(out).read_text(), Path(err).read_text()) for out, err in files]
    return [(*ends[i], *texts[i]) for i in range(len(ranks))]


def _serve(asked: Connection, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update({k: v for k, v in environment.items() if not k.startswith(("SLURM_", "TORCHELASTIC_"))})
    os.environ["OMP_NUM_THREADS"] = "1"
    wait_for_no_disk()
    gc.freeze()
    folder = Path(tempfile.mkdtemp())  # no TemporaryDirectory, which every rank would remove at its exit
    try:
        with contextlib.suppress(EOFError):
            while True:
                asked.send(_run(*asked.recv(), folder))
    finally:
        shutil.rmtree(folder)
