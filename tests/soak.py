"""Random faults over tiny runs: ``make soak``. Each run is resumed until it ends, and must end bit for bit like one without.

``python tests/soak.py [--faults 200] [--minutes 20] [--seed 0]``

Runs are of one process, of two ranks that a scheduler starts, or of two node agents of torchrun's with a rank each. A fault is
SIGTERM, SIGUSR1 or SIGKILL at a random moment, to a rank, to all ranks, to a loading process or to an agent. All are forked
from this process, which has imported everything, so that a start takes a fraction of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from runs import differences, options, outcome

import relume.core.pipeline
import relume.schedulers.cosine  # noqa: F401
from relume.core import cli

ITERATIONS = 30
PATIENCE = 60.0
"""Seconds in which what is left of a run must end after a fault."""
BAD_EXIT = 3.0
"""Seconds after which a scheduler ends what is left of a run that has lost a task (srun --kill-on-bad-exit)."""
POLITELY, FORCE = (1, signal.SIGTERM), (10, signal.SIGKILL)
"""How: after how many times that, and by what. An agent of torchrun's waits five minutes for one that is gone."""
MODES = ("alone", "ranks", "agents")
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL)


# ------------------------------------------------------------------ processes
def forked(work: Callable[[], int], log: Path, env: dict[str, str]) -> int:
    """A process that does `work` with `log` as its output; its number."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        os.chdir(log.parent)
        handle = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.environ.update(env)
        code = work()
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def train() -> NoReturn:
    """What each rank does."""
    cli.as_process(lambda: cli.main(["train", "-opt", "opt.yml", "--auto_resume"]))


def rank_of_agent() -> None:
    """What a rank does whose agent waits for the function to return, and may be gone by then."""
    code = cli.main(["train", "-opt", "opt.yml", "--auto_resume"])
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
    if mode == "alone":
        return [forked(train, folder / "log", {})]
    if mode == "agents":
        return [forked(lambda: agent(port), folder / "log", {}) for _ in range(2)]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    return [forked(train, folder / "log", {**place, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(2)]


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
    """What a process is and waits for, for the log."""
    told = [f"process {pid}"]
    for name in ("cmdline", "wchan", "stat"):
        with contextlib.suppress(OSError):
            told.append(Path(f"/proc/{pid}/{name}").read_text().replace("\0", " ").strip()[:120])
    return "; ".join(told)


def processes(mode: str, started: list[int]) -> dict[str, list[int]]:
    """Whom a fault may befall, by kind."""
    nodes = started if mode == "agents" else []
    ranks = [c for a in nodes for c in children(a)] if nodes else started
    return {"agent": nodes, "rank": ranks, "worker": [c for r in ranks for c in children(r)]}


# ------------------------------------------------------------------ one run
@dataclasses.dataclass
class Fault:
    """What was done, to whom and when."""

    kind: str
    number: int
    moment: float

    def __str__(self) -> str:
        return f"{signal.Signals(self.number).name} to {self.kind} after {self.moment:.2f} s"


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


def attempt(mode: str, folder: Path, draw: random.Random, length: float, faulty: bool) -> tuple[Fault | None, bool]:
    """Start a run, and wait for its end, with a fault on the way; the fault, and whether everything ended in time."""
    begin = time.monotonic()
    started = start(mode, folder)
    everybody = set(started)
    moment, fault, lost, ending = draw.uniform(0.0, 1.1 * length), None, None, POLITELY
    while any(map(alive, everybody)):
        now = time.monotonic() - begin
        everybody |= {p for pids in processes(mode, started).values() for p in pids}
        if faulty and fault is None and now >= moment:
            faulty = False
            if (done := befall(mode, started, draw)) is not None:
                fault = Fault(*done, now)
        if lost is None and not all(map(alive, started)):
            lost = now
        if lost is not None and now > lost + BAD_EXIT * ending[0]:
            for pid in filter(alive, started):
                os.kill(pid, ending[1])
            ending = FORCE
        if now > moment + PATIENCE + length:
            for pid in filter(alive, everybody):
                said = f"left over: {described(pid)}\n"
                with (folder / "log").open("a") as log:
                    log.write(said)
                os.kill(pid, signal.SIGKILL)
            return fault, False
        time.sleep(0.01)
    return fault, True


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


def straight(root: Path) -> Iterator[tuple[str, dict[str, Any], float]]:
    """For each mode what a run without faults gives, and how long it takes."""
    for mode in MODES:
        folder = prepared(root / f"straight_{mode}")
        begin = time.monotonic()
        attempt(mode, folder, random.Random(0), 60.0, faulty=False)
        if not finished(folder):
            raise SystemExit(f"{mode}: the run without faults failed:\n{(folder / 'log').read_text()[-3000:]}")
        yield mode, outcome(folder, iteration=ITERATIONS), time.monotonic() - begin


def main(faults: int, minutes: float, seed: int) -> int:
    """Try faults until there were enough, or the time is over; the exit code."""
    root, began = Path(tempfile.mkdtemp(prefix="relume_soak_")), time.monotonic()
    expected = {mode: (result, length) for mode, result, length in straight(root)}
    print(", ".join(f"{mode} takes {length:.1f} s" for mode, (_, length) in expected.items()), flush=True)
    kinds: Counter[str] = Counter()
    done, runs, wrong = 0, 0, 0
    while done < faults and time.monotonic() < began + 60 * minutes:
        draw = random.Random(f"{seed} {runs}")
        mode = MODES[runs % len(MODES)]
        result, length = expected[mode]
        folder = prepared(root / f"run_{runs}", background=draw.random() < 0.5)
        told: list[str] = []
        for count in range(20):
            fault, ended = attempt(mode, folder, draw, length, faulty=count < 5)
            if fault is not None:
                done += 1
                kinds[f"{signal.Signals(fault.number).name} to {fault.kind} ({mode})"] += 1
                told.append(str(fault))
            if not ended:
                told.append(f"and then it hung for {PATIENCE:.0f} s")
                break
            if finished(folder):
                break
        else:
            told.append("and then it did not end in 15 more attempts")
        found = (
            differences(outcome(folder, iteration=ITERATIONS), result) if finished(folder) else ["it did not finish"]
        )
        if found or not ended:
            wrong += 1
            print(f"run {runs} ({mode}, in {folder}): {'; '.join(told)}: {'; '.join(found[:3])}", flush=True)
        else:
            shutil.rmtree(folder)
        runs += 1
    passed = (time.monotonic() - began) / 60
    for kind, count in sorted(kinds.items()):
        print(f"{count:5d}  {kind}")
    print(f"{done} faults in {runs} runs, {passed:.1f} minutes, seed {seed}: {wrong} runs went wrong", flush=True)
    if not wrong:
        shutil.rmtree(root)
    return 1 if wrong or not done else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200, help="how many to try (200)")
    parser.add_argument("--minutes", type=float, default=20.0, help="when to stop at the latest (20)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (0)")
    chosen = parser.parse_args()
    sys.exit(main(chosen.faults, chosen.minutes, chosen.seed))
