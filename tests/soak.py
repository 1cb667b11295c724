"""Random faults over tiny runs: ``make soak``. Each run is resumed until it ends, and must end bit for bit like one without.

``python tests/soak.py [--faults 200] [--minutes 20] [--seed 0] [--jobs 4]``

Runs are of one process, of two ranks that a scheduler starts, of two node agents of torchrun's with a rank each, and now and
then of the command ``torchrun`` itself. A fault is SIGTERM, SIGUSR1 or SIGKILL at a random moment, to a rank, to all ranks,
to a loading process or to an agent; every other one is followed by a second. All but torchrun are forked from this process,
which has imported everything, so that a start takes a fraction of a second; several runs go on at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import faulthandler
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from forking import forked, preload
from runs import REPO, differences, options, outcome

from relume.core import cli
from relume.core import options as of_files

ITERATIONS = 30
PATIENCE = 60.0
"""Seconds for which a run may say nothing; then it hangs."""
BAD_EXIT = 3.0
"""Seconds after which a scheduler ends what is left of a run that has lost a task (srun --kill-on-bad-exit)."""
POLITELY, FORCE = (1, signal.SIGTERM), (10, signal.SIGKILL)
"""How: after how many times that, and by what. An agent of torchrun's waits five minutes for one that is gone."""
MODES = ("alone", "ranks", "agents")
TORCHRUN = 12
"""Every so manieth run is torchrun's, whose start takes seconds."""
FAULTY = 6
"""Attempts of a run that faults befall, at most."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL)
ARGUMENTS = ("train", "-opt", "opt.yml", "--auto_resume")


# ------------------------------------------------------------------ processes
def train() -> NoReturn:
    """What each rank does."""
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    cli.as_process(lambda: cli.main(ARGUMENTS))


def rank_of_agent() -> None:
    """What a rank does whose agent waits for the function to return, and may be gone by then."""
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    code = cli.main(ARGUMENTS)
    if code:
        cli.leave(code)
    over = threading.Timer(5.0, os._exit, [0])
    over.daemon = True
    over.start()


def agent(port: int) -> int:
    """One of two nodes."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=2,
        max_nodes=2,
        nproc_per_node=1,
        run_id="soak",
        rdzv_backend="c10d",
        rdzv_endpoint=f"localhost:{port}",
        start_method="fork",
        max_restarts=0,
        monitor_interval=0.05,
    )
    try:
        elastic_launch(config, rank_of_agent)()
    except ChildFailedError:
        return 1
    return 0


