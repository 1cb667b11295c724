"""Signatures as option schemas: the parameters of a constructor or function, annotated, or guessed where they are not."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError, did_you_mean, listing, printable

MISSING = inspect.Parameter.empty


@dataclass(frozen=True)
class Parameter:
    """One option of a registered component: its annotation (resolved, ``Annotated`` kept), default, and `annotations.Range`
    that its annotation, a library's, need not have."""

    name: str
    annotation: Any
    default: Any = MISSING
    range: Any = None

    @property
    def required(self) -> bool:
        return self.default is MISSING


def article(noun: str) -> str:
    """``"an optimizer"``, ``"a loss"``."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def unknown_key(
    key: object, owner: str, accepted: Iterable[str], near: Iterable[str] | None = None, elsewhere: str = ""
) -> str:
    """The message for an option that `owner` does not have.

    Args:
        near: what may be suggested; `accepted` when omitted.
        elsewhere: what to say where none of them is near.
    """
    accepted = list(accepted)
    hint = did_you_mean(str(key), accepted if near is None else near) or elsewhere
    about = re.search(r"\(([\w.]+)\)$", owner)
    page = about[1] if about else owner if re.fullmatch(r"[\w.]+", owner) else ""
    known = listing(accepted, str(key), f"relume explain {page}".strip()) or "no options"
    return f"unknown key '{printable(key)}' in {owner}.{hint} Accepted: {known}."


@functools.cache
def signature(target: Callable[..., Any], lenient: bool = False) -> Mapping[str, Parameter]:
    """Parameters of a class's constructor or of a function, annotations resolved, ``self`` left out.

    Raises:
        UserError: an annotation cannot be resolved; with `lenient` it is Any instead.
    """
    function = target.__init__ if inspect.isclass(target) else target
    try:
        # A dataclass inherits fields whose annotations are names of its base's module, which its constructor is not from.
        owner = target if dataclasses.is_dataclass(target) else function
        hints = typing.get_type_hints(owner, include_extras=True)
    except (NameError, TypeError) as e:
        if not lenient:
            raise UserError(
                f"{target.__module__}.{target.__qualname__}: an annotation of its parameters cannot be resolved ({e}); "
                "names in annotations must be importable at run time, not only under TYPE_CHECKING"
            ) from e
        hints = _hints_one_by_one(function)
    found = {
        p.name: Parameter(p.name, hints.get(p.name, Any), p.default)
        for p in inspect.signature(target).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    return types.MappingProxyType(found)


def _hints_one_by_one(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a library's function, some of which name things that exist for type checkers only: those are Any."""
    function = inspect.unwrap(function)
    names = {**vars(collections.abc), "Any": Any, "Literal": typing.Literal, **function.__globals__}
    hints = {}
    for name, annotation in function.__annotations__.items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints.update(typing.get_type_hints(alone, globalns=names, include_extras=True))
        except (NameError, TypeError):
            hints[name] = Any
    return hints


# ------------------------------------------------------------------ code that was not written for Relume
BLOCK_NAMES = ("opt", "opts", "dataset_opt", "cfg", "config")
"""What the one parameter is called that takes a whole block."""


def guessed(name: str, default: Any) -> Any:
    """The annotation of a parameter that has none, from its default.

    A whole number may be given as a fraction: nobody wrote that it must not, and ratios often have whole defaults.

    >>> guessed("dim", 48), guessed("bias", False), guessed("act", "gelu"), guessed("qk_scale", None)
    (int | float, <class 'bool'>, <class 'str'>, typing.Any)
    """
    if isinstance(default, bool):
        return bool
    if isinstance(default, (int, float)):
        return int | float if isinstance(default, int) else float
    if isinstance(default, str):
        return str
    if isinstance(default, (list, tuple)):
        numbers = bool(default) and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in default)
        return Sequence[int | float] if numbers else Sequence[Any]
    return Mapping[str, Any] if isinstance(default, dict) else Any


@functools.cache
def foreign_signature(target: Callable[..., Any]) -> Mapping[str, Parameter]:
    """As `signature`, of code that was not written for Relume: what has no annotation gets one from its default."""
    if takes_block(target):
        return types.MappingProxyType({})
    found = {}
    for name, parameter in signature(target, lenient=True).items():
        annotation = parameter.annotation
        if annotation is Any and parameter.default is not MISSING:
            annotation = guessed(name, parameter.default)
        elif typing.get_origin(annotation) is tuple and len(typing.get_args(annotation)) == 1:
            annotation = Sequence[typing.get_args(annotation)[0]]  # type: ignore[misc] # ``Tuple[int]``, of several
        found[name] = dataclasses.replace(parameter, annotation=annotation)
    return types.MappingProxyType(found)


def has_any_keys(target: Callable[..., Any]) -> bool:
    """Whether a constructor or function takes ``**kwargs``."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(target).parameters.values())


def takes_block(target: Callable[..., Any]) -> bool:
    """Whether a constructor has nothing but one parameter for its whole block, ``opt``; others would have defaults."""
    if not inspect.isclass(target):
        return False
    parameters = list(inspect.signature(target).parameters.values())
    return (
        bool(parameters)
        and parameters[0].name in BLOCK_NAMES
        and all(p.default is not MISSING or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters[1:])
    )
