"""Nothing that was trained is lost: checkpoints come before validations, and errors leave one of the last good state."""

from __future__ import annotations

import errno
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from runs import differences, forked, options, outcome, records, train, weights

from relume.core import cli
from relume.core.errors import UserError
from relume.core.evaluation import Evaluator
from relume.core.models.restoration import RestorationModel
from relume.core.pipeline import train_pipeline
from relume.core.runtime import checkpoint, distributed
from relume.core.runtime.checkpoint import Checkpoints
from relume.core.trainer import Trainer
from relume.datasets.loading.loader import TrainLoader

ROOT = Path("experiments/toy")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fail_at(monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, count: int, error: BaseException) -> None:
    """Have the `count`-th call of a method raise."""
    original, calls = getattr(owner, method), []

    def perhaps(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == count:
            raise error
        return original(*arguments, **named)

    monkeypatch.setattr(owner, method, perhaps)


def test_the_checkpoint_is_there_before_the_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    run = Evaluator.run

    def look(self: Evaluator, *arguments: Any, **named: Any) -> Any:
        found.append((arguments[1], Checkpoints(ROOT).verify(arguments[1])))
        return run(self, *arguments, **named)

    monkeypatch.setattr(Evaluator, "run", look)
    train_pipeline(options(logger__save_checkpoint_freq=4))
    assert found == [(4, None), (8, None), (12, None)]
    state = torch.load(ROOT / "training_states/12.state", weights_only=True)
    assert not state["pending_validation"] and state["results"]["held_out"], "results are added afterwards"
    assert Checkpoints(ROOT).verify(12) is None


def test_an_error_after_a_step_leaves_a_checkpoint_that_resumes_exactly(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    settings = {"train__ema_decay": 0.5, "val__val_freq": None}
    train_pipeline(options("straight", **settings))
    with monkeypatch.context() as patch:
        fail_at(patch, RestorationModel, "updates", 8, RuntimeError("out of memory"))
        with pytest.raises(RuntimeError, match="out of memory"):
            train_pipeline(options(**settings))
    assert Checkpoints(ROOT).interrupted() == 7 and Checkpoints(ROOT).iterations() == [5]
    assert (ROOT / "models/net_g_interrupted.pth").exists()
    assert any("The state after iteration 7 is kept in" in s and "--auto_resume" in s for s in said)
    train_pipeline(options(**settings), auto_resume=True)
    assert any("Resumed at iteration 7" in s for s in said)
    assert differences(weights(ROOT, 12), weights(Path("experiments/straight"), 12)) == []
    assert [r["iter"] for r in records(ROOT) if "lr" in r] == list(range(1, 13))
    assert not list(ROOT.rglob("*interrupted*")), "it counts until the next checkpoint"


def test_a_step_that_cannot_have_its_samples_was_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"train__ema_decay": 0.5, "val__val_freq": None}
    train_pipeline(options("straight", **settings))
    with monkeypatch.context() as patch:
        fail_at(patch, TrainLoader, "__next__", 8, UserError("a loading process died"))
        with pytest.raises(UserError, match="a loading process died"):
            train_pipeline(options(**settings))
    assert Checkpoints(ROOT).interrupted() == 7
    train_pipeline(options(**settings), auto_resume=True)
    assert differences(weights(ROOT, 12), weights(Path("experiments/straight"), 12)) == []
    assert [r["iter"] for r in records(ROOT) if "lr" in r] == list(range(1, 13))


def test_a_validation_that_failed_is_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    train_pipeline(options("straight"))
    with monkeypatch.context() as patch:
        fail_at(patch, Evaluator, "run", 2, RuntimeError("a rank is gone"))
        with pytest.raises(RuntimeError, match="a rank is gone"):
            train_pipeline(options())
    assert Checkpoints(ROOT).interrupted() == 8  # for which there is no checkpoint
    train_pipeline(options(), auto_resume=True)
    assert differences(outcome(Path()), outcome(Path(), "straight")) == []


def test_batch_statistics_of_the_step_that_failed_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"val__val_freq": None, "network_g__dropout": 0.0}
    train_pipeline(options("straight", **settings))
    with monkeypatch.context() as patch:
        fail_at(patch, torch.Tensor, "backward", 4, RuntimeError("no"))
        with pytest.raises(RuntimeError):
            train_pipeline(options(**settings))
    assert Checkpoints(ROOT).interrupted() == 3
    train_pipeline(options(**settings), auto_resume=True)
    assert differences(weights(ROOT, 12), weights(Path("experiments/straight"), 12)) == []


