"""Registries: a decorator files a class or function under its name, a ``type:`` block of an option file calls it.

The constructor's signature *is* the option schema, so registration refuses what could not be one: ``*args``, ``**kwargs``,
a parameter called ``type``, a parameter without annotation.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import re
import threading
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from .errors import UserError, did_you_mean

T = TypeVar("T", bound=Callable[..., Any])
MISSING = inspect.Parameter.empty
DECORATED = re.compile(r"^(@.*\n(?:[@ \t)\]#].*\n|\n)*)(?:async[ ]+)?(?:class|def)[ ]+(\w+)", re.MULTILINE)
"""The decorators of a class or function at a module's top level, and its name."""
QUOTED = re.compile(r"""["']([^"'\n]+)["']""")


@dataclass(frozen=True)
class Parameter:
    """One option of a registered component: its annotation (resolved, ``Annotated`` kept), default, and `annotations.Range`
    where the annotation, a library's, has none."""

    name: str
    annotation: Any
    default: Any = MISSING
    range: Any = None

    @property
    def required(self) -> bool:
        return self.default is MISSING


class Registry:
    """A family of components that option files select by name.

    Args:
        noun: what one member is called in messages, e.g. ``"architecture"``.
        package: dotted package whose modules register members. A look-up imports the module that defines the name; a
            listing imports them all.
        runtime: constructor parameters that code supplies and option files may not (an optimizer's ``params``).
        library: where else to look for a name (``torch.optim``); returns None for an unknown one, or raises `UserError` with
            what is to be said of it.
        library_names: what is there, for suggestions and listings.
        library_ranges: by name, the `annotations.Range` of parameters of the library, whose annotations have none.
    """

    def __init__(
        self,
        noun: str,
        package: str,
        *,
        runtime: tuple[str, ...] = (),
        library: Callable[[str], Callable[..., Any] | None] | None = None,
        library_names: Callable[[], Iterable[str]] = tuple,
        library_ranges: Mapping[str, Any] = types.MappingProxyType({}),
    ) -> None:
        self.noun = noun
        self.package = package
        self.runtime = runtime
        self._library = library
        self._library_names = library_names
        self._library_ranges = library_ranges
        self._members: dict[str, Callable[..., Any]] = {}
        self._aliases: dict[str, str] = {}
        self._unimportable: dict[str, ImportError] = {}
        self._index: dict[str, list[str]] | None = None
        self._discovered = False
        self._discovering: set[int] = set()

    def __repr__(self) -> str:
        return f"Registry({self.noun})"

    # ---------------------------------------------------------------- registering
    def register(self, *, name: str | None = None, aliases: tuple[str, ...] = ()) -> Callable[[T], T]:
        """Decorator: ``@ARCHS.register()`` files a class or function under its own name (or `name`), and `aliases`.

        Raises:
            TypeError: the signature cannot serve as an option schema, or a name is taken by something else.
        """

        def file(member: T) -> T:
            key = name or member.__name__
            self._refuse_unclear_signature(key, member)
            own = f"{member.__module__}.".startswith(f"{self.package}.")
            for k in (key, *aliases):
                # A plugin learns at once, not when the package's module is imported, that a name is taken.
                taken = self._registered(k) if own else self._defined(k)
                if taken is not None and _definition(taken) != _definition(member):
                    raise TypeError(
                        f"{self.noun} '{k}' is registered twice: in {taken.__module__} and {member.__module__}"
                    )
            self._members[key] = member
            self._aliases.update(dict.fromkeys(aliases, key))
            return member

        return file

    def _refuse_unclear_signature(self, key: str, member: Callable[..., Any]) -> None:
        where = f"{self.noun} '{key}' ({member.__module__})"
        if str(getattr(getattr(member, "__init__", None), "__module__", "")).startswith("torch."):
            return  # nn.Module's own constructor, say, of a class that needs none: not the author's to annotate
        for p in inspect.signature(member).parameters.values():
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                raise TypeError(f"{where}: *{p.name} hides the options it accepts; list them")
            if p.name == "type":
                raise TypeError(f"{where}: no parameter may be called 'type'; that key selects the component")
            if p.annotation is MISSING and p.name not in self.runtime:
                raise TypeError(f"{where}: parameter '{p.name}' has no type annotation")

    # ---------------------------------------------------------------- looking up
    def _registered(self, name: str) -> Callable[..., Any] | None:
        return self._members.get(self._aliases.get(name, name))

    def _defined(self, name: str) -> Callable[..., Any] | None:
        """What `name` is, after importing no more than the module whose text says that it defines it."""
        if self._index is None:
            self._index = names_of(self.package)
        for module in self._index.get(name, ()):
            if self._registered(name) is not None:
                break
            self._import(module)
        return self._registered(name)

    def _find(self, name: object) -> Callable[..., Any] | None:
        if not isinstance(name, str):
            return None
        found = self._registered(name) or self._defined(name)
        if found is None:
            self._discover()  # registered in a way that the text does not show, or nowhere
            found = self._registered(name)
        return found or (self._library(name) if self._library else None)

    def _discover(self) -> None:
        """Import every module of the package, once.

        Modules may look names up while they are imported; such a look, within a look of the same thread, finds what there is.
        Other threads import, too, and so wait for what is not finished.
        """
        thread = threading.get_ident()
        if self._discovered or thread in self._discovering:
            return
        self._discovering.add(thread)
        try:
            root = importlib.import_module(self.package)
            for module in pkgutil.walk_packages(getattr(root, "__path__", []), f"{self.package}."):
                self._import(module.name)
            self._discovered = True  # only now: after a failure, the next look would find half of the members
        finally:
            self._discovering.discard(thread)

    def _import(self, module: str) -> None:
        if module in self._unimportable:
            return
        try:
            importlib.import_module(module)
        except ImportError as e:
            if (e.name or "").split(".")[0] == self.package.split(".")[0]:
                raise  # our own bug, not a missing or broken extra
            self._unimportable[module] = e

    def names(self) -> list[str]:
        """Every registered name, aliases not included, sorted."""
        self._discover()
        return sorted(self._members)

    def aliases(self, name: str) -> list[str]:
        """Other names under which `name` is known."""
        self._discover()
        return sorted(a for a, target in self._aliases.items() if target == name)

    def library_names(self) -> list[str]:
        """Names that the library offers besides the registered ones, sorted."""
        public = {n for n in self._library_names() if not n.startswith("_")}
        return sorted(public - {*self.names(), *self._aliases})

    def unimportable(self) -> dict[str, str]:
        """Modules of the package that could not be imported for want of a dependency, and why."""
        self._discover()
        return {module: str(error) for module, error in self._unimportable.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        try:
            return self._find(name) is not None
        except UserError:  # the name is a library's, which is missing or has nothing of that name
            return False

    def get(self, name: str) -> Callable[..., Any]:
        """The class or function called `name`.

        Raises:
            UserError: nothing is called so; the message suggests the nearest name and lists the known ones.
        """
        member = self._find(name)
        if member is None:
            raise UserError(self.unknown(name))
        return member

    def unknown(self, name: object) -> str:
        """The message for a name that nothing has; it quotes the missing dependency of a module that would define it."""
        registered = self.names()
        try:
            self._find(name)
        except UserError as e:  # of a library, that knows better
            return str(e)
        hint = did_you_mean(str(name), [*registered, *self._aliases, *self.library_names()])
        text = f"no {self.noun} is called '{name}'.{hint} Known: {', '.join(registered) or 'none'}."
        for module, error in self._unimportable.items():
            spec = importlib.util.find_spec(module)
            source = Path(spec.origin).read_text() if spec and spec.origin else ""
            if re.search(rf"^(class|def) {re.escape(str(name))}\b", source, re.MULTILINE):
                text += f" ({module} defines it, but cannot be imported: {error}.)"
        return text

    def parameters(self, name: str) -> dict[str, Parameter]:
        """The options that `name` accepts, in the order of its signature, without the runtime ones."""
        member = self.get(name)
        registered = member in self._members.values()
        found = {k: p for k, p in signature(member, lenient=not registered).items() if k not in self.runtime}
        ranges = {} if registered else {k: r for k, r in self._library_ranges.items() if k in found}
        return {**found, **{k: replace(found[k], range=r) for k, r in ranges.items()}}

    # ---------------------------------------------------------------- building
    def build(self, block: Mapping[str, Any], **runtime: Any) -> Any:
        """Call the component that ``block["type"]`` names with the block's other keys, and with `runtime`.

        Nested blocks whose parameter is annotated ``Annotated[..., REGISTRY]`` are built first, innermost first. `block` is
        not modified.

        Raises:
            UserError: no or unknown type, unknown or missing option.
        """
        if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
            raise UserError(f"a block that selects {article(self.noun)} needs a 'type'; got {block!r}")
        name = block["type"]
        target = self.get(name)
        accepted = self.parameters(name)
        values = {k: v for k, v in block.items() if k != "type"}
        for key in values:
            if key not in accepted:
                raise UserError(unknown_key(key, f"{name}", accepted))
        lacking = [k for k, p in accepted.items() if p.required and k not in values and k not in runtime]
        if lacking:
            raise UserError(f"{self.noun} {name} lacks {', '.join(map(repr, lacking))}.")
        built = {k: build_nested(accepted[k].annotation, v) for k, v in values.items()}
        return target(**runtime, **built)


def names_of(package: str) -> dict[str, list[str]]:
    """What the modules of a package may register, read from their text: modules by name.

    A name is that of a decorated class or function, or any string among its decorators' arguments; that is more than is
    registered, and nothing is imported but the package itself. Empty for what is not a folder.
    """
    root = importlib.import_module(package)
    found: dict[str, list[str]] = {}
    for folder in map(Path, getattr(root, "__path__", ())):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            module = ".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)])
            for decorators, name in DECORATED.findall(path.read_text(encoding="utf-8")):
                for word in (name, *QUOTED.findall(decorators)):
                    found.setdefault(word, []).append(module)
    return found


def _definition(member: Callable[..., Any]) -> tuple[str, str]:
    """The file and name by which a reloaded module's members are recognised as the same ones."""
    try:
        return inspect.getfile(member), member.__qualname__
    except (TypeError, OSError):  # written at a prompt
        return member.__module__, member.__qualname__


def article(noun: str) -> str:
    """``"an optimizer"``, ``"a loss"``."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def unknown_key(key: object, owner: str, accepted: Iterable[str], near: Iterable[str] | None = None) -> str:
    """The message for an option that `owner` does not have; `near` is what may be suggested, `accepted` when omitted."""
    accepted = list(accepted)
    hint = did_you_mean(str(key), accepted if near is None else near)
    return f"unknown key '{key}' in {owner}.{hint} Accepted: {', '.join(accepted) or 'no options'}."


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


def registry_of(annotation: Any) -> Registry | None:
    """The registry in ``Annotated[X, REGISTRY]`` (a block built from it belongs there), else None."""
    extras = getattr(annotation, "__metadata__", ())
    return next((m for m in extras if isinstance(m, Registry)), None)


def build_nested(annotation: Any, value: Any) -> Any:
    """`value` with its ``type:`` blocks built, wherever `annotation` says that a component belongs there.

    Containers are copied, so that a constructor may change what it gets.
    """
    registry = registry_of(annotation)
    if registry is not None:
        return registry.build(value) if isinstance(value, Mapping) else value
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return build_nested(arguments[0], value)
    if origin in (typing.Union, types.UnionType):
        return build_nested(next((a for a in arguments if _takes(a, value)), Any), value)
    if isinstance(value, Mapping):
        inner = arguments[1] if len(arguments) == 2 else Any
        return {k: build_nested(inner, v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        each = origin is tuple and Ellipsis not in arguments and len(arguments) == len(value)
        inner = arguments[0] if arguments else Any
        return type(value)(build_nested(arguments[i] if each else inner, v) for i, v in enumerate(value))
    return value


def _takes(annotation: Any, value: Any) -> bool:
    """Whether an alternative of a union may hold components in a container like `value`."""
    if registry_of(annotation) is not None:
        return isinstance(value, Mapping) and "type" in value
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _takes(typing.get_args(annotation)[0], value)
    return inspect.isclass(origin) and isinstance(value, (Mapping, list, tuple)) and isinstance(value, origin)
