"""The pictures that an evaluation leaves: outputs, comparisons, and a grid of the first outputs."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..files import inside
from . import visual
from .image_io import imwrite
from .naming import fitting
from .normalisation import Values, denormalise
from .transfer import Transfer, radiance

log = logging.getLogger("relume")

MOST_WAITING = 8
"""Pictures that may wait to be written, in memory."""
Thumbnail = tuple[int, np.ndarray]
"""Number of an image in its dataset, and its output, (H, W, C) uint8."""


@dataclass
class Gallery:
    """Where pictures of results go, and which are made.

    Args:
        folder: folder of the images, with a folder for each dataset.
        image_name: file name of a saved image from ``(dataset, image, iteration)``.
        save_images: save the outputs.
        save_comparisons: save input | output | target side by side.
        save_grid: save the first so many outputs of each dataset in one picture, ``<dataset>/grid_<iteration>.png``.
        transfers: transfer functions by name of the datasets that hold HDR images. Their outputs are saved as radiance,
            with a tone-mapped PNG beside; comparisons are tone-mapped.
        linear_format: format of saved radiance, a suffix without dot that `imwrite` keeps floats in.
        picture: function called with ``(dataset, image, picture, iteration)`` for the first comparisons of each dataset,
            and for grids.
        pictures: how many comparisons of each dataset those are.
    """

    folder: Path
    image_name: Callable[[str, str, int], str]
    save_images: bool = False
    save_comparisons: bool = False
    save_grid: int | None = None
    transfers: Mapping[str, Transfer] = field(default_factory=dict)
    linear_format: str = "hdr"
    picture: Callable[[str, str, Any, int], None] | None = None
    pictures: int = 1
    waiting: deque[tuple[str, Future[None]]] = field(default_factory=deque, init=False)
    """Files that a thread is writing, with the name of the image that each is of; see `written`."""
    depths: dict[str, bool] = field(default_factory=dict, init=False)
    """Whether a dataset's inputs have more bits than saved pictures, which is looked up once."""
    _thread: ThreadPoolExecutor | None = field(default=None, init=False)

    def note_depth(self, dataset: str, lq: Tensor | None, mean: Values, std: Values) -> None:
        """Say once of a dataset whose results are saved that its inputs, (..., C, H, W), have more than 8 bits."""
        if not self.save_images or lq is None or dataset in self.depths or dataset in self.transfers:
            return
        if lq.dim() < 4 or any(len(values) not in (1, lq.shape[-3]) for values in (mean, std) if values is not None):
            return  # no pictures, or several in one
        levels = denormalise(lq.float(), mean, std) * 255
        self.depths[dataset] = bool((levels - levels.round()).abs().max() > 0.02)
        if self.depths[dataset]:
            log.info("%s: inputs have more than 8 bits; results are saved with 8 (relume infer keeps them)", dataset)

    def save(
        self, dataset: str, name: str, iteration: int, index: int, images: Mapping[str, Tensor | None]
    ) -> list[Thumbnail]:
        """Make the pictures of one image, which are then written while others are computed; see `written`.

        Args:
            name: what the image's results are filed under.
            index: number of the image in the dataset.
            images: ``input``, ``output`` and ``target``, (1, C, H, W) in [0, 1], or None.

        Returns:
            What the grid shall have of it.

        Raises:
            UserError: the name leads out of the folder.
        """
        path = inside(
            self.folder, self.folder / dataset / fitting(self.image_name(dataset, name, iteration), reserve=16)
        )
        given = {label: image[0] for label, image in images.items() if image is not None}
        shown: Mapping[str, visual.Picture] = given
        if transfer := self.transfers.get(dataset):
            from . import tonemap

            linear = {label: radiance(image, transfer) for label, image in given.items()}
            if self.save_images:
                self._write(name, path.with_suffix(f".{self.linear_format}"), linear["output"], 32)
            shown = tonemap.tone_mapped(linear, "target" if "target" in linear else "output")
        if self.save_images:
            for view, image in visual.files(shown["output"]).items():
                self._write(name, path.with_name(f"{path.stem}{view}{path.suffix}"), image)
        tell = self.picture is not None and index < self.pictures
        if self.save_comparisons or tell:
            self._compare(dataset, name, iteration, shown, path, tell)
        in_grid = self.save_grid is not None and index < self.save_grid
        return [(index, visual.to_uint8(shown["output"]))] if in_grid else []

    def _compare(
        self, dataset: str, name: str, iteration: int, shown: Mapping[str, visual.Picture], path: Path, tell: bool
    ) -> None:
        comparison = visual.comparison(shown)
        if self.save_comparisons:
            self._write(name, path.with_name(f"{path.stem}_comparison.png"), comparison)
        if self.picture is not None and tell:
            self.picture(dataset, name, comparison, iteration)

    def _write(self, name: str, path: Path, picture: visual.Picture, bit_depth: int = 8) -> None:
        """Have a thread encode and write a picture, which nobody may change any more."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "pictures")
        here = picture.detach().cpu() if isinstance(picture, Tensor) else picture
        self.waiting.append((name, self._thread.submit(imwrite, path, here, bit_depth)))

    def written(self, all_of_them: bool = False) -> Iterator[tuple[str, Callable[[], None]]]:
        """The files that are written, or that too many others are behind: the image's name, and what waits for the file.

        That raises OSError where it cannot be written. After all of them no thread is left, so that processes may be forked.
        """
        while self.waiting and (all_of_them or len(self.waiting) > MOST_WAITING or self.waiting[0][1].done()):
            name, future = self.waiting.popleft()
            yield name, future.result
        if all_of_them and self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def write_grid(self, dataset: str, iteration: int, thumbnails: Sequence[Thumbnail]) -> None:
        """The first outputs of all ranks in one picture, about square. Raises OSError if it cannot be written."""
        if not thumbnails:
            return
        shown = [image for _, image in sorted(thumbnails, key=lambda pair: pair[0])]
        picture = visual.grid(shown, math.ceil(len(shown) ** 0.5))
        imwrite(self.folder / dataset / f"grid_{iteration}.png", picture)
        if self.picture is not None:
            self.picture(dataset, "grid", picture, iteration)
