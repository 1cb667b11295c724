"""Which pictures a comparison may show. What a run's files name may be a stranger's wish, and the page is passed on."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from ..errors import UserError, expanded, listing
from ..errors.paths import real
from .files import Run

DATA = ("data", "datasets")
"""Folders of the working directory that hold data."""
ROOT_KEY = re.compile(r"datasets\..+\.dataroots?(_\w+)?(\.\d+)?")
"""Options that say where a data set lies."""


class Places:
    """Folders whose pictures may be put into a page; links are followed before it is asked.

    They are the run's own folder, those that the user has named on the command line, and of the working directory ``data``,
    ``datasets`` and what the run's options name as a data set's root. A run that somebody else has made can thus have no
    picture shown that lies elsewhere on this machine.

    Args:
        named: folders that the command line names.
    """

    def __init__(self, run: Run, named: Sequence[Path] = ()) -> None:
        self.run = run
        self.named = [real(folder) for folder in named]
        self.refused: list[Path] = []

    @cached_property
    def roots(self) -> list[Path]:
        """The folders, without links."""
        return [real(self.run.root), *self.named, *self._data()]

    def _data(self) -> Iterator[Path]:
        here = real(Path.cwd())
        wide = real(Path.home()).is_relative_to(here)  # of a home, everything would be data
        values = [] if wide else [v for key, v in self.run.options.items() if ROOT_KEY.fullmatch(key)]
        texts = [text.strip(" '\"") for value in values for text in value.strip("[]").split(",")]
        for text in (*DATA, *texts):
            with contextlib.suppress(UserError, OSError, ValueError):  # no path: nothing lies there
                place = real(expanded(text))
                if place != here and place.is_relative_to(here):
                    yield place

    def admits(self, file: Path) -> bool:
        """Whether a picture may be shown; one that may not be is noted in `refused`."""
        try:
            place = real(file)
        except ValueError:  # NUL, or half of a surrogate pair
            return False
        if any(place.is_relative_to(root) for root in self.roots):
            return True
        if file not in self.refused and os.path.isfile(place):
            self.refused.append(file)
        return False

    def note(self, label: str) -> Iterator[str]:
        """One line of what was refused, if anything was, with what shows it."""
        if self.refused:
            folders = listing(sorted({str(file.parent) for file in self.refused}))
            yield (
                f"{label}: {len(self.refused)} pictures that its files name lie outside of its folder and of the data "
                f"here, and are not shown; if they may be, give --data DIR with their folder ({folders})"
            )
