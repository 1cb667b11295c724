"""Reading ahead and writing behind: what comes before and after the network happens in threads, a few items at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
HELD = 4
"""Items that wait at most."""
PATIENCE = 0.1
"""Seconds after which a thread looks whether it is still wanted."""


def ahead(items: Iterable[T], held: int = HELD) -> Generator[T]:
    """The items, of which a thread gets the next ones while one is used.

    An error of theirs is raised where the item would have come. The thread ends when the iterator is closed.

    Raises:
        BaseException: the error of `items`.
    """
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue(held)
    over = threading.Event()

    # The thread: it gets items until all are there, or until nobody wants more.
    def put(kind: str, content: Any) -> bool:
        while not over.is_set():
            try:
                waiting.put((kind, content), timeout=PATIENCE)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
        except BaseException as e:
            put("error", e)
        else:
            put("end", None)

    # This side: items in order, or the error that ended them.
    thread = threading.Thread(target=read, name="relume-ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, content = waiting.get()
            if kind == "error":
                raise content
            if kind == "end":
                return
            yield content
    finally:
        over.set()
        thread.join()


class Behind(Generic[T]):
    """A function that a thread calls with items, in order, while the next ones are made.

    Use as a context manager: what is left is done at its end, unless that is an error. An error of the function is raised by
    the next `put`, or at the end.

    Args:
        consume: the function.
        held: items that wait at most; `put` waits when there are more.
    """

    def __init__(self, consume: Callable[[T], None], held: int = HELD) -> None:
        self.consume = consume
        self.waiting: queue.Queue[tuple[T] | None] = queue.Queue(held)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._work, name="relume-behind", daemon=True)

    def _work(self) -> None:
        while (entry := self.waiting.get()) is not None:
            if self.error is None:
                try:
                    self.consume(entry[0])
                except BaseException as e:
                    self.error = e

    def put(self, item: T) -> None:
        """Have an item consumed.

        Raises:
            BaseException: the error that an earlier item ended in.
        """
        if self.error is not None:
            raise self.error
        self.waiting.put((item,))

    def __enter__(self) -> Behind[T]:
        self.thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        if kind is not None and self.error is None:
            self.error = error  # nothing more is consumed
        self.waiting.put(None)
        self.thread.join()
        if kind is None and self.error is not None:
            raise self.error
