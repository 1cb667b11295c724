"""The memory bank of one-step generation: every training image and its features, by the image's number in the dataset."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....datasets.base import DatasetTraits, Pictures
from ...annotations import Count, declared
from ...errors import UserError, expanded, require
from ...features import FeatureExtractor
from ...ops.constants import uploaded
from ...runtime import distributed
from ...runtime.checkpoint import write_atomically
from ...runtime.progress import progress

log = logging.getLogger("relume")

BATCH = 64
"""Images that go through the extractor together."""


@dataclass
class BankOptions:
    """Size and place of the memory bank.

    Args:
        subset: rows that generated images are matched with in one step, drawn without replacement; all where there are fewer.
        flips: keep every image twice, as it is and mirrored. (The generator then learns both.)
        shard: spread the rows over ranks instead of keeping all of them on each; the drawn rows are the same.
        cache: folder in which features are kept under the extractor's and the dataset's id, so that the next run need not
            compute them; or a ``.safetensors`` file, which must be of the same two. Not kept when omitted.
    """

    subset: Count = 2048
    flips: bool = False
    shard: bool = False
    cache: str | None = None


class MemoryBank:
    """Features of N images, and the images. Row i is image i of the dataset; with flips, row N + i is image i mirrored.

    Args:
        id: what identifies extractor, dataset and flips together.
        features: (N, d) or (2N, d), or of a shard every W-th image's; normalised here.
        images: (N, C, H, W) in [-1, 1], or every W-th; bytes where they hold them without loss.
        labels: (N,) int64, or None.
        count: N.
        flips: whether there are mirrored rows.
        seed: seed of the draws; the same on all ranks.
        shard: (rank, W); (0, 1) holds all.
    """

    def __init__(
        self,
        id: str,
        features: Tensor,
        images: Tensor,
        labels: Tensor | None,
        count: int,
        flips: bool,
        seed: int,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.id = id
        self.features = F.normalize(features.float(), dim=1)
        self.images = images
        self.labels = labels
        self.count = count
        self.flips = flips
        self.seed = seed
        self.rank, self.world = shard

    @property
    def rows(self) -> int:
        """How many rows there are on all ranks."""
        return self.count * (1 + self.flips)

    def draw(self, iteration: int, size: int) -> Tensor:
        """The rows of an iteration (m,), int64, all different: a function of the seed and the iteration alone."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + iteration) % 2**63)
        rows = torch.randperm(self.rows, generator=generator)[:size]
        return uploaded(rows, self.images.device)

    def features_of(self, rows: Tensor) -> Tensor:
        """Unit features (m, d) of `rows` (m,), the same on all ranks."""
        mine, places = self._places(rows)
        return self._joined(self.features[places], mine)

    def images_of(self, rows: Tensor) -> Tensor:
        """Images (n, C, H, W) of `rows` (n,), in [-1, 1], mirrored where the row says so; each rank may ask for its own."""
        asked = distributed.concatenated(rows) if self.world > 1 else rows
        mine, places = self._places(asked)
        found = self._joined(self.images[places % len(self.images)], mine)
        if self.world > 1:
            found = found.chunk(self.world)[self.rank]
        images = as_floats(found)
        return torch.where((rows >= self.count).view(-1, 1, 1, 1), images.flip(3), images)

    def labels_of(self, rows: Tensor) -> Tensor:
        """Classes (m,) of `rows` (m,).

        Raises:
            UserError: there are none.
        """
        if self.labels is None:
            raise UserError("matching.labels: the training set has no labels; label_policy ignore needs none")
        return self.labels[rows % self.count]

    def _places(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Which rows are here, and where (anywhere for the others)."""
        image = rows % self.count
        mine = image % self.world == self.rank
        place = image // self.world + (rows >= self.count) * len(self.images)
        return mine, torch.where(mine, place, 0)

    def _joined(self, values: Tensor, mine: Tensor) -> Tensor:
        """Values of rows, those of other ranks from there."""
        if self.world == 1:
            return values
        return distributed.total(values * mine.view(-1, *[1] * (values.dim() - 1)).to(values.dtype))


# ------------------------------------------------------------------ building
def build_bank(dataset: Any, extractor: FeatureExtractor, options: BankOptions, device: torch.device) -> MemoryBank:
    """Read every image once, in order and as it is, and compute its features, or take them from the cache.

    Ranks share the work.

    Args:
        dataset: dataset of images to generate from: ``image(index, flip)`` (C, H, W) in [-1, 1], ``id``, ``labels``.
        extractor: extractor, on `device`.
        options: size and place of the bank.
        device: device on which the bank is kept.

    Raises:
        UserError: the dataset is of another kind, its features are not finite, or the cached ones are of something else.
    """
    if not isinstance(dataset, Pictures):
        raise UserError(
            f"{type(dataset).__name__} cannot fill a memory bank, which needs images to generate from: use a dataset such as "
            "CIFAR10Dataset, ImageFolderDataset or ShippedImagesDataset"
        )
    # This rank's share of the images, and of their features unless they are cached.
    rank, world = distributed.rank(), distributed.world_size()
    count = len(dataset)
    indices = list(range(rank, count, world))
    name = f"{extractor.id}_{dataset.id}{'_flips' if options.flips else ''}"
    file = cache_file(options.cache, name)
    cached = load_features(file, extractor, dataset.id, (count * (1 + options.flips), extractor.dim))
    label = "memory bank" if cached is None else "memory bank (cached features)"
    images, features = [], []
    batches = [indices[i : i + BATCH] for i in range(0, len(indices), BATCH)]
    for batch in progress(label, batches):
        plain = torch.stack([dataset.image(i) for i in batch])
        images.append(as_bytes(plain))
        if cached is None:
            sides = [plain, plain.flip(3)] if options.flips else [plain]
            features.append([extract(extractor, x.to(device), batch) for x in sides])
    # Features of all ranks, and the cache.
    pictures = joined(images)
    if cached is None:
        shares = [torch.cat([f[side] for f in features]) for side in range(1 + options.flips)]
        cached = torch.cat([interleaved(share, indices, count) for share in shares])
        if file is not None and distributed.is_main():
            save_features(file, cached, extractor, dataset.id)
            log.info("Features of the memory bank are kept in %s", file)
    if distributed.is_main():
        log.info("Memory bank: %d images, %d rows of %d features (%s)", count, len(cached), extractor.dim, extractor.id)
    # What this rank keeps.
    if options.shard and world > 1:
        cached = torch.cat([side[rank::world] for side in cached.chunk(1 + options.flips)])
        shard = (rank, world)
    else:
        pictures, shard = interleaved(pictures, indices, count), (0, 1)
    labels = declared(dataset, "labels", DatasetTraits)
    labels = None if labels is None else labels.to(device)
    seed = distributed.broadcast(int(torch.randint(2**31, (), dtype=torch.int64)))
    return MemoryBank(name, cached.to(device), pictures.to(device), labels, count, options.flips, seed, shard)


def extract(extractor: FeatureExtractor, images: Tensor, indices: list[int]) -> Tensor:
    """Features (B, d) of images (B, C, H, W), on the CPU.

    Raises:
        UserError: some are NaN or infinite; the image is named.
    """
    with torch.no_grad():
        features: Tensor = extractor(images).cpu()
    bad = (~features.isfinite()).any(1).nonzero().flatten().tolist()
    if bad:
        raise UserError(f"memory bank: the features of image {indices[bad[0]]} are NaN or infinite ({extractor.id})")
    return features


def interleaved(share: Tensor, indices: list[int], count: int) -> Tensor:
    """The whole table of shape (count, ...) from the ranks' shares of it; every index must occur exactly once.

    Raises:
        RuntimeError: the rows are not the dataset's images, each once.
    """
    shares = distributed.gather((share, indices))
    order = torch.tensor([i for _, part in shares for i in part])
    if not torch.equal(order.sort().values, torch.arange(count)):
        raise RuntimeError("the memory bank's rows are not the dataset's images, each once")
    return torch.cat([rows for rows, _ in shares])[order.argsort()]


def joined(parts: list[Tensor]) -> Tensor:
    """Batches of images (B, C, H, W) as one tensor: bytes if all are."""
    if any(p.dtype != torch.uint8 for p in parts):
        parts = [as_floats(p) for p in parts]
    return torch.cat(parts)


def as_bytes(images: Tensor) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] as bytes, if `as_floats` gives exactly them back; else unchanged."""
    stored = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return stored if torch.equal(as_floats(stored), images) else images


def as_floats(images: Tensor) -> Tensor:
    """The inverse of `as_bytes`: (N, C, H, W) in [-1, 1]."""
    return images.float() / 255 * 2 - 1 if images.dtype == torch.uint8 else images


# ------------------------------------------------------------------ the cache
def cache_file(cache: str | None, name: str) -> Path | None:
    """Where features of that name are kept."""
    if cache is None:
        return None
    path = expanded(cache)
    return path if path.suffix == ".safetensors" else path / f"features_{name}.safetensors"


def save_features(path: Path, features: Tensor, extractor: FeatureExtractor, dataset: str) -> None:
    """Write features (count, d) with the ids of their extractor and their data set."""
    library = require("safetensors.torch", "the memory bank's cache")
    content = library.save({"features": features.contiguous()}, {"extractor": extractor.id, "dataset": dataset})
    write_atomically(path, lambda file: file.write(content))


def load_features(
    path: Path | None, extractor: FeatureExtractor, dataset: str, shape: tuple[int, int]
) -> Tensor | None:
    """The features (rows, dim) in `path`, on every rank; None where they must be computed, on every rank too.

    Raises:
        UserError: they are of another extractor or dataset, or the file is damaged.
    """
    if path is None or not all(distributed.gather(path.is_file())):
        return None
    library = require("safetensors", "the memory bank's cache")
    try:
        with library.safe_open(str(path), framework="pt") as file:
            found: dict[str, str] = file.metadata() or {}
            features: Tensor = file.get_tensor("features")
    except Exception as e:  # safetensors raises its own errors, without a common base
        raise UserError(f"{path}: cannot be read as cached features ({str(e).splitlines()[0]}); delete it") from e
    for kind, wanted in (("extractor", extractor.id), ("dataset", dataset)):
        if found.get(kind) != wanted:
            raise UserError(
                f"{path}: these features are of another {kind}: {json.dumps(found.get(kind))}, not {wanted}. Delete the file, "
                "or name another in bank.cache"
            )
    if features.shape != shape:
        raise UserError(f"{path}: has features of shape {tuple(features.shape)}, not {shape} (bank.flips changed?)")
    return features
