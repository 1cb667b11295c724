"""What data sets of moving scenes share: photographs as textures, and scenes that are either trained on or evaluated."""

from __future__ import annotations

import functools
from typing import Annotated

import numpy as np
from torch import Tensor

from ..core.annotations import Range
from ..core.imaging.image_io import to_float
from .photographs import PhotographDataset, shrink
from .sources import Source
from .transforms import random_flip_rotate, to_tensor

HELD_OUT = 2**31
"""Seeds of evaluation scenes begin here, those of training end below: no motion is in both."""
Objects = Annotated[int, Range(least=0, most=1000)]
"""How many objects move before the background; each is drawn again in every frame."""


class MovingPhotographs(PhotographDataset):
    """Photographs that move before one another (see `datasets.moving`). Subclasses give `load`.

    Attributes:
        objects: how many objects move before the background.
        hflip, rotate: see `random_flip_rotate`; in training, each photograph by itself.
    """

    objects: int
    hflip: bool
    rotate: bool

    def generator(self, index: int) -> np.random.RandomState:
        return super().generator(index) if self.training else np.random.RandomState(HELD_OUT + index)

    def require_patch(self, size: int) -> None:
        """Any size will do: a photograph's mirror image goes on where it ends."""

    def textures(self, rng: np.random.RandomState, index: int) -> list[Tensor]:
        """The background, photograph `index`, and the objects before it, drawn by `rng`; (3, H, W) each."""
        chosen = [index, *rng.randint(len(self.photographs), size=self.objects)]
        textures = [read_texture(*self.photographs[number], self.shorter_side) for number in chosen]
        return self.augmented(textures) if self.training else textures

    def augmented(self, textures: list[Tensor]) -> list[Tensor]:
        """Photographs (3, H, W) flipped and turned; scenes have no preferred direction, so frames need not be."""
        images = [texture.permute(1, 2, 0).numpy() for texture in textures]
        return [to_tensor(random_flip_rotate([image], self.hflip, self.rotate)[0]) for image in images]


@functools.lru_cache(maxsize=16)
def read_texture(source: Source, name: str, shorter_side: int | None) -> Tensor:
    """(3, H, W) float32: a photograph, kept for the next scene where there are few of them."""
    return to_tensor(to_float(shrink(source.pixels(name), shorter_side)))
