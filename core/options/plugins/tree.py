"""Where the files of plug-ins are found, and what their imports mean.

A plug-in's file becomes a module inside `PACKAGE`, under the folder that its imports start from: ``basicsr/archs/x_arch.py``
of a fork is ``<PACKAGE>._<digest of the fork's folder>.basicsr.archs.x_arch``. So files of one name do not collide, relative
imports work, and worker processes that inherit no memory find it by its name: the folders travel in the environment.

Folders are packages whose ``__init__`` is not run, since a fork's imports the world: names that it imports from elsewhere are
taken from there when they are asked for.

These files are compiled with an ``__import__`` of their own. It looks for a name beside the file and in the folders above it,
for ``basicsr`` at last in `COMPAT`, and hands on everything else. Nobody else's imports are changed, and no ``basicsr`` is
entered in `sys.modules`.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ...registry.plugged import PACKAGE

log = logging.getLogger("relume")
ENVIRONMENT = "RELUME_PLUGINS"
BASICSR = "basicsr"
COMPAT = "relume.core.compat"
OURS = ("utils.registry",)
"""Modules of basicsr that are ours even where a fork has them: what registers must register here."""
MOVED = {"torchvision.transforms.functional_tensor": "torchvision.transforms.functional"}
"""Modules that forks import and that are elsewhere by now."""
NEVER_LOCAL = {"torch", "torchvision", "numpy", "scipy", "cv2", "PIL", "skimage", "yaml", "relume"}
PARTS = {"arch", "archs", "data", "datasets", "losses", "metrics", "models", "modules", "networks", "utils"}
"""Folders that lie inside a package, whether they say so by an ``__init__`` or not."""
DOT = "\u00b7"
"""Character that stands in a module's name for a dot of its file's name."""


# ------------------------------------------------------------------ files and names
def base_of(file: Path) -> Path:
    """The folder that the imports in a file start from."""
    inside = [p for p in file.parents if p.name == BASICSR]
    if inside:
        return inside[0].parent
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    if folder == file.parent and folder.name in PARTS:
        folder = folder.parent.parent
    for _ in range(_depth(file) - len(file.parent.relative_to(folder).parts) - 1):
        folder = folder.parent
    return folder


def _depth(file: Path) -> int:
    """How many dots the file's relative imports have at most."""
    text = file.read_text(encoding="utf-8", errors="replace")
    return max((len(dots) for dots in re.findall(r"^[ \t]*from[ \t]+(\.+)", text, re.MULTILINE)), default=0)


def tag(base: Path) -> str:
    """The name of a base folder's package."""
    return f"_{hashlib.sha256(os.fsencode(base)).hexdigest()[:8]}"


def module_name(file: Path) -> str:
    """The module that the file at an absolute path becomes."""
    base = base_of(file)
    parts = file.relative_to(base).with_suffix("").parts
    return ".".join([PACKAGE, tag(base), *(part.replace(".", DOT) for part in parts)])


def announce(base: Path) -> None:
    """Have `Finder`, here and in processes to come, find what is inside a folder."""
    known = bases()
    if base not in known:
        os.environ[ENVIRONMENT] = os.pathsep.join(map(str, [*known, base]))


def bases() -> list[Path]:
    """The folders that have been announced."""
    return [Path(p) for p in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if p]


def located(fullname: str) -> Path | None:
    """The file, or the folder, that a module inside `PACKAGE` is; None if there is none."""
    first, *parts = fullname.removeprefix(f"{PACKAGE}.").split(".")
    for base in bases():
        if tag(base) == first:
            path = base.joinpath(*(part.replace(DOT, ".") for part in parts))
            file = path.parent / f"{path.name}.py"
            return file if parts and file.is_file() else path if path.is_dir() else None
    return None


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that `module_name` names, and the folders that they are in."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(f"{PACKAGE}._"):
            return None
        found = located(fullname)
        if found is None:
            return None
        if found.is_dir():
            return importlib.machinery.ModuleSpec(fullname, Folder(found), is_package=True)
        return importlib.util.spec_from_file_location(fullname, found, loader=File(fullname, str(found)))


class File(importlib.machinery.SourceFileLoader):
    """Runs a file with the imports of this module."""

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = BUILTINS
        super().exec_module(module)


