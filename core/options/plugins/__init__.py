"""A user's own code, and forks': the files, folders and modules that ``plugins:`` names, as they are.

A file is imported when the options are read. Of a folder, the files that the options' names need are imported when these are
looked up. See `tree` for what their imports mean, and `core.registry.plugged` for which of two components of one name is meant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ...errors import UserError, did_you_mean, expanded, printable, unreadable
from ...errors.paths import real
from ...files.trust import NotTrusted, require_trust
from ...registry import plugged
from .tree import Finder, module_name

__all__ = ["READ", "activate", "import_plugin", "include", "look_at", "module_name", "path_of"]

READ = "was read, and not run"
"""What is said of a plug-in that was only looked at."""

if not any(isinstance(finder, Finder) for finder in sys.meta_path):
    sys.meta_path.append(Finder())


def import_plugin(plugin: str, folder: Path) -> str:
    """Import a plug-in, which is active from now on; the name under which it is found from anywhere.

    Args:
        plugin: a Python file, a folder, or a dotted module name.
        folder: what a relative path is relative to.

    Raises:
        UserError: there is no such thing, importing it fails, or it is a model wrapper of BasicSR's.
    """
    from .kinds import FilePlugin, FolderPlugin, ModulePlugin

    path = path_of(plugin, folder)
    if path is None:
        return _active(plugged.known(plugin) or ModulePlugin(plugin))
    if not path.exists():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.py")]) if path.parent.is_dir() else ""
        raise UserError(f"{plugin}: no such file: {path}.{near}")
    if path.is_dir():
        return _active(plugged.known(str(path)) or FolderPlugin(path, plugin))
    if (reason := unreadable(path)) is not None:
        raise UserError(f"{plugin}: cannot be imported: {reason}")
    return _active(plugged.known(str(path)) or FilePlugin(path, plugin))


def look_at(plugin: str, folder: Path) -> tuple[str, str]:
    """Have a plug-in's names be known from its text, without running it; its key, and what is to be said of that.

    Raises:
        UserError: it is an installed module, which only importing it would show, or cannot be read as Python.
    """
    from .unrun import UnrunPlugin

    path = path_of(plugin, folder)
    if path is None or not path.exists():
        raise UserError(f"{printable(plugin)}: was not looked at, as only running it would show what is in it")
    found = UnrunPlugin(path)
    key = _active(plugged.known(found.key) or found)
    return key, f"{printable(path)} {READ}: {len(found.definitions)} classes and functions"


def include(plugins: Iterable[str]) -> list[str]:
    """Import plug-ins that a command line names, or look at those from elsewhere; what is to be said of these.

    Raises:
        UserError: as for `import_plugin` and `look_at`.
    """
    notes = []
    for plugin in plugins:
        path = path_of(plugin, Path.cwd())
        try:
            require_trust(plugin, path, Path.cwd() if path is None else path.parent, first=False)
        except NotTrusted as e:
            notes.append(f"{look_at(plugin, Path.cwd())[1]}. {e}")
            continue
        import_plugin(plugin, Path.cwd())
    return notes


def path_of(plugin: str, folder: Path) -> Path | None:
    """The file or folder that a plug-in is, whether it is there or not; None of an installed module."""
    path = real(folder / expanded(plugin))
    return path if plugin.endswith(".py") or os.sep in plugin or path.is_dir() else None


def _active(plugin: plugged.Plugin) -> str:
    plugged.add(plugin)
    return plugin.key


def activate(plugins: Iterable[str]) -> None:
    """Have these plug-ins, as `import_plugin` named them, be those of the options in force; import what is not yet.

    Raises:
        UserError: as for `import_plugin`.
    """
    plugins = list(plugins)
    for plugin in plugins:
        if plugged.known(plugin) is None:
            import_plugin(plugin, Path.cwd())
    plugged.activate(plugins)
