"""core/runtime/background.py: checkpoints that are written while the training goes on are those that would be written."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import differences, options, outcome, train

from relume.core.errors import UserError
from relume.core.models.restoration import RestorationModel
from relume.core.pipeline import train_pipeline
from relume.core.runtime import checkpoint
from relume.core.runtime.background import Writer, on_host
from relume.core.runtime.checkpoint import CannotWrite, Checkpoints
from relume.core.runtime.signals import Stopped

ROOT = Path("experiments/toy")
SETTINGS: dict[str, Any] = {"train__ema_decay": 0.9, "logger__save_checkpoint_freq": 1}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def slowly(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Writing takes a while; (thread, number of writers) of each call."""
    calls: list[tuple[str, int]] = []
    writing: list[int] = []
    write = checkpoint.write_atomically

    def slow(path: Path, fill: Any) -> str:
        if path.suffix in (".pth", ".state", ".sha256"):
            writing.append(1)
            calls.append((threading.current_thread().name, len(writing)))
            time.sleep(0.01)
        try:
            return write(path, fill)
        finally:
            if path.suffix in (".pth", ".state", ".sha256"):
                writing.pop()

    monkeypatch.setattr(checkpoint, "write_atomically", slow)
    return calls


def test_the_same_files_whoever_writes_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    train_pipeline(options(**SETTINGS, path__experiments_root="straight/experiments"))
    with monkeypatch.context() as patch:
        calls = slowly(patch)
        train_pipeline(options(**SETTINGS, logger__async_save=True))
    checkpoints = Checkpoints(ROOT)
    assert checkpoints.iterations() == list(range(1, 13)) and not any(map(checkpoints.verify, range(1, 13)))
    assert {thread for thread, _ in calls} == {"relume-writer"} and {number for _, number in calls} == {1}
    assert not [t for t in threading.enumerate() if t.name == "relume-writer"]
    for iteration in range(1, 13):  # not a value of a later iteration in any of them
        a = torch.load(f"straight/experiments/toy/training_states/{iteration}.state", weights_only=True)
        b = torch.load(f"experiments/toy/training_states/{iteration}.state", weights_only=True)
        assert differences(a, b) == []
    assert differences(outcome(tmp_path / "straight"), outcome(tmp_path)) == []


def test_a_signal_waits_for_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    train_pipeline(options(**SETTINGS, path__experiments_root="straight/experiments"))
    updates = RestorationModel.updates
    with monkeypatch.context() as patch:
        slowly(patch)

        def signalled(self: Any, batch: Any, step: int) -> Any:
            if step == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            return updates(self, batch, step)

        patch.setattr(RestorationModel, "updates", signalled)
        with pytest.raises(Stopped, match="at iteration 6; the checkpoint is saved"):
            train_pipeline(options(**SETTINGS, logger__async_save=True))
        assert Checkpoints(ROOT).newest_good() == (6, [])
    train_pipeline(options(**SETTINGS, logger__async_save=True), auto_resume=True)
    assert differences(outcome(tmp_path / "straight"), outcome(tmp_path)) == []


def test_an_error_of_the_writing_ends_the_run_and_what_was_trained_is_rescued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "PAUSES", ())
    save = checkpoint.save

    def full(path: Path, state: Any) -> str:
        if path.name in ("4.state",):
            raise CannotWrite(f"{path}: cannot be written: no room", False)
        return save(path, state)

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(UserError, match=r"4\.state: cannot be written: no room"):
        train_pipeline(options(logger__save_checkpoint_freq=2, val__val_freq=None, logger__async_save=True))
    assert Checkpoints(ROOT).newest_good() == (2, [])


def test_killed_while_a_file_is_written_behind_the_training(tmp_path: Path) -> None:
    opt = options(logger__async_save=True, logger__save_checkpoint_freq=2)
    killed = train(tmp_path / "killed", opt, env={"RELUME_TEST_ACCIDENT": "write:11"})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (tmp_path / "straight").mkdir()
    os.chdir(tmp_path / "straight")
    train_pipeline(opt)
    os.chdir(tmp_path / "killed")
    train_pipeline(opt, auto_resume=True)
    assert differences(outcome(tmp_path / "straight"), outcome(tmp_path / "killed")) == []


def test_a_copy_shares_nothing() -> None:
    tensor = torch.arange(3.0)
    state = {"a": tensor, "b": [{"c": tensor, "lr": 1.0}], "d": (1, "x"), "e": {"f": {2: tensor}}}
    copy = on_host(state)
    tensor += 1
    state["b"][0]["lr"] = 2.0  # type: ignore[index]
    assert (
        differences(
            copy,
            {"a": torch.arange(3.0), "b": [{"c": torch.arange(3.0), "lr": 1.0}]}
            | {"d": (1, "x"), "e": {"f": {2: torch.arange(3.0)}}},
        )
        == []
    )


@pytest.mark.parametrize("background", [True, False])
def test_errors_come_once(background: bool) -> None:
    def fail() -> None:
        raise UserError("no room")

    writer, done = Writer(background), []
    if background:
        writer.write(fail)
        with pytest.raises(UserError, match="no room"):
            writer.write(lambda: done.append(1))
    else:
        with pytest.raises(UserError, match="no room"):
            writer.write(fail)
    writer.write(lambda: done.append(2))
    writer.finish()
    assert done == [2]


# ------------------------------------------------------------------ file systems with moments
def flaky(monkeypatch: pytest.MonkeyPatch, times: int, number: int) -> list[float]:
    """The next `times` files cannot be synced; the pauses that were made."""
    sync, left, pauses = os.fsync, [1] * times, []

    def perhaps(handle: int) -> None:
        if left:
            left.pop()
            raise OSError(number, os.strerror(number))
        sync(handle)

    monkeypatch.setattr(os, "fsync", perhaps)
    monkeypatch.setattr(checkpoint.time, "sleep", pauses.append)
    return pauses


def test_what_cannot_be_written_is_tried_twice_more(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    checkpoints = Checkpoints(ROOT)
    networks = {"g": {"params": {"w": torch.ones(2)}}}
    pauses = flaky(monkeypatch, 2, errno.EIO)
    checkpoints.save(1, networks, {"iter": 1})
    assert checkpoints.newest_good() == (1, []) and pauses == list(checkpoint.PAUSES)
    assert len([s for s in said if "Input/output error; trying again in" in s]) == 2
    flaky(monkeypatch, 1, errno.ESTALE)
    checkpoints.revise(1, {"iter": 1, "more": 1})
    assert checkpoint.load(checkpoints.state_path(1))["more"] == 1 and checkpoints.verify(1) is None
    flaky(monkeypatch, 3, errno.EIO)
    with pytest.raises(UserError, match=r"net_g_2\.pth: cannot be written: Input/output error"):
        checkpoints.save(2, networks, {"iter": 2})
    assert checkpoints.newest_good() == (1, [])
    pauses = flaky(monkeypatch, 1, errno.EROFS)
    with pytest.raises(UserError, match="Read-only"):
        checkpoints.save(2, networks, {"iter": 2})
    assert pauses == []