class Folder(importlib.abc.Loader):
    """A folder as a package whose ``__init__`` is only looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__file__"] = str(self.path / "__init__.py")
        module.__dict__["__getattr__"] = functools.partial(_attribute, module)


# ------------------------------------------------------------------ imports
def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """``__import__`` of plug-ins' files."""
    here = globals or {}
    top = name.partition(".")[0]
    if level:
        target = importlib.util.resolve_name("." * level + name, here["__package__"])
        if name and (instead := _instead_of_absent(target, name)) is not None:
            target = instead
    elif (base := _base_with(top, str(here.get("__file__", "")))) is not None:
        base, within = _of_basicsr(base, name) if fromlist else (base, name)
        announce(base)
        target = f"{PACKAGE}.{tag(base)}.{within}"
    elif top == BASICSR:
        target = name
    else:
        return builtins.__import__(MOVED.get(name, name), globals, locals, fromlist or (), level)
    module = load(target)
    if not fromlist:
        return load(target.removesuffix(name) + top) if name else module
    for wanted in fromlist:
        if wanted == "*":
            _gather(module)
        elif not hasattr(module, wanted):
            _submodule(target, wanted)
    return module


BUILTINS = {**vars(builtins), "__import__": _import}


def load(target: str) -> ModuleType:
    """Import a module of a plug-in's tree; one of ``basicsr`` from the fork, else of ours, else an installed one.

    Raises:
        ImportError: nobody has it, or it cannot be imported.
    """
    inside = _within_basicsr(target)
    if inside is None:
        return importlib.import_module(target)
    if inside in OURS:
        return importlib.import_module(f"{COMPAT}.{inside}")
    if target.startswith(PACKAGE) and located(target) is not None:
        try:
            return importlib.import_module(target)
        except ImportError as e:
            ours = _ours(inside)
            if ours is None:
                raise
            log.debug("%s: cannot be imported (%s); Relume's own is used instead", located(target), e)
            return ours
    ours = _ours(inside)
    if ours is not None:
        return ours
    if BASICSR not in target.split(".")[:1] and importlib.util.find_spec(BASICSR) is None:
        raise ModuleNotFoundError(_nowhere(inside), name=f"{BASICSR}.{inside}")
    try:
        return importlib.import_module(f"{BASICSR}.{inside}" if inside else BASICSR)
    except ModuleNotFoundError as e:
        raise ModuleNotFoundError(_nowhere(inside), name=f"{BASICSR}.{inside}") from e


def _nowhere(inside: str) -> str:
    return f"{BASICSR}.{inside}: neither the fork's folder nor Relume's stand-in for BasicSR has it"


def _within_basicsr(target: str) -> str | None:
    """The part of a module's name after ``basicsr.``; None for other modules."""
    parts = target.split(".")
    if target.startswith(f"{PACKAGE}."):
        parts = target.removeprefix(f"{PACKAGE}.").split(".")[1:]
    return ".".join(parts[1:]) if parts and parts[0] == BASICSR else None


OLDER = (
    (r"^models\.archs\b", "archs"),
    (r"^models\.losses\b", "losses"),
    (r"^losses\.(basic|gan)_loss$", "losses.losses"),
)
"""Where modules of BasicSR before 1.3 are in `COMPAT`."""


def _ours(inside: str) -> ModuleType | None:
    """The module of `COMPAT` that stands for ``basicsr.<inside>``, if there is one."""
    for before, now in OLDER:
        inside = re.sub(before, now, inside)
    name = f"{COMPAT}.{inside}" if inside else COMPAT
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name and name.startswith(e.name):
            return None
        raise


def _of_basicsr(base: Path, name: str) -> tuple[Path, str]:
    """Where a module starts from: the folder with ``basicsr``, for ``package.basicsr.archs.x`` of a package with one inside."""
    parts = name.split(".")
    if BASICSR not in parts[1:]:
        return base, name
    depth = parts.index(BASICSR, 1)
    return base.joinpath(*parts[:depth]), ".".join(parts[depth:])


AREAS = ("archs", "data", "losses", "metrics", "utils")
"""Rooms of `COMPAT`."""


@functools.cache
def _instead_of_absent(target: str, name: str) -> str | None:
    """What a relative import in a file that was taken out of its fork means: ``.arch_util`` is ``basicsr.archs.arch_util``."""
    if not target.startswith(f"{PACKAGE}.") or _within_basicsr(target) is not None or located(target) is not None:
        return None
    places = [name] if name.split(".")[0] in AREAS else [f"{area}.{name}" for area in AREAS]
    return next((f"{BASICSR}.{place}" for place in places if _ours(place) is not None), None)


