"""Metrics of whole sets of images: FID, KID, Inception score, precision and recall.

They are classes, built once per run. The evaluator shows them every image that the model makes (`update`); `compute` scores the
images of all ranks together, and gives on every rank what one rank alone would give.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from ...datasets.base import Pictures
from ..annotations import Count, Repeats
from ..errors import UserError
from ..features import FEATURES
from ..features.base import FeatureExtractor
from ..runtime import distributed
from . import METRICS, SetMetric
from .generative import Moments, frechet_distance, inception_score, kernel_distance, precision_recall
from .reference import Reference, in_order, quantised

Features = Annotated[Any, FEATURES]


class SharedFeatures:
    """An extractor that the metrics of a run share, so that each batch goes through it once."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.extractor = extractor
        self.references: dict[tuple[str | None, str | None], Reference] = {}
        self.keep_vectors = False
        """Whether some metric needs more of the reference than its moments, so that they are computed once for all."""
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B, dim), float32 on the CPU, of images (B, C, H, W) in [0, 1]."""
        if self._last is None or self._last[0] is not images:
            with torch.no_grad():
                self._last = images, self.extractor(quantised(images * 2 - 1)).float().cpu()
        return self._last[1]

    def forget(self) -> None:
        """Release the last batch."""
        self._last = None


_shared: weakref.WeakValueDictionary[str, SharedFeatures] = weakref.WeakValueDictionary()


def shared(extractor: FeatureExtractor) -> SharedFeatures:
    """The one object for all extractors that are the same."""
    found = _shared.get(extractor.id)
    if found is None:
        found = _shared[extractor.id] = SharedFeatures(extractor)
    return found


class FeatureMetric(SetMetric):
    """A `SetMetric` of features. Subclasses give `score`, and say what they need of the reference.

    Args:
        features: extractor that images are compared in.
        stats: cache of the reference's statistics.
    """

    needs_reference: ClassVar[bool] = True
    needs_vectors: ClassVar[bool] = True
    least: int = 2
    """Images without which there is no score."""

    def __init__(self, features: FeatureExtractor, stats: str | None = None) -> None:
        self.features = shared(features)
        self.features.keep_vectors |= self.needs_vectors
        self.stats = stats

    @property
    def name(self) -> str:
        """As option files call it."""
        return type(self).__name__

    def check(self, reference: Any, images: int) -> None:
        self._refuse_few(images, "images")
        if self.needs_reference:
            Reference.check(self.name, reference, self.stats)

    def start(self, reference: Any, device: torch.device) -> None:
        self.device = device
        self.features.extractor.to(device)
        self.vectors: list[Tensor] = []
        self.indices: list[int] = []
        self.reference = self._reference(reference) if self.needs_reference else None

    def _reference(self, dataset: Any) -> Reference:
        key = (dataset.id if isinstance(dataset, Pictures) else None, self.stats)
        known = self.features.references
        # Without a file of its own, whatever another metric has found of the same dataset will do.
        same = [r for (dataset_id, _), r in known.items() if dataset_id and dataset_id == key[0] and not self.stats]
        found = known.get(key) or next(iter(same), None)
        if found is None or (self.needs_vectors and found.vectors is None):
            extractor, keep = self.features.extractor, self.features.keep_vectors
            found = Reference.find(
                self.name, extractor, dataset, self.stats, self.device, needs_vectors=self.needs_vectors, keep=keep
            )
            known[key] = found
        if found.vectors is not None:
            self._refuse_few(len(found.vectors), "reference images")
        return found

    def update(self, images: Tensor, indices: Sequence[int]) -> None:
        self.vectors.append(self.features(images))
        self.indices += indices

    def compute(self) -> dict[str, float]:
        self.features.forget()
        mine = torch.cat([torch.zeros(0, self.features.extractor.dim), *self.vectors])
        shares = distributed.gather((mine, self.indices))
        self.vectors = []
        vectors = in_order([v for v, _ in shares], [i for _, i in shares])
        self._refuse_few(len(vectors), "images")
        return self.score(vectors)

    def _refuse_few(self, found: int, what: str) -> None:
        if found < self.least:
            raise UserError(f"{self.name}: needs at least {self.least} {what}, there are {found}")

    def score(self, vectors: Tensor) -> dict[str, float]:
        """Scores of features (n, d), by what is added to the metric's name.

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError


@METRICS.register(aliases=("fid", "calculate_fid"))
class FID(FeatureMetric):
    """Frechet distance of features, the usual one where `features` is ``inception_fid`` (Heusel et al., NeurIPS 2017).

    Paper: Heusel et al., NeurIPS 2017. Constants: the extractor's. Input: gray or RGB in [0, 1], rounded to 8 bits, any size
    of at least 1 pixel a side. Least size: 2 images; fewer are an error.

    It is biased by the number of images: published values compare 50,000 generated ones with all training images.
    Lower is better. Of a data set of pairs it compares the outputs with the ground truths, each at its own size.

    Args:
        features: extractor that images are compared in.
        stats: ``.safetensors`` file that caches the reference's moments, made when it is not there and refused when it is of
            another network or dataset; or published ``.npz`` with ``mu`` and ``sigma``.
    """

    better = "lower"
    needs_vectors = False

    def __init__(self, features: Features, stats: str | None = None) -> None:
        super().__init__(features, stats)

    def start(self, reference: Any, device: torch.device) -> None:
        super().start(reference, device)
        self.moments = Moments.of(torch.zeros(0, self.features.extractor.dim))

    def update(self, images: Tensor, indices: Sequence[int]) -> None:
        self.moments = self.moments + Moments.of(self.features(images))  # (n, d) of 50,000 images need not be kept

    def compute(self) -> dict[str, float]:
        self.features.forget()
        shares = distributed.gather(self.moments)
        total = sum(shares[1:], shares[0])
        self._refuse_few(total.n, "images")
        assert self.reference is not None
        distance = frechet_distance(total.mean, total.covariance, self.reference.mean, self.reference.covariance)
        return {"": distance}


