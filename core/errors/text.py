"""Text that came from outside (names, values, messages of libraries), as terminals and logs may show it."""

from __future__ import annotations

import re
import traceback
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .base import UserError

VALUE, LINE, MESSAGE = 200, 2_000, 50_000
"""Characters that a message shows of one name or value, of one line, and of all its lines."""


def printable(text: object, most: int = VALUE) -> str:
    r"""Text that came from outside, as one line shows it: what a terminal would act on, or nobody would see, is escaped.

    Those are control characters, line breaks, what changes the direction of writing, and halves of surrogate pairs. Of more
    than `most` characters the middle is left out.

    >>> printable("a\x1b[31m\nb"), printable("x" * 500, 30)
    ('a\\x1b[31m\\nb', 'xxxxxxxxxxxxxxx...xxxxx (500 characters)')
    """
    whole = redacted(text)
    shown = whole if len(whole) <= most else f"{whole[: most // 2]}...{whole[-(most // 6) :]} ({len(whole)} characters)"
    return _visible(shown)


WORDS = (
    r"token(?!iz)|secret|signature|password|passwd|passphrase|credential|api[-_]?key|access[-_]?key|account[-_]?key|"
    r"auth(?!or)|bearer|jwt|session|policy"
)
"""Parts of names whose values nobody else should know."""
QUOTED = r"\"[^\"]*\"|'[^']*'|[^&;#\s'\"]+"
USER = r"[^/\\\s'\"?#]{1,300}|(?!\d+/)[^/\\\s'\"?#:@]{1,99}:(?!\d+(?:/|$))[^\s'\"?#]{1,300}"
"""What stands before the host: a name with or without a password, in which users write '@' and '/' as they are. Lengths are
bounded, so that a long text is not gone through again for each of its characters."""
SECRETS = (
    # A path has made one '/' of two.
    (re.compile(rf"(?i)(?<![\w/.-])([a-z][a-z0-9+.-]{{0,30}}:(?://?|\\\\?))(?:{USER})@"), r"\1***@"),
    (
        re.compile(rf"(?i)([?&;#](?:[\w.-]{{0,40}}(?:{WORDS})[\w.-]{{0,40}}|sig|key|pwd|pass|pw|code)=)(?:{QUOTED})"),
        r"\1***",
    ),
    (re.compile(r"(?<![A-Za-z0-9])(hf|gh[pousr]|glpat|sk|xox[abp])([_-])[A-Za-z0-9_-]{16,300}"), r"\1\2***"),
)
"""What in URLs only their owner should know, and what stands in its place."""
PERCENT = re.compile(r"(?<=[?&;#])((?:[\w.-]|%[0-9A-Fa-f]{2}){1,99})(?==)")


def redacted(text: object) -> str:
    """Text in which URLs have neither user names and passwords nor tokens in their queries.

    >>> redacted("s3://KEY:SECRET@bucket/x.png"), redacted("https://h/x?token=abc&n=1")
    ('s3://***@bucket/x.png', 'https://h/x?token=***&n=1')
    """
    shown = str(text)
    if ":/" not in shown and ":\\" not in shown:
        return shown
    shown = PERCENT.sub(lambda m: unquote(m[1]) if "%" in m[1] else m[1], shown)
    for pattern, instead in SECRETS:
        shown = pattern.sub(instead, shown)
    return shown


def without_secrets(value: Any) -> Any:
    """Plain values, in whose strings URLs are `redacted`: as they are written, printed and sent to trackers."""
    if isinstance(value, Mapping):
        return {k: without_secrets(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(v) for v in value]
    return redacted(value) if isinstance(value, str) else value


def _visible(text: str, also: str = "") -> str:
    """Text with every character escaped that is neither printable nor a space, nor one of `also`."""
    if text.isprintable():
        return text
    return "".join(
        c if c in also or c.isprintable() or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode()
        for c in text
    )


def message(text: str) -> str:
    """A message of any number of lines, fit for a terminal: each line `printable`, and no more of them than one can read."""
    lines: list[str] = []
    room = MESSAGE - 100
    every = text.split("\n")
    for line in every:
        lines.append(printable(line.replace("\t", "    "), LINE - 50))
        room -= len(lines[-1]) + 1
        if room < 0:
            lines[-1] = f"... and {len(every) - len(lines) + 1} more lines"
            break
    return "\n".join(lines)


def lines(text: str) -> str:
    r"""Text in several lines of ours, with tabs, as logs take it: without what a terminal would act on, and without secrets.

    >>> lines("a\n\tb\x1b[2J")
    'a\n\tb\\x1b[2J'
    """
    return _visible(redacted(text), "\n\t")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type's name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def in_one_line(error: BaseException) -> str:
    """An error in one line: a `UserError` as it is, any other with its type and the place in the code that raised it."""
    first = (str(error).strip().splitlines() or [""])[0][:300]
    if isinstance(error, UserError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {first}{place}"