@functools.cache
def _base_with(top: str, file: str) -> Path | None:
    """The folder in which a file's import of `top` is found: beside it, or above, where no package is in between."""
    if not file or top in NEVER_LOCAL or (top in sys.stdlib_module_names and top != "types"):
        return None
    folders = [Path(file).parent, *(p for p in Path(file).parents if not (p / "__init__.py").is_file())]
    for i, folder in enumerate(folders[:8]):
        if (folder / f"{top}.py").is_file() or next((folder / top).glob("**/*.py"), None) is not None:
            return folder
        if i and ((folder / ".git").exists() or folder == Path.home()):
            break
    return None


# ------------------------------------------------------------------ folders as packages
def _submodule(package: str, name: str) -> ModuleType | None:
    """A submodule, if there is one of that name; what is wrong inside of it is raised."""
    wanted = f"{package}.{name}"
    try:
        return load(wanted)
    except ModuleNotFoundError as e:
        inside = _within_basicsr(wanted)
        if e.name in (wanted, f"{BASICSR}.{inside}"):
            return None
        raise


def _attribute(package: ModuleType, name: str) -> Any:
    """A name that is asked of a folder: what its ``__init__`` imports, a module in it, or what of ours stands in for it."""
    if name.startswith("__"):
        raise AttributeError(name)
    failed: ImportError | AttributeError | None = None
    try:
        found = _imported(package, name)
    except (ImportError, AttributeError) as e:
        failed, found = e, None
    if found is None:
        found = _submodule(package.__name__, name)
    inside = _within_basicsr(package.__name__)
    if found is None and inside is not None:
        found = getattr(_ours(inside), name, None)
    if found is None and failed is not None:
        raise failed
    if found is None and name in _contents(Path(str(package.__file__))).defined:
        source = Path(str(package.__file__))
        package.__dict__["__builtins__"] = BUILTINS
        code = compile(source.read_text(encoding="utf-8"), str(source), "exec")
        exec(code, package.__dict__)  # noqa: S102  # nosec B102
        found = package.__dict__[name]
    if found is None:
        raise AttributeError(f"{source_of(package)} has no '{name}'")
    package.__dict__[name] = found
    return found


def source_of(module: ModuleType) -> str:
    """Where a module is, for messages."""
    return str(Path(str(module.__file__)).parent) if module.__file__ else module.__name__


class Contents:
    """What an ``__init__`` imports and defines, by its text."""

    def __init__(self, text: str) -> None:
        self.imported: dict[str, tuple[int, str, str]] = {}
        self.starred: list[tuple[int, str]] = []
        self.defined: set[str] = set()
        try:
            nodes = list(ast.parse(text).body)
        except SyntaxError:
            nodes = []
        for node in nodes:
            nodes.extend(getattr(node, "body", ()) if isinstance(node, (ast.Try, ast.If)) else ())
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if alias.name == "*":
                        self.starred.append((node.level, node.module or ""))
                    else:
                        self.imported[alias.asname or alias.name] = (node.level, node.module or "", alias.name)
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                self.defined.add(node.name)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                self.defined.update(t.id for t in targets if isinstance(t, ast.Name))


@functools.cache
def _contents(init: Path) -> Contents:
    return Contents(init.read_text(encoding="utf-8", errors="replace") if init.is_file() else "")


def _imported(package: ModuleType, name: str) -> Any:
    """What the folder's ``__init__`` imports under a name; None if it does not."""
    contents = _contents(Path(str(package.__file__)))
    here = {"__package__": package.__name__, "__file__": package.__file__}
    if name in contents.imported:
        level, module, original = contents.imported[name]
        if level == 1 and not module:
            return _submodule(package.__name__, original)
        return getattr(_import(module, here, None, (original,), level), original)
    for level, module in contents.starred:
        found = getattr(_import(module, here, None, ("",), level), name, None)
        if found is not None:
            return found
    return None


def _gather(module: ModuleType) -> None:
    """Have ``from folder import *`` find what the folder's ``__init__`` imports."""
    if not isinstance(getattr(module.__spec__, "loader", None), Folder):
        return
    contents = _contents(Path(str(module.__file__)))
    names = [*contents.imported, *contents.defined]
    for level, starred in contents.starred:
        other = _import(starred, {"__package__": module.__name__, "__file__": module.__file__}, None, ("*",), level)
        names += [n for n in getattr(other, "__all__", vars(other)) if not n.startswith("_")]
    module.__dict__["__all__"] = [n for n in dict.fromkeys(names) if not n.startswith("_") and hasattr(module, n)]
