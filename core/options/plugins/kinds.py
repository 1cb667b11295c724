"""The three kinds of plug-in: a file, a folder, an installed module; and what is said when one cannot be imported."""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ...errors import UserError, printable, unreadable
from ...registry import Registry, plugged
from ...registry.plugged import PACKAGE
from . import metrics
from .tree import announce, base_of, module_name

log = logging.getLogger("relume")
Member = Callable[..., Any]
PORTING = "docs/port_a_model.md"
WRAPPER = re.compile(
    r"^[ \t]+def optimize_parameters\b|^@MODEL_REGISTRY\b|^from basicsr\.models\.\w+_model import", re.MULTILINE
)
"""What only model wrappers of BasicSR have in their text."""
PREFERRED = {
    "architecture": ("_arch.py", "/archs/", "/models/"),
    "loss": ("_loss.py", "losses.py", "/losses/"),
    "dataset": ("_dataset.py", "/data/", "/datasets/"),
    "metric": ("_metric.py", "metrics.py", "/metrics/"),
    "model": ("_model.py",),
}
"""Where a folder's files of a kind are, most likely first."""
SKIPPED = {"build", "dist", "experiments", "results", "site-packages", "tb_logger", "venv", "wandb"}
MOST_ENTRIES = 1_000_000
"""Files and folders that are looked at in search of a fork's Python files; images of a data set may be among them."""
PACKAGES = {
    "cv2": "opencv-python",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""What to install for a module, where the names differ."""


# ------------------------------------------------------------------ the kinds
class FilePlugin:
    """A Python file, imported at once.

    Args:
        path: absolute.
        said: how the user named it, for messages.

    Raises:
        UserError: it cannot be imported, or it is a model wrapper of BasicSR's.
    """

    def __init__(self, path: Path, said: str) -> None:
        self.key = str(path)
        try:
            refuse_wrapper(path, said)
            announce(base_of(path))
        except OSError as e:  # a file of /proc, say, that only looks like one
            raise UserError(f"{said}: cannot be imported: {e.strerror}") from e
        self.module = imported(module_name(path), said, self.key)

    def find(self, registry: Registry, name: str) -> Member | None:
        """What the file, or what it imports from its own folders, has under a name."""
        found: Any = getattr(self.module, name, None)
        ours = str(getattr(found, "__module__", "")).startswith(f"{PACKAGE}.")
        return taken(registry, found) if ours and suits(registry, found) else None

    def names(self, registry: Registry) -> list[str]:
        """Names of everything suitable that it defines."""
        return [n for n, v in vars(self.module).items() if not n.startswith("_") and self.find(registry, n) is v]


class ModulePlugin:
    """An installed module, imported at once; arguments and errors as for `FilePlugin`."""

    def __init__(self, name: str) -> None:
        self.key = name
        advice = " (an installed module, one on PYTHONPATH, or the path of a .py file is expected)"
        self.module = imported(name, name, name, advice)

    def find(self, registry: Registry, name: str) -> Member | None:
        """What the module itself defines under a name."""
        found: Any = getattr(self.module, name, None)
        own = getattr(found, "__module__", None) == self.module.__name__
        return taken(registry, found) if own and suits(registry, found) else None

    def names(self, registry: Registry) -> list[str]:
        """Names of everything suitable that it defines."""
        return [n for n in vars(self.module) if not n.startswith("_") and self.find(registry, n) is not None]


class FolderPlugin:
    """A folder, of which those files are imported that names need. Of data sets, losses and metrics that Relume has itself, its
    own are taken: forks carry BasicSR's along.

    Args:
        path: absolute.
        said: how the user named it, for messages.

    Raises:
        UserError: there is no Python file in it.
    """

    def __init__(self, path: Path, said: str) -> None:
        self.key = str(path)
        self.path = path
        if next(python_files(path), None) is None:
            raise UserError(f"{said}: there is no Python file in this folder")

    @functools.cached_property
    def index(self) -> dict[str, list[Path]]:
        """The files that define each name at their top level."""
        found: dict[str, list[Path]] = {}
        for file in python_files(self.path):
            for name in definitions(file):
                found.setdefault(name, []).append(file)
        return found

    def find(self, registry: Registry, name: str) -> Member | None:
        """What the likeliest of the folder's files has under a name.

        Raises:
            UserError: that file cannot be imported, or is a model wrapper of BasicSR's.
        """
        if name not in self.index or (registry.noun != "architecture" and registry.has_own(name)):
            return None
        for file in self.files(registry, name):
            refuse_wrapper(file, str(file), name if registry.noun == "model" else None)
            announce(base_of(file))
            module = imported(module_name(file), str(file), self.key)
            found: Any = getattr(module, name, None)
            if suits(registry, found):
                return taken(registry, found)
        return None

    def files(self, registry: Registry, name: str) -> list[Path]:
        """The files that define a name, the likeliest first."""
        preferred = PREFERRED.get(registry.noun, ())

        def rank(file: Path) -> tuple[int, int, str]:
            text = f"/{file.relative_to(self.path).as_posix()}"
            place = next((i for i, part in enumerate(preferred) if text.endswith(part) or part in text), len(preferred))
            return place, len(file.parts), text

        return sorted(self.index.get(name, ()), key=rank)

    def names(self, registry: Registry) -> list[str]:
        """Names of what is defined where things of that kind usually are."""
        preferred = PREFERRED.get(registry.noun, ())
        return sorted(
            name
            for name, files in self.index.items()
            if any(f"/{file.relative_to(self.path).as_posix()}".endswith(preferred) for file in files)
        )


def python_files(folder: Path) -> Iterator[Path]:
    """The Python files inside a folder, but for hidden folders and those of results and installed packages.

    Raises:
        UserError: there is more below it than in any fork.
    """
    seen: set[str] = set()  # links may lead back to where they are
    entries = 0

    def within(place: Path) -> Iterator[Path]:
        nonlocal entries
        # Links that lead back, folders that may not be read, and too many files.
        real = os.path.realpath(place)
        if real in seen or not os.access(place, os.R_OK | os.X_OK):
            return
        seen.add(real)
        try:
            found = sorted(place.iterdir())
        except OSError:  # what the system itself shows as folders, below /proc
            return
        entries += len(found)
        if entries > MOST_ENTRIES:
            raise UserError(
                f"plugins: {printable(folder)}: more than {MOST_ENTRIES:,} files and folders, which no fork has"
            )
        # Modules and folders of modules, without what belongs to an installation.
        for path in found:
            if path.name.startswith((".", "__pycache__")) or path.name in SKIPPED:
                continue
            if os.path.isdir(path):
                yield from within(path)
            elif path.suffix == ".py" and path.name not in ("__init__.py", "setup.py") and unreadable(path) is None:
                yield path

    yield from within(folder)


def definitions(file: Path) -> list[str]:
    """The classes and functions at a file's top level, read from its text."""
    text = file.read_text(encoding="utf-8", errors="replace")
    return [n for n in re.findall(r"^(?:class|def)[ \t]+(\w+)", text, re.MULTILINE) if not n.startswith("_")]


# ------------------------------------------------------------------ what is a component
def suits(registry: Registry, member: Any) -> bool:
    """Whether something is of a registry's kind."""
    noun = registry.noun
    if noun == "metric":
        return callable(member)
    if not inspect.isclass(member):
        return False
    if noun in ("architecture", "loss"):
        return issubclass(member, nn.Module)
    if noun == "dataset":
        return hasattr(member, "__getitem__")
    if noun == "scheduler":
        return issubclass(member, torch.optim.lr_scheduler.LRScheduler)
    return noun == "optimizer" and issubclass(member, torch.optim.Optimizer)


def taken(registry: Registry, member: Member) -> Member:
    """A component that did not register itself, as the registry's others are called."""
    return metrics.adapted(member) if registry.noun == "metric" else member


def refuse_wrapper(file: Path, said: str, name: str | None = None) -> None:
    """Refuse a model wrapper of BasicSR's, whose training step Relume does not run.

    Raises:
        UserError: always, naming the wrapper.
    """
    if file.suffix != ".py" or not file.is_file():
        return
    text = file.read_text(encoding="utf-8", errors="replace")
    if WRAPPER.search(text) is None or "from relume" in text:
        return
    classes = [name] if name else re.findall(r"^class[ \t]+(\w*Model\w*)", text, re.MULTILINE)
    what = f" ({', '.join(classes)})" if classes else ""
    raise UserError(
        f"{said}: a model wrapper of BasicSR's{what}, with a training step or inference of its own, which Relume does not "
        f"run. Leave it out where model_type: RestorationModel does the same; {PORTING} ports three real ones in 20 lines each"
    )


# ------------------------------------------------------------------ importing
def imported(module: str, said: str, plugin: str, advice: str = "") -> ModuleType:
    """A plug-in's module.

    Raises:
        UserError: it cannot be imported; the message says where in its files, and what to install.
    """
    try:
        with plugged.registering(plugin, module):
            return importlib.import_module(module)
    except UserError:
        raise
    except Exception as e:  # a plug-in is anybody's code, and may fail in any way
        raise UserError(explained(e, said, module, advice)) from e


def explained(error: Exception, said: str, module: str, advice: str = "") -> str:
    """What went wrong while a plug-in was imported, in one line."""
    why = (str(error).strip().splitlines() or [""])[0]
    place = where(error, said)
    if not isinstance(error, ModuleNotFoundError):
        at = f", line {error.lineno}" if isinstance(error, SyntaxError) and f"line {error.lineno}" not in why else ""
        return f"{place}: {type(error).__name__}: {why}{at}"
    name = error.name or ""
    if advice and module.startswith(name or module):
        return f"{place}: ModuleNotFoundError: {why}{advice}"
    if name.startswith((PACKAGE, "basicsr")):
        return f"{place}: {why if not name.startswith(PACKAGE) else 'there is no module ' + name.split('.', 5)[-1]}"
    top = name.partition(".")[0]
    if top in sys.modules:
        return f"{place}: the installed {top} has no {name}; the plug-in was written for another version of it"
    return f"{place}: needs the package {top}, which is not installed: pip install {PACKAGES.get(top, top)}"


def where(error: Exception, said: str) -> str:
    """``file:line`` of the last of the plug-in's own lines that an error passed; how the user named it, if there is none."""
    if isinstance(error, SyntaxError):
        return said
    lines = [
        f"{said if Path(frame.f_code.co_filename).name == Path(said).name else frame.f_code.co_filename}:{number}"
        for frame, number in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).startswith(f"{PACKAGE}._")
    ]
    return lines[-1] if lines else said
