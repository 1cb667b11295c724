"""Feature extractors: frozen networks that turn images into vectors, in which images are compared and matched.

They serve the memory bank and the losses of one-step generation, and metrics such as FID. Selected by ``type``; besides the
registered ones, ``timm:<name>`` and ``torchvision:<name>`` are any image model of those libraries, with weights from a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..registry import Registry
from .base import FeatureExtractor
from .libraries import feature_from_library, known_features

FEATURES = Registry(
    "feature extractor", "relume.core.features", library=feature_from_library, library_names=known_features
)


def build_features(opt: Mapping[str, Any]) -> FeatureExtractor:
    """Build the extractor that ``opt = {type: name, **constructor_arguments}`` describes. `opt` is not modified.

    Raises:
        UserError: unknown type, unknown or missing argument, a missing library, weights that are missing or others.
    """
    extractor: FeatureExtractor = FEATURES.build(opt)
    return extractor


__all__ = ["FEATURES", "FeatureExtractor", "build_features"]
