"""What annotations ask of a value in an option file: its kind, its size, and whether YAML can say it at all."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import math
import re
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union

from ...annotations import fields
from ...errors import VALUE
from ...registry import MISSING, Parameter, registry_of
from ..nodes import Block, Items, Node, Scalar

BAD: Any = object()
"""What a check returns when it has reported a mistake."""

LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
MOST_THINGS, LONGEST, LARGEST = 10**6, 10**9, 1e100
"""Largest counts of things, other whole numbers, and numbers of any kind."""
COUNTED = re.compile(
    r"(^|_)(num|nums|n|depths?|blocks?|blks?|layers?|levels?|stages?|groups?|heads?|convs?|refinement|periods)($|_)"
)
TIMES = re.compile(r"iter|freq|step|sample|image|pixel|epoch|size|feat|ch(an.*)?s?$|dim|width")
"""Parts of names of what there may be more of."""
SCALARS = {bool: "true or false", int: "an integer", float: "a number", str: "a string", Path: "a path"}
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@functools.cache
def parameters(cls: Any) -> dict[str, Parameter]:
    """The fields of a dataclass as options."""
    hints = typing.get_type_hints(cls, include_extras=True)
    found = {}
    for f in fields(cls):
        default = f.default
        if f.default_factory is not dataclasses.MISSING:
            default = f.default_factory
        found[f.name] = Parameter(f.name, hints[f.name], MISSING if default is dataclasses.MISSING else default)
    return found


def scalar(node: Node, kind: type, exact: bool) -> Any:
    """The value of `node` as a `kind` of `SCALARS`, or `BAD`."""
    if not isinstance(node, Scalar):
        return BAD
    value = node.value
    if kind in (str, Path):
        if isinstance(value, (int, float)) and not isinstance(value, bool) and node.text and not exact:
            value = node.text  # name: 001 is a name
        return kind(value) if isinstance(value, str) else BAD
    if kind is bool or isinstance(value, bool):
        return value if kind is bool and isinstance(value, bool) else BAD
    if isinstance(value, str) and not exact and len(value) < VALUE and NUMBER.fullmatch(value):
        value = float(value) if re.search(r"[.eE]", value) else int(value)
    if kind is int and isinstance(value, float) and not exact and value.is_integer():
        value = int(value)  # BasicSR writes iterations as !!float 5e3
    accepted = (kind,) if exact or kind is int else (int, float)
    return value if isinstance(value, accepted) else BAD


def ceiling(kind: type, key: str) -> float:
    """The largest number of a kind that an option takes which has no limit of its own; and the largest below zero.

    Without it, a slip of a thousand zeros would be a loop over as many blocks, or an error of some library.
    """
    if kind is float:
        return LARGEST
    name = re.sub(r"\[\d+\]", "", key).rpartition(".")[2]
    return MOST_THINGS if COUNTED.search(name) and not TIMES.search(name) else LONGEST


def is_infinite(node: Node) -> bool:
    """Whether a node is NaN or infinite, or a number too large to be anything else (1e999)."""
    value = scalar(node, float, False)
    return value is not BAD and isinstance(value, float) and not math.isfinite(value)


def leaves(node: Node) -> typing.Iterator[Node]:
    """The scalars in a node, at any depth."""
    if isinstance(node, Block):
        for entry in node.entries.values():
            yield from leaves(entry.node)
    elif isinstance(node, Items):
        for item in node.items:
            yield from leaves(item)
    else:
        yield node


def expressible(annotation: Any) -> bool:
    """Whether YAML can say a value of this type; tensors and functions it cannot."""
    origin = typing.get_origin(annotation) or annotation
    return (
        origin in (typing.Annotated, Literal, Union, types.UnionType, None, type(None), Any)
        or origin in SCALARS
        or origin in LISTS
        or origin in MAPPINGS
        or dataclasses.is_dataclass(origin)
    )


def same_shape(annotation: Any, node: Node) -> bool:
    """Whether a block, a list or a single value is what `annotation` takes, whatever is in it."""
    if registry_of(annotation) is not None and typing.get_args(annotation)[0] is not str:
        return isinstance(node, Block)
    if typing.get_origin(annotation) is typing.Annotated:
        return same_shape(typing.get_args(annotation)[0], node)
    origin = typing.get_origin(annotation) or annotation
    if origin in LISTS:
        return isinstance(node, Items)
    if origin in MAPPINGS or dataclasses.is_dataclass(origin):
        return isinstance(node, Block)
    return isinstance(node, Scalar)


def literals(annotation: Any) -> list[str]:
    """The strings that `annotation` accepts by name, anywhere in a union."""
    if typing.get_origin(annotation) is Literal:
        return [a for a in typing.get_args(annotation) if isinstance(a, str)]
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return [s for a in typing.get_args(annotation) for s in literals(a)]
    return []
