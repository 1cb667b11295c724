#!/usr/bin/env python
"""Look up the versions of constraints.txt among known vulnerabilities (`pip-audit`, which asks the package index).

``tools/audit.py [--strict]``; `make lint` calls it. Exit status 1 where a version has one that is not in `ACCEPTED`. Where the
index cannot be asked, or does not know a version, that is said, and is an error with ``--strict`` only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ACCEPTED: Mapping[str, str] = {}
"""Identifiers of vulnerabilities that do not concern Relume, each with the reason."""
SECONDS = 60


def pins(text: str) -> list[str]:
    """``name==version`` of each line, without the conditions behind it."""
    lines = (line.partition(";")[0].partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def asked(requirements: list[str]) -> Mapping[str, Any] | str:
    """What `pip-audit` says of pinned versions; a sentence where it can say nothing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--timeout", "10"]
        command = [sys.executable, "-m", "pip_audit", "-r", str(file), *options]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)  # nosec B603
        except subprocess.TimeoutExpired:
            return f"the package index did not answer within {SECONDS} s"
    try:
        found: Mapping[str, Any] = json.loads(run.stdout)
        return found
    except ValueError:
        last = (run.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return f"pip-audit could not ask: {last[:200]}"


def judged(found: Mapping[str, Any] | str, accepted: Mapping[str, str] = ACCEPTED) -> tuple[list[str], list[str]]:
    """(vulnerabilities, what was not looked up), a line each."""
    if isinstance(found, str):
        return [], [f"NOT AUDITED: {found}"]
    bad, unknown = [], []
    for package in found["dependencies"]:
        if "skip_reason" in package:
            unknown.append(package["name"])
        for hole in package.get("vulns", ()):
            names = {hole["id"], *hole.get("aliases", ())}
            if not names & accepted.keys():
                fixed = ", ".join(hole.get("fix_versions", ())) or "no version"
                bad.append(f"{package['name']} {package['version']}: {hole['id']}, fixed by {fixed}")
    count = len(found["dependencies"])
    some = f"NOT AUDITED: the package index does not know {len(unknown)} of {count} versions: {', '.join(unknown)}"
    return bad, [some] if unknown else []


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strict", action="store_true", help="fail where a version could not be looked up")
    strict = parser.parse_args().strict
    required = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    bad, unknown = judged(asked(required))
    print("\n".join([*bad, *unknown]) or f"{len(required)} versions have no known vulnerability")
    return int(bool(bad or (strict and unknown)))


if __name__ == "__main__":
    sys.exit(main())
