"""Plug-ins that are looked at and not run: what their text says that they define, with the parameters that it gives."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...errors import UserError, printable
from ...files import reading
from ...registry import Registry
from .kinds import python_files

MOST_BYTES, MOST_FILES = 2_000_000, 2_000
FAMILIES = {
    "architecture": ("ARCH", "Module"),
    "loss": ("LOSS", "Module"),
    "dataset": ("DATA", "Dataset"),
    "metric": ("METRIC", ""),
    "scheduler": ("SCHED", "Scheduler"),
    "optimizer": ("OPTIM", "Optimizer"),
}
"""What the names of a registry's decorators contain, and those of the classes that its members derive from, by its noun.

For other registries a signature says too little."""
PLAIN = {"int": int, "float": float, "str": str, "bool": bool}
Definition = ast.ClassDef | ast.FunctionDef


class Unread:
    """A default that only running the code would give; it is shown as it is written."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class UnrunPlugin:
    """A file or folder whose text is read, and whose code is not run.

    Args:
        path: absolute.

    Raises:
        UserError: it cannot be read as Python.
    """

    def __init__(self, path: Path) -> None:
        self.key = f"{path} (read, not run)"
        self.definitions: dict[str, Definition] = {}
        files = [path] if path.is_file() else [f for f, _ in zip(python_files(path), range(MOST_FILES), strict=False)]
        for file in files:
            self.definitions.update((name, node) for name, node in defined(file))

    def find(self, registry: Registry, name: str) -> Callable[..., Any] | None:
        """A stand-in with the signature of what the text defines under a name; calling it raises `UserError`."""
        node = self.definitions.get(name)
        return self.stand_in(name, node) if node is not None and belongs(node, registry.noun) is not False else None

    def names(self, registry: Registry) -> list[str]:
        """Names of what the text shows to be of the registry's kind."""
        return [name for name, node in self.definitions.items() if belongs(node, registry.noun)]

    def stand_in(self, name: str, node: Definition) -> Callable[..., Any]:
        """A class or function of this name that has the signature and no behaviour.

        Raises:
            UserError: the stand-in is called.
        """
        said = f"{printable(name)} was read, and is not run: {printable(self.key)}"

        def call(*_: Any, **__: Any) -> Any:
            raise UserError(said)

        function = node if isinstance(node, ast.FunctionDef) else self.constructor(node, set())
        call.__name__, call.__qualname__ = name, name
        parameters = list(parameters_of(function)) if function is not None else [_any_keys()]
        call.__annotations__ = {p.name: p.annotation for p in parameters if p.annotation is not Any}
        call.__signature__ = _signature(parameters, own=isinstance(node, ast.ClassDef))  # type: ignore[attr-defined]
        if isinstance(node, ast.FunctionDef):
            return call
        return type(name, (), {"__init__": call, "__doc__": ast.get_docstring(node)})

    def constructor(self, node: ast.ClassDef, seen: set[str]) -> ast.FunctionDef | None:
        """The ``__init__`` of a class, or of one that it is derived from, as far as they are in the text."""
        own = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if own is not None or node.name in seen:
            return own
        above = [self.definitions.get(ast.unparse(base)) for base in node.bases]
        found = (self.constructor(b, {*seen, node.name}) for b in above if isinstance(b, ast.ClassDef))
        return next((f for f in found if f is not None), None)


def defined(file: Path) -> Iterator[tuple[str, Definition]]:
    """The public classes and functions at a file's top level, by every name that their decorators give them.

    Raises:
        UserError: it cannot be read as Python.
    """
    try:
        tree = ast.parse(reading.content(file, MOST_BYTES))
    except OSError as e:
        raise UserError(f"{printable(file)}: cannot be read ({e.strerror or e})") from e
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise UserError(f"{printable(file)}: cannot be read as Python ({printable(type(e).__name__)})") from e
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            yield node.name, node
            for decorator in node.decorator_list:
                for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
                    if keyword.arg in ("name", "aliases"):
                        yield from ((n.value, node) for n in ast.walk(keyword.value) if _is_text(n))  # type: ignore[attr-defined]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def belongs(node: Definition, noun: str) -> bool | None:
    """Whether a definition is a member of a registry, by its decorators and bases; None where they do not say."""
    if noun not in FAMILIES:
        return False
    decorator, base = FAMILIES[noun]
    said = [ast.unparse(d).upper() for d in node.decorator_list if "REGIST" in ast.unparse(d).upper()]
    if said:
        return any(decorator in text for text in said)
    if isinstance(node, ast.FunctionDef) or noun == "metric":
        return None if isinstance(node, ast.FunctionDef) and noun == "metric" else False
    return any(base in ast.unparse(b) for b in node.bases) or None


def parameters_of(function: ast.FunctionDef) -> Iterator[inspect.Parameter]:
    """The parameters of a function, but for ``self``; plain annotations and defaults as they are."""
    given = function.args
    every = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(every) - len(given.defaults)) + list(given.defaults)
    pairs = [*zip(every, defaults, strict=True), *zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    for argument, default in pairs[1:] if every and every[0].arg == "self" else pairs:
        name = ast.unparse(argument.annotation) if argument.annotation is not None else ""
        value = inspect.Parameter.empty if default is None else _value(default)
        yield inspect.Parameter(
            argument.arg, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=PLAIN.get(name, Any)
        )
    if given.kwarg is not None:
        yield _any_keys()


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return Unread(ast.unparse(node))


def _any_keys() -> inspect.Parameter:
    return inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)


def _signature(parameters: list[inspect.Parameter], own: bool) -> inspect.Signature:
    first = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)] if own else []
    names = {p.name: p for p in parameters}  # a later one of the same name is no Python
    return inspect.Signature([*first, *names.values()])
