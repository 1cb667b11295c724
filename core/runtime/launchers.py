"""Who started this process and where it stands among its like: torchrun's and SLURM's environments, read."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from ..errors import UserError

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells every rank, and what ranks that you start yourself need."""
FIRST_PORT, PORTS = 10_000, 20_000
"""Ports that are taken from a job's number lie below those that systems hand out by themselves (from 32768 on Linux)."""


@dataclass(frozen=True)
class RankPlace:
    """Where a rank stands.

    Attributes:
        rank, world: number of this rank, and of how many.
        local_rank, local_world: rank and number of ranks on this node; the latter is 0 where nobody says.
        address, port: address and port at which rank 0, or torchrun, keeps the store in which ranks meet.
        kept: whether torchrun keeps that store.
        run: what all ranks of this run, and of no other, have in common, in words; empty where nobody says.
        attempt: how often this run was started again.
    """

    rank: int
    world: int
    address: str
    port: int
    local_rank: int = 0
    local_world: int = 0
    kept: bool = False
    run: str = ""
    attempt: int = 0


def understood(launcher: str, environment: Mapping[str, str] | None = None) -> str:
    """The launcher that is meant: ranks that torchrun started are ranks also where ``--launcher pytorch`` was left out."""
    environment = os.environ if environment is None else environment
    several = all(environment.get(k) for k in NEEDED) and environment["WORLD_SIZE"].strip() != "1"
    return "pytorch" if launcher == "none" and several else launcher


def place(launcher: str, port: int | None = None, environment: MutableMapping[str, str] | None = None) -> RankPlace:
    """Read the environment.

    Args:
        launcher: ``pytorch`` or ``slurm``.
        port: port of rank 0, for SLURM; from the job's number when None.
        environment: the process's own when None. What torchrun would have set and SLURM has not is added to it.

    Raises:
        UserError: something is missing or makes no sense.
    """
    environment = os.environ if environment is None else environment
    if launcher == "slurm":
        _translate_slurm(environment, port)
    # What torchrun and SLURM set, checked before anybody waits for others.
    lacking = [k for k in NEEDED if not environment.get(k)]
    if lacking:
        raise UserError(
            f"--launcher {launcher}: the environment lacks {', '.join(lacking)}. "
            "Start with: torchrun --nproc_per_node=<GPUs> -m relume train -opt <file> --launcher pytorch"
        )
    rank, world = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    if rank >= world:
        raise UserError(f"RANK is {rank}, but WORLD_SIZE is {world}: ranks count from 0")
    found = _number(environment, "MASTER_PORT")
    if not 0 < found < 65536:
        raise UserError(f"MASTER_PORT is {found}; ports are from 1 to 65535")
    run, attempt = _run(launcher, environment)
    return RankPlace(
        rank=rank,
        world=world,
        address=environment["MASTER_ADDR"].strip(),
        port=found,
        local_rank=_number(environment, "LOCAL_RANK", 0),
        local_world=_number(environment, "LOCAL_WORLD_SIZE", 0),
        kept=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        run=run,
        attempt=attempt,
    )


