"""What a plain type cannot say about an option, blocks of the option file as typed sections, and what components declare.

``Annotated[float, Range(least=0, below=1)]`` is usable in registered constructors as well as in the fixed sections; the option
checker and the JSON Schema both read it.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, TypeVar


@dataclass(frozen=True)
class Epochs:
    """So many passes over the training set: a number of iterations as an option file may give it, ``3 epochs``.

    It stands in place of that number until the training set is known (`core.options.counts`).

    >>> str(Epochs.read("3 epochs")), str(Epochs.read("1epoch")), str(Epochs.read(".5 epochs")), Epochs.read("3")
    ('3 epochs', '1 epoch', '0.5 epochs', None)
    """

    count: float

    WRITTEN: ClassVar[re.Pattern[str]] = re.compile(r"\s*(\d{1,12}(?:\.\d{0,12})?|\.\d{1,12})\s*epochs?\s*")

    @classmethod
    def read(cls, value: Any) -> Epochs | None:
        """What a value of an option file says; None if that is no number of epochs."""
        if isinstance(value, cls):
            return value
        match = cls.WRITTEN.fullmatch(value) if isinstance(value, str) else None
        return cls(float(match[1])) if match else None

    def __str__(self) -> str:
        number = f"{self.count:.12f}".rstrip("0").rstrip(".")
        return f"{number} epoch{'' if self.count == 1 else 's'}"


@dataclass(frozen=True)
class Range:
    """Numbers between bounds, of which any may be left out; of a list, each.

    Args:
        in_epochs: whether this is a number of iterations, which option files may give as `Epochs`, too.

    >>> 1.0 in Range(least=0, below=1), str(Range(least=0, below=1))
    (False, 'at least 0 and below 1')
    >>> [0.9, 0.99] in Range(below=1), [0.9, 1] in Range(below=1)
    (True, False)
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    in_epochs: bool = False

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, (list, tuple)):
            return all(v in self for v in value if v is not None and not isinstance(v, Epochs))
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)


@dataclass(frozen=True)
class Names:
    """Strings that match a regular expression in full; `examples` explain it in messages."""

    pattern: str
    examples: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        return re.fullmatch(self.pattern, value) is not None


@dataclass(frozen=True)
class Rule:
    """What else a value must be: `text` says it after "must be", `holds` decides it.

    >>> even = Rule("an even number", lambda n: n % 2 == 0)
    >>> 3 in even, str(even)
    (False, 'an even number')
    """

    text: str
    holds: Callable[[Any], bool] = field(repr=False, compare=False)

    def __contains__(self, value: Any) -> bool:
        return self.holds(value)

    def __str__(self) -> str:
        return self.text


MAY_BE_INFINITE = "may be infinite"
"""Mark in ``Annotated[float, MAY_BE_INFINITE]``: infinity means something here. Elsewhere it is refused, as NaN is
everywhere."""


OF_ANY_SIZE = "of any size"
"""Mark in ``Annotated[int, OF_ANY_SIZE]``: no count of things, and so without the ceiling that the option checker has
elsewhere."""


Count = Annotated[int, Range(least=1)]
"""A number of things of which at least one is needed."""
Repeats = Annotated[int, Range(least=1, most=10_000)]
"""How often a step computes something again: its time grows with it, so that a slip of a few zeros would take days."""
Levels = Annotated[int, Range(least=1, most=32)]
"""Levels of which each has half the size, or twice the width, of the one before: no image has more."""
NonNegative = Annotated[int, Range(least=0)]
"""A whole number that may be zero."""
Positive = Annotated[float, Range(above=0)]
"""A number above zero."""
Steps = Annotated[int, Range(in_epochs=True)]
"""A number of iterations, or `Epochs`; what is possible, its owner knows."""
Iterations = Annotated[int, Range(least=1, in_epochs=True)]
"""The same, of which at least one is needed."""
SomeIterations = Annotated[int, Range(least=0, in_epochs=True)]
"""The same, which may be zero."""
Share = Annotated[float, Range(least=0, most=1)]
"""A part of a whole."""


def setting(default: Any = MISSING, doc: str = "", **kwargs: Any) -> Any:
    """A field of a `Section` with its one-line description; `default` may be a factory such as ``dict`` or ``list``."""
    if callable(default):
        return field(default_factory=default, metadata={"doc": doc}, **kwargs)
    return field(default=default, metadata={"doc": doc}, **kwargs)


