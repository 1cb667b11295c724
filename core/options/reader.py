"""YAML text to located nodes: one file, the files it is based on, and what the command line overrides."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..annotations import plain
from ..errors import UserError, expanded, printable, unreadable
from ..errors.paths import NOT_THERE
from . import shipped
from .nodes import Block, Entry, Items, Node, OptionError, Place, Problem, Scalar, merge, to_python

BASE = "_base_"
COMMAND_LINE = 1_000_000
"""Rank of what comes from the command line: after any number of files."""
TAG = "tag:yaml.org,2002:"
AS_WRITTEN = ("timestamp", "value")
"""YAML 1.1 types that no option has; a date is read as the string that it looks like."""

SCIENTIFIC = (
    f"{TAG}float",
    re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+"),
    "-+.0123456789",
)
"""YAML 1.1 takes ``5e-4`` for a string, because there is no dot in it and no sign before the exponent of ``5.0e3``."""


MOST_BYTES = 1 << 18
"""Of an option file. (PyYAML reads some hundred kilobytes in a second.)"""
MOST_VALUES = 20_000
"""Of an option file, each counted as often as aliases repeat it."""
MOST_FILES, LONGEST_CHAIN = 200, 50
"""Files that one option file is based on, and how many of them in a row."""
DEEPEST = 50
"""Blocks and lists within each other."""
MOST_DIGITS = 400
"""Of a number."""


class TooMuch(yaml.MarkedYAMLError):
    """More values, or deeper ones, than any option file has."""


class YAMLLoader(yaml.SafeLoader):
    """PyYAML's safe loader, for which ``5e-4`` is a number, and within limits.

    Raises:
        TooMuch: beyond `MOST_VALUES` or `DEEPEST`.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        self._count += 1
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self._depth > DEEPEST:
            raise TooMuch(problem=f"blocks and lists more than {DEEPEST} deep", problem_mark=mark)
        if self._count > MOST_VALUES:
            raise TooMuch(problem=f"more than {MOST_VALUES:,} values", problem_mark=mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class YAMLDumper(yaml.SafeDumper):
    """The inverse of `YAMLLoader`: it quotes a string that would be read as a number. Short lists stay on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_list(self, data: Iterable[Any]) -> yaml.SequenceNode:
        flat = not any(isinstance(v, (dict, list, tuple)) for v in data)
        return self.represent_sequence(f"{TAG}seq", data, flow_style=flat)


for _class in (YAMLLoader, YAMLDumper):
    _class.add_implicit_resolver(SCIENTIFIC[0], SCIENTIFIC[1], list(SCIENTIFIC[2]))
YAMLDumper.add_representer(list, YAMLDumper.represent_list)
YAMLDumper.add_representer(tuple, YAMLDumper.represent_list)
YAMLDumper.add_multi_representer(object, lambda dumper, value: dumper.represent_str(str(value)))


class OneLine(YAMLDumper):
    """The same on one line, whatever is in the lists."""


OneLine.add_representer(list, lambda dumper, data: dumper.represent_sequence(f"{TAG}seq", data, flow_style=True))


def spelled(value: Any) -> str:
    """A value as YAML on one line."""
    text: str = yaml.dump(plain(value), Dumper=OneLine, default_flow_style=True, allow_unicode=True, width=10_000_000)
    return text.removesuffix("...\n").strip()


class Read(NamedTuple):
    """The nodes of an option file; the mistakes met, which left sane nodes; and what is no mistake, but worth knowing."""

    root: Block
    problems: list[Problem]
    notes: list[Problem]


def shortly(node: Node) -> str:
    """A value as YAML on one line, of which the first 40 characters are shown."""
    text = spelled(to_python(node))
    return text if len(text) <= 40 else f"{text[:37]}..."


def read(path: str | os.PathLike[str], overrides: Iterable[str] = (), allow_duplicate_keys: bool = False) -> Read:
    """The nodes of an option file, merged with its bases and overridden.

    Args:
        path: the file.
        overrides: as ``--force_yml`` has them.
        allow_duplicate_keys: of a key that a block has twice take the last, and note it.

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
            place = shipped.located(path).resolve()
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
        source = Source(path, shipped.located(path).resolve().parent, self._files, self.problems, twice=self._twice)
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
        entries = dict(node.entries)
        entry = entries.pop(BASE, None)
        node = Block(entries, node.place)
        if entry is None:
            return node
        bases = entry.node.items if isinstance(entry.node, Items) else (entry.node,)
        merged: Node = Block({})
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
            if any(shipped.located(path).resolve() == shipped.located(c).resolve() for c in chain):
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
        source = Source(place.source, place.folder, rank, self.problems, place)
        node: Node | None = source.nodes(value) if value.strip() else Scalar(None, "", place)
        if node is None:
            return None
        for key in reversed(keys):
            node = Block({key: Entry(key, place, node)}, place)
        assert isinstance(node, Block)
        return node


class Source:
    """One YAML text.

    Args:
        name: shown in messages.
        folder: what relative paths in it are relative to.
        rank: its place in the order of reports.
        problems: mistakes are appended here.
        place: the place of everything in it, for text without lines of its own.
        twice: keys that a block has twice are noted here; they are problems when omitted.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        rank: int,
        problems: list[Problem],
        place: Place | None = None,
        twice: list[Problem] | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self.rank = rank
        self.problems = problems
        self.twice = problems if twice is None else twice
        self.fixed = place
        self._open: list[yaml.Node] = []
        self._count = 0
        self._make = yaml.constructor.SafeConstructor()

    def place(self, line: int, column: int) -> Place:
        """A place in this text; `line` and `column` count from 0, as PyYAML does."""
        return self.fixed or Place(self.rank, line + 1, column + 1, self.name, self.folder)

    def problem(self, place: Place | None, text: str) -> None:
        """Report a mistake."""
        self.problems.append(Problem(place, text))

    def nodes(self, text: str) -> Node | None:
        """The nodes of `text`; None, and a problem reported, when it is not YAML or says nothing."""
        try:
            root = yaml.compose(text, Loader=YAMLLoader)
        except yaml.MarkedYAMLError as e:
            mark = e.problem_mark or e.context_mark
            advice = "; indent with spaces, not tabs" if "'\\t'" in str(e.problem) else ""
            place = self.place(mark.line, mark.column) if mark else self.place(0, 0)
            what = f"{e.context}, {e.problem}" if str(e.context).startswith("expected") else e.problem
            self.problem(place, f"not YAML: {what}{advice}")
            return None
        except yaml.reader.ReaderError as e:
            before = text[: e.position]
            place = self.place(before.count("\n"), len(before) - before.rfind("\n") - 1)
            self.problem(place, f"not YAML: the character U+{ord(text[e.position]):04X} is not allowed")
            return None
        except (ValueError, OverflowError):  # "\\UFFFFFFFF"
            self.problem(self.place(0, 0), "not YAML: a string in it has an escape, \\U..., that is no character")
            return None
        if root is None:
            self.problem(self.place(0, 0), "there is nothing in it")
            return None
        try:
            return self.convert(root)
        except TooMuch as e:
            self.problem(self.place(0, 0), str(e.problem))
            return None

    def convert(self, node: yaml.Node) -> Node:
        """A PyYAML node as one of ours."""
        place = self.place(node.start_mark.line, node.start_mark.column)
        if any(node is outer for outer in self._open):
            self.problem(place, "this alias contains itself")
            return Scalar(None, None, place)
        self._count += 1
        if self._count > MOST_VALUES:
            raise TooMuch(problem=f"its aliases make more than {MOST_VALUES:,} values")
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, place)
            if isinstance(node, yaml.SequenceNode):
                self._refuse_tag(node, "seq", place)
                return Items(tuple(self.convert(item) for item in node.value), place)
            assert isinstance(node, yaml.ScalarNode)
            return self._scalar(node, place)
        finally:
            self._open.pop()

    def _refuse_tag(self, node: yaml.Node, expected: str, place: Place) -> None:
        if node.tag != TAG + expected:
            self.problem(place, f"the YAML tag '{printable(node.tag.replace(TAG, '!!'))}' is not accepted")

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Scalar:
        kind = node.tag.removeprefix(TAG)
        text = node.value if node.style is None else None
        if kind == "str" or (kind in AS_WRITTEN and node.style is None):
            return Scalar(node.value, text, place)
        if kind not in ("null", "bool", "int", "float"):
            self.problem(place, f"the YAML tag '{printable(node.tag.replace(TAG, '!!'))}' is not accepted")
            return Scalar(node.value, text, place)
        if len(node.value) > MOST_DIGITS:
            self.problem(place, f"'{printable(node.value, 60)}' is not a valid !!{kind}")
            return Scalar(None, text, place)
        try:
            return Scalar(getattr(self._make, f"construct_yaml_{kind}")(node), text, place)
        except (ValueError, KeyError, IndexError, OverflowError):
            self.problem(place, f"'{printable(node.value)}' is not a valid !!{kind}")
            return Scalar(None, text, place)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> Block:
        self._refuse_tag(node, "map", place)
        entries: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key, value in node.value:
            at = self.place(key.start_mark.line, key.start_mark.column)
            if not isinstance(key, yaml.ScalarNode):
                self.problem(at, "a key must be a single value")
            elif key.tag == f"{TAG}merge":
                merged = {**self._merged(value), **merged}
            else:
                first = entries.get(key.value)
                number = key.tag in (f"{TAG}int", f"{TAG}float") and key.style is None
                name = self._scalar(key, at).value if number else key.value
                entries[key.value] = Entry(name, at, self.convert(value))
                if first is not None:
                    self._given_twice(first, entries[key.value])
        return Block({**merged, **entries}, place)

    def _given_twice(self, first: Entry, last: Entry) -> None:
        """Say where a key stands twice, and with which values."""
        line = f" on line {first.place.line}" if first.place and first.place.line else " before"
        text = f"the key '{printable(last.key)}' is given twice: {shortly(first.node)}{line}, {shortly(last.node)} here"
        after = "the last is taken" if self.twice is not self.problems else "--allow_duplicate_keys takes the last"
        self.twice.append(Problem(last.place, f"{text} ({after}, as BasicSR does)"))

    def _merged(self, value: yaml.Node) -> dict[str, Entry]:
        """The entries that ``<<: *anchor`` or ``<<: [*a, *b]`` takes over; the first of several wins."""
        found: dict[str, Entry] = {}
        for node in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            block = self.convert(node)
            if isinstance(block, Block):
                found = {**block.entries, **found}
            else:
                self.problem(block.place, "'<<' takes a block, or a list of blocks")
        return found
