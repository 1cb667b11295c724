"""Every command that a page of docs/ shows is one that Relume takes, with options that it has, on option files that are there.

Those of docs/use.md, of the README and of some more pages are run as well, by tests of their own.
"""

from __future__ import annotations

import importlib
import re
import shlex

import pytest
from runs import REPO

from relume.core.cli import Parser, commands

FENCED = re.compile(r"^```(?:bash|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAM = re.compile(
    r"(?:\bpython -m |^|[|;] |-m )relume ([a-z]\w+)(?= |$)(.*)|\bpython (train|test)\.py (.*)|(?:-\S+ )(train|test)\.py (.*)"
)
"""A subcommand and what follows it, in the three ways of calling one."""
FILE = re.compile(r"(?:relume:|(?<![\w/])options/)([\w/]+\.yml)")
READERS_OWN = {"mine.yml", "first.yml"}
"""Option files that a page has its reader write."""


def shown() -> list[tuple[str, str]]:
    """Pages and their lines of commands, continued ones in one piece, without comments."""
    lines = []
    for page in sorted([*(REPO / "docs").glob("*.md"), *(REPO / "docs/tutorials").glob("*.md")]):
        for block in FENCED.findall(page.read_text(encoding="utf-8")):
            whole = re.sub(r"\\\n\s*", " ", block)
            lines += [(page.name, line) for line in whole.splitlines() if PROGRAM.search(line)]
    return lines


def called(line: str) -> tuple[str, list[str]]:
    """A subcommand and its arguments, those of what the shell does with it left out."""
    found = PROGRAM.search(line)
    assert found is not None
    name, rest = next((n, r) for n, r in zip(found.groups()[::2], found.groups()[1::2], strict=True) if n)
    words = shlex.split(rest, comments=True)
    ends = [words.index(sign) for sign in ("|", ">", "&", ";", "&&") if sign in words]
    return name, words[: min(ends, default=len(words))]


def test_pages_show_commands_of_many_kinds() -> None:
    found = shown()
    assert len(found) > 70 and len({page for page, _ in found}) > 12
    assert {"train", "test", "infer", "export", "convert", "prepare", "sample"} <= {
        called(line)[0] for _, line in found
    }


@pytest.mark.parametrize("name", sorted({called(line)[0] for _, line in shown()}))
def test_every_command_is_taken(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert name in commands()
    command = importlib.import_module(f"relume.core.commands.{name}")
    parser = Parser(prog=f"relume {name}")
    command.add_arguments(parser)
    for page, line in shown():
        if (parsed := called(line))[0] == name:
            try:
                parser.parse_args(parsed[1])
            except SystemExit:
                pytest.fail(f"{page}: {line}\n{capsys.readouterr().err}")


def test_every_option_file_of_a_command_is_there() -> None:
    missing = [
        f"{page}: {line}"
        for page, line in shown()
        for file in FILE.findall(line)
        if file not in READERS_OWN and not (REPO / "options" / file).is_file()
    ]
    assert not missing
