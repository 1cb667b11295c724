"""Images to generate from: what their datasets have in common, and the noise that generated images are made of."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..core.annotations import Count, NonNegative, declared
from ..core.errors import UserError
from ..core.imaging.image_io import LARGEST
from ..core.imaging.storage import UnreadableFile
from . import DATASETS
from .base import DatasetTraits, ImageDataset, Item, OnError, Phase
from .transforms import Image, resize, to_tensor


class GenerationDataset(ImageDataset):
    """Square RGB images, maybe with classes. Subclasses give `pixels` and call `describe` at the end of their constructors.

    An item has ``gt``, (3, R, R) float32 in [-1, 1]; ``index``; and ``label`` (int64) where there are classes. The range
    follows from the type of the stored samples, never from their values.

    Args:
        resolution: R; images are cut to their central square and resized to it (bilinear, antialiased). None takes them as they
            are, which must be square.
        use_hflip: flip every other image, left to right, at random; in training only.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next one.

    Attributes:
        id: name and hash of what `image` and `labels` give, part of cache files' names.
    """

    id: str
    resolution: int | None

    def __init__(self, resolution: int | None, use_hflip: bool, phase: Phase, on_error: OnError = "raise") -> None:
        super().__init__(on_error)
        self.resolution = resolution
        self.hflip = use_hflip and phase == "train"

    def pixels(self, index: int) -> tuple[Image, str]:
        """An image as it is stored, (H, W, 3) of 8- or 16-bit integers, and its name for messages.

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError

    def describe(
        self, name: str, labels: Sequence[int] | None, classes: int | None, *content: bytes | memoryview
    ) -> None:
        """Set `id`, `labels` and `num_classes`.

        Args:
            name: name of the dataset, the beginning of the id.
            labels: class of every image.
            classes: how many classes there are; one more than the largest label when None.
            content: whatever tells these images from others.

        Raises:
            UserError: a label is negative, or not less than `classes`.
        """
        digest = hashlib.sha256(repr((self.resolution, len(self))).encode())
        for part in content:
            digest.update(hashlib.sha256(part).digest())
        if labels is not None:
            least, most = int(min(labels)), int(max(labels))
            self.num_classes = most + 1 if classes is None else classes
            if least < 0 or most >= min(self.num_classes, 2**31):
                few = "0 or more" if least < 0 else "below 2^31"
                wanted = few if classes is None else f"from 0 to {classes - 1}"
                raise UserError(f"{name}: class numbers must be {wanted}, not {least if least < 0 else most}")
            self.labels = torch.as_tensor(np.asarray(labels, np.int64))
            digest.update(self.labels.numpy().tobytes())
        self.id = f"{name}-{digest.hexdigest()[:16]}"

    def image(self, index: int, flip: bool = False) -> Tensor:
        """Image `index`, (3, R, R) in [-1, 1], as it is or mirrored: what a memory bank of features is made of.

        Raises:
            UnreadableFile: it cannot be read, or has no integer samples, whose type alone says what is white.
            UserError: it is not square, and `resolution` was not given.
        """
        image, name = self.pixels(index)
        if image.dtype not in LARGEST:
            raise UnreadableFile(
                f"{name}: holds {image.dtype} samples; 8- and 16-bit integer images can be generated from"
            )
        if self.resolution is not None:
            image = resize(central_square(image), self.resolution, self.resolution)
        elif image.shape[0] != image.shape[1]:
            raise UserError(f"{name}: is {image.shape[0]}x{image.shape[1]}, not square; give the dataset a resolution")
        return to_tensor(image[:, ::-1] if flip else image) * 2 - 1

    def load(self, index: int) -> Item:
        flip = self.hflip and random.random() < 0.5  # noqa: S311
        item: Item = {"gt": self.image(index, flip), "index": index}
        return item if self.labels is None else {**item, "label": int(self.labels[index])}


def central_square(image: Image) -> Image:
    """The largest square in the middle of an image (H, W, C)."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


class StoredImages(GenerationDataset):
    """A `GenerationDataset` whose images are all in memory.

    Args:
        name: name of the dataset.
        images: (N, H, W, 3), integers.
        labels: (N,), or None.
        classes: how many classes there are.
        resolution, use_hflip, phase: see `GenerationDataset`.
    """

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        labels: Sequence[int] | None,
        classes: int | None,
        resolution: int | None,
        use_hflip: bool,
        phase: Phase,
    ) -> None:
        super().__init__(resolution, use_hflip, phase)
        self.name = name
        self.images = images
        content = np.ascontiguousarray(images).data
        self.describe(name, labels, classes, repr((images.shape, images.dtype)).encode(), content)

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, index: int) -> tuple[Image, str]:
        return self.images[index], f"{self.name} {index}"


@DATASETS.register()
class NoiseDataset(ImageDataset):
    """What images are generated from, for validation and test: seeds of noise, and classes.

    An item has ``seed``, int64, which is the image's number, so that image i is the same for any number of ranks and any batch
    size; and ``label`` where there are classes. Metrics of whole sets compare what is generated with `reference`.

    Args:
        num_images: number of images.
        num_classes: number of the generator's classes; 0 for none, that of `reference` when omitted.
        labels: ``cycle`` through the classes, or draw them (``uniform``), each from its image's seed.
        first_seed: seed of image 0.
        reference: dataset of real images.
    """

    def __init__(
        self,
        num_images: Count = 256,
        num_classes: NonNegative | None = None,
        labels: Literal["cycle", "uniform"] = "cycle",
        first_seed: NonNegative = 0,
        reference: Annotated[Any, DATASETS] | None = None,
    ) -> None:
        super().__init__()
        self.num_images = num_images
        self.num_classes = declared(reference, "num_classes", DatasetTraits) if num_classes is None else num_classes
        self.uniform = labels == "uniform"
        self.first_seed = first_seed
        self.reference = reference

    def __len__(self) -> int:
        return self.num_images

    def load(self, index: int) -> Item:
        seed = self.first_seed + index
        item: Item = {"seed": seed, "index": index}
        return {**item, "label": class_of(seed, self.num_classes, self.uniform)} if self.num_classes else item


def class_of(seed: int, classes: int, uniform: bool) -> int:
    """The class of the image with that seed: the seed's remainder, or a draw that depends on the seed alone."""
    if not uniform:
        return seed % classes
    return int(np.random.SeedSequence([seed, classes]).generate_state(1, np.uint64)[0] % classes)
