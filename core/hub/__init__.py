"""Public weights by name: an index of where they are, and files that are fetched once, resumed, and checked."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import yaml

from ..errors import UserError, did_you_mean, expanded
from ..files.reading import checksum

PREFIX = "hub:"
RANDOM = "random"
"""Word for random numbers, in place of a path to the weights of losses, feature extractors and discriminators that look
through a trained network."""
INDEX = Path(__file__).with_name("weights.yml")
OWN = "weights.yml"
"""The name of an index of one's own, in `home`."""
CHUNK = 1 << 20
PATIENCE = 30.0
"""Seconds without a byte after which a server is given up."""
SCHEMES = ("https", "http")
FILE = re.compile(r"[\w][\w.+-]*")
_unread: ContextVar[bool] = ContextVar("unread", default=False)


@dataclass(frozen=True)
class Entry:
    """Public weights.

    Args:
        name: what they are called here.
        url: URL of the file.
        sha256: SHA-256 of the whole file, 64 hexadecimal digits.
        licence: licence under which its authors give it away.
        network: the ``network_g`` that it fits.
        entry: entry of the file that is used; None for a flat one.
        about: what they do, in words.
    """

    name: str
    url: str
    sha256: str
    licence: str
    network: Mapping[str, Any]
    entry: str | None = None
    about: str = ""

    @property
    def file(self) -> str:
        """The name of the file."""
        return urlsplit(self.url).path.rpartition("/")[2]


@contextlib.contextmanager
def unread() -> Iterator[None]:
    """Inside, what looks through a trained network draws its weights, whatever file is named: for who wants shapes only."""
    token = _unread.set(True)
    try:
        yield
    finally:
        _unread.reset(token)


def published(weights: str | None) -> bool:
    """Whether who is given `weights` is to read them, rather than draw them from a fixed seed."""
    return weights != RANDOM and not _unread.get()


def home() -> Path:
    """The folder of caches: ``$RELUME_HOME``, or else ``relume`` in ``$XDG_CACHE_HOME``, or in ``~/.cache``."""
    own = os.environ.get("RELUME_HOME")
    return expanded(own) if own else expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "relume"


def index() -> dict[str, Entry]:
    """All that is known, by name; an index of one's own in `home` goes before ours.

    Raises:
        UserError: that one is no such index.
    """
    found = read(INDEX)
    own = home() / OWN
    return {**found, **read(own)} if own.is_file() else found


