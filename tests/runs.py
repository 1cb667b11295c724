"""Run train.py for real, in its own processes, and compare what runs leave behind."""

from __future__ import annotations

import gc
import json
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import torch
import yaml
from forking import PRELOADED, become, wait_for_no_disk

import relume
from relume.core.runtime.weights import ABOUT, about_itself

REPO = Path(relume.__file__).resolve().parent


def options(name: str = "toy", **changes: Any) -> dict[str, Any]:
    """Options of a run of seconds; `changes` by dotted path with ``__`` for dots (``train__accumulate=2``)."""
    opt: dict[str, Any] = {
        "name": name,
        "model_type": "RestorationModel",
        "num_gpu": 0,
        "manual_seed": 7,
        "plugins": [str(REPO / "tests" / "toy.py")],
        "datasets": {
            "train": {"type": "ToyDataset", "batch_size_per_gpu": 2, "num_worker_per_gpu": 0},
            "val": {"name": "held_out", "type": "ToyDataset", "length": 3, "num_worker_per_gpu": 0},
        },
        "network_g": {"type": "ToyNet"},
        "train": {
            "total_iter": 12,
            "optim_g": {"type": "Adam", "lr": 0.01},
            "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [12], "restart_weights": [1], "eta_min": 1e-5},
            "pixel_opt": {"type": "ToyLoss"},
        },
        "val": {"val_freq": 4, "metrics": {"score": {"type": "toy_score", "better": "higher"}}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 5},
    }
    for path, value in changes.items():
        block = opt
        *parents, last = path.split("__")
        for parent in parents:
            block = block.setdefault(parent, {})
        block[last] = value
    return opt


def train(
    folder: Path,
    opt: Mapping[str, Any],
    *arguments: str,
    env: Mapping[str, str] | None = None,
    ranks: int = 1,
    torchrun: Sequence[str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """``python train.py`` in `folder`, which is created; by several ranks, or by torchrun with some arguments of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "opt.yml").write_text(yaml.safe_dump(dict(opt), sort_keys=False))
    command = [str(REPO / "train.py"), "-opt", "opt.yml", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **(env or {})}
    if ranks == 1 and torchrun is None:
        return forked(command, folder, [environment])
    command += ["--launcher", "pytorch"]
    if torchrun is None:
        return forked(command, folder, by_hand(ranks, environment))
    return forked(launched(ranks, *torchrun, *command), folder, [environment])


def by_hand(ranks: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """The environments of ranks that are started by hand on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    own = [{"RANK": str(r), "LOCAL_RANK": str(r), "LOCAL_WORLD_SIZE": str(ranks)} for r in range(ranks)]
    return [{**environment, **place, **rank} for rank in own]


def launched(ranks: int, *command: str, by: str = "torch.distributed.run") -> list[str]:
    """What starts a command in several ranks of this machine, for `forked`: torchrun, or the older launcher."""
    place = ["--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0", "--monitor_interval=0.05"]
    return [str(REPO / "tests" / "torchrun.py"), by, f"--nproc_per_node={ranks}", *place, *command]


UNREAD, CLOSED = "unread", "closed"
"""What standard output may be besides a file: a pipe whose reader is gone, and nothing."""


def imported() -> multiprocessing.context.ForkServerContext:
    """Where processes are forked from one that has imported what runs need; there is one for each process of the tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    return context


def forked(
    command: list[str], folder: Path, environments: Sequence[Mapping[str, str]], stdout: str | None = None
) -> subprocess.CompletedProcess[str]:
    """``python *command`` in `folder`, in one process for each environment, forked from one that has imported torch.

    The import of torch, and the one of the compiler which optimizers ask for, take seconds, more than the runs of these tests.
    When a process fails, the others have 20 seconds to leave by themselves; the exit code is the first one that is not 0.

    Args:
        stdout: what standard output is to be, ``/dev/full``, `UNREAD` or `CLOSED`, instead of being kept.
    """
    context = imported()
    files = [folder / f".{name}_{os.urandom(4).hex()}" for name in ("stdout", "stderr")]
    written = [stdout or str(files[0]), str(files[1])]
    processes = [context.Process(target=behave, args=(command, folder, dict(e), written)) for e in environments]
    for process in processes:
        process.start()
    waiting, failed, until = {p.sentinel: p for p in processes}, 0, time.monotonic() + 600
    while waiting and (done := multiprocessing.connection.wait([*waiting], max(0.0, until - time.monotonic()))):
        for sentinel in done:
            code = waiting.pop(sentinel).exitcode
            if code and not failed:
                failed, until = code, time.monotonic() + 20
    for process in waiting.values():
        process.kill()
    if waiting and not failed:
        raise subprocess.TimeoutExpired(command, 600)
    out, err = (f.read_text() if f.exists() else "" for f in files)
    for file in files:
        file.unlink(missing_ok=True)
    return subprocess.CompletedProcess(command, failed, out, err)


def behave(command: Sequence[str], folder: Path, environment: Mapping[str, str], files: Sequence[str]) -> None:
    """Run a script in this process as if it had been started for it; `files` are standard output and error."""
    wait_for_no_disk()
    gc.freeze()  # what was imported before is not looked at again
    for descriptor, file in zip((1, 2), files, strict=True):
        if file == UNREAD:
            reading, writing = os.pipe()
            os.close(reading)
        elif file != CLOSED:
            writing = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if file == CLOSED:
            os.close(descriptor)
        else:
            os.dup2(writing, descriptor)
    encoding = environment.get("PYTHONIOENCODING")
    sys.stdout, sys.stderr = (
        None if file == CLOSED else os.fdopen(d, "w", buffering=1, closefd=False, encoding=encoding)  # type: ignore[assignment]
        for d, file in zip((1, 2), files, strict=True)
    )
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    become(command)


def records(root: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` of the experiment in `root`."""
    return [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]


def weights(root: Path, which: int | str, key: str = "g") -> dict[str, dict[str, torch.Tensor]]:
    """The weights in ``models/net_<key>_<which>.pth`` of the experiment in `root`, without what they say of themselves."""
    entries = torch.load(root / "models" / f"net_{key}_{which}.pth", weights_only=True)
    assert about_itself(entries)["iteration"] == (which if isinstance(which, int) else ANY)
    return {k: v for k, v in entries.items() if k != ABOUT}


def outcome(folder: Path, name: str = "toy", iteration: int = 12) -> dict[str, Any]:
    """Everything of a finished run that must not depend on how it got there, times and paths left out."""
    root = folder / "experiments" / name
    state = torch.load(root / "training_states" / f"{iteration}.state", weights_only=True)
    return {
        "weights": weights(root, iteration),
        "best": weights(root, "best"),
        "state": {k: v for k, v in state.items() if k != "world_size"},
        "records": [{k: v for k, v in r.items() if not k.startswith("perf/")} for r in records(root)],
        "scores": (root / "visualization" / "held_out_scores.jsonl").read_text(),
    }


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Paths at which two nested structures differ; tensors are compared bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [f"{where}: tensors differ by up to {(a - b).abs().max():.3g}"]
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        missing = [f"{where}.{k}: only in one" for k in a.keys() ^ b.keys()]
        return missing + [d for k in a.keys() & b.keys() for d in differences(a[k], b[k], f"{where}.{k}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return [f"{where}: {len(a)} and {len(b)} entries"]
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}[{i}]")]
    return [] if a == b else [f"{where}: {a!r} and {b!r}"]
