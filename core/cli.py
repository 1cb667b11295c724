"""The command ``relume``. Every file of core/commands is a subcommand of that name, unless its name starts with ``_``.

Such a file has a docstring, whose first line ``relume --help`` shows without importing the file, and two functions:
``add_arguments(parser)`` declares its arguments, ``run(arguments)`` does its work, prints what there is to say, and raises
`UserError` for whatever the user can mend. A script of tools/ has the same two functions. There may be a third, ``begin()``:
the context that it gives is entered first, before anything heavy is imported, and is ``arguments.begun``.
With ``RUNS = True`` a command is there to do what its option file describes: the plug-ins that this very file names are asked
for (`files.trust`).
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from .. import __version__
from .errors import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, did_you_mean, message, printable
from .files import trust
from .runtime import streams

FOLDER = Path(__file__).parent / "commands"


class Parser(argparse.ArgumentParser):
    """One whose help is not lost in silence where it cannot be written."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            (file or sys.stderr).write(message)


def commands() -> dict[str, str]:
    """What each subcommand does, in one line, by name. Nothing is imported."""
    files = sorted(f for f in FOLDER.glob("*.py") if not f.name.startswith("_"))
    docs = {f.stem: ast.get_docstring(ast.parse(f.read_bytes())) or "" for f in files}
    return {name: doc.partition("\n")[0] for name, doc in docs.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``relume`` with these arguments, those of the process when None; the exit code."""
    first, *rest = [*(sys.argv[1:] if argv is None else argv)] or [""]
    if (FOLDER / f"{first}.py").is_file() and first.isidentifier() and not first.startswith("_"):
        return execute(importlib.import_module(f"{__package__}.commands.{first}"), rest, f"relume {first}")
    known = commands()
    if first and not first.startswith("-"):
        hint = did_you_mean(first, known)
        streams.complain(f"relume: there is no command '{printable(first)}'.{hint} Commands: {', '.join(known)}.")
        return EXIT_USER_ERROR
    parser = _overview(known)
    parser.parse_args([first, *rest] if first else [])  # --help, --version, or an argument that nobody knows
    parser.print_help(sys.stderr)  # without a command nothing was done, which is no success
    return EXIT_USER_ERROR


def _overview(known: Mapping[str, str]) -> argparse.ArgumentParser:
    """The parser of ``relume`` itself, whose help lists the commands."""
    parser = Parser(
        prog="relume",
        description="Train, test and use networks for images, each run described by one YAML file.",
        epilog="'relume COMMAND --help' shows a command's arguments.",
    )
    parser.add_argument("--version", action="version", version=f"relume {__version__}")
    listing = parser.add_subparsers(title="commands", metavar="COMMAND", prog="relume")
    for name, summary in known.items():
        listing.add_parser(name, help=summary.replace("%", "%%"), add_help=False)
    return parser


def execute(command: ModuleType | Any, argv: Sequence[str] | None, program: str) -> int:
    """Parse the arguments of a command and run it; the exit code. A `UserError` is printed, without a traceback.

    Args:
        command: module with a docstring, ``add_arguments(parser)`` and ``run(arguments)``.
        argv: arguments of the command; those of the process when None.
        program: name of the program in messages.

    Raises:
        SystemExit: argparse's, after ``--help`` (0) or wrong arguments (2).
    """
    # Run the command.
    parser = Parser(prog=program, description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    begin: Callable[[], contextlib.AbstractContextManager[Any]] = getattr(command, "begin", contextlib.nullcontext)
    try:
        with begin() as begun:
            command.add_arguments(parser)
            arguments = parser.parse_args(argv)
            arguments.begun = begun
            runs = getattr(command, "RUNS", False) and not getattr(arguments, "check", False)
            with trust.command_line(getattr(arguments, "trust_plugins", False), runs):
                command.run(arguments)
    # Errors that have a line and an exit code of their own; all others are defects, with a traceback.
    except UserError as e:
        from .runtime import gate

        if wanted := gate.wanted(e, getattr(arguments, "debug", False)):
            streams.complain(wanted.rstrip("\n"))
        say(e)
        return e.code
    except KeyboardInterrupt:  # before the trainer listens, or for the second time
        streams.complain("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        if not streams.nobody_reads(sys.stdout):
            raise
        streams.silence()
        return EXIT_BROKEN_PIPE
    except UnicodeEncodeError as e:
        if e.encoding.lower().replace("-", "") in ("utf8", "utf16", "utf32"):
            raise
        streams.complain(f"{e.object!a}: cannot be said in {e.encoding}, the encoding of this system; set PYTHONUTF8=1")
        return EXIT_USER_ERROR
    except OSError as e:
        line = streams.system_error(e)
        if line is None:
            raise
        streams.complain(message(line))
        return EXIT_USER_ERROR
    except Exception as e:
        from .runtime import memory

        if not memory.ran_out(e):
            raise
        streams.complain(message(memory.explained(e)))
        return EXIT_USER_ERROR
    return 0


def say(error: UserError) -> None:
    """Print a mistake: with its rank, where it is not the main one's, and once, where all ranks have it."""
    rank = os.environ.get("RANK", "0")
    if "RANK" in os.environ:
        from .runtime import last_words

        last_words.tell_launcher(error)
    if rank == "0":
        streams.complain(message(str(error)))
    elif not error.everywhere:
        streams.complain(message(f"rank {rank}: {error}"))


def leave(code: int) -> NoReturn:
    """End this process with an exit code, the way in which a launcher's ranks must end."""
    if "RANK" in os.environ:
        from .runtime import distributed

        distributed.leave(code)
    sys.exit(code)


def command_line() -> NoReturn:
    """The console command ``relume``, and ``python -m relume``."""
    as_process(main)


def as_process(run: Callable[[], int]) -> NoReturn:
    """Run what gives an exit code, and end this process with it, whatever its standard output is connected to."""
    streams.steady()
    try:
        code = run()
    except SystemExit as e:  # argparse's
        code = e.code if isinstance(e.code, int) else 0
    except BrokenPipeError:  # of a help that nobody reads to its end
        streams.silence()
        code = EXIT_BROKEN_PIPE
    except OSError as e:  # of a help that cannot be written
        line = streams.system_error(e)
        if line is None:
            raise
        streams.complain(line)
        streams.silence()
        code = EXIT_USER_ERROR
    leave(streams.finished(code))


def script(file: str, command: str | ModuleType) -> NoReturn:
    """All that train.py, test.py and the files of tools/ do: run a command under the script's own name.

    Args:
        file: the script's ``__file__``. Python puts its folder on ``sys.path``, where the repository's ``datasets`` would
            shadow Hugging Face's package of that name; it is taken off.
        command: the name of a subcommand, or a module that is one.
    """
    folder = Path(file).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p).resolve() != folder]
    module = importlib.import_module(f"{__package__}.commands.{command}") if isinstance(command, str) else command
    as_process(lambda: execute(module, None, Path(file).name))