def read(path: Path) -> dict[str, Entry]:
    """The entries of an index.

    Raises:
        UserError: it cannot be read, or an entry lacks something.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as e:
        raise UserError(f"{path}: cannot be read as an index of weights ({str(e).splitlines()[0]})") from e
    known = {f.name for f in fields(Entry)} - {"name"}
    found = {}
    for name, block in content.items() if isinstance(content, dict) else [("", None)]:
        where = f"{path}: {name or 'the whole'}"
        if not isinstance(block, dict) or not {"url", "sha256", "licence", "network"} <= set(block) <= known:
            raise UserError(f"{where}: an entry has url, sha256, licence and network, and may have entry and about")
        made = Entry(str(name), **block)
        if not re.fullmatch(r"[0-9a-f]{64}", str(made.sha256)):
            raise UserError(f"{where}: sha256 has 64 hexadecimal digits in small letters")
        if urlsplit(str(made.url)).scheme not in SCHEMES or not FILE.fullmatch(made.file):
            raise UserError(f"{where}: url names a file by {' or '.join(SCHEMES)}, which '{made.url}' does not")
        found[str(name)] = made
    return found


def entry(name: str) -> Entry:
    """The entry of a name.

    Raises:
        UserError: there is none.
    """
    known = index()
    if name not in known:
        raise UserError(unknown(name, known))
    return known[name]


def unknown(name: str, known: Iterable[str]) -> str:
    """What is said of a name that no weights have."""
    return f"{name}: no public weights have this name.{did_you_mean(name, known)} See: relume download --list"


def local(path: str | Path) -> Path:
    """The file that a path names; the weights of ``hub:NAME``, fetched where they are not here yet.

    Raises:
        UserError: there are no such weights, or they cannot be fetched.
    """
    text = str(path)
    return fetched(entry(text.removeprefix(PREFIX))) if text.startswith(PREFIX) else expanded(path)


def fetched(wanted: Entry, folder: Path | None = None, said: Callable[[str], None] | None = None) -> Path:
    """The file of some weights, fetched unless it is there, whole and right, already. The processes of a machine take turns.

    Args:
        folder: folder to put it in; ``weights`` in `home` when omitted.
        said: function that is told how far it is.

    Raises:
        UserError: no network, no space, or the file is another than the index says; what has come so far stays.
    """
    place = (folder or home() / "weights") / wanted.file
    if right(place, wanted):  # without a lock, which a folder of somebody else's would not take
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with turn(place.with_name(f".{place.name}.lock")):
            if right(place, wanted):  # by now
                return place
            part = place.with_name(f"{place.name}.part")
            download(wanted, part, place, said)
            if (found := checksum(part)) != wanted.sha256:
                part.unlink()
                raise UserError(
                    f"{wanted.url}: is another file than the index says: SHA-256 {found[:12]}... instead of "
                    f"{wanted.sha256[:12]}...; nothing of it is kept"
                )
            part.replace(place)
    except OSError as e:
        raise UserError(f"{place}: cannot be written ({e.strerror or e})") from e
    return place


def right(place: Path, wanted: Entry) -> bool:
    """Whether the file of some weights is there.

    Raises:
        UserError: another file is there, or it cannot be read.
    """
    if not place.is_file():
        return False
    try:
        found = checksum(place)
    except OSError as e:
        raise UserError(f"{place}: cannot be read ({e.strerror or e})") from e
    if found != wanted.sha256:
        raise UserError(
            f"{place}: is not the file of {wanted.name}: its SHA-256 is {found[:12]}..., and should be "
            f"{wanted.sha256[:12]}...; remove it, and it is fetched again"
        )
    return True


def download(wanted: Entry, part: Path, place: Path, said: Callable[[str], None] | None) -> None:
    """Fetch what `part` lacks of a file.

    Raises:
        UserError: the server cannot be reached, refuses, or stops in the middle.
    """
    import http.client
    import urllib.error
    import urllib.request

    # Ask for the rest of what was fetched before.
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(wanted.url, headers={"User-Agent": "relume"})  # noqa: S310 - `read` knows its scheme
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310  # nosec B310
            whole = answer.status != 206  # this server does not resume
            left = answer.headers.get("Content-Length")
            total = None if left is None else int(left) + (0 if whole else have)
            with part.open("wb" if whole else "ab") as file:
                copy(answer, file, 0 if whole else have, total, said)
    # What the server, the network or the disk refuses, in one line.
    except urllib.error.HTTPError as e:
        if e.code == 416 and have:  # all of it is here, or more than there is; the checksum tells
            return
        raise UserError(f"{wanted.url}: the server says {e.code} {e.reason}. {instead(wanted, place)}") from e
    except (OSError, http.client.HTTPException, ValueError) as e:
        if isinstance(e, OSError) and e.errno is not None and not isinstance(e, (TimeoutError, ConnectionError)):
            raise
        came = part.stat().st_size if part.is_file() else 0
        kept = f"; {came:,} bytes are kept, and the next try goes on there" if came else ""
        reason = getattr(e, "reason", None) or e
        raise UserError(f"{wanted.url}: cannot be fetched ({reason}){kept}. {instead(wanted, place)}") from e


def copy(answer: Any, file: BinaryIO, have: int, total: int | None, said: Callable[[str], None] | None) -> None:
    """Write what comes.

    Raises:
        ConnectionError: less comes than was announced.
    """
    while chunk := answer.read(CHUNK):
        file.write(chunk)
        have += len(chunk)
        if said is not None:
            said(f"{have / 1e6:.1f} MB" + (f" of {total / 1e6:.1f} MB" if total else ""))
    if total is not None and have < total:
        raise ConnectionError(f"it ended after {have:,} of {total:,} bytes")


def instead(wanted: Entry, place: Path) -> str:
    """What to do on a machine without a network."""
    return f"Without a network: fetch it elsewhere, and put it at {place}"


@contextlib.contextmanager
def turn(lock: Path) -> Iterator[None]:
    """Hold an advisory lock, where the system has such; a crash releases it."""
    with lock.open("ab") as file:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            with contextlib.suppress(ImportError, OSError):
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
        yield
