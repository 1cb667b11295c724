"""core/runtime/alike.py: the first difference of long lists is named."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from relume.core.runtime import alike, distributed

NAMES = [f"{i:05d}.png" for i in range(2500)]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three threads that talk as ranks."""
    meeting, words, own = threading.Barrier(3), {}, threading.local()

    def gather(value: Any) -> list[Any]:
        words[own.rank] = value
        meeting.wait(60)
        found = [words[r] for r in range(3)]
        meeting.wait(60)
        return found

    monkeypatch.setattr(distributed, "gather", gather)
    monkeypatch.setattr(distributed, "broadcast", lambda value: gather(value)[0])
    monkeypatch.setattr(alike, "_own", own, raising=False)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ([*NAMES[:1700], "x.png", *NAMES[1701:]], ("01700.png", "x.png")),
        ([*NAMES[:3], *NAMES[4:]], ("00003.png", "00004.png")),
        (NAMES[:2000], ("02000.png", "nothing")),
        ([*NAMES, "more.png"], ("nothing", "more.png")),
        ([], ("00000.png", "nothing")),
    ],
)
def test_the_first_names_that_differ_are_found(other: list[str], told: tuple[str, str], together: None) -> None:
    def rank(number: int) -> tuple[str, str]:
        alike._own.rank = number  # type: ignore[attr-defined]
        return alike.first_difference(other if number == 2 else NAMES, 2)

    with ThreadPoolExecutor(3) as ranks:
        assert list(ranks.map(rank, range(3))) == [told] * 3
