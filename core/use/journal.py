"""What has been written already, remembered outside the output folder, so that an interrupted run goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..hub import home


class Journal:
    """The results of earlier runs into one folder: ``$RELUME_HOME/infer/<digest of the folder>.jsonl`` (``~/.cache/relume``).

    A result is noted before its file appears, whole, under its name: a run may die at any moment. Where there is no home
    folder to write to, nothing is remembered.

    Args:
        out: the output folder.
        settings: whatever the results depend on besides the input.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.settings = hashlib.sha256(json.dumps(dict(settings), sort_keys=True, default=str).encode()).hexdigest()
        digest = hashlib.sha256(os.fsencode(out.resolve())).hexdigest()[:32]
        self.file = home() / "infer" / f"{digest}.jsonl"
        self.notes: dict[str, dict[str, Any]] = {}
        self.complete = True
        with contextlib.suppress(OSError):
            for line in self.file.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # the last line may be torn
                    note = json.loads(line)
                    if "complete" in note:
                        self.complete = bool(note["complete"])
                    else:
                        self.notes[note["result"]] = note

    def wrote(self, result: Path, source: str) -> bool:
        """Whether a file is the result of an earlier run, of the same input with the same settings."""
        note = self.notes.get(str(result.resolve()))
        with contextlib.suppress(OSError):
            return (
                note is not None
                and note["settings"] == self.settings
                and note["source"] == identity(source)
                and note["size"] == result.stat().st_size
            )
        return False

    def note(self, result: Path, source: str, size: int) -> None:
        """That a result of so many bytes is about to be written."""
        self._append(
            {"result": str(result.resolve()), "source": identity(source), "settings": self.settings, "size": size}
        )

    def begun(self) -> None:
        """A run begins."""
        self._append({"complete": False})

    def ended(self) -> None:
        """A run has gone through all of its inputs."""
        self._append({"complete": True})

    def _append(self, note: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(json.dumps(note) + "\n")


def identity(source: str) -> list[Any]:
    """What tells one input from another, and from itself after a change."""
    try:
        status = os.stat(source)
    except OSError:
        return [source]
    return [os.path.realpath(source), status.st_size, status.st_mtime_ns]


def refuse_to_overwrite(there: list[Path]) -> None:
    """Refuse results that would replace files that are no results of the same run.

    Raises:
        UserError: there are some.
    """
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(f"{there[0]}{more}: there already; --force overwrites, --suffix gives other names")
