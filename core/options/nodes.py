"""Options as a tree of located nodes: what is in the file, before anyone asks whether it makes sense."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from ..errors import LINE, UserError, message, printable

FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What no name and no path contains, and what a terminal would act on."""


@dataclass(frozen=True, order=True)
class Place:
    """Where a node was written: in a file, or on the command line.

    Attributes:
        rank: order of the sources in reports: the option file, its bases, the command line.
        source: the file's path as the user would type it, or the command-line argument; shown in messages.
        line: line, counted from 1; 0 for the command line, which has none.
        column: column, counted from 1; 0 for the command line, which has none.
        folder: what relative paths written here are relative to.
    """

    rank: int
    line: int
    column: int
    source: str
    folder: Path = field(compare=False)

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    @property
    def short(self) -> str:
        """Without the column."""
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True)
class Scalar:
    """A value; `text` is how it was written where it was not quoted, so that ``name: 007`` can remain a name."""

    value: Any
    text: str | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    place: Place | None = None


class Entry(NamedTuple):
    """One key of a block: the key as a Python value, where it stands, and what it holds."""

    key: Any
    place: Place | None
    node: Node


@dataclass(frozen=True)
class Block:
    """A mapping; its keys are compared as they were written (``on`` is "on", not true)."""

    entries: Mapping[str, Entry]
    place: Place | None = None
    replaced: Block | None = None
    """The block of another ``type`` that stood here in a base file."""

    def scalar(self, key: str) -> Any:
        """The value under `key` if that is a scalar, else None."""
        node = self.entries[key].node if key in self.entries else None
        return node.value if isinstance(node, Scalar) else None


Node = Scalar | Items | Block


def from_python(value: Any) -> Node:
    """The node of a plain Python value; it has no place."""
    if isinstance(value, Mapping):
        return Block({str(k): Entry(k, None, from_python(v)) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return Items(tuple(from_python(v) for v in value))
    if isinstance(value, np.generic):
        return Scalar(value.item())
    return Scalar(str(value) if isinstance(value, PurePath) else value)


def to_python(node: Node) -> Any:
    """The plain value of a node that nothing is known about."""
    if isinstance(node, Block):
        return {e.key: to_python(e.node) for e in node.entries.values()}
    if isinstance(node, Items):
        return [to_python(item) for item in node.items]
    return node.value


ALTERNATIVES = {"total_iter": "total_epoch", "total_epoch": "total_iter"}
"""Keys that say the same thing in two ways: one takes the place of the other, where a later file gives it."""


def merge(base: Node, over: Node) -> Node:
    """`base` with what `over` says instead, block by block.

    A block whose ``type`` changes is replaced whole; the new one remembers it.
    """
    if not (isinstance(base, Block) and isinstance(over, Block)):
        return over
    types = {base.scalar("type"), over.scalar("type")} - {None}
    if len(types) == 2:
        return replace(over, replaced=base)
    replaced = {ALTERNATIVES[name] for name in over.entries if name in ALTERNATIVES} - set(over.entries)
    entries = {name: entry for name, entry in base.entries.items() if name not in replaced}
    for name, entry in over.entries.items():
        node = merge(entries[name].node, entry.node) if name in entries else entry.node
        entries[name] = entry._replace(node=node)
    only_a_path = over.place is None or not over.place.line  # the blocks of --force_yml a:b=c are not really there
    return Block(entries, base.place or over.place if only_a_path else over.place, base.replaced)


# ------------------------------------------------------------------ mistakes
class Problem(NamedTuple):
    """One mistake, and where it is if that is known."""

    place: Place | None
    text: str

    def __str__(self) -> str:
        return printable(f"{self.place}: {self.text}" if self.place else self.text, LINE - 50)


class OptionError(UserError):
    """All the mistakes of an option file, one line each, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=lambda p: (p.place is not None, p.place))
        super().__init__(message("\n".join(map(str, self.problems))))
