"""``relume sweep``: a run for each combination, skipped when finished, continued when killed, and one table."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from runs import forked, options, weights

from relume.core.cli import main
from relume.core.commands import sweep
from relume.core.runtime.checkpoint import Checkpoints

SHORT = {"train__total_iter": 4, "train__scheduler": None, "val__val_freq": None, "logger__save_checkpoint_freq": 2}


@pytest.fixture(autouse=True)
def a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("x.yml").write_text(yaml.safe_dump(options("toy", **SHORT)))


class Forked:
    """A run that is forked from a process that has imported everything, when its end is waited for."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], **_: Any) -> None:
        self.command, self.env, self.returncode = [*command[1:]], env, 0

    def communicate(self) -> tuple[None, str]:
        done = forked(self.command, Path.cwd(), [self.env])
        self.returncode = done.returncode
        return None, done.stderr


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs start in a fraction of a second."""
    monkeypatch.setattr(sweep, "subprocess", SimpleNamespace(Popen=Forked, PIPE=-1, DEVNULL=-3))


@pytest.mark.usefixtures("at_once")
def test_rates_and_seeds_killed_and_continued(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["sweep", "-opt", "x.yml", "train.optim_g.lr=1e-2,1e-3", "manual_seed=0,1"]
    monkeypatch.setenv("RELUME_TEST_ACCIDENT", "loss:3")  # every run is killed in its third step
    assert main([*command, "--jobs", "2"]) == 2
    assert "4 of 4 runs failed: toy_lr_1e-2_manual_seed_0 (exit code -9)" in capsys.readouterr().err
    monkeypatch.delenv("RELUME_TEST_ACCIDENT")
    assert main(command) == 0
    out = capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("|")]
    assert rows[0] == ["train.optim_g.lr", "runs", "score"] and [r[:2] for r in rows[2:]] == [
        ["1e-2", "2 of 2"],
        ["1e-3", "2 of 2"],
    ]
    assert all(" ± " in row[2] for row in rows[2:])
    assert Path("experiments/toy_sweep.md").read_text() in out
    log = next(Path("experiments/toy_lr_1e-3_manual_seed_1").glob("train_*.log")).parent
    assert any("Resumed at iteration 2" in file.read_text() for file in log.glob("train_*.log"))

    written = {p: p.stat().st_mtime_ns for p in Path("experiments").rglob("*.pth")}
    assert main(command) == 0  # all is finished: nothing is trained or archived
    assert {p: p.stat().st_mtime_ns for p in Path("experiments").rglob("*.pth")} == written
    assert not list(Path("experiments").glob("*_archived_*"))
    assert capsys.readouterr().out.split("\n\n")[-1] == out.split("\n\n")[-1]


def test_a_run_is_what_train_makes_of_the_same_options(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["sweep", "-opt", "x.yml", "manual_seed=5"]) == 0
    assert main(["train", "-opt", "x.yml", "--force_yml", "manual_seed=5", "name=alone"]) == 0
    a, b = (weights(Path("experiments") / name, 4)["params"] for name in ("toy_manual_seed_5", "alone"))
    assert all((a[k] == b[k]).all() for k in a)


def test_another_program_may_start_the_runs(capsys: pytest.CaptureFixture[str]) -> None:
    # Stands for srun: it says what it was given, and ends as a run does that failed.
    Path("engine.sh").write_text('echo "$RELUME_TEST_QUEUE: $*" >> asked; echo "no such queue" >&2; exit 7')
    command = [
        "sweep",
        "-opt",
        "x.yml",
        "manual_seed=5",
        "--launcher",
        "env RELUME_TEST_QUEUE='two words' sh engine.sh",
    ]
    assert main(command) == 2
    assert "1 of 1 runs failed: toy_manual_seed_5 (no such queue)" in capsys.readouterr().err
    asked = Path("asked").read_text()
    assert asked.startswith(
        f"two words: {sys.executable} -m relume train -opt x.yml --auto_resume --force_yml manual_seed=5"
    )


@pytest.mark.parametrize(
    ("launcher", "message"), [("srunn -n 1", "no program 'srunn'"), ("sh 'a", "cannot be read as")]
)
def test_a_launcher_that_is_none_is_told(launcher: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "-opt", "x.yml", "manual_seed=5", "--launcher", launcher]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


WHOLE = ["train:max_nonfinite=1", "datasets:train:batch_size_per_gpu=12"]  # every batch has the bad sample


@pytest.mark.usefixtures("at_once")
def test_one_bad_run_keeps_nobody_from_going_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "-opt", "x.yml", "datasets.train.poison=null,0", "--force_yml", *WHOLE]) == 2
    out, error = capsys.readouterr()
    assert "1 of 2 runs failed: toy_poison_0" in error and "nonfinite" in error
    assert "| null | 1 of 1 |" in out and "| 0 | 0 of 1 |" in out
    assert Checkpoints(Path("experiments/toy_poison_null")).iterations()[-1] == 4


def test_names_say_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["train.optim_g.lr=1e-3,3e-4", "train.optim_g.betas=[0.9,0.99]", "network_g.width=4"]
    assert main(["sweep", "-opt", "x.yml", *settings, "--dry-run"]) == 0
    names = capsys.readouterr().out.split()
    assert names == ["toy_lr_1e-3_betas_-0.9-0.99-_width_4", "toy_lr_3e-4_betas_-0.9-0.99-_width_4"]
    assert not os.path.exists("experiments")


def test_deviation_is_over_seeds(tmp_path: Path) -> None:
    assert (
        sweep.spread([1.0, 2.0, 3.0]) == "2.0000 ± 1.0000"
        and sweep.spread([None]) == ""
        and sweep.spread([0.5]) == "0.5000"
    )
    lines = [{"iter": i, "dataset": "a", "metrics": {"psnr": 20.0 + i, "lpips": None}} for i in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"torn')
    found = sweep.scores(tmp_path)
    assert found["a/psnr"] == 22.0 and found["a/lpips"] != found["a/lpips"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["lr"], "expected KEY=VALUE,VALUE"),
        (["lr=1,,2"], "expected KEY=VALUE,VALUE"),
        (["name=a,b"], "expected KEY=VALUE,VALUE"),
        (["manual_seed=1,1"], "share a folder"),
        (["manual_seed=1", "manual_seed=2"], "is given twice"),
        (["train.optim_g.lrr=1"], "Did you mean 'lr'?"),
        (["train.total_iter=many"], "expected an integer"),
    ],
)
def test_mistakes(settings: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "-opt", "x.yml", *settings]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not os.path.exists("experiments")
