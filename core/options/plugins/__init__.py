"""A user's own code, and forks': the files, folders and modules that ``plugins:`` names, as they are.

A file is imported when the options are read. Of a folder, the files that the options' names need are imported when these are
looked up. See `tree` for what their imports mean, and `core.registry.plugged` for which of two components of one name is meant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ...errors import UserError, did_you_mean, expanded, unreadable
from ...registry import plugged
from .kinds import FilePlugin, FolderPlugin, ModulePlugin
from .tree import Finder, module_name

__all__ = ["activate", "import_plugin", "module_name", "path_of"]

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


def path_of(plugin: str, folder: Path) -> Path | None:
    """The file or folder that a plug-in is, whether it is there or not; None of an installed module."""
    path = (folder / expanded(plugin)).resolve()
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