def test_what_one_rank_rescues_asks_no_other_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    rescue = Trainer.rescue

    def alone(self: Trainer) -> None:
        with monkeypatch.context() as patch:  # the other ranks wait for the step that failed here
            for name in ("maximum", "mean", "total", "gather", "broadcast", "barrier", "agree"):
                patch.setattr(distributed, name, lambda *_, name=name: asked.append(name))
            rescue(self)

    monkeypatch.setattr(Trainer, "rescue", alone)
    fail_at(monkeypatch, RestorationModel, "updates", 8, RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        train_pipeline(options(train__ema_decay=0.5, val__val_freq=None))
    assert asked == [] and Checkpoints(ROOT).interrupted() == 7


def test_spoilt_weights_are_not_rescued(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    rescue = Trainer.rescue

    def spoil(self: Trainer) -> None:
        next(self.parts.networks["g"].parameters()).data.fill_(float("nan"))
        rescue(self)

    monkeypatch.setattr(Trainer, "rescue", spoil)
    fail_at(monkeypatch, RestorationModel, "updates", 8, RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        train_pipeline(options(val__val_freq=None))
    assert Checkpoints(ROOT).interrupted() is None and any("cannot be saved: network_g: body" in s for s in said)


def test_an_older_interrupted_state_is_passed_over(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, RestorationModel, "updates", 4, RuntimeError("no"))
        with pytest.raises(RuntimeError):
            train_pipeline(options())
    kept = {p: p.read_bytes() for p in ROOT.rglob("*interrupted*")}
    train_pipeline(options(train__total_iter=6), auto_resume=True)
    for path, content in kept.items():
        path.write_bytes(content)
    train_pipeline(options(), auto_resume=True)
    assert any("Resumed at iteration 6" in s for s in said)


def test_an_interrupted_state_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, RestorationModel, "updates", 4, RuntimeError("no"))
        with pytest.raises(RuntimeError):
            train_pipeline(options())
    state = ROOT / "training_states/interrupted.state"
    train_pipeline(options("other", path__resume_state=str(state), train__total_iter=5))
    assert torch.load("experiments/other/training_states/5.state", weights_only=True)["iter"] == 5
    state.write_bytes(b"torn")
    with pytest.raises(UserError, match=r"path\.resume_state: .*interrupted\.state is damaged"):
        train_pipeline(options("other", path__resume_state=str(state)))


def test_an_error_in_the_first_step_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(monkeypatch, RestorationModel, "updates", 1, RuntimeError("no"))
    with pytest.raises(RuntimeError):
        train_pipeline(options())
    assert not (ROOT / "models").exists()


def test_killed_in_the_validation_of_a_checkpoint_and_resumed(tmp_path: Path) -> None:
    opt = options(logger__save_checkpoint_freq=4)
    assert train(tmp_path / "straight", opt).returncode == 0
    killed = train(tmp_path / "killed", opt, env={"RELUME_TEST_ACCIDENT": "metric:8"})
    assert killed.returncode == -signal.SIGKILL
    assert Checkpoints(tmp_path / "killed/experiments/toy").newest_good() == (12, []), "12 was saved before"
    assert train(tmp_path / "killed", opt, "--auto_resume").returncode == 0
    assert differences(outcome(tmp_path / "straight"), outcome(tmp_path / "killed")) == []


@pytest.mark.parametrize("manifest_first", [True, False])
def test_a_revision_that_is_cut_short_leaves_a_checkpoint_that_counts(
    tmp_path: Path, manifest_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Checkpoints(tmp_path)
    kept.save(3, {"g": {"params": {"w": torch.ones(2)}}}, {"iter": 3, "results": None})
    with monkeypatch.context() as patch:
        if manifest_first:
            fail_at(patch, Path, "replace", 3, KeyboardInterrupt())  # state aside, manifest, and then
        else:
            fail_at(patch, Checkpoints, "_write_manifest", 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            kept.revise(3, {"iter": 3, "results": 1})
    assert kept.verify(3) is None
    assert checkpoint.load(kept.state_path(3))["results"] == (None if manifest_first else 1)
    kept.revise(3, {"iter": 3, "results": 2})
    assert kept.verify(3) is None and len((kept.states / "3.sha256").read_text().splitlines()) == 2


# ------------------------------------------------------------------ disks
def test_a_disk_that_is_full_is_one_line_and_the_last_good_checkpoint_stays(tmp_path: Path) -> None:
    opt = options(network_g__width=512, val__val_freq=None, logger__save_checkpoint_freq=5)
    assert train(tmp_path, {**opt, "train": {**opt["train"], "total_iter": 5}}).returncode == 0
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "sys.argv = ['relume', 'train', '-opt', 'opt.yml', '--auto_resume'];"
        "from relume.core import cli; sys.exit(cli.main())"
    )
    Path("opt.yml").write_text(yaml.safe_dump(opt))
    full = forked(["-c", code], tmp_path, [os.environ])
    assert full.returncode == 2, full.stderr
    assert full.stderr.count("\n") == 1 and "net_g_10.pth: cannot be written: File too large" in full.stderr
    assert Checkpoints(ROOT).newest_good() == (5, [])
    assert not list(ROOT.rglob("*.tmp"))


def test_room_is_told_where_there_is_none(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    text = checkpoint.cannot_write(tmp_path / "a/b.pth", error)
    assert (
        text.startswith(f"{tmp_path}/a/b.pth: cannot be written: No space left on device (") and "MiB are free" in text
    )


def test_folders_that_cannot_be_made_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("a file")
    Path("x.yml").write_text(yaml.safe_dump(options(path__experiments_root="taken", path__results_root="taken")))
    assert cli.main(["train", "-opt", "x.yml"]) == 2
    assert cli.main(["test", "-opt", "x.yml", "--random_weights"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2, err
    for line, key in zip(err, ("experiments_root", "results_root"), strict=True):
        wrong = rf"x\.yml:\d+:\d+: path\.{key}: taken/toy.*: cannot be written: taken is a file, not a folder"
        assert re.fullmatch(wrong, line), line


# ------------------------------------------------------------------ loggers
def test_a_tracker_that_fails_ends_no_training(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    board = pytest.importorskip("torch.utils.tensorboard")

    def broken(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(board.SummaryWriter, "add_scalar", broken)
    train_pipeline(options(logger__use_tb_logger=True))
    assert (ROOT / "models/net_g_12.pth").exists()
    assert len([s for s in said if s.startswith("TensorBoard fails, which ends nothing else")]) == 1
