"""Train one option file with several values of some keys, and compare them over seeds in a table.

``relume sweep -opt x.yml train.optim_g.lr=1e-3,3e-4 manual_seed=0,1,2 [--jobs 2] [--launcher 'srun --gpus=1']``

Every combination is a run of its own, NAME_<what differs>. The same command again goes on where it was stopped, and skips what
is finished. The table stands in NAME_sweep.md beside the runs too.
"""

from __future__ import annotations

import argparse
import itertools
import os
import queue
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import options
from ..errors import EXIT_INTERRUPTED, EXIT_PREEMPTED, UserError, table_row
from ..experiment import Experiment, find_resume
from ..imaging.storage import write_bytes
from ..options import Options
from ..reports import files
from ..runtime.checkpoint import Checkpoints
from . import _arguments

SEED = "manual_seed"
"""The key over whose values scores are averaged."""
Setting = tuple[tuple[str, str], ...]
"""Keys as they were typed, each with one of its values."""


@dataclass
class Run:
    """One combination.

    Attributes:
        setting: what differs from the option file.
        force_yml: the same as arguments of ``relume train``.
        opt: the options that come of it.
        allow_duplicate_keys: the option of ``relume train``.
        code: exit code of the training; None before it has ended.
        said: last line of its standard error.
    """

    setting: Setting
    force_yml: list[str]
    opt: Options
    allow_duplicate_keys: bool = False
    code: int | None = None
    said: str = ""

    @property
    def root(self) -> Path:
        """The experiment's folder."""
        return Experiment(self.opt).root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("settings", nargs="+", metavar="key=v1,v2", help="a key, and the values to try")
    _arguments.add_option_file(parser)
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at a time; each gets a GPU of its own if there are several"
    )
    parser.add_argument(
        "--launcher",
        metavar="'COMMAND ...'",
        default="",
        help="command that starts each run and waits for it, such as 'srun --ntasks=1 --gpus=1'; this machine when omitted",
    )
    parser.add_argument("--dry-run", action="store_true", help="only name the runs")
    _arguments.add_overrides(parser)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: ``--jobs`` is below 1, or runs failed.
    """
    if arguments.jobs < 1:
        raise UserError(f"--jobs: at least 1, not {arguments.jobs}")
    launcher = launched_by(arguments.launcher)
    twice = arguments.allow_duplicate_keys
    base = options.load(arguments.opt, arguments.force_yml, allow_duplicate_keys=twice)
    runs = plan(arguments.opt, arguments.force_yml, arguments.settings, base.name, twice)
    if arguments.dry_run:
        print("\n".join(r.opt.name for r in runs))
        return
    train_all(arguments.opt, runs, arguments.jobs, launcher)
    text = table(runs)
    file = runs[0].root.parent / f"{base.name}_sweep.md"
    write_bytes(file, text.encode())
    print(f"\n{text}\nwritten: {file}")
    failed = [r for r in runs if r.code]
    if failed:
        listed = "; ".join(f"{r.opt.name} ({r.said or f'exit code {r.code}'})" for r in failed)
        raise UserError(f"{len(failed)} of {len(runs)} runs failed: {listed}")


# ------------------------------------------------------------------ what to run
def plan(
    path: str, force_yml: Sequence[str], settings: Sequence[str], name: str, allow_duplicate_keys: bool = False
) -> list[Run]:
    """All combinations, checked.

    Raises:
        UserError: a setting is none, names a key twice, or gives options that are wrong.
    """
    axes = [parsed(text) for text in settings]
    keys = [key for key, _ in axes]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise UserError(f"sweep: {min(twice)} is given twice; list all of its values once, separated by commas")
    runs = []
    for values in itertools.product(*(values for _, values in axes)):
        setting = tuple(zip(keys, values, strict=True))
        force = [*force_yml, *(f"{key.replace('.', ':')}={value}" for key, value in setting)]
        force.append(f"name={name}_{label(setting)}")
        opt = options.load(path, force, allow_duplicate_keys=allow_duplicate_keys)
        runs.append(Run(setting, force, opt, allow_duplicate_keys))
    if runs[0].opt.train is None:
        raise UserError(f"{path}: there is no `train` section, so nothing to sweep")
    names = [r.opt.name for r in runs]
    if len(set(names)) < len(names):
        raise UserError("sweep: two values are written alike, and their runs would share a folder")
    return runs


def parsed(text: str) -> tuple[str, list[str]]:
    """``("train.lr", ["1e-3", "3e-4"])`` of ``train.lr=1e-3,3e-4``; commas inside brackets belong to a value.

    >>> parsed("a:betas=[0.9,0.99],[0.9,0.999]")
    ('a.betas', ['[0.9,0.99]', '[0.9,0.999]'])

    Raises:
        UserError: `text` is no ``KEY=VALUE,VALUE``.
    """
    key, equals, values = text.partition("=")
    key = ".".join(part.strip() for part in re.split("[.:]", key))
    found: list[str] = [""]
    depth = 0
    for character in values:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    found = [value.strip() for value in found]
    if not equals or not all(key.split(".")) or not all(found) or key == "name":
        raise UserError(f"sweep: expected KEY=VALUE,VALUE,... such as train.optim_g.lr=1e-3,3e-4, got '{text}'")
    return key, found


def label(setting: Setting) -> str:
    """What the runs' names say of a setting: the last part of each key, where that is enough, and its value as typed."""
    last = [key.rpartition(".")[2] for key, _ in setting]
    names = [short if last.count(short) == 1 else key for (key, _), short in zip(setting, last, strict=True)]
    parts = [f"{name}_{value}" for name, (_, value) in zip(names, setting, strict=True)]
    return re.sub(r"[^\w.+-]+", "-", "_".join(parts)).strip("-")