S = TypeVar("S", bound="Section")


@dataclass(frozen=True, eq=False)
class Section(Mapping[str, Any]):
    """A block of the option file with fixed keys: a dataclass that also reads as the mapping that the file has there.

    ``opt.train.total_iter`` is ``opt["train"]["total_iter"]``, as BasicSR's users write it. It cannot be modified; it equals
    a mapping with the same entries.

    Attributes:
        extra: keys that exist by a pattern, or that the type of the block brings (``network_g``, ``pixel_opt``, a dataset's
            parameters), and no field. They read the same way: ``opt.network_g``, ``opt["network_g"]``.
    """

    extra: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @classmethod
    def of(cls: type[S], values: Mapping[str, Any]) -> S:
        """The section with these values, which nobody has checked; keys that are no fields become `extra`."""
        if isinstance(values, cls):
            return values
        own = {f.name for f in fields(cls)}
        given = {k: v for k, v in values.items() if k in own}
        return cls(**given, extra={k: v for k, v in values.items() if k not in own})

    def __getitem__(self, key: str) -> Any:
        if key in self.extra:
            return self.extra[key]
        if any(f.name == key for f in fields(type(self))):
            return getattr(self, key)
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        names = [*(f.name for f in fields(type(self))), *self.extra]
        return iter(sorted(names, key=lambda name: name != "type"))  # which says what the others are

    def __len__(self) -> int:
        return len(fields(type(self))) + len(self.extra)

    if not typing.TYPE_CHECKING:  # or a type checker would accept any attribute

        def __getattr__(self, name: str) -> Any:
            try:
                return object.__getattribute__(self, "extra")[name]
            except (AttributeError, KeyError):
                raise AttributeError(f"{type(self).__name__} has no key '{name}'") from None

    def also(self: S, **more: Any) -> S:
        """The section with more keys that are no fields."""
        return dataclasses.replace(self, extra={**self.extra, **more})

    def to_dict(self) -> dict[str, Any]:
        """The block as plain dicts, lists and scalars."""
        values: dict[str, Any] = plain(self)
        return values


def fields(cls: type) -> tuple[dataclasses.Field[Any], ...]:
    """The fields of a dataclass that are keys of an option file."""
    found = dataclasses.fields(cls)
    return tuple(f for f in found if f.name != "extra") if issubclass(cls, Section) else found


def plain(values: Any) -> Any:
    """Sections and other mappings, at any depth, as plain dicts, and paths as strings: what YAML can say."""
    if isinstance(values, Mapping):
        return {k: plain(v) for k, v in values.items()}
    if isinstance(values, (list, tuple)):
        return [plain(v) for v in values]
    return str(values) if isinstance(values, PurePath) else values


def usual(component: type, option: str) -> Any:
    """The default of an option of a component, or of a section: what its constructor takes where nothing is said."""
    return inspect.signature(component).parameters[option].default


def given_otherwise(options: Mapping[str, Any], option: str, component: type) -> bool:
    """Whether `options` give an option of a component another value than its default."""
    return option in options and bool(plain(options[option]) != plain(usual(component, option)))


def shape_of(tensor: Any) -> str:
    """A tensor's shape in messages: ``2x3x16x16``."""
    return "x".join(map(str, tensor.shape)) or "a single number"


def declared(component: object, name: str, traits: type) -> Any:
    """An attribute of a dataset, loss, network or loader, or else what `traits` declares for components without it.

    Thus a component need not inherit from anything of Relume's, and every default is said once, in `traits`.

    Args:
        component: what is asked first, whatever its class.
        name: name of an attribute or method.
        traits: class that declares it, with its default and meaning (`relume.datasets.base.DatasetTraits`, say).

    Raises:
        AttributeError: `traits` declares no such name, which is a mistake of the caller.

    >>> class Traits:
    ...     size_multiple = 1
    >>> declared(object(), "size_multiple", Traits)
    1
    """
    default = inspect.getattr_static(traits, name)
    try:
        return getattr(component, name)
    except AttributeError:
        return default.__get__(component) if inspect.isfunction(default) else default
