"""Video files decoded to folders of frames."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...datasets.videos import VIDEOS, Video
from ..errors import UserError
from ..imaging.image_io import imwrite

UNFINISHED = ".unfinished"
"""Ending of a folder whose video is being decoded."""


def decode(folder: str, out: str, first: int = 0, workers: int = 1, dry: bool = False) -> tuple[int, int]:
    """Decode every video inside `folder` to ``<out>/<its path without suffix>/0000.png`` ...; how many videos and frames.

    A folder that is complete is left as it is, so that an interrupted command goes on when it is given again. Frames of more
    than 8 bits become PNG of 16.

    Args:
        folder: folder that is searched with its sub-folders; or one video.
        out: folder of the frames; with `folder` itself they come beside the videos.
        first: number of the first frame.
        workers: videos that are decoded at once.
        dry: only count.

    Raises:
        UserError: there is no video, one cannot be decoded, or two would share a folder.
    """
    targets = dict(places(Path(folder), Path(out)))
    if not targets:
        raise UserError(f"{folder}: has no videos (looked for {', '.join(VIDEOS)})")
    if dry:
        return len(targets), sum(len(Video(str(file))) for file in targets.values())
    with ThreadPoolExecutor(max(1, workers)) as pool:  # decoding and encoding hold no lock
        counts = list(pool.map(lambda target: one(targets[target], target, first), targets))
    return len(targets), sum(counts)


def places(root: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """The folder of each video's frames, and the video.

    Raises:
        UserError: two videos would share one.
    """
    taken: dict[Path, Path] = {}
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    for file in files:
        if file.suffix.lower() not in VIDEOS:
            continue
        target = out / (file.relative_to(root) if file != root else Path(file.name)).with_suffix("")
        if target in taken:
            raise UserError(f"{file}: its frames and those of {taken[target]} would share the folder {target}")
        taken[target] = file
        yield target, file


def one(file: Path, target: Path, first: int) -> int:
    """Decode one video; how many frames its folder has."""
    if target.is_dir():
        return sum(1 for _ in target.iterdir())
    video = Video(str(file))
    digits = max(4, len(str(first + len(video) - 1)))
    unfinished = target.with_name(target.name + UNFINISHED)
    if unfinished.is_dir():
        shutil.rmtree(unfinished)
    count = 0
    for number, image in video.frames():
        imwrite(unfinished / f"{first + number:0{digits}d}.png", image())
        count += 1
    unfinished.rename(target)
    return count
