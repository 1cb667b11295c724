"""core/runtime/signals.py: a signal raises a flag; a second Ctrl-C interrupts; handlers are given back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from relume.core.errors import EXIT_INTERRUPTED, EXIT_PREEMPTED
from relume.core.runtime.signals import StopRequest

ALL = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    request = StopRequest()
    before = [signal.getsignal(s) for s in ALL]
    request.listen()
    yield request
    request.forget()
    assert [signal.getsignal(s) for s in ALL] == before


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, EXIT_PREEMPTED), (signal.SIGUSR1, EXIT_PREEMPTED), (signal.SIGINT, EXIT_INTERRUPTED)],
)
def test_a_signal_only_raises_a_flag(stop: StopRequest, number: int, code: int) -> None:
    assert stop.code == 0
    os.kill(os.getpid(), number)
    assert stop.code == code


def test_a_second_ctrl_c_interrupts_at_once(stop: StopRequest) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_after_a_preemption_interrupts_at_once(stop: StopRequest) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.code == EXIT_PREEMPTED
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_listening_twice_still_gives_the_first_handlers_back() -> None:
    before = [signal.getsignal(s) for s in ALL]
    request = StopRequest()
    request.listen()
    request.listen()
    request.forget()
    assert [signal.getsignal(s) for s in ALL] == before


def test_outside_the_main_thread_nothing_happens() -> None:
    before = [signal.getsignal(s) for s in ALL]
    request = StopRequest()
    thread = threading.Thread(target=request.listen)
    thread.start()
    thread.join()
    assert [signal.getsignal(s) for s in ALL] == before
    request.forget()
