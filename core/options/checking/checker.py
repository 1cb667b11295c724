"""Located nodes against annotations: every value is converted, every mistake recorded with its place."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

from addict import Dict

from ...annotations import MAY_BE_INFINITE, OF_ANY_SIZE, Epochs, Names, Range, Rule, Section, plain
from ...errors import UserError, did_you_mean, listing, printable
from ...registry import Parameter, Registry, article, registry_of, unknown_key
from ..nodes import FORBIDDEN, Block, Entry, Items, Node, Place, Problem, Scalar, to_python
from .kinds import (
    BAD,
    LISTS,
    MAPPINGS,
    SCALARS,
    ceiling,
    expressible,
    is_infinite,
    leaves,
    literals,
    parameters,
    same_shape,
    scalar,
)
from .words import describe, describe_node, flow, join_keys, shown

MOST_PROBLEMS = 200
"""Mistakes after which no further keys are looked at."""


class Checker:
    """Checks nodes against annotations.

    Attributes:
        problems: every mistake so far.
        origins: place that each value came from, by dotted key.
        defaults: what a ``type:`` block leaves to its constructor, by the block's dotted key.
        notes: what is no mistake, but worth knowing.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self.origins: dict[str, Place] = {}
        self.defaults: dict[str, dict[str, Any]] = {}

    # ---------------------------------------------------------------- reporting
    def problem(self, place: Place | None, key: str, text: str, *, say_key: bool = True) -> Any:
        """Record a mistake; `BAD`. Without a place the message starts with the key, whether it says it again or not."""
        named = say_key or place is None
        self.problems.append(Problem(place, f"{key}: {text}" if named and key else text))
        return BAD

    def expected(self, node: Node, annotation: Any, key: str) -> Any:
        """Record that `node` is of the wrong kind."""
        choices = literals(annotation)
        hint = did_you_mean(str(node.value), choices) if isinstance(node, Scalar) and choices else ""
        text = f"expected {describe(annotation)}, got {describe_node(node)}"
        return self.problem(node.place, key, f"{text}.{hint}" if hint else text)

    # ---------------------------------------------------------------- one value
    def check(self, node: Node, annotation: Any, key: str, *, exact: bool = False, limited: bool = True) -> Any:
        """The value of `node` as `annotation` wants it, or `BAD`.

        Args:
            exact: refuse to turn one type into another.
            limited: whether numbers have to be within `ceiling`.
        """
        # What no value may be.
        origin = typing.get_origin(annotation)
        if isinstance(node, Scalar) and isinstance(node.value, str) and (found := FORBIDDEN.search(node.value)):
            character = f"the character U+{ord(found[0]):04X}"
            return self.problem(node.place, key, f"{character} is not allowed, got {describe_node(node)}")
        if annotation is float and is_infinite(node):
            return self.problem(node.place, key, f"must be a finite number, got {describe_node(node)}")
        # What the annotation says, from the most to the least specific.
        if origin is typing.Annotated:
            return self._annotated(node, annotation, key, exact)
        if origin is Literal:
            return self._literal(node, annotation, key)
        if origin in (Union, types.UnionType):
            return self._union(node, annotation, key)
        if annotation is None or annotation is type(None):
            is_null = isinstance(node, Scalar) and node.value is None
            return None if is_null else self.expected(node, annotation, key)
        if annotation in SCALARS:
            value = scalar(node, annotation, exact)
            if value is BAD:
                return self.expected(node, annotation, key)
            if limited and annotation in (int, float) and abs(value) > (most := ceiling(annotation, key)):
                return self.problem(node.place, key, f"must be at most {most:,}, got {shown(value)}")
            return value
        if (origin or annotation) in LISTS:
            return self._list(node, annotation, key)
        if (origin or annotation) in MAPPINGS:
            return self._mapping(node, annotation, key)
        if dataclasses.is_dataclass(annotation):
            return (
                self.section(node, annotation, key) if isinstance(node, Block) else self.expected(node, annotation, key)
            )
        if (wild := next(filter(is_infinite, leaves(node)), None)) is not None:
            return self.problem(wild.place, key, f"must be finite, got {describe_node(wild)}")
        return to_python(node)  # Any, or something that YAML cannot say and only its owner can judge

    def _annotated(self, node: Node, annotation: Any, key: str, exact: bool) -> Any:
        # A name or a block of a registry.
        inner, *extras = typing.get_args(annotation)
        registry = registry_of(annotation)
        if registry is not None and inner is str:
            return self._name(node, registry, key)
        if registry is not None:
            more = next((e for e in extras if isinstance(e, type) and dataclasses.is_dataclass(e)), None)
            return self.component(node, registry, more, key)
        if MAY_BE_INFINITE in extras and isinstance(node, Scalar) and node.value == math.inf:
            return math.inf
        # Infinity, and numbers of epochs, where a range allows them.
        limits = [extra for extra in extras if isinstance(extra, Range)]
        if is_infinite(node) and any((wild := scalar(node, float, False)) not in limit for limit in limits):
            return self.problem(node.place, key, f"must be {limits[0]}, got {wild}")
        if any(limit.in_epochs for limit in limits) and isinstance(node, Scalar):
            span = Epochs.read(node.value)
            if span is not None:
                none = span.count == 0 and any(0 not in limit for limit in limits)
                return self.problem(node.place, key, f"must be {limits[0]}, got {span}") if none else span
            if inner is int and scalar(node, int, exact) is BAD:
                return self.expected(node, annotation, key)
        # The value itself, and then every range and rule for it.
        unlimited = OF_ANY_SIZE in extras or any(limit.most is not None or limit.below is not None for limit in limits)
        value = self.check(node, inner, key, exact=exact, limited=not unlimited)
        for extra in extras:
            if value is BAD or value is None:
                return value
            if isinstance(extra, (Range, Rule)) and value not in extra:
                return self.problem(node.place, key, f"must be {extra}, got {shown(value)}")
            if isinstance(extra, Names) and value not in extra:
                return self.problem(
                    node.place, key, f"expected a name such as {', '.join(extra.examples)}, got '{printable(value)}'"
                )
        return value

    def _name(self, node: Node, registry: Registry, key: str) -> Any:
        name = scalar(node, str, False)
        if name is BAD:
            return self.problem(
                node.place, key, f"expected the name of {article(registry.noun)}, got {describe_node(node)}"
            )
        return name if name in registry else self.unknown_name(node, registry, name, key)

    def unknown_name(self, node: Node, registry: Registry, name: str, key: str) -> Any:
        """Record a name that no component has; `BAD`."""
        return self.unknown_as(node, key, registry.unknown(name))

    def unknown_as(self, node: Node, key: str, text: str) -> Any:
        """Record a name that nothing has; the option that gives it is said last, since the name says more; `BAD`."""
        return self.problem(node.place, key, f"{text} (Given as {key}.)" if node.place else text, say_key=False)

    def _literal(self, node: Node, annotation: Any, key: str) -> Any:
        if isinstance(node, Scalar):
            for choice in typing.get_args(annotation):
                same = node.value == choice and type(node.value) is type(choice)
                if same or (isinstance(choice, str) and node.text == choice):
                    return choice
        return self.expected(node, annotation, key)

    def _union(self, node: Node, annotation: Any, key: str) -> Any:
        options = [a for a in typing.get_args(annotation) if expressible(a)]
        if not options:
            return to_python(node)
        before, origins = len(self.problems), dict(self.origins)
        for exact in (True, False) if isinstance(node, Scalar) else (False,):  # 3 is an integer before it is a number
            for option in options:
                value = self.check(node, option, key, exact=exact)
                if value is not BAD:
                    return value
                del self.problems[before:]
                self.origins = dict(origins)
        fitting = [a for a in options if a is not type(None) and same_shape(a, node)]
        return self.check(node, fitting[0], key) if len(fitting) == 1 else self.expected(node, annotation, key)

    def _list(self, node: Node, annotation: Any, key: str) -> Any:
        if not isinstance(node, Items):
            return self.expected(node, annotation, key)
        arguments = typing.get_args(annotation)
        is_tuple = (typing.get_origin(annotation) or annotation) is tuple
        fixed = is_tuple and arguments and Ellipsis not in arguments
        if fixed and len(node.items) != len(arguments):
            return self.problem(
                node.place, key, f"expected {len(arguments)} values, got {len(node.items)}: {flow(node)}"
            )
        kinds = arguments if fixed else [arguments[0] if arguments else Any] * len(node.items)
        values: list[Any] = []
        for i, (item, kind) in enumerate(zip(node.items, kinds, strict=True)):
            if len(self.problems) > MOST_PROBLEMS:
                return BAD
            values.append(self.check(item, kind, f"{key}[{i}]"))
        if any(v is BAD for v in values):
            return BAD
        return tuple(values) if is_tuple else values

    def _mapping(self, node: Node, annotation: Any, key: str) -> Any:
        if not isinstance(node, Block):
            return self.expected(node, annotation, key)
        keys, kind = typing.get_args(annotation) or (str, Any)
        names = next((m for m in getattr(keys, "__metadata__", ()) if isinstance(m, Names)), None)
        values = {}
        for name, entry in node.entries.items():
            dotted = join_keys(key, name)
            if names is not None and name not in names:
                self.unknown(entry, name, key, names.examples, key)
                continue
            label = self.check(Scalar(entry.key, name, entry.place), keys, dotted)
            value = self.check(entry.node, kind, dotted)
            if label is not BAD and value is not BAD:
                values[label] = value
                self.locate(dotted, entry)
        return values if len(values) == len(node.entries) else BAD

    # ---------------------------------------------------------------- blocks with known keys
    def locate(self, key: str, entry: Entry) -> None:
        """Remember where the value of `key` was written."""
        if entry.node.place is not None:
            self.origins[key] = entry.node.place

    def unknown(self, entry: Entry, name: str, owner: str, accepted: typing.Iterable[str], key: str) -> None:
        """Record a key that its block does not have."""
        self.problem(entry.place, join_keys(key, name), unknown_key(name, owner, accepted), say_key=False)

    def tolerated(self, entry: Entry, name: str, key: str) -> bool:
        """Whether a key that its block does not have is accepted all the same, and noted."""
        return False

    def fields(self, block: Block, accepted: Mapping[str, Parameter], key: str, owner: str) -> dict[str, Any]:
        """The values of a block with known keys; those that are unknown, wrong or missing are reported and left out."""
        values = {}
        # Every key that is given.
        for name, entry in block.entries.items():
            if len(self.problems) > MOST_PROBLEMS:
                break
            parameter = accepted.get(name)
            if parameter is None:
                if not self.tolerated(entry, name, key):
                    self.unknown(entry, name, owner, accepted, key)
                continue
            annotation = parameter.annotation
            if parameter.default is None:
                annotation = Union[annotation, None]  # noqa: UP007 - `|` refuses annotations that are strings or modules
            if parameter.range is not None:
                annotation = typing.Annotated[annotation, parameter.range]
            value = self.check(entry.node, annotation, join_keys(key, name))
            if value is not BAD:
                values[name] = value
                self.locate(join_keys(key, name), entry)
        # Keys that are not given and must be.
        strange = [n for n in block.entries if n not in accepted]
        lacking = [n for n, p in accepted.items() if p.required and n not in block.entries]
        lacking = [
            n for n in lacking if not any(did_you_mean(s, [n]) for s in strange)
        ]  # misspelt, and reported as such
        if lacking:
            self.problem(block.place, "", f"{owner} lacks {', '.join(map(repr, lacking))}.")
        return values

    def component(self, node: Node, registry: Registry, more: Any, key: str) -> Any:
        """A ``type:`` block; `more` is a dataclass of keys that it may have besides its constructor's parameters."""
        # The name of the component.
        if not isinstance(node, Block):
            return self.problem(
                node.place,
                key,
                f"expected a block whose 'type' names {article(registry.noun)}, got {describe_node(node)}",
            )
        if "type" not in node.entries:
            known = listing(registry.names(), all_of_them=registry.command)
            text = f"{key} lacks 'type', the name of {article(registry.noun)}. Known: {known}."
            return self.problem(node.place, "", text)
        name = self._name(node.entries["type"].node, registry, join_keys(key, "type"))
        if name is BAD:
            return BAD
        try:
            own = self.own_parameters(registry, name, key)
        except UserError as e:
            return self.problem(node.entries["type"].node.place, join_keys(key, "type"), str(e), say_key=False)
        # Its keys, and those that the place adds.
        before = len(self.problems)
        extra = parameters(more) if more else {}
        node = self.inherited(node, registry, {**own, **extra}, key)
        accepted = {"type": Parameter("type", str), **own, **extra}
        accepted |= self.unchecked(node, registry, name, key, accepted)
        values = self.fields(block=node, accepted=accepted, key=key, owner=f"{key} ({name})")
        self.defaults[key] = {n: p.default for n, p in own.items() if n not in values and n not in extra}
        if len(self.problems) > before:
            return BAD
        try:  # what a component has to say of options that do not go together
            getattr(registry.get(name), "check_options", lambda _: None)(
                {n: values.get(n, p.default) for n, p in own.items() if n in values or not p.required}
            )
        except UserError as e:
            return self.of_field(block=node, key=key, error=e)
        if more is None:
            return values
        section = self.completed(node, more, values, key)
        return values if isinstance(section, dict) else section

    def unchecked(
        self, block: Block, registry: Registry, name: str, key: str, accepted: Mapping[str, Parameter]
    ) -> dict[str, Parameter]:
        """The other keys of a block whose component takes any, as plug-ins may; that nobody can check them is noted."""
        found = [k for k in block.entries if k not in accepted] if registry.takes_any_key(name) else []
        if found:
            text = f"{key}: {name} takes any key, so these cannot be checked: {', '.join(found)}"
            self.notes.append(Problem(block.place, text))
        return {k: Parameter(k, Any, None) for k in found}

    def inherited(self, block: Block, registry: Registry, accepted: Mapping[str, Parameter], key: str) -> Block:
        """A ``type:`` block with what it keeps of the block of another type that it replaces."""
        return block

    def own_parameters(self, registry: Registry, name: str, key: str) -> dict[str, Parameter]:
        """The options of the component `name`, selected by the block at `key`."""
        return registry.parameters(name)

    def section(self, block: Block, cls: Any, key: str) -> Any:
        """A fixed section, its defaults filled in."""
        before = len(self.problems)
        values = self.fields(block, {**parameters(cls), **self.extra_keys(cls, block)}, key, key or "the top level")
        return BAD if len(self.problems) > before else self.completed(block, cls, values, key)

    def extra_keys(self, cls: Any, block: Block) -> dict[str, Parameter]:
        """Keys that the section `cls` has besides its fields."""
        return {}

    def completed(self, block: Block, cls: Any, values: dict[str, Any], key: str) -> Any:
        """The `Section` `cls` of these values, after its own check of them; of another dataclass, its fields as a dict."""
        own = parameters(cls)
        given = {n: frozen(v) for n, v in values.items() if n in own}
        if any(p.required and n not in given for n, p in own.items()):
            return BAD  # of a plug-in that failed, and is to blame alone
        is_section = issubclass(cls, Section)
        more = {"extra": frozen({n: v for n, v in values.items() if n not in own})} if is_section else {}
        try:
            instance = cls(**given, **more)
        except (ValueError, UserError) as e:
            return self.of_field(block, key, e)
        return instance if is_section else plain(dataclasses.asdict(instance))

    def of_field(self, block: Block, key: str, error: Exception) -> Any:
        """Record what is wrong in a block; `BAD`. What begins with one of its keys is reported there, with the value."""
        field, colon, rest = str(error).partition(": ")
        if colon and field in block.entries:
            node = block.entries[field].node
            return self.problem(node.place, join_keys(key, field), with_value(rest, node))
        first = next((entry.node for name, entry in block.entries.items() if str(error).startswith(f"{name} ")), None)
        return self.problem(block.place, key, with_value(str(error), first))


def with_value(text: str, node: Node | None) -> str:
    """What is wrong with a value, and the value, unless that is said already."""
    if not isinstance(node, Scalar) or " got " in text or "(" in text or str(to_python(node)) in text:
        return text
    return f"{text}, got {describe_node(node)}"


def frozen(values: Any) -> Any:
    """Dicts, at any depth and in lists too, as frozen ``addict.Dict``s; sections are that already."""
    if isinstance(values, Section):
        return values
    if isinstance(values, Mapping):
        block = Dict()
        for key, value in values.items():
            block[key] = frozen(value)
        block.freeze()
        return block
    if isinstance(values, (list, tuple)):
        return type(values)(frozen(v) for v in values)
    return values
