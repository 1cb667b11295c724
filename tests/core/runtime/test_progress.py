"""core/runtime/progress.py: the bar of a terminal, and lines at least now and then in a pipe."""

from __future__ import annotations

import io
import logging
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import options

from relume.core.pipeline import train_pipeline
from relume.core.runtime import logger, progress
from relume.core.runtime.progress import Heartbeat, Pace, losses_first

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Terminal]:
    """What a test makes standard output: a wide terminal, for which the log has no handlers yet."""
    monkeypatch.chdir(tmp_path)
    screen = Terminal()
    for name, value in (("TERM", "xterm"), ("COLUMNS", "170"), ("LINES", "50")):
        monkeypatch.setenv(name, value)
    kept, logger.log.handlers = logger.log.handlers, []
    yield screen
    logger.log.handlers = kept


def test_the_bar_moves_every_step_and_lines_fit(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, str, str]] = []
    step = progress.Bar.step

    def watched(bar: progress.Bar, lrs: list[float], scalars: dict[str, float]) -> None:
        step(bar, lrs, scalars)
        task = bar.bar.tasks[0]
        seen.append((int(task.completed), task.fields["speed"], bar.values))

    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(progress, "REFRESH", 0.0)
    monkeypatch.setattr(progress.Bar, "step", watched)
    train_pipeline(options(logger__print_freq=6))
    assert [done for done, _, _ in seen] == list(range(1, 13)), "every step, whatever print_freq is"
    assert all(re.fullmatch(r"[\d.e+]+ (it/s|s/it), eta \d+:\d\d:\d\d", speed) for _, speed, _ in seen)
    assert all(re.match(r"lr \d\.\d\de-\d\d  (?:l_\w+ \S+  )+grad_norm \S+", values) for _, _, values in seen)
    assert ["score" in values for _, _, values in seen] == [False] * 4 + [True] * 8, "the last validation's score"
    text = ESCAPES.sub("", terminal.getvalue())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text)]
    assert max(map(len, lines)) <= 100
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO +\S", text) and not re.search(r"\d\d/\d\d/\d\d", text)
    shown = [line for line in lines if re.search(r"INFO +iter \d", line)]
    assert [re.search(r"iter (\d+/\d+)", line)[1] for line in shown] == ["6/12", "12/12"]  # type: ignore[index]
    (log,) = Path("experiments/toy").glob("train_toy_*.log")
    assert "[toy..][epoch:  0, iter:       6, lr:(" in log.read_text(), "the file keeps BasicSR's grammar"
    assert progress.Bar.active is None


def test_a_bar_of_its_own_without_a_run(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal)
    assert list(progress.progress("pictures", [1, 2, 3])) == [1, 2, 3]
    assert "pictures" in ESCAPES.sub("", terminal.getvalue())


def test_nothing_is_cut_off_in_a_narrow_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys, "stdout", terminal)
    values = {f"l_{name}": 0.123 for name in ("pix", "percep", "gradient", "ssim", "total")}
    bar = progress.Bar("narrow", Pace(10))
    try:
        bar.score({"held_out": {"psnr": 23.456, "ssim": 0.789}})
        bar.pace.step(1)
        bar.step([1e-3], values)
    finally:
        bar.close()
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", ESCAPES.sub("", terminal.getvalue()))]
    assert "ssim 0.789" in lines[-1] + lines[-2] and "…" not in terminal.getvalue() and max(map(len, lines)) <= 60
    text = "Done\n\tnext      relume test -opt experiments/a/a.yml --force_yml val:save_img=true\n\t # psnr: 1\tBest: 2"
    lines = progress.folded(text, 40).split("\n")
    assert max(map(len, lines)) <= 40 and "".join(" ".join(lines).split()) == "".join(text.split())
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 2, 4, 4, 3]


def test_the_pace_is_that_of_the_last_window_and_leaves_pauses_out() -> None:
    now = 0.0
    pace = Pace(1000, 10, clock=lambda: now)
    assert pace.eta is None and str(pace) == "eta -:--:--"
    for i in range(11, 211):
        now += 10.0 if i <= 100 else 0.5
        pace.step(i)
    assert pace.rate == pytest.approx(2.0) and pace.eta == pytest.approx(395)
    now += 1e4  # a validation
    pace.restart()
    assert pace.rate == pytest.approx(2.0), "what was known stays until there is something new"
    now += 4
    pace.step(211)
    assert str(pace) == "4 s/it, eta 0:52:36"


def test_losses_come_first() -> None:
    values = {"grad_norm": 2.0, "perf/time": 1.0, "l_pix": 0.123456, "l_ssim": 1e-7}
    assert losses_first(values) == "l_pix 0.123  l_ssim 1e-07  grad_norm 2"


def wait_for(log: pytest.LogCaptureFixture, count: int, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while len(log.messages) < count and time.monotonic() < end:
        time.sleep(0.005)


def test_a_pipe_hears_of_a_long_silence_and_only_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.1)
    with caplog.at_level(logging.INFO, logger="relume"):
        beat = Heartbeat(lambda: "Iteration 3 of 7")
        try:
            wait_for(caplog, 2)
            for _ in progress.progress("held_out", range(4)):
                caplog.clear()
                wait_for(caplog, 1)
            beat.within = ""
            last = caplog.messages[-1]
        finally:
            beat.close()
        beat.thread.join(100)
        assert not beat.thread.is_alive() and beat not in logger.log.handlers
    assert last == "Iteration 3 of 7, held_out: 3 of 4"


def test_a_long_test_in_a_pipe_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.05)
    with caplog.at_level(logging.INFO, logger="relume"):
        for i in progress.progress("pictures", iter(range(3))):
            if i == 2:
                caplog.clear()
                wait_for(caplog, 1)
    assert caplog.messages[0] == "pictures: 2" and Heartbeat.active is None


def test_every_line_counts_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    beat = Heartbeat(lambda: "")
    try:
        beat.last = 0.0
        logger.log.warning("something")
        assert time.monotonic() - beat.last < 60
    finally:
        beat.close()
