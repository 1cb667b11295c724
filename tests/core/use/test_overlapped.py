"""Reading ahead and writing behind: order, bounds, errors, and threads that end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from relume.core.use.overlapped import Behind, ahead


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name in ("relume-ahead", "relume-behind")]


def test_items_come_in_order_and_few_are_held() -> None:
    read: list[int] = []
    most = 0

    def items() -> Iterator[int]:
        for i in range(200):
            read.append(i)
            yield i

    for used, item in enumerate(ahead(items(), held=3)):
        assert item == used
        most = max(most, len(read) - used)
    assert used == 199 and most <= 3 + 2  # those that wait, the one in hand, and the one that is being handed over
    assert not threads()


def test_it_does_read_ahead_and_write_behind() -> None:
    second, go_on = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 0
        second.set()
        yield 1

    written = []

    def write(item: int) -> None:
        assert go_on.wait(60)
        written.append(item)

    with Behind(write) as behind:
        for item in ahead(items()):
            behind.put(item)
            assert second.wait(60)  # without anybody asking for it
        assert written == []
        go_on.set()
    assert written == [0, 1]


def test_errors_come_where_they_belong() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("third")

    found = []
    with pytest.raises(ValueError, match="third"):
        for item in ahead(items()):
            found.append(item)
    assert found == [1]

    def write(item: int) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"), Behind(write, held=1) as behind:
        for i in range(100):
            behind.put(i)
    with pytest.raises(KeyError), Behind(write) as behind:
        raise KeyError
    assert not threads()


def test_one_that_is_left_ends_its_thread() -> None:
    endless = ahead(iter(int, 1), held=2)
    with contextlib.closing(endless) as items:
        assert next(items) == 0
        assert threads() == ["relume-ahead"]
    assert not threads()
