"""Check a collection of option files, and count what becomes of them: how many are accepted, and why others are not.

``python tools/try_option_files.py FOLDER [--index FOLDER/INDEX.tsv] [--verbose] [--run]``

With ``--run`` every accepted file that trains is cut down (a narrow network, small patches) and runs two iterations, one
validation and a checkpoint on generated pictures, each in a process of its own; that takes some seconds a file.

The index (tab-separated, optional) has a line for each file: its ``path`` inside FOLDER, its ``dialect``, and whether all names
in it are ``public``. Without one, every YAML file inside FOLDER is checked.
"""

from __future__ import annotations

import argparse
import csv
import logging
import re
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from relume.core import options
from relume.tools.fuzzing import trials
from relume.tools.fuzzing.cut_down import NotCut, cut_down

LIMIT = 300
"""Seconds that a cut-down file may take."""


class Outcome(NamedTuple):
    """What became of one file: nothing wrong, or the mistakes, one line each; or a failure of the checker itself."""

    problems: tuple[str, ...] = ()
    failure: str = ""

    @property
    def accepted(self) -> bool:
        return not self.problems and not self.failure


def outcome(path: Path) -> Outcome:
    """Check the file at `path`."""
    try:
        options.load(path)
    except options.OptionError as e:
        return Outcome(tuple(p.text for p in e.problems))
    except Exception:  # whatever it is, it is a mistake of the checker's, which is counted
        return Outcome(failure=traceback.format_exc())
    return Outcome()


def ran(path: Path) -> str:
    """What became of the file at `path`, cut down: ``ran``, ``not cut: why``, or the last line of what it said."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            values = cut_down(options.load(path), folder / "data")
        except NotCut as e:
            return f"not cut: {e}"
        (folder / "cut.yml").write_text(options.dump(values), encoding="utf-8")
        found = trials.attempt(["train", "-opt", "cut.yml"], folder, LIMIT, kept=("cut.yml", "data"))
        if found.kind == "ran" and list(folder.glob("experiments/*/models/net_g_2.pth")):
            return "ran"
        lines = [line for line in found.said.splitlines() if line.strip()] or ["nothing said"]
        return f"{found.kind}: {lines[-1][:300]}"


def kind(problem: str) -> str:
    """A mistake without what follows its first sentence, by which equal ones are counted."""
    return re.split(r"\. |: accepted|\(accepted", problem)[0][:110]


def rows(folder: Path, index: Path | None) -> list[dict[str, str]]:
    """The files to try, with what is known of them."""
    if index is None:
        return [{"path": str(p.relative_to(folder))} for p in sorted(folder.rglob("*.y*ml"))]
    with index.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def main() -> None:
    """Print a table of pass rates and the reasons by count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", type=Path, help="INDEX.tsv of the folder; found by itself when it is there")
    parser.add_argument("--verbose", action="store_true", help="print every file's mistakes")
    parser.add_argument("--run", action="store_true", help="run two iterations of every accepted file that trains")
    parser.add_argument("--reasons", type=int, default=40, help="how many reasons to print")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    if arguments.run:
        import relume.core.pipeline  # noqa: F401 - for the forks, which need not import it again
    # Check every file, and run it where that is asked for.
    index = arguments.index or arguments.folder / "INDEX.tsv"
    groups: dict[str, list[Outcome]] = {}
    reasons: Counter[str] = Counter()
    runs: dict[str, str] = {}
    for row in rows(arguments.folder, index if index.is_file() else None):
        found = outcome(arguments.folder / row["path"])
        public = "public" if row.get("public", "yes").startswith("yes") else "names of one repository"
        for group in ("all", f"{row.get('dialect', '')} {public}".strip()):
            groups.setdefault(group, []).append(found)
        reasons.update({kind(p) for p in found.problems})
        if found.failure:
            reasons[f"TRACEBACK {found.failure.splitlines()[-1]}"] += 1
        if arguments.run and found.accepted:
            runs[row["path"]] = ran(arguments.folder / row["path"])
            if runs[row["path"]] != "ran":
                print(row["path"], f"    {runs[row['path']]}", sep="\n", flush=True)
        if arguments.verbose and not found.accepted:
            print(row["path"], f"[{public}]")
            for problem in found.problems or (found.failure,):
                print("   ", problem[:400])
    # Shares of accepted files by kind, what was run, and the most frequent reasons.
    for name, found_all in groups.items():
        accepted = sum(f.accepted for f in found_all)
        print(f"{accepted:4} of {len(found_all):4} accepted ({accepted / len(found_all):.0%}): {name}")
    print(f"{sum(bool(f.failure) for group in [groups.get('all', [])] for f in group)} failures of the checker itself")
    if arguments.run:
        tried = [said for said in runs.values() if not said.startswith("not cut")]
        count = tried.count("ran")
        print(
            f"{count:4} of {len(tried):4} that were cut down ran two iterations; {len(runs) - len(tried)} were not cut down"
        )
    for reason, count in reasons.most_common(arguments.reasons):
        print(f"{count:5}  {reason}")


if __name__ == "__main__":
    main()