def start(mode: str, folder: Path) -> list[int]:
    """The processes of a run: its ranks, or its agents."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    log.touch()
    if mode == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d"]
        command += [f"--rdzv_endpoint=localhost:{port}", str(REPO / "train.py"), *ARGUMENTS[1:]]
        with log.open("a") as told:
            return [subprocess.Popen(command, cwd=folder, stdout=told, stderr=told, start_new_session=True).pid]
    if mode == "alone":
        return [forked(train, folder, {}, log, log)]
    if mode == "agents":
        return [forked(lambda: agent(port), folder, {}, log, log) for _ in range(2)]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    own = [{**place, "RANK": str(r), "LOCAL_RANK": str(r)} for r in range(2)]
    return [forked(train, folder, env, log, log) for env in own]


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and ours is buried."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    with contextlib.suppress(OSError):
        return [int(c) for task in Path(f"/proc/{pid}/task").iterdir() for c in (task / "children").read_text().split()]
    return []


def described(pid: int) -> str:
    """What a process is and waits for, for the log; it adds itself where its threads are."""
    told = [f"process {pid}"]
    for name in ("cmdline", "wchan", "stat"):
        with contextlib.suppress(OSError):
            told.append(Path(f"/proc/{pid}/{name}").read_text().replace("\0", " ").strip()[:120])
    with contextlib.suppress(OSError):
        caught = Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()[0]
        if int(caught, 16) >> (signal.SIGUSR2 - 1) & 1:
            os.kill(pid, signal.SIGUSR2)
            time.sleep(0.5)
    return "; ".join(told)


def processes(mode: str, started: list[int]) -> dict[str, list[int]]:
    """Whom a fault may befall, by kind."""
    nodes = started if mode in ("agents", "torchrun") else []
    ranks = [c for a in nodes for c in children(a)] if nodes else started
    return {"agent": nodes, "rank": ranks, "worker": [c for r in ranks for c in children(r)]}


# ------------------------------------------------------------------ one run
@dataclasses.dataclass
class Fault:
    """What was done, to whom and when."""

    kind: str
    number: int
    moment: float

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name

    def __str__(self) -> str:
        return f"{self.name} to {self.kind} after {self.moment:.2f} s"


def befall(mode: str, started: list[int], draw: random.Random) -> tuple[str, int] | None:
    """Send a signal to somebody; its target and number, None if there was nobody left."""
    found = {kind: pids for kind, pids in processes(mode, started).items() if pids}
    targets = [*found, *(["all ranks"] if len(found.get("rank", ())) > 1 else [])]
    if not targets:
        return None
    kind, number = draw.choice(targets), draw.choice(SIGNALS)
    pids = found["rank"] if kind == "all ranks" else [draw.choice(found[kind])]
    hit = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            if alive(pid):
                os.kill(pid, number)
                hit += 1
    return (kind, number) if hit else None


def attempt(
    mode: str, folder: Path, draw: random.Random, moments: list[float]
) -> Generator[None, None, tuple[list[Fault], bool]]:
    """Start a run, and wait for its end, with faults at some moments; these, and whether it came to an end.

    It yields while it waits, for other runs to go on.
    """
    begin = time.monotonic()
    started = start(mode, folder)
    everybody, faults, waiting = set(started), [], deque(moments)
    lost, ending = None, POLITELY
    until, said = PATIENCE, -1
    while any(map(alive, everybody)):
        now = time.monotonic() - begin
        everybody |= {p for pids in processes(mode, started).values() for p in pids}
        if waiting and now >= waiting[0]:
            waiting.popleft()
            if (done := befall(mode, started, draw)) is not None:
                faults.append(Fault(*done, now))
        if (length := (folder / "log").stat().st_size) != said:
            until, said = now + PATIENCE, length
        if lost is None and not all(map(alive, started)):
            lost = now
        if lost is not None and now > lost + BAD_EXIT * ending[0]:
            for pid in filter(alive, started):
                os.kill(pid, ending[1])
            ending = FORCE
        if now > until:
            for pid in filter(alive, everybody):
                told = f"left over: {described(pid)}\n"
                with (folder / "log").open("a") as log:
                    log.write(told)
                os.kill(pid, signal.SIGKILL)
            return faults, False
        yield
    return faults, True


def drawn(draw: random.Random, length: float) -> list[float]:
    """When faults befall an attempt that would take so many seconds: one at any moment, and soon after it another, or none."""
    first = draw.uniform(0.0, length)
    return [first, first + draw.uniform(0.0, 2.0)] if draw.random() < 0.5 else [first]


def finished(folder: Path) -> bool:
    """Whether the run has come to its end."""
    said = folder / "experiments/toy/exit.json"
    return said.exists() and yaml.safe_load(said.read_text())["code"] == 0


def settings(background: bool = False) -> dict[str, Any]:
    """A run with everything that must survive."""
    return options(
        train__total_iter=ITERATIONS,
        train__ema_decay=0.9,
        val__val_freq=7,
        datasets__train__num_worker_per_gpu=1,
        logger__save_checkpoint_freq=4,
        logger__async_save=background,
    )


def prepared(folder: Path, background: bool = False) -> Path:
    """A folder with the option file of a run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "opt.yml").write_text(yaml.safe_dump(settings(background), sort_keys=False))
    return folder


@dataclasses.dataclass
class Straight:
    """What a run without faults gives, and how long it takes."""

    result: dict[str, Any]
    seconds: float


def straight(root: Path, mode: str) -> Generator[None, None, Straight]:
    """A run without faults."""
    folder, begin = prepared(root / f"straight_{mode}"), time.monotonic()
    yield from attempt(mode, folder, random.Random(0), [])
    if not finished(folder):
        raise SystemExit(f"{mode}: the run without faults failed:\n{(folder / 'log').read_text()[-3000:]}")
    return Straight(outcome(folder, iteration=ITERATIONS), time.monotonic() - begin)


@dataclasses.dataclass
class Tried:
    """A run with faults: what befell it, and what is wrong with its end."""

    mode: str
    folder: Path
    faults: list[Fault]
    wrong: list[str]


