"""core/experiment.py: folders, what happens to an earlier run of the same name, what is resumed, the last words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from runs import options

from relume.core.errors import UserError
from relume.core.experiment import Experiment, Resume, find_resume
from relume.core.options import check, load
from relume.core.runtime.checkpoint import Checkpoints


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def experiment(name: str = "toy", **changes: Any) -> Experiment:
    return Experiment(check(options(name, **changes)))


def trained(name: str, *iterations: int) -> Checkpoints:
    """An experiment with checkpoints that hold nothing but what a resume looks for."""
    checkpoints = Checkpoints(Path("experiments") / name)
    for i in iterations:
        state = {"iter": i, "position": 2 * i, "pending_validation": False}
        checkpoints.save(i, {"g": {"params": {}}}, state)
    return checkpoints


def test_folders_are_basicsrs() -> None:
    here = experiment()
    assert (here.root, here.tensorboard) == (Path("experiments/toy"), Path("tb_logger/toy"))
    assert here.visualization == Path("experiments/toy/visualization")
    there = experiment(path__experiments_root="/data/runs/experiments")
    assert (there.root, there.tensorboard) == (Path("/data/runs/experiments/toy"), Path("/data/runs/tb_logger/toy"))
    assert experiment(path__experiments_root="~/runs").root == Path.home() / "runs" / "toy"


def test_the_resolved_options_are_saved_and_load_again() -> None:
    run = experiment(train__ema_decay=0.5)
    run.prepare(run.opt, fresh=True)
    saved = run.root / "toy.yml"
    assert saved.read_text().startswith("# Resolved options, written 2")
    assert load(saved) == run.opt


def test_an_earlier_run_is_moved_aside_every_time(said: list[str]) -> None:
    for _ in range(3):  # within one second
        trained("toy", 4, 8)
        (Path("tb_logger/toy")).mkdir(parents=True)
        run = experiment()
        run.prepare(run.opt, fresh=True)
    archived = sorted(Path("experiments").glob("toy_archived_*"))
    assert len(archived) == len(list(Path("tb_logger").glob("toy_archived_*"))) == 3
    assert all((a / "models/net_g_8.pth").exists() for a in archived)
    assert sum("trained to iteration 8, was moved to" in s and "--auto_resume would" in s for s in said) == 3
    assert [p.name for p in Path("experiments/toy").iterdir()] == ["toy.yml"]


def test_a_resumed_run_stays_in_its_folder(said: list[str]) -> None:
    trained("toy", 4)
    run = experiment()
    run.prepare(run.opt, fresh=False)
    assert [p.name for p in Path("experiments").iterdir()] == ["toy"] and not said


# ------------------------------------------------------------------ what to resume
def found(auto: bool = True, **changes: Any) -> Resume | None:
    run = experiment(**changes)
    return find_resume(run.opt, run, auto)


def test_auto_resume_takes_the_newest_good_one(said: list[str]) -> None:
    checkpoints = trained("toy", 4, 8, 12)
    newest = found()
    assert newest is not None and newest.iteration == 12 and newest.state["position"] == 24
    assert newest.network_path("g") == Path("experiments/toy/models/net_g_12.pth")
    os.truncate(checkpoints.state_path(12), 50)
    older = found()
    assert older is not None and older.iteration == 8
    assert said == [
        "experiments/toy/training_states/12.state is damaged (its SHA-256 is not the one written down); "
        "going back to iteration 8"
    ]


def test_auto_resume_goes_before_resume_state() -> None:
    trained("toy", 4)
    other = trained("other", 9).state_path(9)
    chosen = found(path__resume_state=str(other))
    assert chosen is not None and chosen.iteration == 4
    explicit = found(auto=False, path__resume_state=str(other))
    assert explicit is not None and explicit.iteration == 9
    assert explicit.network_path("g") == Path("experiments/other/models/net_g_9.pth")


def test_nothing_to_resume(said: list[str]) -> None:
    assert found(auto=False) is None and not said
    assert found() is None
    assert said == ["--auto_resume: nothing to resume in experiments/toy, starting from iteration 0"]


def test_states_that_cannot_be_resumed() -> None:
    with pytest.raises(UserError, match=r"^path\.resume_state: nowhere/5\.state: no such file"):
        found(path__resume_state="nowhere/5.state")
    checkpoints = trained("toy", 4)
    os.truncate(checkpoints.network_path("g", 4), 10)
    with pytest.raises(
        UserError, match=r"no checkpoint can be trusted: .*net_g_4\.pth is damaged .* Not starting from zero"
    ):
        found()
    with pytest.raises(UserError, match=r"^path\.resume_state: .*net_g_4\.pth is damaged"):
        found(auto=False, path__resume_state=str(checkpoints.state_path(4)))
    foreign = Checkpoints(Path("experiments/foreign"))
    foreign.save(5, {"g": {"params": {}}}, {"iter": 5, "epoch": 0, "optimizers": [], "schedulers": []})
    with pytest.raises(UserError, match=r"5\.state: not a training state of Relume \(it lacks 'iter' or 'position'\)"):
        found(auto=False, path__resume_state=str(foreign.state_path(5)))


def test_completeness() -> None:
    run = experiment()
    done = Resume(12, Path("experiments/toy/training_states/12.state").absolute(), {})
    assert "already complete: experiments/toy is at iteration 12, and train.total_iter is 12" in run.complete(done)
    with pytest.raises(
        UserError, match=r"other/training_states/12\.state is at iteration 12 .* raise train\.total_iter"
    ):
        run.complete(Resume(12, Path("experiments/other/training_states/12.state"), {}))


# ------------------------------------------------------------------ last words
def test_farewell_tells_scores_and_places() -> None:
    run = experiment()
    results = {"a": {"psnr": 30.0, "ssim": 0.9, "psnr_input": 20.0}, "b": {}, "c": {}}
    best = {
        "a": {
            "psnr": {"value": 31.0, "iter": 8},
            "ssim": {"value": 0.9, "iter": 12},
            "dropped": {"value": 1, "iter": 2},
        }
    }
    words = run.farewell(results, best, 61.5, {"c": "nothing could be scored: a reason"})
    assert words.startswith("Done in 0:01:01.")
    assert "a: psnr 30.0000 (best 31.0000 @ 8 iter, input 20.0000), ssim 0.9000 (best 0.9000 @ 12 iter)" in words
    assert "b: no metrics" in words and "dropped" not in words
    assert "c: nothing could be scored: a reason" in words
    assert "experiments/toy/models" in words and "tensorboard" not in words and "pictures  " not in words
    run.tensorboard.mkdir(parents=True)
    run.visualization.mkdir(parents=True)
    words = run.farewell(results, best, 0, {})
    assert "tensorboard --logdir tb_logger/toy" in words and "experiments/toy/visualization" in words