# ------------------------------------------------------------------ running
def train_all(path: str, runs: Sequence[Run], jobs: int, launcher: Sequence[str] = ()) -> None:
    """Train every run, some at a time; those that fail keep nobody from going on.

    Args:
        path: the option file.
        runs: runs to train.
        jobs: how many at a time.
        launcher: the launcher, see `launched_by`.

    Raises:
        KeyboardInterrupt: Ctrl-C; what was running has saved a checkpoint.
        Preempted: a run was told to stop, and so the sweep ends.
    """
    # Runs that are finished already are not started.
    waiting: queue.SimpleQueue[Run] = queue.SimpleQueue()
    for one in runs:
        if is_finished(one.opt):
            one.code = 0
            print(f"{one.opt.name}: is finished", flush=True)
        else:
            waiting.put(one)
    processes: dict[int, subprocess.Popen[str]] = {}
    stop = threading.Event()

    def work(slot: int) -> None:
        while not stop.is_set():
            try:
                one = waiting.get_nowait()
            except queue.Empty:
                return
            print(f"{one.opt.name}: starts", flush=True)
            processes[slot] = launch(path, one, slot, jobs, launcher)
            _, error = processes[slot].communicate()
            one.code, one.said = processes[slot].returncode, last_line(error)
            if one.code in (EXIT_PREEMPTED, EXIT_INTERRUPTED):
                stop.set()
            print(f"{one.opt.name}: {'done' if one.code == 0 else f'exit code {one.code}: {one.said}'}", flush=True)

    # One thread for each slot waits for its process; an interruption reaches all of them.
    workers = [threading.Thread(target=work, args=(slot,), daemon=True) for slot in range(jobs)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            while worker.is_alive():
                worker.join(0.2)
    except KeyboardInterrupt:  # the terminal has told the runs too
        stop.set()
        for process in processes.values():
            process.wait()
        raise
    if any(r.code in (EXIT_PREEMPTED, EXIT_INTERRUPTED) for r in runs):
        raise Preempted("the sweep was told to stop; the same command goes on where it was")


def is_finished(opt: Options) -> bool:
    """Whether there is nothing left to train."""
    checkpoints = Checkpoints(Experiment(opt).root)
    assert opt.train is not None
    if not checkpoints.iterations() or checkpoints.iterations()[-1] < opt.train.total_iter:
        return False
    resume = find_resume(opt, Experiment(opt), auto=True)
    return resume is not None and resume.iteration >= opt.train.total_iter and not resume.state["pending_validation"]


class Preempted(UserError):
    """A run ended after a signal, with a checkpoint."""

    code = EXIT_PREEMPTED


def launched_by(text: str) -> list[str]:
    """The words of a command that starts another one, whose words follow, waits for it, and ends with its exit code.

    Raises:
        UserError: it cannot be split into words, or there is no such program.
    """
    try:
        words = shlex.split(text)
    except ValueError as e:
        raise UserError(f"--launcher: {text!r} cannot be read as a command ({e})") from e
    if words and shutil.which(words[0]) is None:
        raise UserError(f"--launcher: there is no program '{words[0]}' on this machine")
    return words


def launch(path: str, one: Run, slot: int, jobs: int, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start ``relume train`` for a run; its log is in its folder, as always."""
    flags = ["--auto_resume", *(["--allow_duplicate_keys"] if one.allow_duplicate_keys else [])]
    command = [*launcher, sys.executable, "-m", "relume", "train", "-opt", path, *flags, "--force_yml", *one.force_yml]
    environment = dict(os.environ)
    gpus = visible_gpus()
    if jobs > 1 and len(gpus) > 1 and not launcher:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return subprocess.Popen(  # noqa: S603  # nosec B603
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )


def visible_gpus() -> list[str]:
    """The GPUs that runs may be given, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


def last_line(text: str) -> str:
    """The last line of a text that says something."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


# ------------------------------------------------------------------ comparing
def scores(root: Path) -> dict[str, float]:
    """The last validation's means of an experiment, ``dataset/metric``; empty when there was none."""
    return {f"{d}/{m}": value for d, metrics in files.Run(root).means.items() for m, value in metrics.items()}


def table(runs: Sequence[Run]) -> str:
    """Markdown: a row for each setting, its scores' mean and deviation over the seeds."""
    groups: dict[Setting, list[Run]] = {}
    for one in runs:
        groups.setdefault(tuple(pair for pair in one.setting if pair[0] != SEED), []).append(one)
    found = {one.opt.name: scores(one.root) if one.code == 0 else {} for one in runs}
    columns = list(dict.fromkeys(metric for values in found.values() for metric in values))
    several = len({column.partition("/")[0] for column in columns}) > 1
    keys = [key for key, _ in next(iter(groups))]
    heads = [column if several else column.partition("/")[2] for column in columns]
    rows = [[*keys, "runs", *heads], [*["---"] * len(keys), *["---:"] * (len(heads) + 1)]]
    for setting, group in groups.items():
        done = [one for one in group if one.code == 0]
        cells = [spread([found[one.opt.name].get(column) for one in done]) for column in columns]
        rows.append([*(value for _, value in setting), f"{len(done)} of {len(group)}", *cells])
    return "\n".join(map(table_row, rows)) + "\n"


def spread(values: Iterable[float | None]) -> str:
    """Mean and sample deviation, ``24.13 ± 0.05``; the value alone of one run."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    mean = f"{statistics.fmean(known):.4f}"
    return f"{mean} ± {statistics.stdev(known):.4f}" if len(known) > 1 else mean
