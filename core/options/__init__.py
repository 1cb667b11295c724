"""Options: an option file in BasicSR's dialect, read, checked and resolved before any data is touched.

`load` reads a file, `check` takes a plain dict; both return the same frozen ``addict.Dict`` in which every fixed section is
complete. The schema is `core.options.schema` for the fixed sections, and constructors' signatures for every ``type:`` block.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml
from addict import Dict

from .nodes import Block, OptionError, Place, Problem, from_python
from .reader import YAMLDumper, read
from .rules import OptionsChecker

__all__ = ["OptionError", "Resolved", "as_debug", "check", "dump", "load", "resolve"]


@dataclass(frozen=True)
class Resolved:
    """Options and where each came from.

    Attributes:
        options: the frozen options.
        origins: the place of every value that was given, by dotted key.
        defaults: by the dotted key of a ``type:`` block, what it leaves to its constructor.
    """

    options: Dict
    origins: Mapping[str, Place]
    defaults: Mapping[str, Mapping[str, Any]]

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """Every final value: its dotted key, the value, and ``file:line``, the command-line argument, or ``default``."""
        yield from self._rows("", self.options)

    def _rows(self, key: str, block: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        for name, value in block.items():
            dotted = f"{key}.{name}" if key else str(name)
            if isinstance(value, Mapping) and value:
                yield from self._rows(dotted, value)
            else:
                yield dotted, value, self.origins[dotted].short if dotted in self.origins else "default"
        for name, value in self.defaults.get(key, {}).items():
            yield f"{key}.{name}", value, "default"


def load(path: str | os.PathLike[str], force_yml: Iterable[str] = ()) -> Dict:
    """Read, check and resolve an option file.

    Args:
        path: the YAML file; it may name others to build upon under ``_base_``.
        force_yml: overrides, ``"train:ema_decay=0.99"``; the value is YAML.

    Returns:
        The options, frozen: a misspelt attribute raises KeyError.

    Raises:
        OptionError: every mistake, one line each: ``file:line:column: what is wrong, and what is accepted``.
    """
    return resolve(path, force_yml).options


def resolve(path: str | os.PathLike[str], force_yml: Iterable[str] = ()) -> Resolved:
    """As `load`, and tell where each value came from."""
    root, problems = read(path, force_yml)
    return _checked(root, problems)


def check(opt: Mapping[str, Any]) -> Dict:
    """Check and resolve options given as a dict, plain or already checked; it is not modified.

    Raises:
        OptionError: every mistake, one line each, starting with the dotted key.
    """
    root = from_python(opt)
    assert isinstance(root, Block)
    return _checked(root, []).options


def _checked(root: Block, problems: list[Problem]) -> Resolved:
    checker = OptionsChecker()
    values = checker.options(root)
    problems = [*problems, *checker.problems]
    if problems:
        raise OptionError(problems)
    return Resolved(frozen(values), checker.origins, checker.defaults)


def frozen(values: Any) -> Any:
    """Dicts, at any depth and in lists too, as frozen ``addict.Dict``s."""
    if isinstance(values, Mapping):
        block = Dict()
        for key, value in values.items():
            block[key] = frozen(value)
        block.freeze()
        return block
    if isinstance(values, (list, tuple)):
        return type(values)(frozen(v) for v in values)
    return values


def thawed(values: Any) -> Any:
    """The inverse of `frozen`: plain dicts; and paths as strings, since YAML has none."""
    if isinstance(values, Mapping):
        return {k: thawed(v) for k, v in values.items()}
    if isinstance(values, (list, tuple)):
        return [thawed(v) for v in values]
    return str(values) if isinstance(values, PurePath) else values


def dump(opt: Mapping[str, Any]) -> str:
    """The options as YAML that `load` reads back to the same."""
    text: str = yaml.dump(thawed(opt), Dumper=YAMLDumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def as_debug(opt: Mapping[str, Any]) -> Dict:
    """The options of a debugging run: every step is logged, every eighth validated and saved, and nothing tracked.

    The name gets the prefix ``debug_``, so that the experiment's own folder stays untouched.
    """
    values = thawed(opt)
    if not values["name"].startswith("debug"):
        values["name"] = f"debug_{values['name']}"
    values["logger"].update(print_freq=1, save_checkpoint_freq=8, use_tb_logger=False, wandb=None)
    values["val"]["val_freq"] = 8
    return check(values)
