"""Values of the right type that nobody means, and option files of which a piece is spoilt."""

from __future__ import annotations

import dataclasses
import math
import random
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union

INTEGERS = (-(2**63) - 1, -1000, -1, 0, 1, 2, 3, 7, 1000, 10**5, 10**6, 10**7, 10**9, 2**31, 2**63, 10**30)
NUMBERS = (-1e30, -1.0, -1e-30, 0.0, 1e-320, 1e-12, 0.5, 1.0, 3.0, 1e9, 1e30, 1e300, math.inf, -math.inf, math.nan)
WORDS = (
    "",
    " ",
    ".",
    "..",
    "../../elsewhere",
    "/",
    "/dev/null",
    "/dev/zero",
    "/proc/self/mem",
    "/nowhere/x\x00y",
    "~nobody/x",
    "~nosuchuser/x",
    "x" * 300,
    "x" * 5000,
    "a/" * 3000,
    "\x1b[31mred",
    "\u202eforged",
    "two\nlines",
    "%s %d {x} {0}",
    "none",
    "\U0001f40d",
    "cuda:7",
    "s3://bucket/x",
    "http://127.0.0.1:1/x",
)


def of(annotation: Any, rng: random.Random, folder: Path) -> Any:
    """A value that `annotation` admits, and sense rarely does.

    Args:
        folder: folder with files and folders to name.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return of(arguments[0], rng, folder)
    if origin in (Union, types.UnionType):
        some = [a for a in arguments if a is not type(None)]
        return None if len(some) < len(arguments) and rng.random() < 0.05 else of(rng.choice(some), rng, folder)
    if origin is Literal:
        return rng.choice(arguments)
    if annotation is None or annotation is type(None):
        return None
    if annotation is bool:
        return rng.random() < 0.5
    if annotation is int:
        return rng.choice(INTEGERS)
    if annotation is float:
        return rng.choice(NUMBERS)
    if annotation is str or (isinstance(annotation, type) and issubclass(annotation, Path)):
        own = (str(folder / "notes.txt"), str(folder / "lq"), str(folder / "pipe"), str(folder / "notes.txt" / "x"))
        return rng.choice((*WORDS, *own))
    return _container(origin or annotation, arguments, rng, folder)


def _container(kind: Any, arguments: tuple[Any, ...], rng: random.Random, folder: Path) -> Any:
    if kind is tuple and arguments and Ellipsis not in arguments:
        return [of(a, rng, folder) for a in arguments]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        fields = [f.name for f in dataclasses.fields(kind) if f.name != "extra"]
        return {name: of(hints[name], rng, folder) for name in rng.sample(fields, min(2, len(fields)))}
    if kind in (dict, typing.Mapping) or (isinstance(kind, type) and issubclass(kind, typing.Mapping)):
        inner = arguments[1] if len(arguments) == 2 else int
        return {rng.choice(WORDS): of(inner, rng, folder) for _ in range(rng.choice((0, 1, 2)))}
    if kind in (list, tuple) or (isinstance(kind, type) and issubclass(kind, typing.Iterable) and kind is not str):
        inner = arguments[0] if arguments else int
        return [of(inner, rng, folder) for _ in range(rng.choice((0, 1, 2, 3, 4, 50)))]
    return rng.choice((rng.choice(INTEGERS), rng.choice(NUMBERS), rng.choice(WORDS)))


PIECES = (
    *(
        "[",
        "]",
        "{",
        "}",
        ": ",
        "- ",
        "&a ",
        "*a ",
        "!!python/object:x ",
        "!!binary ",
        "<<: ",
        "? ",
        "|\n",
        ">\n",
        "\t",
    ),
    *("#", "'", '"', "---\n", "...\n", "%YAML 9\n", "\x00", "\x07", "\ufeff", "\ud800", "\u2028", "\x85", "\U0001f40d"),
    *('"\\UFFFFFFFF"', '"\\ud800"', '"\\x1b[31m"', "0x" + "f" * 9, "1e400", "9" * 5000, "0o777", "1:2:3", ".nan"),
    *("!!int x", "!!float ''", "!!bool maybe", "!!timestamp 2001", "2001-99-99", "=", "~", "null", "- " * 500),
    *("[" * 1200, "{a: " * 1200, "x" * 3000, "&a [*a]", "\u202e", "\r", "@", "`", "_base_: .\n", "_base_: [x.yml]\n"),
    "a: &a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\n"
    "d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]\n"
    "f: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e]\ng: &g [*f, *f, *f, *f, *f, *f, *f, *f, *f]\n"
    "h: &h [*g, *g, *g, *g, *g, *g, *g, *g, *g]\ni: [*h, *h, *h, *h, *h, *h, *h, *h, *h]\n",
)


def mutated(text: str, rng: random.Random) -> bytes:
    """An option file with one to three pieces of it lost, doubled, moved, replaced or put in; some are huge."""
    # A few changes: pieces inserted, values replaced, lines swapped, indented or made huge.
    for _ in range(rng.choice((1, 1, 2, 3))):
        a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        lines = text.splitlines(keepends=True)
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        line = lines[i]
        match rng.randrange(10):
            case 0 | 1 | 2:
                text = text[:a] + rng.choice(PIECES) + text[a:]
            case 3 | 4:
                key, colon, _ = line.partition(": ")
                lines[i] = f"{key}{colon or ': '}{rng.choice(PIECES)}\n"
                text = "".join(lines)
            case 5:
                text = text[:a] + text[min(b, a + rng.choice((1, 5, 200))) :]
            case 6:
                lines[i], lines[j] = lines[j], lines[i]
                text = "".join(lines)
            case 7:
                lines.insert(j, " " * rng.choice((0, 1, 2, 40)) + line)
                text = "".join(lines)
            case 8:
                text = text[:a] + chr(rng.choice((rng.randrange(0x300), rng.randrange(0xD7FF)))) + text[a + 1 :]
            case 9:
                huge = (
                    (line * 30_000)[:3_000_000],
                    line.rstrip() + "x" * 2_000_000 + "\n",
                    "[" + "0, " * 300_000 + "]\n",
                )
                if rng.random() < 0.1:
                    lines.insert(j, rng.choice(huge))
                text = "".join(lines)
        text = text or "\n"
    # Some files are no longer UTF-8.
    encoded = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.05:
        spoilt = bytearray(encoded)
        spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        return bytes(spoilt)
    return encoded
