"""What generated images are compared with: moments and features of a dataset of real ones, computed once and cached."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...datasets.base import DatasetTraits, Pictures
from ..annotations import declared
from ..errors import UserError, expanded, require
from ..features.base import FeatureExtractor
from ..imaging.float_formats import load_arrays
from ..imaging.storage import write_bytes
from ..runtime import distributed
from .generative import Moments

log = logging.getLogger("relume")

QUANTISE = "floor(127.5 x + 128)"
BATCH = 64


def quantised(images: Tensor) -> Tensor:
    """Images of any shape in [-1, 1] on the 256 levels that files have: clip(floor(127.5 x + 128)) / 127.5 - 1.

    Metrics see generated images as they see stored ones; rounding matters to FID. (EDM's rule: rounding to nearest.)
    """
    return (images.float() * 127.5 + 128).floor().clamp(0, 255) / 127.5 - 1


@dataclass(frozen=True)
class Reference:
    """Statistics of a dataset in a feature space.

    Attributes:
        mean: (d,) float64.
        covariance: (d, d) float64, unbiased.
        vectors: the features, (n, d) float32, in the order of the dataset; None where moments are enough.
    """

    mean: Tensor
    covariance: Tensor
    vectors: Tensor | None = None

    @staticmethod
    def check(owner: str, dataset: Any, stats: str | None) -> None:
        """Refuse a metric that has nothing to compare with: neither a dataset that will do, nor a file.

        Raises:
            UserError: there is no such dataset and no such file.
        """
        if dataset is None:
            if stats is None or not expanded(stats).is_file():
                raise UserError(
                    f"{owner}: there are no real images to compare with; give the dataset a `reference` (a dataset), "
                    "or the metric the `stats` of one"
                )
        elif not isinstance(dataset, Pictures):
            raise UserError(
                f"{owner}: {type(dataset).__name__} cannot be a reference; use a dataset of `relume.datasets.generation`"
            )

    @classmethod
    def find(
        cls,
        owner: str,
        extractor: FeatureExtractor,
        dataset: Any,
        stats: str | None,
        device: torch.device,
        *,
        needs_vectors: bool,
        keep: bool,
    ) -> Reference:
        """Read from the cache, or computed by all ranks together (and cached).

        Args:
            owner: the metric, for messages.
            extractor: extractor, on `device`.
            dataset: dataset with `id`, `image` and a length, as `datasets.generation.GenerationDataset`; may be None if
                `stats` exists.
            stats: the cache: ``.safetensors``, or published moments, ``.npz`` with ``mu`` and ``sigma``.
            device: device on which the extractor runs.
            needs_vectors: whether moments are not enough.
            keep: keep the features if they are computed, for other metrics.

        Raises:
            UserError: there is nothing to compare with, or the cache is torn or is of another network or dataset.
        """
        cls.check(owner, dataset, stats)
        path = expanded(stats) if stats else None
        if path is not None and path.suffix == ".npz":
            return published_moments(owner, path, extractor, needs_vectors)
        if path is not None and path.suffix != ".safetensors":
            raise UserError(f"{owner}: stats: {path} must end in .safetensors, or in .npz for published moments")
        wanted = {
            "net_id": extractor.id,
            "dataset_id": dataset.id if isinstance(dataset, Pictures) else None,
            "resize": None if dataset is None else str(declared(dataset, "resolution", DatasetTraits)),
            "quantise": QUANTISE,
        }
        # Together: a rank that does not see the file would wait for the others for ever.
        if path is not None and all(distributed.gather(path.is_file())):
            found = read(path, {k: v for k, v in wanted.items() if v is not None})
            if found.vectors is not None or not needs_vectors:
                return found
            if dataset is None:
                raise UserError(f"{owner}: needs features, and {path} has moments only; give the dataset a `reference`")
        found, n = compute(owner, extractor, dataset, device, needs_vectors or keep)
        if path is not None and distributed.is_main():
            write(path, found, {**{k: str(v) for k, v in wanted.items()}, "n": str(n)})
        return found


def same_sizes(images: list[Tensor]) -> list[list[Tensor]]:
    """Images (C, H, W) one after the other, in runs of one size."""
    return [list(run) for _, run in itertools.groupby(images, key=lambda image: image.shape)]


def compute(
    owner: str, extractor: FeatureExtractor, dataset: Any, device: torch.device, keep: bool
) -> tuple[Reference, int]:
    """Statistics of a dataset, each rank taking its share; and the number of images."""
    if distributed.is_main():
        log.info("%s: features of %d reference images (%s)", owner, len(dataset), dataset.id)
    mine = list(range(distributed.rank(), len(dataset), distributed.world_size()))
    moments, kept = Moments.of(torch.zeros(0, extractor.dim)), []
    for start in range(0, len(mine), BATCH):
        with torch.no_grad():
            vectors = torch.cat(
                [
                    extractor(quantised(torch.stack(run).to(device))).float().cpu()
                    for run in same_sizes([dataset.image(i) for i in mine[start : start + BATCH]])
                ]
            )
        moments = moments + Moments.of(vectors)
        if keep:
            kept.append(vectors)
    shares = distributed.gather((moments, torch.cat([torch.zeros(0, extractor.dim), *kept]), mine))
    total = sum((m for m, _, _ in shares[1:]), shares[0][0])
    every = in_order([v for _, v, _ in shares], [i for _, _, i in shares]) if keep else None
    return Reference(total.mean, total.covariance, every), total.n


def in_order(shares: list[Tensor], indices: list[list[int]]) -> Tensor:
    """Rows (n, ...) that ranks hold, one tensor each, in ascending order of their indices."""
    order = torch.tensor([i for share in indices for i in share], dtype=torch.int64).argsort()
    return torch.cat(shares)[order]


def published_moments(owner: str, path: Path, extractor: FeatureExtractor, needs_vectors: bool) -> Reference:
    """Moments in a NumPy archive, which says neither the network nor the dataset that they are of.

    Raises:
        UserError: the metric needs features, the archive cannot be read, or its moments are of another network.
    """
    if needs_vectors:
        raise UserError(f"{owner}: needs features, and {path} has moments only; give the dataset a `reference`")
    try:
        found = load_arrays(path, ("mu", "sigma"))
        mean, covariance = (torch.from_numpy(np.asarray(array, np.float64)) for array in found)
    except (UserError, TypeError, ValueError) as e:
        raise UserError(f"{owner}: stats: {e}") from e
    if mean.shape != (extractor.dim,) or covariance.shape != (extractor.dim, extractor.dim):
        raise UserError(
            f"{owner}: {path} has {mean.numel()} features, but {extractor.id} gives {extractor.dim}: another network's"
        )
    log.info("%s: %s does not say of which network and images it is; taken on trust", owner, path)
    return Reference(mean, covariance)


def read(path: Path, wanted: dict[str, str]) -> Reference:
    """A cache file, if it is of the network and dataset that are `wanted`.

    Raises:
        UserError: it is not, or it is torn.
    """
    opened: Callable[..., Any] = require("safetensors", str(path)).safe_open
    try:
        with opened(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - it is no mapping
    except Exception as e:  # safetensors' own error class is not public in every release
        raise UserError(f"{path}: cannot be read as cached statistics ({e}); remove it, it will be made anew") from e
    for key, value in wanted.items():
        if metadata.get(key) != value:
            raise UserError(
                f"{path}: its {key} is {metadata.get(key)}, but this run's is {value}; remove the file, or name another one"
            )
    if not {"mu", "sigma"} <= tensors.keys():
        raise UserError(f"{path}: holds no cached statistics (mu, sigma); remove it, or name another file")
    return Reference(tensors["mu"], tensors["sigma"], tensors.get("features"))


def write(path: Path, reference: Reference, metadata: dict[str, str]) -> None:
    """Cache, whole or not at all."""
    tensors = {"mu": reference.mean, "sigma": reference.covariance}
    if reference.vectors is not None:
        tensors["features"] = reference.vectors
    save: Callable[..., bytes] = require("safetensors.torch", str(path)).save
    write_bytes(path, save({k: v.contiguous() for k, v in tensors.items()}, metadata))
    log.info("wrote %s", path)
