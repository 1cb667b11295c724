"""Option files that come with Relume, by name: ``relume:underwater/laptop/phaseformer.yml`` means the same anywhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import did_you_mean, expanded

PREFIX = "relume:"
FOLDER = Path(__file__).resolve().parents[2] / "options"
BLOCKS = f"{PREFIX}_base_/"
"""Where parts of option files are, which are none by themselves."""


def located(path: str) -> Path:
    """Where the file that an option or ``_base_`` names is."""
    return FOLDER / path.removeprefix(PREFIX) if path.startswith(PREFIX) else expanded(path)


def normalised(path: str, beside: str = "") -> str:
    """`path` without detours, as messages show it; relative to the file `beside`, shipped or not, that mentions it."""
    if not path.startswith(PREFIX):
        path = os.path.expanduser(path)
        if not (beside.startswith(PREFIX) and not os.path.isabs(path)):
            return os.path.normpath(os.path.join(os.path.dirname(beside), path))
        path = os.path.join(os.path.dirname(beside.removeprefix(PREFIX)), path)
    return PREFIX + os.path.normpath(path.removeprefix(PREFIX))


def base(path: str, beside: str) -> str:
    """What ``_base_`` means in the file `beside`: a path relative to that file; if nothing is there, a shipped file's name."""
    own = normalised(path, beside)
    name = PREFIX + os.path.normpath(path.removeprefix("options/"))
    return name if not located(own).exists() and not os.path.isabs(path) and name in names() else own


def names() -> list[str]:
    """Every shipped file, with the prefix; parts of option files come last."""
    found = [PREFIX + p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*.yml")]
    return sorted(found, key=lambda name: (name.startswith(BLOCKS), name))


def purposes() -> dict[str, str]:
    """What each shipped file is for, by name, as options/README.md says."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    return {PREFIX + name: purpose for name, purpose in re.findall(r"^- `([\w./]+\.yml)`: (.+)$", text, re.MULTILINE)}


def not_found(path: str) -> str:
    """What to say of a path at which there is no option file."""
    if path.startswith(PREFIX):
        hint = did_you_mean(path, names(), files=True)
        return f"no option file of this name comes with Relume.{hint} See: relume list options"
    shipped = PREFIX + path.removeprefix("options/")
    if shipped in names():  # typed as in a clone of the repository, which is elsewhere
        return f"no such file. Did you mean '{shipped}'?"
    folder = Path(path).parent
    near = did_you_mean(Path(path).name, [p.name for p in folder.glob("*.y*ml")], files=True) if folder.is_dir() else ""
    return f"no such file.{near}"
