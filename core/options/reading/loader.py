"""YAML as option files have it: PyYAML's safe loader within limits, the dumper that goes with it, and values on one line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from ...annotations import plain
from ...errors import without_secrets
from ..nodes import Node, to_python

TAG = "tag:yaml.org,2002:"
SCIENTIFIC = (
    f"{TAG}float",
    re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+\Z"),
    "-+.0123456789",
)
"""YAML 1.1 takes ``5e-4`` for a string, because there is no dot in it and no sign before the exponent of ``5.0e3``."""


MOST_VALUES = 20_000
"""Most values of an option file, each counted as often as aliases repeat it."""
DEEPEST = 50
"""Blocks and lists within each other."""


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
        """A node, as PyYAML composes it.

        Raises:
            TooMuch: blocks are nested too deep, or there are too many values.
        """
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
    text: str = yaml.dump(
        without_secrets(plain(value)), Dumper=OneLine, default_flow_style=True, allow_unicode=True, width=10_000_000
    )
    return text.removesuffix("...\n").strip()


def shortly(node: Node) -> str:
    """A value as YAML on one line, of which the first 40 characters are shown."""
    text = spelled(to_python(node))
    return text if len(text) <= 40 else f"{text[:37]}..."
