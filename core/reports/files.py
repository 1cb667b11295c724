"""The files of a run: ``metrics.jsonl``, the resolved options, scores per picture, the disk that it takes. Without torch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError, expanded
from ..files import reading
from ..runtime import records
from ..runtime.records import iteration_of

Direction = Literal["higher", "lower"]
INPUT = "_input"
"""Ending of the names of scores that the input itself has."""
MOST_BYTES = 4_000_000
"""Most bytes of an option file that is read here; no training writes such a one."""
METRICS_FOLDER = Path(__file__).parents[1] / "metrics"


@dataclass
class Run:
    """A folder that a training or a test has left: ``experiments/NAME`` or ``results/NAME``.

    Attributes:
        root: the folder.
        broken: what could not be read of its files, a line each, as far as they have been read.
    """

    root: Path
    broken: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.root.resolve().name

    @property
    def tested(self) -> bool:
        """Whether this is a test's folder, and not a training's."""
        return (self.root / "metrics.json").is_file()

    @cached_property
    def option_file(self) -> Path | None:
        """The resolved options: ``NAME.yml``, or the only YAML file that is here (of a folder that was renamed)."""
        own = self.root / f"{self.name}.yml"
        found = [own] if own.is_file() else sorted(self.root.glob("*.yml"))
        return found[0] if len(found) == 1 else None

    @cached_property
    def options(self) -> dict[str, str]:
        """The resolved options by dotted key, as they are written; empty without an option file."""
        if self.option_file is None:
            return {}
        try:
            return flat(reading.text(self.option_file, MOST_BYTES))
        except OSError as e:
            self.broken.append(f"{self.option_file}: {e.strerror or e}")
            return {}

    def records(self, only: bytes = b"") -> Iterator[dict[str, Any]]:
        """The lines of ``metrics.jsonl`` that contain `only`. What is no JSON object is left out, and noted in `broken`."""
        path = self.root / "metrics.jsonl"
        try:
            lines = reading.content(path).split(b"\n")
        except FileNotFoundError:
            return
        except OSError as e:
            self.broken.append(f"{path}: {e.strerror or e}")
            return
        for number, line in enumerate(lines, 1):
            whole = line.strip()
            if not whole or (only not in whole and whole.startswith(b"{") and whole.endswith(b"}")):
                continue
            entry = records.parse(whole)
            if entry is None:
                last = number >= len(lines) - 1
                why = "the last line was cut short" if last else "is no JSON object"
                said = f"{path}:{number}: {why}; it is left out"
                if said not in self.broken:
                    self.broken.append(said)
                continue
            yield entry

    @cached_property
    def validations(self) -> list[dict[str, Any]]:
        """The validations' records in order: ``iter``, ``dataset``, ``metrics``; broken ones are left out."""
        found = []
        for entry in self.records(b'"metrics"'):
            if isinstance(entry.get("metrics"), dict) and isinstance(entry.get("dataset"), str):
                scores = {m: number(v) for m, v in entry["metrics"].items() if v is None or isinstance(v, (int, float))}
                better = entry.get("better")
                ways = {m: w for m, w in better.items() if isinstance(w, str)} if isinstance(better, dict) else {}
                found.append({**entry, "iter": iteration_of(entry), "metrics": scores, "better": ways})
        return found

    @cached_property
    def last(self) -> dict[str, Any]:
        """The last record of a training step, read from the end of the file; empty where there is none."""
        path = self.root / "metrics.jsonl"
        try:
            with reading.opened(path) as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - (1 << 16)))
                lines = file.read().split(b"\n")
        except OSError:
            return {}
        for line in reversed(lines):
            entry = records.parse(line)
            if entry is not None and "metrics" not in entry and "iter" in entry:
                return entry
        return {}

    @cached_property
    def means(self) -> dict[str, dict[str, float]]:
        """The last scores, ``means[dataset][metric]``: a test's, or the last validation's of each data set; NaN for null."""
        found: dict[str, Mapping[str, Any]] = {}
        if self.tested:
            path = self.root / "metrics.json"
            try:
                content = json.loads(reading.text(path))
                found = {k: v for k, v in content.items() if isinstance(v, dict)}
            except (OSError, ValueError, AttributeError, RecursionError) as e:
                self.broken.append(f"{path}: {e}")
        for entry in self.validations:
            found[entry["dataset"]] = entry["metrics"]
        return {d: {m: number(v) for m, v in metrics.items()} for d, metrics in found.items()}

    @property
    def total(self) -> int | None:
        """``train.total_iter``, where the options say it."""
        text = self.options.get("train.total_iter", "")
        return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None

    @cached_property
    def better(self) -> dict[str, Direction]:
        """By metric, as the run recorded it, which of two scores is the better one."""
        return {k: v for e in self.validations for k, v in e["better"].items()}

    def direction(self, metric: str) -> Direction:
        """Whether a "higher" or a "lower" score is better: what the run says, else what the metric of this name or type is."""
        name = metric.removesuffix(INPUT)
        given = self.better.get(name) or self.options.get(f"val.metrics.{name}.better")
        if given is not None and given != "null":
            return "lower" if given == "lower" else "higher"
        kind = self.options.get(f"val.metrics.{name}.type", name)
        known = directions()
        return known.get(kind) or known.get(f"calculate_{kind}") or "higher"

    @property
    def chosen(self) -> str | None:
        """The metric that chooses the best weights."""
        best = self.options.get("val.best") or self.options.get("val.best.metric")
        if best and best != "null":
            return best
        named = [key.split(".")[2] for key in self.options if key.startswith("val.metrics.")]
        scored = [m for e in self.validations for m in e["metrics"]]
        return next((m for m in [*named, *scored] if m in scored and not m.endswith(INPUT)), None)

    def scores(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The last scores per picture, ``scores[dataset][image]``, a row as written (see `core.evaluation`)."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for path in sorted((self.root / "visualization").glob("*_scores.jsonl")):
            rows: dict[str, dict[str, Any]] = {}
            try:
                lines = reading.text(path).splitlines()
            except OSError as e:
                self.broken.append(f"{path}: {e.strerror or e}")
                continue
            for place, line in enumerate(lines, 1):
                row = records.parse(line)
                if row is not None and "image" in row:
                    rows[str(row["image"])] = row
                else:
                    self.broken.append(f"{path}:{place}: is no JSON object with an image; it is left out")
            if rows:
                found[path.name.removesuffix("_scores.jsonl")] = rows
        return found

    def disk(self) -> int:
        """Bytes that the folder takes; a file of two names counts once."""
        return sum(sizes(self.root).values())


def sizes(root: str | os.PathLike[str]) -> dict[tuple[int, int], int]:
    """By device and inode, the bytes of the files inside a folder. Links are not followed."""
    found: dict[tuple[int, int], int] = {}
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found.update(sizes(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    about = entry.stat(follow_symlinks=False)
                    found[about.st_dev, about.st_ino] = about.st_size
    except OSError:
        pass  # a run that is going on removes files, too
    return found


def is_run(folder: Path) -> bool:
    """Whether a training or a test has left this folder."""
    files = ("metrics.jsonl", "metrics.json", "exit.json", "training_states", "models")
    return any((folder / f).exists() for f in files) or any((folder / "visualization").glob("*_scores.jsonl"))


def runs_in(folder: Path) -> list[Run]:
    """The runs in a folder of runs, by name.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    inside = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.is_dir())
    return [Run(p) for p in inside if is_run(p)]


def find(text: str) -> list[Run]:
    """The run that a path names, or a bare name under ``experiments`` or ``results``; of a folder of runs all that are in it.

    Raises:
        UserError: there is none.
    """
    path = expanded(text)
    places = [path] if path.is_dir() else [expanded(root) / path for root in ("experiments", "results")]
    for place in places:
        if place.is_dir():
            return [Run(place)] if is_run(place) else runs_in(place)
    raise UserError(f"{text}: no such run (looked for {', '.join(map(str, dict.fromkeys((path, *places))))})")


def number(value: Any) -> float:
    """A score as it was written: JSON has no infinity and no NaN, which are null."""
    try:
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")
    except OverflowError:  # JSON's whole numbers have no limit
        return float("nan")


KEY = re.compile(r"( *)(- )?([^\s:#][^:]*):(?: (.*))?$")


def flat(text: str) -> dict[str, str]:
    """Resolved options as `core.options.dump` writes them, by dotted key, each value as it is written.

    A few hundred such files are read in the time in which a YAML parser reads twenty. What follows on lines of its own
    belongs to the value before; lists of blocks have their items' keys numbered by nothing, and are one value.

    >>> flat("# by whom\\ntrain:\\n  lr: 0.1\\n  betas: [0.9,\\n    0.99]\\nname: x\\n")
    {'train.lr': '0.1', 'train.betas': '[0.9, 0.99]', 'name': 'x'}
    """
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    last = ""
    depth = 0
    # A key: its parents are the keys with less indentation.
    listed = -1
    for line in text.splitlines():
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        indent = len(line) - len(line.lstrip(" "))
        item = bare.startswith("- ") or bare == "-"
        match = None if item or depth > 0 or 0 <= listed < indent else KEY.match(line)
        # A line that goes on with the value before: of a list, or within brackets.
        if match is None:
            if item and listed < 0:
                listed = indent
                last = ".".join(k for _, k in parents) if not last or found.get(last, "") else last
            if last:
                found[last] = f"{found.get(last, '')} {bare}".strip()
            depth += bare.count("[") + bare.count("{") - bare.count("]") - bare.count("}")
            continue
        listed = -1
        while parents and parents[-1][0] >= indent:
            parents.pop()
        parents.append((indent, match[3].strip("'\"")))
        value = match[4] or ""
        last = ".".join(k for _, k in parents)
        if value:
            found[last] = value
            depth = value.count("[") + value.count("{") - value.count("]") - value.count("}")
    return found


@cache
def directions() -> dict[str, Direction]:
    """By name, which of two scores of Relume's own metrics is the better one, read from their sources."""
    found: dict[str, Direction] = {}
    for path in METRICS_FOLDER.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for way, aliases, name in re.findall(r'@metric\(\s*"(higher|lower)"([^)]*)\)\s*def (\w+)', text):
            for each in (name, *re.findall(r'"(\w+)"', re.sub(r'\w+="\w+"', "", aliases))):
                found[each] = way
        for name, body in re.findall(r"^class (\w+)\b(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL):
            if way := re.search(r'^    better = "(higher|lower)"', body, re.MULTILINE):
                found[name] = way[1]  # type: ignore[assignment]
    return found
