"""Annotations, nodes and values in the words of messages."""

from __future__ import annotations

import dataclasses
import itertools
import types
import typing
from typing import Any, Literal, Union

from ...annotations import Range
from ...errors import VALUE, listing, printable
from ...registry import article, registry_of
from ..nodes import Block, Items, Node
from .kinds import LISTS, MAPPINGS, SCALARS, expressible

FLOW = 60
"""Characters that a message shows of a list or block, about."""


def describe(annotation: Any, many: bool = False) -> str:
    """An annotation in words: ``"a list of integers"``; with `many`, ``"integers"``."""
    # From the most specific kind of annotation to the least.
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    registry = registry_of(annotation)
    if registry is not None:
        return (
            f"blocks with a 'type' ({registry.noun})"
            if many
            else f"a block whose 'type' names {article(registry.noun)}"
        )
    if origin is typing.Annotated:
        counted = any(isinstance(a, Range) and a.in_epochs for a in arguments[1:]) and not many
        return describe(arguments[0], many) + (" (or a number of epochs: '3 epochs')" if counted else "")
    if annotation is None or annotation is type(None):
        return "null"
    if annotation in SCALARS:
        words = SCALARS[annotation]
        return f"{words.split(' ', 1)[1]}s" if many and annotation is not bool else words
    if origin is Literal:
        return "one of " + listing(map(as_yaml, arguments)) if len(arguments) > 1 else as_yaml(arguments[0])
    if origin in (Union, types.UnionType):
        options = [describe(a, many) for a in arguments if expressible(a)]
        return " or ".join(dict.fromkeys(options))
    if (origin or annotation) in LISTS:
        inner = f" of {describe(arguments[0], many=True)}" if arguments and arguments[0] is not Any else ""
        return f"lists{inner}" if many else f"a list{inner}"
    if (origin or annotation) in MAPPINGS or dataclasses.is_dataclass(annotation):
        return "blocks" if many else "a block"
    return "values" if many else "a value"


def number(value: Any) -> str:
    """A number in digits, of which Python refuses to write more than some thousands."""
    if isinstance(value, int) and abs(value) > 10**VALUE:
        return f"{'-' if value < 0 else ''}about 2^{value.bit_length() - 1}"
    return str(value)


def as_yaml(value: Any) -> str:
    """A scalar as YAML would have it, strings in quotes."""
    names: dict[Any, str] = {None: "null", True: "true", False: "false"}
    return (
        f"'{printable(value)}'"
        if isinstance(value, str)
        else names[value]
        if value is None or isinstance(value, bool)
        else printable(number(value))
    )


def shown(value: Any) -> str:
    """A value in messages that name it after its option."""
    return as_yaml(value) if isinstance(value, (str, int, float, bool)) or value is None else printable(value)


def describe_node(node: Node) -> str:
    """``"the string 'six'"``, ``"the list [1, 2]"``."""
    if isinstance(node, (Block, Items)):
        return f"the {'block' if isinstance(node, Block) else 'list'} {flow(node)}"
    kinds = {str: "the string", bool: "", type(None): "", int: "the integer", float: "the number"}
    kind = kinds.get(type(node.value), f"a {type(node.value).__name__}:")
    return f"{kind} {as_yaml(node.value)}".strip()


def flow(node: Node, room: int = FLOW) -> str:
    """A node as YAML on one line, of which no more is written than about `room` characters, however much is in it.

    >>> from relume.core.options.nodes import from_python
    >>> flow(from_python({"a": [1, None], "b": "x"})), flow(from_python([100] * 99), 12)
    ("{a: [1, null], b: 'x'}", '[100, 100, 100, ...]')
    """
    if not isinstance(node, (Block, Items)):
        return as_yaml(node.value)
    named, most = isinstance(node, Block), max(room, 1)
    parts: list[tuple[str, Node]] = (
        [(f"{printable(e.key, FLOW)}: ", e.node) for e in itertools.islice(node.entries.values(), most)]
        if isinstance(node, Block)
        else [("", item) for item in node.items[:most]]
    )
    pieces: list[str] = []
    for name, part in parts:
        if room <= 0:
            pieces.append("...")
            break
        pieces.append(printable(name + flow(part, room - len(name)), FLOW))
        room -= len(pieces[-1]) + 1
    return f"{{{', '.join(pieces)}}}" if named else f"[{', '.join(pieces)}]"


def join_keys(key: str, name: str) -> str:
    """A dotted key, as messages show it."""
    name = printable(name)
    return f"{key}.{name}" if key else name
