"""Files from a disk or from lmdb databases, by BasicSR's ``FileClient``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class FileClient:
    """Reads files.

    Args:
        backend: ``disk`` or ``lmdb``.
        kwargs: options of the backend: for lmdb, ``db_paths`` (one or several), and as many ``client_keys``.
    """

    def __init__(self, backend: str = "disk", **kwargs: Any) -> None:
        if backend not in ("disk", "lmdb"):
            raise ValueError(f"Backend {backend} is not supported. Currently supported ones are disk, lmdb")
        self.backend = backend
        self.clients: dict[str, Any] = {}
        if backend == "lmdb":
            import lmdb

            paths = _listed(kwargs["db_paths"])
            keys = _listed(kwargs.get("client_keys", "default"))
            for key, path in zip(keys, paths, strict=True):
                self.clients[key] = lmdb.open(str(path), readonly=True, lock=False, readahead=False)

    def get(self, filepath: str, client_key: str = "default") -> bytes:
        """The bytes of a file, or of an entry of the database `client_key`.

        Raises:
            KeyError: the database has no such entry.
        """
        if self.backend == "disk":
            return Path(filepath).read_bytes()
        with self.clients[client_key].begin(write=False) as transaction:
            found = transaction.get(str(filepath).encode("ascii"))
        if found is None:
            raise KeyError(f"{filepath}: no such entry in the database '{client_key}'")
        return bytes(found)

    def get_text(self, filepath: str, client_key: str = "default") -> str:
        """The text of a file."""
        return self.get(filepath, client_key).decode("utf-8")


def _listed(value: str | Path | Sequence[str]) -> list[str]:
    return [str(value)] if isinstance(value, (str, Path)) else [str(v) for v in value]
