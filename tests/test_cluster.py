"""docs/cluster.md: its job scripts are shell, its options exist, and the one that starts jobs again does so when it helps."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from runs import REPO

from relume.core import cli
from relume.core.commands import sweep
from relume.core.commands import train as training
from relume.core.runtime.last_words import OUTCOMES

PAGE = (REPO / "docs" / "cluster.md").read_text() if (REPO / "docs" / "cluster.md").exists() else ""
SCRIPTS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


def stand_in(folder: Path, name: str, script: str) -> None:
    """A command of the cluster's."""
    path = folder / name
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def environment(folder: Path, **more: str) -> dict[str, str]:
    job = {"SLURM_JOB_ID": "4711", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "gpu[08-09]", "SLURM_ARRAY_TASK_ID": "3"}
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", **job, **more}


def arguments(said: list[str]) -> list[str]:
    """What `relume train` was given on a command line."""
    return said[said.index("train") + 1 :]


def test_job_scripts_start_relume_with_arguments_that_it_takes(tmp_path: Path) -> None:
    import argparse

    for name in ("torchrun", "srun", "python"):
        stand_in(tmp_path, name, f'printf "%s\\n" {name} "$@" > "{tmp_path}/said"')
    stand_in(tmp_path, "scontrol", 'printf "gpu08\\ngpu09\\n"')
    started = [s for s in SCRIPTS if "relume train" in s]
    assert len(started) == 4
    parser = argparse.ArgumentParser()
    training.add_arguments(parser)
    for script in started:
        (tmp_path / "said").unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", "-eu", "-c", script], env=environment(tmp_path), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said = (tmp_path / "said").read_text().split()
        parsed = parser.parse_args(arguments(said))
        assert parsed.opt == "options/mine.yml" and parsed.auto_resume
        if "torchrun" in said:
            from torch.distributed.run import get_args_parser

            launch = get_args_parser().parse_args(said[said.index("torchrun") + 1 :])
            assert "SIGUSR1" in launch.signals_to_handle and launch.module and launch.training_script == "relume"
            assert launch.nnodes == "1:1" or launch.rdzv_endpoint == "gpu08:29400"
    assert "manual_seed=3" in said
    assert "relume sweep" in PAGE and callable(sweep.run) and "sweep" in cli.commands()


@pytest.mark.parametrize(
    ("code", "restarts", "again"),
    [
        (75, 0, True),
        (None, 9, True),
        (1, 0, True),
        (1, 3, False),
        (2, 0, False),
        (3, 0, False),
        (0, 0, False),
        (130, 0, False),
    ],
)
def test_a_job_is_started_again_where_that_helps(code: int | None, restarts: int, again: bool, tmp_path: Path) -> None:
    (script,) = [s for s in SCRIPTS if "requeue.sh" in s]
    stand_in(tmp_path, "scontrol", f'echo "$@" > "{tmp_path}/said"')
    folder = tmp_path / "experiments" / "mine"
    folder.mkdir(parents=True)
    if code is not None:
        (folder / "exit.json").write_text(json.dumps({"code": code}))
    subprocess.run(
        ["bash", "-c", script, "requeue.sh", "mine"],
        cwd=tmp_path,
        env=environment(tmp_path, SLURM_RESTART_COUNT=str(restarts)),
        check=False,
    )
    said = tmp_path / "said"
    assert (said.read_text() if said.exists() else "") == ("requeue 4711\n" if again else "")


def test_the_table_of_codes_is_the_one_that_is_written() -> None:
    for code, outcome in {**OUTCOMES, 1: "failed"}.items():
        assert re.search(rf"^\| {code} \| {outcome}", PAGE, re.MULTILINE), outcome
