"""Write the JSON Schema of option files, for editors.

``relume schema [plugin.py ...] [-o options/schema.json]``

Editors that speak yaml-language-server complete and check options with it, when a file starts with
``# yaml-language-server: $schema=<path to schema.json>``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..errors import UserError
from ..options.json_schema import json_schema
from . import _arguments

SCHEMA = Path(__file__).parents[2] / "options" / "schema.json"


def text() -> str:
    """The schema as it is written to the file."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("plugins", nargs="*", help="your own Python files or modules, to be included")
    _arguments.add_trust(parser)
    parser.add_argument(
        "-o", "--output", type=Path, default=SCHEMA, help="file to write; options/schema.json when omitted"
    )


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: the file cannot be written.
    """
    _arguments.include_plugins(arguments)
    try:
        arguments.output.write_text(text(), encoding="utf-8")
    except OSError as e:
        raise UserError(f"{arguments.output}: cannot be written: {e.strerror}") from e
    print(f"wrote {arguments.output}")
