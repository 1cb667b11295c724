"""Names that become parts of paths: one component each, so that what is written stays inside its folder."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from ..annotations import Rule
from ..errors import UserError, printable
from ..errors.paths import real

MARKS = frozenset("-_.+ =,@()[]%#")
"""What is neither letter nor digit, and may stand in a name: nothing that a shell would run when a message is copied."""
DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
"""What Windows takes for devices, whatever follows a dot."""
LONGEST = 200
"""Bytes of a name, to which suffixes are added."""
COMPONENT = Rule(
    f"one name, of letters, digits, spaces and - _ . + (no '/', no dot in front, at most {LONGEST} bytes; "
    "for Windows' sake no dot or space at the end, and none of con, prn, aux, nul, com1, lpt1)",
    lambda value: is_component(value),
)
"""What an annotation says of options that name files and folders."""


def is_component(name: str) -> bool:
    r"""Whether a name can be one component of a path, and nothing but that.

    >>> is_component("EDSR x4+"), is_component("雾"), is_component("a/b"), is_component(".."), is_component("a\n")
    (True, True, False, False, False)
    >>> is_component("nul"), is_component("Con.v2"), is_component("concord"), is_component("x4.")
    (False, False, True, False)
    """
    return (
        bool(name.strip())
        and not name.startswith(".")
        and name[-1] not in ". "
        and not DEVICES.fullmatch(name)
        and len(name.encode(errors="surrogatepass")) <= LONGEST
        and all(may_stand(c) for c in name)
    )


def may_stand(character: str) -> bool:
    """Whether a character may stand in a name: letters, digits and marks of all scripts, and `MARKS`."""
    return character in MARKS or unicodedata.category(character)[0] in "LNM"


def as_component(name: str) -> str:
    """A name made one component of a path, which its other characters leave as ``_``."""
    kept = "".join(c if may_stand(c) else "_" for c in name.lstrip("."))
    kept = f"_{kept}" if DEVICES.fullmatch(kept) else kept
    while len(kept.encode()) > LONGEST:
        kept = kept[:-1]
    kept = kept.rstrip(". ")
    return kept if is_component(kept) else "unnamed"


def inside(root: Path, path: Path) -> Path:
    """`path`, which is about to be written, if it lies inside `root` once links and ``..`` are followed.

    Raises:
        UserError: it does not.
    """
    if not real(path).is_relative_to(real(root)):
        raise UserError(f"{printable(path)}: lies outside {printable(root)}, and is not written")
    return path
