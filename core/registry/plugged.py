"""Which plug-ins there are, which of them the options in force name, and which one registers something just now.

What a plug-in of the options in force has comes before Relume's own; what other plug-ins of this process have comes after it,
so that one option file's code never changes another's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from . import Registry

PACKAGE = "relume.core.options.plugins"
"""Package that holds the modules of plug-ins' files."""
Member = Callable[..., Any]


class Plugin(Protocol):
    """A file, folder or module that an option file names under ``plugins``."""

    key: str
    """Key by which it is known: an absolute path, or a dotted module name."""

    def find(self, registry: Registry, name: str) -> Member | None:
        """What the plug-in has under a name without having registered it; None if it has nothing."""
        ...

    def names(self, registry: Registry) -> list[str]:
        """Names that it has for a registry, as far as its text shows."""
        ...


_known: dict[str, Plugin] = {}
_active: list[str] = []
_importing: ContextVar[tuple[str, str] | None] = ContextVar("importing", default=None)


def add(plugin: Plugin) -> None:
    """Make a plug-in known and active."""
    _known[plugin.key] = plugin
    if plugin.key not in _active:
        _active.append(plugin.key)


def activate(keys: Iterable[str]) -> None:
    """From now on the options in force name these plug-ins, in this order; those that are not known are passed over."""
    _active[:] = [key for key in dict.fromkeys(keys) if key in _known]


def active() -> list[Plugin]:
    """The plug-ins of the options in force."""
    return [_known[key] for key in _active]


def known(key: str) -> Plugin | None:
    """The plug-in of a key, if it has been imported."""
    return _known.get(key)


@contextlib.contextmanager
def registering(key: str, module: str) -> Iterator[None]:
    """What is registered inside belongs to the plug-in `key`; what is defined in its `module` itself takes precedence."""
    token = _importing.set((key, module))
    try:
        yield
    finally:
        _importing.reset(token)


def registrant() -> tuple[str, str] | None:
    """The plug-in that registers, and its module; None outside of all."""
    return _importing.get()
