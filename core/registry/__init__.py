"""Registries: a decorator files a class or function under its name, a ``type:`` block of an option file calls it.

The constructor's signature *is* the option schema, so registration refuses what could not be one: ``*args``, ``**kwargs``,
a parameter called ``type``, a parameter without annotation. Plug-ins are anybody's code, and taken as they are: see `plugged`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import re
import threading
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ..annotations import plain
from ..errors import UserError, did_you_mean, in_one_line, listing, printable
from . import plugged
from .signatures import (
    MISSING,
    Parameter,
    article,
    foreign_signature,
    guessed,
    has_any_keys,
    signature,
    takes_block,
    unknown_key,
)
from .sources import definition, names_of

__all__ = [
    "MISSING",
    "Parameter",
    "Registry",
    "article",
    "build_nested",
    "guessed",
    "names_of",
    "plugged",
    "registry_of",
    "signature",
    "unknown_key",
]
T = TypeVar("T", bound=Callable[..., Any])
PLURALS = {
    "architecture": "archs",
    "model": "models",
    "loss": "losses",
    "dataset": "datasets",
    "scheduler": "schedulers",
    "metric": "metrics",
    "optimizer": "optimizers",
    "feature extractor": "features",
    "transfer function": "transfers",
}
"""What ``relume list`` calls the members of a registry, by its noun."""


class Registry:
    """A family of components that option files select by name.

    Args:
        noun: what one member is called in messages, e.g. ``"architecture"``.
        package: dotted package whose modules register members. A look-up imports the module that defines the name; a
            listing imports them all.
        runtime: constructor parameters that code supplies and option files may not (an optimizer's ``params``).
        library: function that looks elsewhere for a name (``torch.optim``); returns None for an unknown one, or raises
            `UserError` with what is to be said of it.
        library_names: what is there, for suggestions and listings.
        further_names: what packages have that are slow to import, for the JSON Schema, which has their names alone.
        ranges: the `annotations.Range` of parameters by name, whatever the component: annotations of a library have none.
        library_advice: what to say, if anything, of a name that is not there but could be.
    """

    def __init__(
        self,
        noun: str,
        package: str,
        *,
        runtime: tuple[str, ...] = (),
        library: Callable[[str], Callable[..., Any] | None] | None = None,
        library_names: Callable[[], Iterable[str]] = tuple,
        further_names: Callable[[], Iterable[str]] = tuple,
        ranges: Mapping[str, Any] = types.MappingProxyType({}),
        library_advice: Callable[[str], str] = lambda name: "",
    ) -> None:
        self.noun = noun
        self.package = package
        self.runtime = runtime
        self._library = library
        self._library_names = library_names
        self.further_names = further_names
        self._ranges = ranges
        self._library_advice = library_advice
        self._plugged: dict[str, dict[str, Callable[..., Any]]] = {}
        self._beside: dict[str, Callable[..., Any]] = {}
        self._members: dict[str, Callable[..., Any]] = {}
        self._aliases: dict[str, str] = {}
        self._unimportable: dict[str, ImportError] = {}
        self._index: dict[str, list[str]] | None = None
        self._discovered = False
        self._discovering: set[int] = set()

    def __repr__(self) -> str:
        return f"Registry({self.noun})"

    @property
    def command(self) -> str:
        """What lists all members, ``relume list losses``; empty where nothing does."""
        return f"relume list {PLURALS[self.noun]}" if self.noun in PLURALS else ""

    # ---------------------------------------------------------------- registering
    def register(self, *, name: str | None = None, aliases: tuple[str, ...] = ()) -> Callable[[T], T]:
        """Decorator: ``@ARCHS.register()`` files a class or function under its own name (or `name`), and `aliases`.

        Raises:
            TypeError: the signature cannot serve as an option schema, or a name is taken by something else.
        """

        def file(member: T) -> T:
            key = name or member.__name__
            own = self.ships(member)
            plugin = plugged.registrant()
            if (plugin is not None and not own) or member.__module__.startswith(f"{plugged.PACKAGE}."):
                self._plug(member, (key, *aliases), *(plugin or ("", "")))
                return member
            self._refuse_unclear_signature(key, member)
            for k in (key, *aliases):
                # Who registers at a prompt learns at once, not when the package's module is imported, that a name is taken.
                taken = self._registered(k) if own else self._defined(k)
                if taken is not None and definition(taken) != definition(member):
                    raise TypeError(
                        f"{self.noun} '{k}' is registered twice: in {taken.__module__} and {member.__module__}"
                    )
            self._members[key] = member
            self._aliases.update(dict.fromkeys(aliases, key))
            return member

        return file

    def _plug(self, member: Callable[..., Any], names: Iterable[str], plugin: str, module: str) -> None:
        """File what a plug-in registers; what it only imports is filed beside, and comes after Relume's own."""
        within = self._plugged.setdefault(plugin, {}) if member.__module__ == module else self._beside
        within.update(dict.fromkeys(names, member))

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
        found = self._of_plugin(name) or self._registered(name) or self._defined(name)
        found = found or (self._library(name) if self._library else None) or self._hidden(name)
        if found is None:
            others = [names[name] for names in self._plugged.values() if name in names]
            found = others[-1] if others else self._beside.get(name)
        return found

    def _hidden(self, name: str) -> Callable[..., Any] | None:
        """What is registered in a way that no text shows, by a loop: found only once the whole family is imported."""
        self._discover()
        return self._registered(name)

    def _of_plugin(self, name: str) -> Callable[..., Any] | None:
        """What the first plug-in of the options in force has under a name."""
        for plugin in plugged.active():
            found = self._plugged.get(plugin.key, {}).get(name)
            if found is None and (found := plugin.find(self, name)) is not None:
                self._plugged.setdefault(plugin.key, {})[name] = found
            if found is not None:
                return found
        return None

    def origin(self, name: str) -> str | None:
        """The plug-in of the options in force that a name is taken from; None if none of them has it."""
        if self._of_plugin(name) is None:
            return None
        return next(p.key for p in plugged.active() if name in self._plugged.get(p.key, {}))

    def has_own(self, name: str) -> bool:
        """Whether Relume has something of its own under a name, as far as the text of its modules shows."""
        return (self._registered(name) or self._defined(name)) is not None

    def at_hand(self, name: str) -> bool:
        """Whether a plug-in in force, Relume itself or a library's list has the name: no library is imported for it."""
        return self._of_plugin(name) is not None or self.has_own(name) or name in self._library_names()

    def whose(self, name: str) -> str:
        """Which of several components called `name` is meant, in words; empty where there is only one."""
        plugin = self.origin(name)
        if plugin is None:
            others = [p.key for p in plugged.active() if name in p.names(self)]
            return (
                f"{name} is Relume's own; {others[0]} has one too, which its file under plugins would select"
                if others
                else ""
            )
        if self.has_own(name):
            return f"{name} is the one of {plugin}, in place of Relume's own"
        of_library = not name.startswith("_") and name in self._library_names()
        return f"{name} is the one of {plugin}, in place of a library's" if of_library else ""

    def ships(self, member: Callable[..., Any]) -> bool:
        """Whether a class or function is of the family's own package, and so Relume's and not a library's or a plug-in's."""
        return f"{member.__module__}.".startswith(f"{self.package}.")

    def _is_foreign(self, member: Callable[..., Any]) -> bool:
        """Whether a member is a plug-in's, whose signature nobody has looked at."""
        return any(member in names.values() for names in (*self._plugged.values(), self._beside))

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
        """Every registered name, aliases not included, sorted; those of plug-ins too."""
        self._discover()
        return sorted({*self._members, *self._beside, *(n for names in self._plugged.values() for n in names)})

    def aliases(self, name: str) -> list[str]:
        """Other names under which `name` is known."""
        self._discover()
        found = [a for a, target in self._aliases.items() if target == name]
        of_library = self._library is not None and name not in self._members
        return sorted([*found, *(getattr(self._library(name), "aliases", ()) if of_library and self._library else ())])

    def library_names(self) -> list[str]:
        """Names that the library offers besides the registered ones, sorted."""
        public = {n for n in self._library_names() if not n.startswith("_")}
        self._discover()
        return sorted(public - {*self._members, *self._aliases})

    def unimportable(self) -> dict[str, str]:
        """Modules of the package that could not be imported because a dependency is missing, and why."""
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
        try:
            self._find(name)
        except UserError as e:  # of a library, that knows better
            return str(e)
        theirs = [n for plugin in plugged.active() for n in plugin.names(self)]
        every = [*self.names(), *self._aliases, *self.library_names(), *theirs]
        known = listing(every, str(name), self.command) or "none"
        hint = did_you_mean(str(name), every)
        text = f"no {self.noun} is called '{printable(name)}'.{hint} Known: {known}."
        text += f" {advice}" if not hint and (advice := self._library_advice(str(name))) else ""
        for module, error in self._unimportable.items():
            spec = importlib.util.find_spec(module)
            source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
            if re.search(rf"^(class|def) {re.escape(str(name))}\b", source, re.MULTILINE):
                text += f" ({module} defines it, but cannot be imported: {error}.)"
        return text

    def parameters(self, name: str) -> dict[str, Parameter]:
        """The options that `name` accepts, in the order of its signature, without the runtime ones."""
        member = self.get(name)
        if self._is_foreign(member):
            return {k: p for k, p in foreign_signature(member).items() if k not in self.runtime}
        registered = member in self._members.values()
        found = {k: p for k, p in signature(member, lenient=not registered).items() if k not in self.runtime}
        plug_in = registered and not self.ships(member)
        ranges = {} if plug_in else {k: r for k, r in self._ranges.items() if k in found}
        return {**found, **{k: replace(found[k], range=r) for k, r in ranges.items()}}

    def takes_any_key(self, name: str) -> bool:
        """Whether `name` is a plug-in's that takes ``**kwargs``, or its block as one argument: its keys cannot be checked."""
        member = self.get(name)
        return self._is_foreign(member) and (has_any_keys(member) or takes_block(member))

    def takes_block(self, name: str) -> bool:
        """Whether `name` is a plug-in's whose constructor has one argument, the block, as data sets of BasicSR have it."""
        member = self.get(name)
        return self._is_foreign(member) and takes_block(member)

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
        if self.takes_block(name):
            return self._explaining(name, target, block if isinstance(block, dict) else plain(block))
        for key in values:
            if key not in accepted and not self.takes_any_key(name):
                raise UserError(unknown_key(key, f"{name}", accepted))
        lacking = [k for k, p in accepted.items() if p.required and k not in values and k not in runtime]
        if lacking:
            raise UserError(f"{self.noun} {name} lacks {', '.join(map(repr, lacking))}.")
        built = {k: build_nested(accepted[k].annotation, v) if k in accepted else plain(v) for k, v in values.items()}
        return self._explaining(name, target, **runtime, **built)

    def _explaining(self, name: str, target: Callable[..., Any], *positional: Any, **options: Any) -> Any:
        """Call a component; a plug-in's exception, which nobody has thought about, becomes one line."""
        if not self._is_foreign(target):
            return target(*positional, **options)
        try:
            return target(*positional, **options)
        except UserError:
            raise
        except Exception as e:
            raise UserError(f"{self.noun} {name}: {in_one_line(e)}") from e


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
