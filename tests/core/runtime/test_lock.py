"""core/runtime/lock.py: one run for one experiment; the dead own nothing."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import options, train

from relume.core.errors import UserError
from relume.core.runtime import lock
from relume.core.runtime.lock import Owner, lock_path, owned, owner


def write(folder: Path, holder: Owner, age: float = 0.0) -> None:
    path = lock_path(folder)
    path.write_text(json.dumps(dataclasses.asdict(holder)))
    os.utime(path, (time.time() - age,) * 2)


def test_a_lock_lives_as_long_as_its_run(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    assert owner(folder) is None
    with owned(folder):
        assert owner(folder) == Owner.here()
        with pytest.raises(UserError, match=f"x is in use by process {os.getpid()} on "), owned(folder):
            pass
        assert owner(folder) == Owner.here()
    assert list(tmp_path.iterdir()) == []


def test_a_dead_process_owns_nothing_even_before_its_parent_has_buried_it(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    # The context must be kept: Python would end one that nobody holds.
    script = f"from pathlib import Path; from relume.core.runtime.lock import owned; c = owned(Path({str(folder)!r})); "
    command = [sys.executable, "-c", script + "c.__enter__(); print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            with pytest.raises(UserError, match=f"in use by process {process.pid}"), owned(folder):
                pass
        finally:
            process.kill()
        while lock.started(process.pid) != -1:
            time.sleep(0.01)
        with owned(folder):
            assert owner(folder) == Owner.here()


def test_a_number_that_another_process_has_now_is_no_sign_of_life(tmp_path: Path) -> None:
    write(tmp_path / "x", dataclasses.replace(Owner.here(), started=Owner.here().started - 1))
    assert owner(tmp_path / "x") is None


def test_another_machines_lock_counts_for_a_stated_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, far = tmp_path / "x", Owner(7, "node9", "elsewhere", 1, "job8", 0)
    write(folder, far, lock.SILENCE - 10)
    with pytest.raises(UserError, match=r"by process 7 on node9 .*120 s after"), owned(folder):
        pass
    monkeypatch.setenv("SLURM_JOB_ID", "job8")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert owner(folder) is None  # the same job, started again on another machine
    monkeypatch.undo()
    write(folder, far, lock.SILENCE + 10)
    with owned(folder):
        assert owner(folder) == Owner.here()


def test_a_running_lock_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with owned(tmp_path / "x"):
        os.utime(lock_path(tmp_path / "x"), (0, 0))
        begin = time.monotonic()
        while lock_path(tmp_path / "x").stat().st_mtime == 0 and time.monotonic() < begin + 100:
            time.sleep(0.01)
        assert lock_path(tmp_path / "x").stat().st_mtime > 0


def test_a_torn_lock_is_somebodys_for_a_while(tmp_path: Path) -> None:
    lock_path(tmp_path / "x").write_text("{")
    assert owner(tmp_path / "x") is not None
    os.utime(lock_path(tmp_path / "x"), (0, 0))
    with owned(tmp_path / "x"):
        assert owner(tmp_path / "x") == Owner.here()


@pytest.mark.parametrize("arguments", [(), ("--auto_resume",)])
def test_a_second_run_of_a_name_touches_nothing(arguments: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "experiments" / "toy"
    (folder / "training_states").mkdir(parents=True)
    with owned(folder):
        before = sorted(tmp_path.rglob("*"))
        done = train(tmp_path, options(), *arguments)
        assert done.returncode == 2, done.stderr
        assert f"experiments/toy is in use by process {os.getpid()} on " in done.stderr
        assert "Traceback" not in done.stderr
        assert sorted(p for p in tmp_path.rglob("*") if p.name != "opt.yml") == before


@pytest.mark.parametrize("links", [True, False])
def test_a_lock_is_never_without_an_owner(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt if links else OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", killed)
    path = lock.lock_path(tmp_path / "toy")
    if links:
        with pytest.raises(KeyboardInterrupt):
            lock._take(path)
        assert not path.exists()
    else:
        assert lock._take(path) and not lock._take(path)
        assert lock.owner(tmp_path / "toy") == lock.Owner.here()
    assert [p for p in tmp_path.iterdir() if p != path] == []
