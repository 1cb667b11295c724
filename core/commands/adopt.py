"""Make a fork's option file run here: find the fork's files that it needs, and say what remains.

A name that Relume has itself needs a file of the fork's only where its block has keys that ours does not know.

``relume adopt FORK_FOLDER x.yml [-o here.yml]``
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...archs import ARCHS
from ...datasets import DATASETS
from ...datasets.loading.options import Loader
from ...losses import LOSSES
from ...schedulers import SCHEDULERS
from .. import options
from ..annotations import fields
from ..errors import UserError, expanded
from ..files import trust
from ..metrics import METRICS, MetricKeys
from ..options import dialect
from ..options.nodes import Block, OptionError
from ..options.plugins import activate
from ..options.plugins.kinds import FolderPlugin
from ..options.reading.reader import read
from ..registry import Registry
from ..runtime.checkpoint import write_atomically
from ..runtime.optimizers import OPTIMIZERS, OptimizerKeys

MORE = {
    "dataset": [*(f.name for f in fields(Loader)), *dialect.NO_EFFECT["datasets"], *dialect.INERT["datasets"]],
    "metric": [f.name for f in fields(MetricKeys)],
    "optimizer": [f.name for f in fields(OptimizerKeys)],
}
"""Keys that a block may have besides its component's, by what that is."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("fork", metavar="FORK_FOLDER", help="the fork's repository; nothing in it is changed")
    parser.add_argument("file", metavar="FILE", help="option file of the fork")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the option file here instead of printing it")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: the folder does not exist, or the option file cannot be read.
    """
    folder, file = expanded(arguments.fork), expanded(arguments.file)
    if not folder.is_dir():
        raise UserError(f"{arguments.fork}: no such folder")
    fork = FolderPlugin(folder.resolve(), arguments.fork)
    output = expanded(arguments.output) if arguments.output else None
    near = (output or file).absolute().parent
    activate(())
    root, problems, _ = read(file)
    if problems:
        raise OptionError(problems)
    needed = sorted({path for named in names(root) if (path := file_of(fork, *named)) is not None})
    plugins = [Path(os.path.relpath(path, near.resolve())).as_posix() for path in needed]
    text = with_plugins(file.read_text(encoding="utf-8"), plugins, arguments.file)
    if output is None:
        print(text.rstrip())
        print("".join(f"\n# {line}" for line in report(text, near, plugins)).lstrip("\n"))
        return
    write_atomically(output, lambda target: target.write(text.encode()))
    print(f"wrote {output}")
    print("\n".join(report(text, near, plugins)))


def names(root: Block) -> Iterator[tuple[Registry, str, list[str]]]:
    """What an option file names, where that belongs, and the keys that it is given."""
    for key, entry in root.entries.items():
        if key.startswith("network_"):
            yield from typed(ARCHS, entry.node)
    for key, registry in (("datasets", DATASETS), ("train", None), ("val", None)):
        section = root.entries[key].node if key in root.entries else None
        for name, entry in section.entries.items() if isinstance(section, Block) else ():
            if key == "val" and name == "metrics" and isinstance(entry.node, Block):
                for metric in entry.node.entries.values():
                    yield from typed(METRICS, metric.node)
            elif key != "val" and (found := registry or of_training(name)) is not None:
                yield from typed(found, entry.node)


def of_training(key: str) -> Registry | None:
    """Where a block of ``train`` belongs, by its key."""
    if key.endswith("_opt"):
        return LOSSES
    if key.startswith("optim_"):
        return OPTIMIZERS
    return SCHEDULERS if key.startswith("scheduler") else None


def typed(registry: Registry, node: Any) -> Iterator[tuple[Registry, str, list[str]]]:
    """The ``type`` of a block, if it has one, and its other keys."""
    name = node.scalar("type") if isinstance(node, Block) else None
    if isinstance(name, str):
        yield registry, name, [k for k in node.entries if k != "type"]


def file_of(fork: FolderPlugin, registry: Registry, name: str, keys: list[str]) -> Path | None:
    """The fork's file that a name needs; None where Relume has it and knows its keys, or the fork has not."""
    found = next(iter(fork.files(registry, name)), None)
    if found is None or not (registry.has_own(name) or name in registry.library_names()):
        return found
    known = {*registry.parameters(name), *MORE.get(registry.noun, ())}
    return None if known.issuperset(keys) else found


def with_plugins(text: str, plugins: list[str], said: str) -> str:
    """An option file with a ``plugins`` line before its first block.

    Raises:
        UserError: it has one.
    """
    if not plugins:
        return text
    if re.search(r"^plugins[ \t]*:", text, re.MULTILINE):
        raise UserError(f"{said}: it names plugins already; take that key out, and it will be written anew")
    line = f"plugins: [{', '.join(plugins)}]\n"
    block = re.search(r"^(?:#.*\n)*[\w]+[ \t]*:[ \t]*(?:#.*)?\n[ \t]", text, re.MULTILINE)
    place = block.start() if block else len(text)
    return text[:place] + line + ("\n" if block else "") + text[place:]


def report(text: str, folder: Path, plugins: list[str]) -> list[str]:
    """What was found, and what remains to be done.

    Raises:
        UserError: the folder cannot be written to.
    """
    lines = [f"plugins: {len(plugins)} of the fork's files are needed" if plugins else "plugins: none are needed"]
    trial = folder / f".adopted_{os.getpid()}.yml"
    try:
        trial.write_text(text, encoding="utf-8")
        with trust.trusting(folder):
            notes = [n.text for n in options.resolve(trial).notes]
        return [*lines, *(f"note: {note}" for note in notes), "it is valid: train it with relume train -opt FILE"]
    except OptionError as e:
        remain = [f"line {p.place.line}: {p.text}" if p.place else p.text for p in e.problems]
        return [*lines, "what remains:", *(f"  {line}" for line in remain)]
    except OSError as e:
        raise UserError(f"{folder}: cannot be written to, which checking the result needs: {e.strerror or e}") from e
    finally:
        trial.unlink(missing_ok=True)
