"""One YAML text as located nodes, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import yaml

from ...errors import printable
from ..nodes import Block, Entry, Items, Node, Place, Problem, Scalar
from .loader import MOST_VALUES, TAG, TooMuch, YAMLLoader, shortly

AS_WRITTEN = ("timestamp", "value")
"""YAML 1.1 types that no option has; a date is read as the string that it looks like."""

MOST_DIGITS = 400
"""Most digits of a number."""


class YamlText:
    """One YAML text.

    Args:
        name: name shown in messages.
        folder: what relative paths in it are relative to.
        rank: place of the source in the order of reports.
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
        self._keys: list[str] = []
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
        """A PyYAML node as one of ours.

        Raises:
            TooMuch: aliases make too many values.
        """
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
            elif not key.value.isprintable():  # it would reach logs, tables and names of files
                where = f"{printable('.'.join(self._keys))}: " if self._keys else ""
                self.problem(at, f"{where}the key '{printable(key.value)}' has control characters or line breaks in it")
            elif key.tag == f"{TAG}merge":
                merged = {**self._merged(value), **merged}
            else:
                first = entries.get(key.value)
                number = key.tag in (f"{TAG}int", f"{TAG}float") and key.style is None
                name = self._scalar(key, at).value if number else key.value
                self._keys.append(key.value)
                entries[key.value] = Entry(name, at, self.convert(value))
                self._keys.pop()
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
