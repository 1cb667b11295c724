"""Writing while the training goes on: ``logger.async_save``."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..errors import UserError
from . import distributed


class Writer:
    """Has the main rank write files, in a thread of its own if asked; never two things at once, and in order.

    All ranks call `write` and `finish` together, and fail together.

    Args:
        background: go on while it is written. An error is then raised by the next `write` or `finish`.
    """

    def __init__(self, background: bool) -> None:
        self.background = background
        self.everywhere = False
        """Whether all ranks write, each files of its own."""
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def kept(self, state: Any) -> Any:
        """What is to be written, as it is now, after what was being written, so that there are no two copies."""
        if not (self.background and self._writing):
            return state
        self.wait()
        return on_host(state)

    def write(self, job: Callable[[], None]) -> None:
        """Do `job`, which uses nothing that changes: see `kept`.

        Raises:
            UserError: it could not; or what was begun before could not, and this was not begun.
        """
        self._together(lambda: self._begin(job) if self.background else job())

    def finish(self) -> None:
        """Wait until everything is written.

        Raises:
            UserError: something could not be.
        """
        if self.background:
            self._together(self._settle)

    @property
    def _writing(self) -> bool:
        return self.everywhere or distributed.is_main()

    def wait(self) -> None:
        """Wait for what is being written, alone. Its error stays for `write` and `finish`."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _together(self, action: Callable[[], None]) -> None:
        error = None
        if self._writing:
            try:
                action()
            except UserError as e:
                error = e
        distributed.agree(error)

    def _begin(self, job: Callable[[], None]) -> None:
        self._settle()
        self._thread = threading.Thread(target=self._run, args=(job,), name="relume-writer")
        self._thread.start()

    def _settle(self) -> None:
        self.wait()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as e:
            self._error = e


def on_host(value: Any) -> Any:
    """A copy of nested states that shares nothing with them, its tensors in the memory of the host."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {k: on_host(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(on_host(v) for v in value)
    return copy.deepcopy(value)
