"""A user's own code: the modules and files that ``plugins:`` names, imported so that what they register is known.

A file becomes the module ``relume.core.options.plugins.<stem>_<digest of its path>``, so that two files of one name do not
collide. Worker processes that do not inherit memory (spawn) import it by that name too: the paths travel in the environment.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ..errors import UserError, did_you_mean, expanded

ENVIRONMENT = "RELUME_PLUGINS"
__path__: list[str] = []  # makes this module a package, whose contents `Finder` finds


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that `module_name` names, among the files listed in the environment."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(f"{__name__}."):
            return None
        for file in filter(None, os.environ.get(ENVIRONMENT, "").split(os.pathsep)):
            if module_name(Path(file)) == fullname:
                return importlib.util.spec_from_file_location(fullname, file)
        return None


sys.meta_path.append(Finder())


def module_name(path: Path) -> str:
    """The module that the plugin at the absolute `path` becomes."""
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    return f"{__name__}.{path.stem}_{digest}"


def import_plugin(plugin: str, folder: Path) -> str:
    """Import a plugin; the name under which it is found from anywhere.

    Args:
        plugin: a Python file, or a dotted module name.
        folder: what a relative file is relative to.

    Raises:
        UserError: there is no such file or module, or importing it fails.
    """
    if not (plugin.endswith(".py") or os.sep in plugin):
        _import(plugin, plugin, " (an installed module, one on PYTHONPATH, or the path of a .py file is expected)")
        return plugin
    path = (folder / expanded(plugin)).resolve()
    if not path.is_file():
        if path.is_dir():
            raise UserError(f"{plugin}: a folder; name the .py files in it")
        near = (
            did_you_mean(path.name, [p.name for p in path.parent.glob("*.py")], files=True)
            if path.parent.is_dir()
            else ""
        )
        raise UserError(f"{plugin}: no such file: {path}.{near}")
    known = [p for p in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if p]
    if str(path) not in known:
        os.environ[ENVIRONMENT] = os.pathsep.join([*known, str(path)])
    _import(module_name(path), plugin)
    return str(path)


def _import(module: str, plugin: str, advice: str = "") -> None:
    try:
        importlib.import_module(module)
    except Exception as e:  # a plugin is anybody's code, and may fail in any way
        why = (str(e).strip().splitlines() or [""])[0]
        at = f", line {e.lineno}" if isinstance(e, SyntaxError) and f"line {e.lineno}" not in why else ""
        missing = isinstance(e, ModuleNotFoundError) and plugin.startswith(e.name or plugin)
        raise UserError(f"{plugin}: {type(e).__name__}: {why}{at}{advice if missing else ''}") from e
