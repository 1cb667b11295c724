"""Options: an option file in BasicSR's dialect, read, checked and resolved before any data is touched.

`load` reads a file, `check` takes a plain dict; both return the same `Options`: typed sections, complete and frozen, in which
every open ``type:`` block is an ``addict.Dict``. The schema is `core.options.schema` for the fixed sections, and constructors'
signatures for every ``type:`` block.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from ..annotations import plain
from ..errors import without_secrets
from ..files import ceilings
from ..runtime.logger import WITHOUT_TRACKERS
from .checking.rules import RUNNING, OptionsChecker
from .nodes import Block, OptionError, Place, Problem, from_python
from .plugins import activate
from .reading.loader import YAMLDumper
from .reading.reader import read
from .schema import Options

log = logging.getLogger("relume")
__all__ = ["OptionError", "Options", "Resolved", "as_debug", "check", "dump", "load", "resolve"]


_told: set[str] = set()
DEBUG_STEPS = 16
"""Iterations of a debugging run."""


@dataclass(frozen=True)
class Resolved:
    """Options and where each came from.

    Attributes:
        options: the frozen options.
        origins: the place of every value that was given, by dotted key.
        defaults: what each ``type:`` block leaves to its constructor, by the block's dotted key.
        notes: what is no mistake, but worth knowing.
    """

    options: Options
    origins: Mapping[str, Place]
    defaults: Mapping[str, Mapping[str, Any]]
    notes: tuple[Problem, ...] = ()

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """Every final value: its dotted key, the value, and ``file:line``, the command-line argument, or ``default``."""
        yield from self._rows("", self.options)

    def place_of(self, key: str) -> Place | None:
        """Where the value at a dotted key was given, or else the block that it belongs to."""
        parts = key.split(".")
        every = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        return next((self.origins[k] for k in every if k in self.origins), None)

    def _rows(self, key: str, block: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        for name, value in block.items():
            dotted = f"{key}.{name}" if key else str(name)
            if isinstance(value, Mapping) and value:
                yield from self._rows(dotted, value)
            else:
                yield dotted, value, self.origins[dotted].short if dotted in self.origins else "default"
        for name, value in self.defaults.get(key, {}).items():
            yield f"{key}.{name}", value, "default"


def load(path: str | os.PathLike[str], force_yml: Iterable[str] = (), *, allow_duplicate_keys: bool = False) -> Options:
    """Read, check and resolve an option file.

    Args:
        path: the YAML file; it may name others to build upon under ``_base_``.
        force_yml: overrides, ``"train:ema_decay=0.99"``; the value is YAML.
        allow_duplicate_keys: take the last value of a key that a block has twice, as BasicSR does, instead of refusing it.

    Returns:
        The options, which cannot be modified: a misspelt attribute raises AttributeError.

    Raises:
        OptionError: every mistake, one line each: ``file:line:column: what is wrong, and what is accepted``.
    """
    resolved = resolve(path, force_yml, allow_duplicate_keys=allow_duplicate_keys)
    for note in resolved.notes:
        if note.text.startswith(RUNNING):  # separate from what a command prints for others to read, and once
            if note.text not in _told:
                _told.add(note.text)
                sys.stderr.write(f"{note}\n")
        else:
            log.warning("%s", note)
    return resolved.options


def resolve(
    path: str | os.PathLike[str], force_yml: Iterable[str] = (), *, allow_duplicate_keys: bool = False
) -> Resolved:
    """As `load`, and tell where each value came from."""
    found = read(path, force_yml, allow_duplicate_keys)
    return _checked(found.root, found.problems, found.notes)


def check(opt: Mapping[str, Any]) -> Options:
    """Check and resolve options given as a dict, which is not modified; those that are checked already come back as they are.

    Raises:
        OptionError: every mistake, one line each, starting with the dotted key.
    """
    if isinstance(opt, Options):
        activate(opt.plugins)
        ceilings.use(opt.data)
        return opt
    root = from_python(opt)
    assert isinstance(root, Block)
    return _checked(root).options


def _checked(root: Block, problems: Iterable[Problem] = (), notes: Iterable[Problem] = ()) -> Resolved:
    checker = OptionsChecker()
    values = checker.options(root)
    found = list(problems)
    # What could not be read is no value to complain of again.
    unread = {p.place for p in found if p.place is not None and p.place.line}
    problems = [*found, *(p for p in checker.problems if p.place not in unread)]
    if problems:
        raise OptionError(problems)
    ceilings.use(values.data)
    return Resolved(values, checker.origins, checker.defaults, (*notes, *checker.notes))


def dump(opt: Mapping[str, Any]) -> str:
    """The options as YAML that `load` reads back to the same, but for what `redacted` takes out of URLs."""
    text: str = yaml.dump(
        without_secrets(plain(opt)), Dumper=YAMLDumper, sort_keys=False, allow_unicode=True, width=100
    )
    return text


def as_debug(opt: Options) -> Options:
    """The options of a debugging run of a few steps: each is logged, every eighth validated and saved, and nothing tracked.

    The name gets the prefix ``debug_``, so that the experiment's own folder stays untouched.
    """
    train = opt.train
    if train is not None:
        known = isinstance(train.total_iter, int)
        train = replace(
            train, total_iter=min(train.total_iter, DEBUG_STEPS) if known else DEBUG_STEPS, total_epoch=None
        )
    return replace(
        opt,
        train=train,
        name=opt.name if opt.name.startswith("debug") else f"debug_{opt.name}",
        logger=replace(opt.logger, print_freq=1, save_checkpoint_freq=8, **WITHOUT_TRACKERS),
        val=replace(opt.val, val_freq=8),
    )
