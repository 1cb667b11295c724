"""Images to generate from that lie in folders and in zip files."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import Literal

from ..core.annotations import Count
from ..core.errors import UserError
from ..core.imaging.storage import MissingFile, is_url, join
from . import DATASETS
from .archives import Zip
from .base import OnError, Phase
from .generation import GenerationDataset
from .sources import Folder, Source
from .transforms import Image

LABELS = "dataset.json"
"""File with the labels of a folder or zip file: ``{"labels": [["00000/img00000000.png", 6], ...]}`` or ``{"labels": null}``."""


@DATASETS.register()
class ImageFolderDataset(GenerationDataset):
    """Images in a folder or a zip file, EDM's among them: ``gt`` (3, R, R) in [-1, 1], ``label``, ``index``.

    Images are sorted by name. Classes come from ``dataset.json`` (EDM's: file name and class of every image), or from the
    names of the folders that the images are in, sorted.

    Args:
        dataroot: folder with its sub-folders, local or remote, or a ``.zip`` file.
        labels: source of the classes: ``json``, ``folders``, or ``none``; ``json`` where there is a ``dataset.json`` with
            labels, when omitted.
        resolution: R; images are cut to their central square and resized to it. None takes square images as they are.
        use_hflip: flip every other image, left to right, at random; in training only.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next one.
    """

    def __init__(
        self,
        dataroot: str,
        labels: Literal["json", "folders", "none"] | None = None,
        resolution: Count | None = None,
        use_hflip: bool = False,
        phase: Phase = "train",
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(resolution, use_hflip, phase, on_error)
        root = dataroot if is_url(dataroot) else os.path.expanduser(dataroot)
        self.source: Source = Zip(root) if root.lower().endswith(".zip") else Folder(root)
        self.names = list(self.source.files.values())
        classes: int | None = None
        found: list[int] | None = None
        if labels == "folders":
            folders = [str(PurePosixPath(name).parent) for name in self.names]
            known = sorted(set(folders))
            if len(known) < 2:
                raise UserError(f"{root}: labels: folders needs a folder for each class; all images are in one")
            found, classes = [known.index(f) for f in folders], len(known)
        elif labels != "none":
            found = self._listed(required=labels == "json")
        self.describe(Path(root).stem or "images", found, classes, content(self.source, self.names))

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, index: int) -> tuple[Image, str]:
        name = self.names[index]
        return self.source.pixels(name), self.source.path(name)

    def _listed(self, required: bool) -> list[int] | None:
        """Classes in ``dataset.json``, in the order of `names`.

        Raises:
            UserError: the file is missing though `required`, damaged, or does not fit the images.
        """
        where = join(self.source.root, LABELS)
        try:
            text = self.source.read(LABELS)
        except MissingFile as e:
            if required:
                raise UserError(f"{where}: is needed for labels: json, and is not there") from e
            return None
        try:
            pairs = json.loads(text)["labels"]
            by_name = None if pairs is None else {str(name).replace("\\", "/"): label for name, label in pairs}
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise UserError(f'{where}: is not of the form {{"labels": [["00000/img00000000.png", 6], ...]}}') from e
        if by_name is None and not required:
            return None
        missing = [n for n in self.names if n not in (by_name or {})]
        if missing:
            others = f" and {len(missing) - 1} more images" if len(missing) > 1 else ""
            raise UserError(f"{where}: has no label for {missing[0]}{others}")
        assert by_name is not None
        wrong = [n for n in self.names if type(by_name[n]) is not int]
        if wrong:
            raise UserError(f"{where}: the label of {wrong[0]} is {by_name[wrong[0]]!r}; class numbers can be read")
        return [by_name[n] for n in self.names]


def content(source: Source, names: list[str]) -> bytes:
    """Names and sizes of files (of those in a zip file their checksums, of remote ones the names alone) as bytes."""
    if isinstance(source, Zip):
        return repr([(n, source.entries[n].file_size, source.entries[n].CRC) for n in names]).encode()
    if is_url(source.root):
        return repr(names).encode()
    return repr([(n, os.path.getsize(source.path(n))) for n in names]).encode()
