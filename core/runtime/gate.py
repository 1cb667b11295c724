"""The gate between the values of an option file and other people's exceptions.

Whatever a constructor, a data set, a loss or a first iteration raises becomes one `UserError` that says which block of the
options it was made of, and what it said. The exception itself goes along as the error's cause: into the log, and onto the
terminal for who asked for it (``--debug``), or whose own file it is in.
"""

from __future__ import annotations

import contextlib
import re
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from torch import nn

from ..annotations import Section, fields
from ..errors import UserError, in_one_line, printable
from ..registry import plugged
from . import memory

OF_FILES = f"{plugged.PACKAGE}._"
"""How the modules of the user's own files begin."""
PATIENCE = 3.0
"""Seconds for the search of the value to blame."""
SHOWN = 600
"""Characters of a block's values that a message shows."""


class Provoked(UserError):
    """Another library's exception, or one of our own, that a value of the options has provoked; it is the cause.

    Attributes:
        logged: whether the traceback is in a log already.
    """

    logged = False


@contextlib.contextmanager
def gate(key: str, block: Mapping[str, Any] | None = None) -> Iterator[None]:
    """What follows makes something of the options at the dotted `key`, whose values are `block`.

    Raises:
        UserError: whatever it raises, with the key; a `UserError` itself is said to be of that key, if it is of none.
    """
    try:
        yield
    except Exception as e:
        error = refusal(e, key, block or {})
        if error is e:
            raise
        raise error from e


def refusal(error: Exception, key: str, block: Mapping[str, Any], when: str = "", prefix: bool = True) -> UserError:
    """What to tell the user of an error that came of the options at `key`; `when` it came, in words.

    Args:
        prefix: whether the message begins with the key, where it does not say it anyway.
    """
    if isinstance(error, UserError) and (error.key is not None or type(error) not in (UserError, memory.TooManyLayers)):
        return error
    own = isinstance(error, UserError)
    said = str(error) if own else memory.explained(error) if memory.ran_out(error) else in_one_line(error)
    named = mentioned(said if own else in_one_line(error), block)  # not what advice mentions
    spoken = quoted(said, block) if own and not named else []
    if len(spoken) == 1:
        named, key_said = spoken, f"{key}.{spoken[0]}"
        said = said if key_said in said else f"{key_said}: {said}"
    clear = own and (quotes(said, named, block) or key in said)
    about = "" if clear or key in said or not prefix else f"{key}: "
    about += "" if own else when
    values = given_in({k: block[k] for k in spoken} or block)
    given = "" if clear or not values else f" ({values})"
    foreign = not own or (error.__cause__ is not None and not isinstance(error.__cause__, UserError))
    return (Provoked if foreign else UserError)(f"{about}{said}{given}", key=f"{key}.{named[0]}" if named else key)


def mentioned(text: str, block: Mapping[str, Any]) -> list[str]:
    """Keys of `block` that a message names."""
    return [k for k in block if k != "type" and re.search(rf"(?<!\w){re.escape(str(k))}(?!\w)", text)]


def quotes(text: str, keys: Iterable[str], block: Mapping[str, Any]) -> bool:
    """Whether a message that names `keys` says the value of one of them, too."""
    return any(str(block[k]) in text for k in keys)


def quoted(text: str, block: Mapping[str, Any]) -> list[str]:
    """Keys of the paths in `block` that a message quotes without their keys; of names where it quotes no path."""
    texts = [
        (k, v)
        for k, value in block.items()
        if k not in ("type", "name")
        for v in (value if isinstance(value, (list, tuple)) else [value])
        if isinstance(v, str) and v
    ]
    paths = {(k, v) for k, v in texts if "/" in v or k.startswith("dataroot")}
    known = [pair for pair in texts if pair in paths or len(pair[1]) > 3]
    found = [pair for pair in known if re.search(rf"(?<![\w/]){re.escape(printable(pair[1]))}(?![\w/])", text)]
    return list(dict.fromkeys(k for k, _ in [pair for pair in found if pair in paths] or found))


def given_in(block: Mapping[str, Any]) -> str:
    """The values of a block on one line: ``NAFNet with width: 0``."""
    kind = block.get("type")
    if isinstance(block, Section):
        defaults = {f.name: f.default for f in fields(type(block))}
        block = {k: v for k, v in block.items() if k not in defaults or v != defaults[k]}
    values = ", ".join(f"{k}: {printable(spelled(v), 60)}" for k, v in block.items() if k != "type")
    return printable(f"{kind} with {values}" if kind and values else str(kind or values), SHOWN)


def spelled(value: Any) -> str:
    """A value of the options, as near to YAML as one line needs."""
    if isinstance(value, int) and abs(value) > 10**200:
        return f"about 2^{value.bit_length() - 1}"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


# ------------------------------------------------------------------ who is to blame
def owner(error: BaseException, owners: Iterable[tuple[Any, str]]) -> str | None:
    """The key of the innermost of some objects in whose methods an error arose; None when it was in none of them.

    Args:
        owners: objects and the dotted keys of the options that they were made of; a network stands for its modules.
    """
    keys: dict[int, str] = {}
    for thing, key in owners:
        if thing is None:
            continue
        for part in thing.modules() if isinstance(thing, nn.Module) else (thing,):
            keys.setdefault(id(part), key)
    found = None
    for each in chain(error):
        for frame, _ in traceback.walk_tb(each.__traceback__):
            found = keys.get(id(frame.f_locals.get("self")), found)
        if found is not None:
            break
    return found


def without_it(
    build: Callable[[Mapping[str, Any]], Any], changed: Iterable[tuple[str, Mapping[str, Any]]]
) -> list[str]:
    """The keys without any one of which `build` takes a block that it refuses; none where several are wrong.

    Args:
        changed: keys, the likeliest first, and the block without each, or with another value of it.
    """
    found: list[str] = []
    until = time.monotonic() + PATIENCE
    for key, block in changed:
        if time.monotonic() > until:
            break
        if key not in found:
            with contextlib.suppress(Exception):
                build(block)
                found.append(key)
    return found


# ------------------------------------------------------------------ who sees the traceback
def wanted(error: BaseException, debug: bool) -> str:
    """The traceback of what provoked an error, for the terminal; empty unless asked for, or in a user's own file."""
    cause = error.__cause__
    if not isinstance(error, Provoked) or cause is None:
        return ""
    modules = [
        str(frame.f_globals.get("__name__")) for e in chain(cause) for frame, _ in traceback.walk_tb(e.__traceback__)
    ]
    keys = {plugin.key for plugin in plugged.active()}
    in_own = any(m.startswith(OF_FILES) or m in keys for m in modules)
    return "".join(traceback.format_exception(cause)) if debug or in_own else ""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, what caused that, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # an error may be raised from itself
        seen.add(id(error))
        yield error
        error = error.__cause__


# ------------------------------------------------------------------ errors that go on as they are
commanded: ContextVar[bool] = ContextVar("commanded", default=False)
"""Whether a command runs, which says an error that has been blamed on the options and exits with its code."""


def blame(error: Exception, said: UserError) -> None:
    """Remember what a command says of an error; who has called the pipeline from Python gets the error itself."""
    error.relume_said = said  # type: ignore[attr-defined]


def said_of(error: BaseException) -> UserError | None:
    """What to say of an error that has been blamed on the options; None for any other."""
    found = getattr(error, "relume_said", None)
    return found if isinstance(found, UserError) else None