def restarted(environment: Mapping[str, str] | None = None) -> bool:
    """Whether torchrun or SLURM has started this run again, which then goes on where it was."""
    environment = os.environ if environment is None else environment
    return any(int(environment.get(k) or 0) > 0 for k in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def own_gpus(environment: Mapping[str, str] | None = None) -> bool:
    """Whether SLURM was asked to give each task GPUs of its own, of which a task may then see no others."""
    environment = os.environ if environment is None else environment
    return "SLURM_GPUS_PER_TASK" in environment or "gpu" in environment.get("SLURM_TRES_PER_TASK", "")


def port_of_job(job: str, step: str = "0") -> int:
    """The port of a SLURM job's step: neighbouring jobs have different ones.

    >>> port_of_job("1234567"), port_of_job("1234568"), port_of_job("1234567", "1")
    (24567, 24568, 13486)
    """
    numbers = [int("".join(re.findall(r"\d", text)) or 0) for text in (job, step)]
    return FIRST_PORT + (numbers[0] + 8919 * numbers[1]) % PORTS


def hosts(nodes: str) -> list[str]:
    """The hosts of a SLURM node list.

    >>> hosts("gpu[08-10,12],login"), hosts("r[1-2]n[1,3]-ib")
    (['gpu08', 'gpu09', 'gpu10', 'gpu12', 'login'], ['r1n1-ib', 'r1n3-ib', 'r2n1-ib', 'r2n3-ib'])

    Raises:
        ValueError: that is no node list.
    """
    if not re.fullmatch(r"(?:[^\[\],\s]|\[[\d,\-]+\])+(?:,(?:[^\[\],\s]|\[[\d,\-]+\])+)*", nodes):
        raise ValueError(f"'{nodes}' is no node list")
    found = []
    for name in re.findall(r"(?:[^\[\],]|\[[^\]]*\])+", nodes):
        parts = re.split(r"\[([^\]]*)\]", name)  # text and the insides of brackets take turns
        choices = [_numbers(p) if i % 2 else [p] for i, p in enumerate(parts)]
        found += ["".join(chosen) for chosen in itertools.product(*choices)]
    return found


def _numbers(ranges: str) -> list[str]:
    """The numbers of ``01-03,7``, as they are written."""
    found = []
    for part in ranges.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise ValueError(f"'[{ranges}]' has no numbers")
        first, last = match[1], match[2] or match[1]
        if int(last) < int(first) or int(last) - int(first) > 100_000:
            raise ValueError(f"'{part}' is no range of nodes")
        found += [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    return found


def _translate_slurm(environment: MutableMapping[str, str], port: int | None) -> None:
    """Set what torchrun would have, from srun's variables."""

    def first(*names: str) -> str:
        found = next((environment[n] for n in names if environment.get(n)), None)
        if found is None:
            raise UserError(f"--launcher slurm: {' or '.join(names)} is not set; start with srun")
        return found

    environment["RANK"] = first("SLURM_PROCID")
    environment["WORLD_SIZE"] = first("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")
    environment["LOCAL_RANK"] = environment.get("SLURM_LOCALID") or "0"
    if not environment.get("MASTER_PORT"):
        job, step = environment.get("SLURM_JOB_ID") or environment.get("SLURM_JOBID"), environment.get("SLURM_STEP_ID")
        environment["MASTER_PORT"] = str(port or port_of_job(job or "0", step or "0"))
    if not environment.get("MASTER_ADDR"):
        nodes = first("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
        environment["MASTER_ADDR"] = _first_host(nodes)


def _first_host(nodes: str) -> str:
    """The first of a node list: by scontrol where it is, else by ourselves."""
    if shutil.which("scontrol"):
        command = ["scontrol", "show", "hostnames", nodes]
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603  # nosec B603
            if names := said.stdout.split():
                return names[0]
        except (OSError, subprocess.SubprocessError):
            pass  # in a container it is there at times and finds no controller
    try:
        return hosts(nodes)[0]
    except ValueError as e:
        raise UserError(
            f"--launcher slurm: {e}; set MASTER_ADDR to the host of rank 0, and it need not be understood"
        ) from e


def _run(launcher: str, environment: Mapping[str, str]) -> tuple[str, int]:
    """What only the ranks of this run have in common, and how often it was started again."""
    if launcher == "slurm":
        job = environment.get("SLURM_JOB_ID") or environment.get("SLURM_JOBID") or ""
        step = environment.get("SLURM_STEP_ID") or "0"
        attempt = _number(environment, "SLURM_RESTART_COUNT", 0)
        return (f"SLURM job {job}, step {step}" if job else ""), attempt
    name = environment.get("TORCHELASTIC_RUN_ID", "")
    attempt = _number(environment, "TORCHELASTIC_RESTART_COUNT", 0)
    return (f"torchrun {name}" if name and name != "none" else ""), attempt


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name) or ("" if default is None else str(default))
    if not text.strip().isdecimal():
        raise UserError(f"{name} is '{text}' in the environment; it must be a number")
    return int(text)