@METRICS.register(aliases=("kid",))
class KID(FeatureMetric):
    """Kernel distance of features: unbiased, also for few images (Binkowski et al., ICLR 2018).

    Paper: Binkowski et al., ICLR 2018. Constants: theirs, the kernel (x.y / d + 1)^3. Input: gray or RGB in [0, 1], rounded
    to 8 bits, any size of at least 1 pixel a side. Least size: 2 images; fewer are an error.

    The mean over random subsets, and under ``_std`` their standard deviation. Lower is better.

    Args:
        features: extractor that images are compared in.
        subsets: how many random subsets.
        subset_size: images in each; all images where there are no more.
        stats: ``.safetensors`` file that caches the reference's features, made when it is not there and refused when it is of
            another network or dataset.
    """

    better = "lower"

    def __init__(
        self, features: Features, subsets: Repeats = 100, subset_size: Count = 1000, stats: str | None = None
    ) -> None:
        super().__init__(features, stats)
        self.subsets = subsets
        self.subset_size = subset_size

    def score(self, vectors: Tensor) -> dict[str, float]:
        assert self.reference is not None and self.reference.vectors is not None
        values = kernel_distance(vectors, self.reference.vectors, self.subsets, self.subset_size)
        return {"": float(values.mean()), "_std": float(values.std(correction=0))}


@METRICS.register(aliases=("inception_score",))
class InceptionScore(FeatureMetric):
    """exp of how much a classifier's verdict on an image says about the image (Salimans et al., NeurIPS 2016).

    Paper: Salimans et al., NeurIPS 2016. Constants: the extractor's classifier, 10 parts. Input: gray or RGB in [0, 1],
    rounded to 8 bits, any size of at least 1 pixel a side. Least size: `splits` images; fewer are an error.

    The mean over parts of the set, and under ``_std`` their standard deviation. Higher is better.

    Args:
        features: extractor with a classifier: ``inception_fid``.
        splits: number of parts.
    """

    better = "higher"
    needs_reference = False
    needs_vectors = False

    def __init__(self, features: Features, splits: Count = 10) -> None:
        super().__init__(features)
        if not hasattr(features, "classify"):
            raise UserError("InceptionScore: features must have a classifier, as inception_fid has")
        self.splits = self.least = splits

    def score(self, vectors: Tensor) -> dict[str, float]:
        classify: Any = self.features.extractor.classify
        with torch.no_grad():
            logits = torch.cat([classify(part.to(self.device)).cpu() for part in vectors.split(1024)])
        values = inception_score(logits, self.splits)
        return {"": float(values.mean()), "_std": float(values.std(correction=0))}


class Manifolds(FeatureMetric):
    """What precision and recall have in common."""

    def __init__(self, features: Features, k: Count = 3, stats: str | None = None) -> None:
        super().__init__(features, stats)
        self.k = k
        self.least = k + 1

    def both(self, vectors: Tensor) -> tuple[float, float]:
        """Precision and recall of features (n, d)."""
        assert self.reference is not None and self.reference.vectors is not None
        return precision_recall(vectors, self.reference.vectors, self.k)


@METRICS.register(aliases=("precision",))
class Precision(Manifolds):
    """Share of generated images within the manifold of real ones (Kynkaanniemi et al., NeurIPS 2019): are they good?

    Paper: Kynkaanniemi et al., NeurIPS 2019. Constants: theirs, k = 3. Input: gray or RGB in [0, 1], rounded to 8 bits, any
    size of at least 1 pixel a side. Least size: k + 1 images; fewer are an error.

    Higher is better.

    Args:
        features: extractor that images are compared in.
        k: a ball around an image reaches to its k-th nearest other.
        stats: cache of the reference's statistics, see `KID`.
    """

    better = "higher"

    def score(self, vectors: Tensor) -> dict[str, float]:
        return {"": self.both(vectors)[0]}


@METRICS.register(aliases=("recall",))
class Recall(Manifolds):
    """Share of real images within the manifold of generated ones (Kynkaanniemi et al., NeurIPS 2019): are they diverse?

    Paper: Kynkaanniemi et al., NeurIPS 2019. Constants: theirs, k = 3. Input: gray or RGB in [0, 1], rounded to 8 bits, any
    size of at least 1 pixel a side. Least size: k + 1 images; fewer are an error.

    Higher is better.

    Args:
        features: extractor that images are compared in.
        k: a ball around an image reaches to its k-th nearest other.
        stats: cache of the reference's statistics, see `KID`.
    """

    better = "higher"

    def score(self, vectors: Tensor) -> dict[str, float]:
        return {"": self.both(vectors)[1]}
