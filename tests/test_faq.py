"""docs/faq.md quotes messages as they are printed: the fixed words of each stand in the source code, in this order."""

from __future__ import annotations

import re

import pytest
from runs import REPO

PAGE = (REPO / "docs" / "faq.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)
ROOMS = ("archs", "core", "datasets", "losses", "schedulers")
CONTINUED = re.compile(r'(?<=[^\\])"\s*\n\s*[rf]?"')
"""Between two literals that are one."""


STATES = ("cannot be imported (", "is not installed")
"""What ``core.errors.require`` says of a package in place of ``{state}``."""


@pytest.fixture(scope="module")
def source() -> str:
    """All code, its literals over several lines as one."""
    files = [path for room in ROOMS for path in sorted((REPO / room).rglob("*.py"))]
    text = "\n".join(CONTINUED.sub("", path.read_text(encoding="utf-8")) for path in files)
    assert all(state in text for state in STATES)
    lines = [line for line in text.splitlines() if ", which {state}" in line]
    return "\n".join((text, *(line.replace("{state}", state) for line in lines for state in STATES)))


def in_order(words: list[str], line: str) -> bool:
    """Whether all words are in the line, one after the other."""
    at = 0
    for word in words:
        at = line.find(word, at)
        if at < 0:
            return False
        at += len(word)
    return True


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_in_the_source(source: str, message: str) -> None:
    parts = [part.strip(" .:;,()'") for part in message.split("...")]
    words = [part for part in parts if re.search(r"\w", part)]
    assert sum(len(re.sub(r"\W", "", w)) for w in words) >= 5, "too few words to know it by"
    lines = [line for line in source.splitlines() if max(words, key=len) in line]
    # Some are put together of sentences that stand in different places.
    assert any(in_order(words, line) for line in lines) or all(len(w) >= 12 and w in source for w in words), message


def test_the_page_has_the_messages_that_a_newcomer_meets() -> None:
    assert len(MESSAGES) >= 40
    assert len(set(MESSAGES)) == len(MESSAGES)
    for topic in ("Installing", "The option file", "Data", "Weights", "Memory and disk", "Many GPUs", "Resuming"):
        assert f"\n## {topic}\n" in PAGE


def test_every_entry_says_what_to_do() -> None:
    entries = re.split(r"^### .*$", PAGE, flags=re.MULTILINE)[1:]
    assert [text for text in entries if len(text.split()) < 10] == []
