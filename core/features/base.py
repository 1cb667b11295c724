"""What every feature extractor is: frozen, always in evaluation mode, and identified by what it computes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, expanded
from ..files import reading
from ..runtime import checkpoint
from ..runtime.weights import refuse_nonfinite, unwrap


class FeatureExtractor(nn.Module):
    """Images (B, C, H, W) in [-1, 1] -> features (B, dim) in float32, not normalised.

    Its parameters are frozen, and it stays in evaluation mode whatever is asked of it; gradients flow to the images. It
    computes in float32 also under autocast, so that features of different days can be compared.

    Subclasses set `dim`, give `features`, and call `seal` at the end of their constructors.
    """

    dim: int
    """Length of a feature vector."""
    id: str
    """Name and hash of everything that the features depend on: weights and preprocessing. Part of cache files' names."""

    def features(self, images: Tensor) -> Tensor:
        """(B, dim) of images (B, C, H, W) in [-1, 1], float32.

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return self.features(images.float())

    def seal(self, name: str, **preprocessing: Any) -> None:
        """Freeze everything and compute `id`.

        Args:
            name: the registered one.
            preprocessing: whatever else than the state dict determines the features.
        """
        self.requires_grad_(False)
        self.eval()
        self.id = f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}-{fingerprint(self.state_dict(), preprocessing)}"

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Stays in evaluation mode."""
        return super().train(False)


def fingerprint(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of tensors (names, shapes, types, bytes) and of settings (their ``repr``)."""
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def verified_state(owner: str, weights: str, sha256: str | None, where: str) -> dict[str, Tensor]:
    """The state dict in a file, tensors of any shape by name, without running code from it.

    Args:
        owner: the extractor, for messages.
        weights: path to a ``.pth`` or ``.safetensors`` file.
        sha256: what the file's SHA-256 must be, or at least how it must begin; not checked when None.
        where: place where the file can be fetched, for messages.

    Raises:
        UserError: no such file, another file than the one asked for, or not a state dict.
    """
    path = expanded(weights)
    if not path.is_file():
        raise UserError(f"{owner}: weights: there is no file {path}. {where}")
    if sha256 is not None:
        found = reading.checksum(path)
        if not found.startswith(sha256.lower()):
            raise UserError(f"{owner}: {path} is not the file asked for: its SHA-256 is {found}, not {sha256}")
    state = checkpoint.load(path)
    if not isinstance(state, Mapping):
        raise UserError(f"{owner}: {path} holds no state dict but {type(state).__name__}")
    tensors = unwrap(state, None, path)
    refuse_nonfinite(tensors, path)
    return tensors
