"""Weights of the networks that perceptual losses look through: from a file, from torchvision's site, or random."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import UserError, expanded, first_line
from ..core.hub import published, turn
from ..core.runtime import checkpoint
from ..core.runtime.weights import refuse_nonfinite, refuse_other_kinds


def pretrained_state(
    owner: str, weights: str | None, url: Callable[[], str], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """The tensors that `shapes` names.

    Args:
        owner: which loss asks, for messages.
        weights: a state dict's file; None takes the file of `url` from torch's hub cache, downloading it when it is not
            there; ``random`` draws He-normal kernels and zero biases from a fixed generator, for tests and for machines
            without the weights (features of random networks are still features, but not the published loss).
        url: address of the published weights; called only when needed.
        shapes: what is needed; other entries of the file are ignored.

    Raises:
        UserError: no such file, a damaged one, one of another network, or a failed download.
    """
    if not published(weights):
        return random_state(shapes)
    path = expanded(weights) if weights is not None else downloaded(owner, url())
    state = read_state(owner, path)
    for key, shape in shapes.items():
        found = state.get(key)
        if not isinstance(found, Tensor) or found.shape != shape:
            what = "nothing" if found is None else f"{tuple(getattr(found, 'shape', ()))}"
            raise UserError(f"{owner}: {path} does not fit: {key} should have shape {tuple(shape)}, there is {what}")
    needed = {key: state[key] for key in shapes}
    like = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    refuse_other_kinds(needed, like, path)
    refuse_nonfinite(needed, path, like)
    return {key: value.float() for key, value in needed.items()}


def random_state(shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """A state of these shapes: He-normal kernels, zero biases; the same numbers every time and on every rank."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        deviation = math.sqrt(2 / math.prod(shape[1:])) if len(shape) > 1 else 0.0
        state[key] = torch.randn(shape, generator=generator) * deviation
    return state


def read_state(owner: str, path: Path) -> Mapping[str, Tensor]:
    """Load a state dict, tensors of any shape by name, without running code from it.

    Raises:
        UserError: the file cannot be read, or holds no state dict.
    """
    try:
        state = checkpoint.load(path)
    except UserError as e:
        raise UserError(f"{owner}: weights: {e}") from e
    if not isinstance(state, Mapping):
        raise UserError(f"{owner}: {path} holds no state dict but {type(state).__name__}")
    return state


def downloaded(owner: str, url: str) -> Path:
    """The cached file of `url`, fetched first when it is not there. The ranks of a node take turns: one fetches.

    Raises:
        UserError: the file cannot be fetched.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if path.exists():
        return path
    checksum = re.search(r"-([0-9a-f]{8,})\.", path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with turn(path.with_name(f"{path.name}.lock")):
            if not path.exists():
                prefix = checksum.group(1) if checksum else None
                torch.hub.download_url_to_file(url, str(path), prefix, progress=sys.stderr.isatty())
    except Exception as e:  # no network, no space, no permission, wrong checksum
        raise UserError(
            f"{owner}: cannot download {url} ({first_line(e)}). Put that file at {path}, or give its path as 'weights'"
        ) from e
    return path
