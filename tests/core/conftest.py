"""Fixtures for tests of the core."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


class Listener(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Every message that Relume logs during the test."""
    log, listener = logging.getLogger("relume"), Listener()
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(listener)
    yield listener.messages
    log.removeHandler(listener)
    log.setLevel(level)
