"""What a run can do without: checkpoints other than the best and the last, and pictures of earlier validations."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..files import is_temporary, refuse_links
from ..runtime import lock
from ..runtime.checkpoint import Checkpoints
from .files import Run
from .states import best_validation

ARCHIVED = re.compile(r"_archived_\d{8}_\d{6}(_\d+)?$")


@dataclass(frozen=True)
class Leftover:
    """A file or folder that may be deleted, the bytes that this frees, and why, in a few words."""

    path: Path
    bytes: int
    why: str


def leftovers(run: Run, *, pictures: bool = False, archived: bool = False) -> tuple[list[Leftover], list[str]]:
    """What may be deleted of a run, and what is to be known about what is kept.

    Args:
        pictures: count pictures of earlier validations.
        archived: count a run that was moved aside as a whole.
    """
    # Runs of which nothing may be deleted, or everything.
    try:
        refuse_links(run.root, "the run")
    except UserError as e:  # what is deleted through a link lies elsewhere
        return [], [f"{e}. It is left alone"]
    if (owner := lock.owner(run.root)) is not None:
        return [], [f"{run.root}: is running (process {owner.pid} on {owner.host}), and is left alone"]
    named = named_elsewhere(run)
    if archived and ARCHIVED.search(run.name) and not named:
        return [Leftover(run.root, run.disk(), "a run moved aside")], []
    found, said = list[Leftover](), list[str]()
    # Checkpoints before the newest, unless somebody names them.
    checkpoints = Checkpoints(run.root)
    keep = set(named)
    newest, problems = checkpoints.newest_good()
    if problems:
        said += [f"{problem}; every checkpoint of {run.root} is kept" for problem in problems]
    for path, iteration in () if problems else numbered(run.root):
        if newest is None:
            continue
        if iteration == newest or iteration in keep or iteration == kept_for_best(run):
            continue
        found.append(Leftover(path, freed(path), "an older checkpoint"))
    if newest is None and not problems and list(numbered(run.root)):
        said.append(f"{run.root}: has no complete checkpoint, so that all of its weights are kept")
    # Files of writes that were cut short, and pictures of earlier validations.
    found += [
        Leftover(p, freed(p), "half written")
        for p in sorted(run.root.rglob(".*.tmp*"))
        if is_temporary(p, folder=p.is_dir())
    ]
    if pictures:
        found += [Leftover(p, freed(p), "an earlier validation's picture") for p in earlier_pictures(run.root)]
    return found, said


def numbered(root: Path) -> Iterator[tuple[Path, int]]:
    """Files of checkpoints that are called by an iteration, manifests first: without them the rest does not count."""
    for pattern, expression in (
        ("training_states/*.sha256", r"(\d+)\.sha256"),
        ("training_states/*.state", r"(\d+)\.state"),
        ("training_states/*.dcp", r"(\d+)\.dcp"),
        ("models/net_*.pth", r"net_.+_(\d+)\.pth"),
    ):
        for path in sorted(root.glob(pattern)):
            if (path.is_file() or path.suffix == ".dcp") and (match := re.fullmatch(expression, path.name)):
                yield path, int(match[1])


def kept_for_best(run: Run) -> int | None:
    """The iteration of the best validation, where no weights are called best."""
    if any((run.root / "models").glob("net_*_best.pth")):
        return None
    best = best_validation(run)
    return best.iteration if best else None


def named_elsewhere(run: Run) -> set[int]:
    """Iterations of this run whose files the options of other runs in the same folder name."""
    found = set()
    for folder in run.root.resolve().parent.iterdir():
        if folder.name == run.name or not folder.is_dir():
            continue
        for value in Run(folder).options.values():
            match = re.search(rf"(?:^|[/'\"]){re.escape(run.name)}/\w+/(?:net_.+_)?(\d+)\.(?:pth|state)", value)
            if match:
                found.add(int(match[1]))
    return found


def earlier_pictures(root: Path) -> Iterator[Path]:
    """Pictures of validations, of which the same folder has one of a later iteration."""
    groups: dict[tuple[Path, str, str], list[tuple[int, Path]]] = defaultdict(list)
    for path in (root / "visualization").rglob("*"):
        match = re.fullmatch(r"(.+)_(\d+)((?:_comparison)?\.\w+)", path.name)
        of_an_image = match is not None and (match[1] == path.parent.name or match[1] == "grid")
        if match is not None and of_an_image and path.is_file():
            groups[path.parent, match[1], match[3]].append((int(match[2]), path))
    for pictures in groups.values():
        yield from (path for _, path in sorted(pictures)[:-1])


def freed(path: Path) -> int:
    """Bytes that deleting a file frees: none while it has another name; or a folder."""
    if path.is_dir():
        return sum(freed(p) for p in path.rglob("*") if p.is_file())
    about = path.stat()
    return about.st_size if about.st_nlink == 1 else 0
