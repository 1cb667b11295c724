"""Pictures of what is trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...datasets.base import DatasetTraits
from ..annotations import declared
from ..errors import in_one_line
from ..imaging import visual
from ..imaging.image_io import imwrite
from ..imaging.normalisation import denormalise

log = logging.getLogger("relume")
Show = Callable[[Mapping[str, Tensor], int], None]
"""Shows images (1, C, H, W) by label, of an iteration."""


def training_pictures(folder: Path, dataset: Any, picture: Callable[[str, Any, int], None]) -> Show:
    """What shows a training sample: a file for each iteration in ``<folder>/training``, and TensorBoard.

    Args:
        folder: folder of the experiment's pictures.
        dataset: the training set, whose normalisation is undone.
        picture: function called with a tag, an image (H, W, 3) uint8 and the iteration.
    """
    mean, std = (declared(dataset, name, DatasetTraits) for name in ("mean", "std"))
    failed = False

    def show(images: Mapping[str, Tensor], iteration: int) -> None:
        nonlocal failed
        try:
            plain = {label: denormalise(image, mean, std)[0] for label, image in images.items()}
            comparison = visual.comparison(plain)
            imwrite(folder / "training" / f"{iteration}.png", comparison)
            picture("training/sample", comparison, iteration)
        except Exception as e:  # a picture is no reason to lose a training
            if not failed:
                log.warning("pictures of training samples cannot be made, which loses nothing else: %s", in_one_line(e))
            failed = True

    return show
