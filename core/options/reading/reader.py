"""Option files to located nodes: one file, the files it is based on, and what the command line overrides."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError, expanded, printable, unreadable
from ...errors.paths import NOT_THERE, real
from .. import shipped
from ..nodes import Block, Entry, Items, Node, OptionError, Place, Problem, Scalar, merge
from ..refused import other_format
from .source import YamlText

BASE = "_base_"
COMMAND_LINE = 1_000_000
"""Rank of what comes from the command line: after any number of files."""
MOST_BYTES = 1 << 18
"""Most bytes of an option file. (PyYAML reads some hundred kilobytes in a second.)"""
MOST_FILES, LONGEST_CHAIN = 200, 50
"""Files that one option file is based on, and how many of them in a row."""


class Read(NamedTuple):
    """The nodes of an option file; the mistakes met, which left sane nodes; and what is no mistake, but worth knowing."""

    root: Block
    problems: list[Problem]
    notes: list[Problem]


def read(path: str | os.PathLike[str], overrides: Iterable[str] = (), allow_duplicate_keys: bool = False) -> Read:
    """The nodes of an option file, merged with its bases and overridden.

    Args:
        path: the file.
        overrides: overrides as ``--force_yml`` takes them.
        allow_duplicate_keys: take the last value of a key that a block has twice, and note it.

    Raises:
        OptionError: there is nothing to go on with: no such file, not YAML, no options in it.
    """
    reader = Reader(allow_duplicate_keys)
    root = reader.file(os.fspath(path), ())
    if root is None:
        raise OptionError(reader.problems)
    merged: Node = root
    for rank, text in enumerate(overrides, start=1):
        over = reader.override(text, COMMAND_LINE + rank)
        if over is not None:
            merged = merge(merged, over)
    assert isinstance(merged, Block)
    return Read(merged, reader.problems, reader.notes)


def _real(path: str) -> Path:
    """The file of a path, links followed."""
    return real(shipped.located(path))


class Reader:
    """Reads files and collects the mistakes in them, and notes. Keys given twice are mistakes unless they are allowed."""

    def __init__(self, allow_duplicate_keys: bool = False) -> None:
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self._twice = self.notes if allow_duplicate_keys else self.problems
        self._files = 0
        self._read: dict[Path, Block | None] = {}

    def file(self, path: str, chain: tuple[str, ...], asked: Place | None = None) -> Block | None:
        """The merged nodes of the file at `path`, or shipped under that name.

        `chain` are the files that include it; `asked` is where the last of them does.
        """
        path = shipped.normalised(path)
        try:
            place = _real(path)
        except (UserError, OSError):
            return self._file(path, chain, asked)  # which says what is wrong with it
        if place not in self._read:  # a file that several are based on is read once
            self._read[place] = self._file(path, chain, asked)
        return self._read[place]

    def _file(self, path: str, chain: tuple[str, ...], asked: Place | None) -> Block | None:
        if self._files >= MOST_FILES or len(chain) >= LONGEST_CHAIN:
            limits = f"at most {MOST_FILES} files are read for one, {LONGEST_CHAIN} of them each based on the next"
            self.problems.append(Problem(asked, f"{BASE}: {printable(path)}: {limits}"))
            return None
        text = self._text(path, asked)
        if text is None:
            return None
        self._files += 1
        source = YamlText(path, _real(path).parent, self._files, self.problems, twice=self._twice)
        if (told := other_format(path, text)) is not None:
            source.problem(source.place(0, 0), told)
            return None
        node = source.nodes(text)
        if node is None:
            return None
        if not isinstance(node, Block):
            kind = "a list" if isinstance(node, Items) else "a single value"
            source.problem(node.place, f"expected options such as 'name: my_experiment', got {kind}")
            return None
        return self._based(node, (*chain, path))

    def _text(self, path: str, asked: Place | None) -> str | None:
        reason: str | None
        try:
            place = shipped.located(path)
            reason = unreadable(place)
            if reason is None:
                with place.open("rb") as file:
                    content = file.read(MOST_BYTES + 1)
                if len(content) <= MOST_BYTES:
                    return content.decode("utf-8-sig")
                reason = f"more than {MOST_BYTES:,} bytes, which is more than any option file has"
            elif reason == NOT_THERE:
                reason = shipped.not_found(path)
            elif place.is_dir():
                reason = "a folder, not an option file"
        except UserError as e:  # which quotes the path
            self.problems.append(Problem(asked, str(e)))
            return None
        except UnicodeDecodeError as e:
            reason = f"not a text file in UTF-8 (byte {e.start})"
        except OSError as e:
            reason = f"cannot be read: {e.strerror}"
        self.problems.append(Problem(asked, f"{printable(path)}: {reason}"))
        return None

    def _based(self, node: Block, chain: tuple[str, ...]) -> Block:
        """`node` on top of the files that its ``_base_`` names."""
        # The node without the key itself.
        entries = dict(node.entries)
        entry = entries.pop(BASE, None)
        node = Block(entries, node.place)
        if entry is None:
            return node
        bases = entry.node.items if isinstance(entry.node, Items) else (entry.node,)
        merged: Node = Block({})
        # Each file it names, unless it includes this one.
        for base in bases:
            if not (isinstance(base, Scalar) and isinstance(base.value, str)):
                self.problems.append(Problem(base.place, f"{BASE}: expected the path of an option file"))
                continue
            try:
                path = shipped.base(base.value, chain[-1])
                expanded(shipped.located(path))
            except UserError as e:
                self.problems.append(Problem(base.place, f"{BASE}: {e}"))
                continue
            if any(_real(path) == _real(c) for c in chain):
                circle = " -> ".join((*chain, path))
                self.problems.append(Problem(base.place, f"{BASE}: the files include each other: {circle}"))
                continue
            read = self.file(path, chain, base.place)
            merged = merge(merged, read) if read is not None else merged
        result = merge(merged, node)
        assert isinstance(result, Block)
        return result

    def override(self, text: str, rank: int) -> Block | None:
        """The nodes of one ``--force_yml`` argument, ``a:b=value``; the value is YAML."""
        place = Place(rank, 0, 0, f"--force_yml {text}", Path.cwd())
        path, equals, value = text.partition("=")
        keys = [k.strip() for k in path.split(":")]
        if not equals or not all(keys):
            example = "train:ema_decay=0.99"
            self.problems.append(
                Problem(place, f"expected keys joined by ':', then '=', then a value, as in {example}")
            )
            return None
        if keys[0] == BASE:
            self.problems.append(Problem(place, f"{BASE} cannot be overridden"))
            return None
        source = YamlText(place.source, place.folder, rank, self.problems, place)
        node: Node | None = source.nodes(value) if value.strip() else Scalar(None, "", place)
        if node is None:
            return None
        for key in reversed(keys):
            node = Block({key: Entry(key, place, node)}, place)
        assert isinstance(node, Block)
        return node
