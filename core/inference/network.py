"""What every network may say of itself to the models that call it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..annotations import declared
from ..errors import UserError

OTHER_CHANNELS = re.compile(r"expected input\[.*\] to have (\d+) channels, but got (\d+) channels")
"""What torch says when a convolution gets an image of another number of channels."""
TAKES = re.compile(r"takes \(B, (\d+), ")
"""What networks say that look at the channels themselves."""


@contextlib.contextmanager
def explaining_channels() -> Iterator[None]:
    """A network is called on images that may have another number of channels than it takes.

    Raises:
        UserError: they have.
    """
    try:
        yield
    except RuntimeError as e:
        found = OTHER_CHANNELS.search(str(e))
        if found is None:
            raise
        takes, given = found.groups()
        advice = (
            "; give the dataset `color: gray` (or y), or the network 3 channels" if (takes, given) == ("1", "3") else ""
        )
        raise UserError(
            f"the network takes {takes} channel(s) where images, or what it makes of them, have {given}{advice}"
        ) from e


def channels_taken(error: BaseException) -> int | None:
    """The channels that a network takes, as an error says that it raised over an image of others; None for other errors."""
    said = str(error.__cause__ or error)
    found = OTHER_CHANNELS.search(said) or TAKES.search(said)
    return int(found[1]) if found else None


class NetworkTraits:
    """What Relume asks of a network besides a call, and what holds for one that says nothing.

    A registered ``nn.Module`` may have any of these; `core.annotations.declared` reads them.
    """

    size_multiple: int = 1
    """What height and width of the input must be a multiple of: images are padded for it, and tiles begin there."""
    scale: int = 1
    """Output size / input size, where a model must know it: `DiffIRS1` takes a ground truth of that size."""
    sees_whole: str = ""
    """What makes each pixel of the answer depend on the whole input, however far away, in a few words: tiles cannot give what
    the whole gives. Layers of torch that do (global pooling, instance normalisation) are found without it."""
    takes_frames: int | None = None
    """Frames that a network for video takes, (B, T, C, H, W): so many neighbours, of which it gives one, (B, C, H, W); or 0
    for clips of any length, all of whose frames it gives, (B, T, C, H, W). None for one that takes images."""
    least_frames: int = 1
    """Frames that a clip must have."""
    continued: Callable[..., tuple[Tensor, Any]] | None = None
    """What a network of clips has that sees what came before through a state alone: ``continued(clip, state, count)`` gives its
    answer for the first `count` frames of a clip that goes on where the one before it ended, and the state after them."""
    result_output: int = 0
    """The place, among several outputs, of the one that is *the* result; -1 is the last."""
    draws_in_evaluation: bool = False
    """Whether evaluation draws from torch's global generators: `Inference` then seeds them for each picture."""
    backbone: nn.Module | None = None
    """The part that ``freeze_backbone`` leaves untrained."""
    flow_estimator: nn.Module | None = None
    """The part that ``flow_first`` trains alone; the network takes ``warp_only`` for that."""
    img_resolution: int | None = None
    """Side of the images that a generator makes."""
    img_channels: int | None = None
    """Channels of the images that a generator makes."""
    label_dim: int | None = None
    """Classes of a generator; 0 without."""
    conditional: bool = False
    """Whether a discriminator takes the input, enlarged, before the channels of the image that it judges."""


def network_trait(net: object, name: str) -> Any:
    """What a network says of itself (see `NetworkTraits`), also when it is wrapped (DDP, compiled, averaged)."""
    while not hasattr(net, name) and isinstance(inner := getattr(net, "module", None), nn.Module):
        net = inner  # what wraps networks calls them `module`
    return declared(net, name, NetworkTraits)


def innermost(t: Tensor) -> Tensor:
    """An image or kernel (B, C, H, W) with channels innermost in memory; tensors of other shapes stay as they are."""
    return t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t


def channels_innermost(network: nn.Module) -> None:
    """Lay out weights with channels innermost. ``Module.to(memory_format=...)`` raises where some are of 3-D convolutions."""
    network._apply(innermost)