def run(root: Path, number: int, seed: int, expected: Mapping[str, Straight]) -> Generator[None, None, Tried]:
    """A run with faults, resumed until it is finished."""
    draw = random.Random(f"{seed} {number}")
    mode = "torchrun" if number % TORCHRUN == TORCHRUN - 1 else MODES[number % len(MODES)]
    folder = prepared(root / f"run_{number}", background=draw.random() < 0.5)
    tried = Tried(mode, folder, [], [])
    for count in range(FAULTY + 10):
        begin = time.monotonic()
        moments = drawn(draw, expected[mode].seconds) if count < (2 if mode == "torchrun" else FAULTY) else []
        faults, ended = yield from attempt(mode, folder, draw, moments)
        tried.faults += faults
        if not ended:
            tried.wrong.append(f"it said nothing for {PATIENCE:.0f} s after {len(tried.faults)} faults")
            return tried
        if finished(folder):
            if (
                not tried.faults
            ):  # which came too late: on a loaded machine the run without faults may have been a slow one
                expected[mode].seconds = min(expected[mode].seconds, time.monotonic() - begin)
            tried.wrong = differences(outcome(folder, iteration=ITERATIONS), expected[mode].result)
            return tried
    tried.wrong.append("it did not end in 10 more attempts")
    return tried


def main(faults: int, minutes: float, seed: int, jobs: int) -> int:
    """Try faults until there were enough, or the time is over; the exit code."""
    root, began = Path(tempfile.mkdtemp(prefix="relume_soak_")), time.monotonic()
    expected: dict[str, Straight] = {}
    for mode in (*MODES, "torchrun"):
        expected[mode] = finish(straight(root, mode))
    print(", ".join(f"{mode} takes {e.seconds:.1f} s" for mode, e in expected.items()), flush=True)
    kinds: Counter[str] = Counter()
    over: list[Tried] = []
    going: list[Generator[None, None, Tried]] = []
    numbers = 0
    while True:
        enough = sum(kinds.values()) >= faults or time.monotonic() > began + 60 * minutes
        while len(going) < jobs and not enough:
            going.append(run(root, numbers, seed, expected))
            numbers += 1
        if not going:
            break
        for each in [*going]:
            try:
                next(each)
            except StopIteration as stop:
                going.remove(each)
                over.append(stop.value)
                kinds.update(f"{f.name} to {f.kind} ({stop.value.mode})" for f in stop.value.faults)
                tell(stop.value, sum(kinds.values()), time.monotonic() - began)
        time.sleep(0.02)
    wrong = sum(bool(t.wrong) for t in over)
    for kind, count in sorted(kinds.items()):
        print(f"{count:5d}  {kind}")
    passed = (time.monotonic() - began) / 60
    total = sum(kinds.values())
    print(f"{total} faults in {len(over)} runs, {passed:.1f} minutes, seed {seed}: {wrong} runs went wrong", flush=True)
    if not wrong:
        shutil.rmtree(root)
    return 1 if wrong or not total else 0


def finish(work: Generator[None, None, Straight]) -> Straight:
    """See a run to its end."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: Straight = stop.value
            return result
        time.sleep(0.02)


def tell(tried: Tried, total: int, seconds: float) -> None:
    """Print what became of a run, whose folder is kept if something is wrong."""
    if not tried.wrong:
        shutil.rmtree(tried.folder)
        print(f"{seconds:6.0f} s: {total} faults, {tried.mode} as without them", flush=True)
        return
    befell = "; ".join(map(str, tried.faults))
    print(f"{tried.folder} ({tried.mode}): {befell}: {'; '.join(tried.wrong[:3])}", flush=True)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200, help="how many to try (200)")
    parser.add_argument("--minutes", type=float, default=20.0, help="when to stop at the latest (20)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (0)")
    parser.add_argument(
        "--jobs", type=int, default=2 * (os.cpu_count() or 1), help="runs at a time (two for each core)"
    )
    chosen = parser.parse_args()
    preload("relume.schedulers.cosine", "torch.distributed.launcher.api")
    of_files.check(settings())  # which looks for toy.py's names in every file
    code = main(chosen.faults, chosen.minutes, chosen.seed, chosen.jobs)
    sys.stdout.flush()
    os._exit(code)  # without what the libraries of all forks would have to say at their end
