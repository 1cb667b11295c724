"""Any image model of timm or torchvision as an extractor: the pooled features before its classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...archs.timm_models import timm_model
from ..annotations import Count
from ..errors import UserError, require
from ..hub import published
from ..imaging.normalisation import IMAGENET
from .base import FeatureExtractor, verified_state

HEADS = ("fc", "classifier", "heads", "head")
"""Attributes in which torchvision's models keep their classifiers."""


class LibraryFeatures(FeatureExtractor):
    """A classifier without its last layer. Images are resized (bilinear, antialiased) to a square and normalised.

    Args:
        name: ``timm:resnet18``, ``torchvision:resnet18``.
        weights: a file with the library's state dict, or ``random``.
        sha256: what that file's SHA-256 must be, or begin with.
        input_size: side of the square.

    Raises:
        UserError: the library is missing or has no such model; the weights are missing, others, or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: str, sha256: str | None, input_size: int) -> None:
        super().__init__()
        library, _, model = name.partition(":")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network, (mean, std) = BUILDERS[library](name, model)
        self.input_size = input_size
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        if published(weights):
            self._load(name, verified_state(name, weights, sha256, f"Save the state dict of {model} there"))
        self.seal(name, input_size=input_size)
        with torch.no_grad():
            try:
                self.dim = self(torch.zeros(2, 3, 8, 8)).shape[1]
            except (RuntimeError, AssertionError) as e:
                raise UserError(f"{name}: input_size {input_size} does not suit it ({str(e).splitlines()[0]})") from e

    def _load(self, name: str, state: dict[str, Tensor]) -> None:
        own = self.network.state_dict()
        for key, value in own.items():
            if key not in state or state[key].shape != value.shape:
                found = tuple(state[key].shape) if key in state else "nothing"
                raise UserError(f"{name}: weights: {key} should have shape {tuple(value.shape)}, there is {found}")
        self.network.load_state_dict({key: state[key] for key in own})

    def features(self, images: Tensor) -> Tensor:
        size = (self.input_size, self.input_size)
        resized = F.interpolate(images.expand(-1, 3, -1, -1), size, mode="bilinear", antialias=True)
        result: Tensor = self.network(((resized + 1) / 2 - self.mean) / self.std).flatten(1)
        return result


def from_timm(name: str, model: str) -> tuple[nn.Module, tuple[Any, Any]]:
    """A model without classifier, and the mean and standard deviation that its weights expect."""
    network = timm_model(name, model)
    settings: Any = getattr(network, "pretrained_cfg", {})
    return network, (settings.get("mean", IMAGENET[0]), settings.get("std", IMAGENET[1]))


def from_torchvision(name: str, model: str) -> tuple[nn.Module, tuple[Any, Any]]:
    """As `from_timm`.

    Raises:
        UserError: torchvision has no such model, or its classifier is not found.
    """
    models = require("torchvision.models", name)
    if model not in models.list_models(module=models):
        raise UserError(
            f"{name}: torchvision has no image model '{model}'; torchvision.models.list_models() lists them"
        )
    network: nn.Module = models.get_model(model, weights=None)
    head = next((h for h in HEADS if hasattr(network, h)), None)
    if head is None:
        raise UserError(f"{name}: do not know where the classifier of this model is (looked for {', '.join(HEADS)})")
    setattr(network, head, nn.Identity())
    return network, IMAGENET


BUILDERS: dict[str, Callable[[str, str], tuple[nn.Module, tuple[Any, Any]]]] = {
    "timm": from_timm,
    "torchvision": from_torchvision,
}


def feature_from_library(name: str) -> Callable[..., FeatureExtractor] | None:
    """What builds the extractor called ``timm:<model>`` or ``torchvision:<model>``; None for other names."""
    library, colon, model = name.partition(":")
    if library not in BUILDERS or not colon or not model:
        return None

    def build(weights: str, sha256: str | None = None, input_size: Count = 224) -> FeatureExtractor:
        """Pooled features of a network of that library.

        Args:
            weights: file with the model's state dict, or ``random``.
            sha256: what the file's digest begins with; a file of another digest is refused.
            input_size: side in pixels to which images are resized.
        """
        return LibraryFeatures(name, weights, sha256, input_size)

    return build


def known_features() -> Iterable[str]:
    """Forms of the names, for listings."""
    return [f"{library}:<model>" for library in BUILDERS]
