"""core/runtime/last_words.py: why a run ended, for whoever starts it again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import REPO, behave, imported, launched, options, train

from relume.core import cli, pipeline
from relume.core.errors import RanksError, UserError
from relume.core.experiment import Experiment
from relume.core.models.restoration import RestorationModel
from relume.core.pipeline import train_pipeline
from relume.core.reports.files import runs_in
from relume.core.reports.states import standing
from relume.core.runtime import distributed, last_words, signals
from relume.core.runtime.checkpoint import Checkpoints
from relume.core.runtime.last_words import LastWords
from relume.core.runtime.lock import started
from relume.core.runtime.signals import Stopped, StopRequest

ROOT = Path("experiments/toy")
SHORT: dict[str, Any] = {"train__total_iter": 3, "val__val_freq": None}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "exit.json").read_text())
    return content


def signalled(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, number: int) -> None:
    """Have this process receive a signal when a function is called."""
    function = getattr(place, name)

    def first(*arguments: Any, **named: Any) -> Any:
        os.kill(os.getpid(), number)
        return function(*arguments, **named)

    monkeypatch.setattr(place, name, first)


def refusing(*_: Any) -> Any:
    raise UserError("it has no targets")


def test_each_end_has_its_code_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    train_pipeline(options(**SHORT))
    assert {k: said()[k] for k in ("code", "outcome", "iteration", "rank", "ranks")} == {
        "code": 0,
        "outcome": "complete",
        "iteration": 3,
        "rank": 0,
        "ranks": 1,
    }
    with monkeypatch.context() as patch:
        patch.setattr(RestorationModel, "updates", refusing)
        with pytest.raises(UserError):
            train_pipeline(options(**SHORT))
    assert said()["code"] == 2 and said()["outcome"] == "mistake" and said()["iteration"] == 0
    assert said()["reason"].endswith("it has no targets")
    with monkeypatch.context() as patch:
        signalled(patch, RestorationModel, "updates", signal.SIGUSR1)
        with pytest.raises(Stopped):
            train_pipeline(options(**SHORT))
    assert (said()["code"], said()["outcome"], said()["iteration"]) == (75, "preempted", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "farewell", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_pipeline(options(**SHORT), auto_resume=True)
    assert said()["code"] == 1 and said()["outcome"] == "failed"
    assert said()["reason"].startswith("ZeroDivisionError: division by zero (")
    train_pipeline(options(**SHORT), auto_resume=True)
    assert said()["code"] == 0


def test_a_run_that_is_under_way_or_was_killed_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    train_pipeline(options(**SHORT))
    seen = []
    updates = RestorationModel.updates

    def look(self: Any, *arguments: Any) -> Any:
        seen.append((ROOT / "exit.json").exists())
        return updates(self, *arguments)

    monkeypatch.setattr(RestorationModel, "updates", look)
    train_pipeline(options(**SHORT, name="toy"))
    assert seen == [False] * 3


@pytest.mark.parametrize(
    ("changes", "resumed"),
    [
        ({"train__optim_g__type": "LBFGS"}, False),
        ({"network_g": {"type": "SRVGGNetCompact", "num_feat": -1}}, False),
        ({"network_g__width": 5}, True),
    ],
)
def test_a_start_that_is_refused_leaves_the_words_of_the_run_before(changes: dict[str, Any], resumed: bool) -> None:
    train_pipeline(options(**SHORT))
    before = said()
    longer = {"train__total_iter": 5} if resumed else {}
    with pytest.raises(UserError):
        train_pipeline(options(**{**SHORT, **longer, **changes}), auto_resume=resumed)
    assert said() == before and before["outcome"] == "complete"
    assert [run.state for run in map(standing, runs_in(ROOT.parent))] == ["finished"]


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 75, "preempted"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_before_training_ends_the_run_at_once(
    number: int, code: int, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_pipeline(options(**SHORT))
    Path("x.yml").write_text(yaml.safe_dump(options(**SHORT)))
    signalled(monkeypatch, pipeline, "build_dataset", number)
    handlers = [signal.getsignal(s) for s in signals.SIGNALS]
    assert cli.main(["train", "-opt", "x.yml"]) == code
    assert [signal.getsignal(s) for s in signals.SIGNALS] == handlers
    assert (
        capsys.readouterr().err
        == f"{word} before the first iteration: there is nothing new to be saved. Start it again\n"
    )
    assert (said()["code"], said()["outcome"], said()["iteration"]) == (code, word, None)
    assert (ROOT / "models/net_g_3.pth").exists(), "what was there is untouched"


def test_ranks_leave_a_start_together_or_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    signalled(monkeypatch, pipeline, "build_dataset", signal.SIGTERM)
    built = []
    monkeypatch.setattr(pipeline, "build_model", lambda *a, **k: built.append(1))
    with pytest.raises(Stopped, match="preempted before the first iteration"):
        train_pipeline(options(**SHORT))  # when the ranks next agree
    assert not built
    script = """if True:
        import time
        from relume.core.runtime import signals
        signals.AT_START, signals.LOOK = 0.2, 0.05
        with signals.StopRequest(starting=True) as stop:
            stop.before_leaving = lambda code: print("leaving with", code, flush=True)
            print("ready", flush=True)
            time.sleep(100)
    """
    process = imported().Process(target=behave, args=(["-c", script], Path.cwd(), dict(os.environ), ["out", "err"]))
    process.start()
    until(lambda: Path("out").exists() and Path("out").read_text() == "ready\n")
    os.kill(process.pid, signal.SIGTERM)
    process.join(100)
    assert process.exitcode == 75
    assert Path("out").read_text() == "ready\nleaving with 75\n"
    assert "preempted before the first" in Path("err").read_text()


def test_a_mistake_is_not_made_again_by_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = options(**SHORT, datasets__train__batch_size_per_gpu=100)
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    with pytest.raises(UserError, match=r"one iteration takes 100"):
        train_pipeline(wrong)
    assert not ROOT.exists(), "a run that never began, without a launcher, leaves nothing"
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match=r"one iteration takes 100"):
        train_pipeline(wrong)
    began = []
    monkeypatch.setattr(pipeline, "run_training", lambda *_: began.append(1) or {})
    for count in ("1", "2"):
        monkeypatch.setenv("SLURM_RESTART_COUNT", count)
        with pytest.raises(UserError, match="which a restart does not mend: one iteration takes 100"):
            train_pipeline(wrong)
        assert said()["reason"].count("restart does not mend") <= 1
    assert not began
    monkeypatch.setenv("SLURM_JOB_ID", "9")  # another job: somebody may have mended it
    train_pipeline(wrong)
    assert began and not list(ROOT.parent.glob("*archived*"))


def test_torchruns_restarts_are_attempts_of_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert last_words._session() == ("", 0)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "3")
    session, attempt = last_words._session()
    assert str(os.getppid()) in session.split() and attempt == 3


def test_a_requeued_job_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    train_pipeline(options(**SHORT))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    train_pipeline(options(**{**SHORT, "train__total_iter": 5}))
    assert said()["iteration"] == 5 and not list(ROOT.parent.glob("*archived*"))
    lines = [json.loads(line) for line in (ROOT / "metrics.jsonl").read_text().splitlines()]
    assert [r["iter"] for r in lines if "lr" in r] == [1, 2, 3, 4, 5]


def test_the_rank_that_failed_is_the_one_that_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    ROOT.mkdir(parents=True)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    ranks = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        ranks.append(LastWords(ROOT))
        with pytest.raises(UserError), ranks[rank].recorded(StopRequest()):
            raise UserError("nobody owns it yet")
        ranks[rank].own()
    assert not (ROOT / "exit.json").exists()
    for rank, error in (
        (2, RanksError("rank 1 on x failed: torn", 2)),
        (1, UserError("torn")),
        (2, UserError("later")),
        (0, RanksError("rank 1 on x failed: torn", 2)),
    ):
        with pytest.raises(UserError), ranks[rank].recorded(StopRequest()):
            raise error
    assert (said()["rank"], said()["ranks"], said()["reason"], said()["code"]) == (1, 3, "torn", 2)
    with pytest.raises(UserError), ranks[0].recorded(StopRequest()):
        raise UserError("the main rank's own counts most")
    assert said()["rank"] == 0


def test_one_mistake_is_one_line_with_its_rank(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for rank, error, line in (
        ("0", UserError("torn"), "torn\n"),
        ("3", UserError("torn"), "rank 3: torn\n"),
        ("3", Stopped("preempted", 75), ""),
        ("0", Stopped("preempted", 75), "preempted\n"),
    ):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
        cli.say(error)
        assert capsys.readouterr().err == line
        from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

        failure = ProcessFailure(0, 1, 2, str(tmp_path / "error.json"))
        assert failure.message["message"] == str(error)  # type: ignore[index]
        assert abs(failure.timestamp - time.time()) < 60


def test_torchrun_starts_a_mistake_again_which_says_so_at_once() -> None:
    wrong = options(**SHORT, datasets__train__batch_size_per_gpu=100)
    done = train(Path(), wrong, torchrun=["--max-restarts=1"])
    assert done.returncode == 1, done.stderr
    assert (said()["code"], said()["attempt"], said()["iteration"]) == (2, 0, None)
    lines = done.stderr.splitlines()
    first = next(line for line in lines if "one iteration takes 100" in line)
    again = [line.removeprefix(last_words.AGAIN) for line in lines if line.startswith(last_words.AGAIN)]
    assert len(again) == 1 and first.endswith(again[0]), done.stderr
    assert 'train.py", line' not in done.stderr


HANDLED = "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


@pytest.mark.parametrize(
    "told",
    [
        pytest.param((), id="orphans"),
        pytest.param(
            (HANDLED,),
            id="handled",
            marks=pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="set RELUME_SLOW_TESTS=1"),
        ),
    ],
)
def test_a_signal_to_torchrun_itself_ends_its_ranks_with_a_checkpoint(told: tuple[str, ...]) -> None:
    endless = options(train__total_iter=10**6, val__val_freq=None, logger__save_checkpoint_freq=10**6)
    Path("opt.yml").write_text(yaml.safe_dump(endless))
    command = launched(2, *told, str(REPO / "train.py"), "-opt", "opt.yml")
    torchrun = imported().Process(target=behave, args=(command, Path.cwd(), dict(os.environ), ["said", "said"]))
    torchrun.start()
    until(lambda: (ROOT / "metrics.jsonl").exists() and (ROOT / "metrics.jsonl").stat().st_size > 0)
    ranks = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    assert len(ranks) == 2
    os.kill(torchrun.pid, signal.SIGUSR1)
    torchrun.join(100)
    until(lambda: all(started(int(pid)) == -1 for pid in ranks))
    assert (said()["code"], said()["outcome"]) == (75, "preempted"), Path("said").read_text()[-3000:]
    assert Checkpoints(ROOT).newest_good() == (said()["iteration"], [])


def until(come: Callable[[], bool]) -> None:
    """Wait for something."""
    end = time.monotonic() + 200
    while not come():
        assert time.monotonic() < end
        time.sleep(0.05)
