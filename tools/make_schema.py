"""Write the JSON Schema of option files: ``python tools/make_schema.py [plugin.py ...] [-o options/schema.json]``.

Editors that speak yaml-language-server complete and check options with it, when a file starts with
``# yaml-language-server: $schema=<path to schema.json>``.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts this folder on sys.path; its list.py must not shadow anything.
sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]

import argparse
import json
from collections.abc import Sequence

import relume
from relume.core.errors import UserError
from relume.core.options.json_schema import json_schema
from relume.core.options.plugins import import_plugin

SCHEMA = Path(relume.__file__).parent / "options" / "schema.json"


def text() -> str:
    """The schema as it is written to the file."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="make_schema.py", description="Write the JSON Schema of option files.")
    parser.add_argument("plugins", nargs="*", help="your own Python files or modules, to be included")
    parser.add_argument("-o", "--output", type=Path, default=SCHEMA, help="where to; options/schema.json when omitted")
    arguments = parser.parse_args(argv)
    try:
        for plugin in arguments.plugins:
            import_plugin(plugin, Path.cwd())
        arguments.output.write_text(text(), encoding="utf-8")
    except UserError as e:
        print(e, file=sys.stderr)
        return e.code
    except OSError as e:
        print(f"{arguments.output}: cannot be written: {e.strerror}", file=sys.stderr)
        return UserError.code
    print(f"wrote {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
