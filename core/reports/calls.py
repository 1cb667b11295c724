"""How the network of an option file is called: on images, two frames, clips, noise, or an image and its ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...archs import ARCHS, build_network
from ...archs.diffir import PRIOR, DiffIRS1, DiffIRS2
from ...datasets import build_dataset
from ..errors import UserError, in_one_line
from ..inference.network import channels_taken, network_trait
from ..inference.tiling import next_multiple, size_multiple
from ..models.base import model_class
from ..models.generation.model import GenerationModel
from ..models.interpolation import InterpolationModel
from ..options import Options

FRAMES = 5
"""Frames of a clip, for networks that take any number."""
CHANNELS = ("in_channels", "in_chans", "in_ch", "num_in_ch", "inp_channels", "img_channel", "in_nc", "n_colors")
"""What networks call the channels of their input."""


@dataclass
class Call:
    """A network and what it is given, a batch of one.

    Attributes:
        network: network that is measured.
        kind: ``images``, ``frames`` (two, and the time between them), ``noise`` or ``clips``.
        channels: channels of an image or frame.
        scale: size of the answer / size of the input, where the network takes the ground truth too.
        side: side of the images that a generator makes, which is the one size that it takes; else None.
        frames: frames of a clip.
        device: device that the network is on.
    """

    network: nn.Module
    kind: str = "images"
    channels: int = 3
    scale: int = 1
    side: int | None = None
    frames: int = FRAMES
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def of(cls, opt: Options, device: torch.device) -> Call:
        """That of ``network_g``, with random weights."""
        network = build_network(opt["network_g"]).to(device)
        model = model_class(opt.model_type)
        if issubclass(model, InterpolationModel):
            return cls(network, "frames", device=device)
        if issubclass(model, GenerationModel):
            side, channels = (network_trait(network, f"img_{name}") for name in ("resolution", "channels"))
            return cls(network, "noise", channels or 3, side=side, device=device)
        frames = network_trait(network, "takes_frames")
        if frames is not None:
            return cls(network, "clips", frames=frames or FRAMES, device=device)
        channels = input_channels(network, opt["network_g"])
        return cls(network, "images", channels, network_trait(network, "scale"), device=device)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width rounded up to what the network takes."""
        if self.side:
            return self.side, self.side
        multiple = size_multiple(self.network)
        return next_multiple(height, multiple), next_multiple(width, multiple)

    def inputs(self, height: int, width: int, training: bool = False) -> tuple[Any, ...]:
        """Arguments of ``forward`` for an input of `size`; the first is what the network sees."""
        h, w = self.size(height, width)

        def drawn(*shape: int) -> Tensor:
            return torch.rand(1, *shape, device=self.device)

        if self.kind == "frames":
            return drawn(6, h, w), 0.5
        if self.kind == "clips":
            return (drawn(self.frames, self.channels, h, w),)
        if self.kind == "noise":
            classes = network_trait(self.network, "label_dim")
            labels = (torch.zeros(1, dtype=torch.int64, device=self.device),) if classes else ()
            return drawn(self.channels, h, w), torch.zeros(1, device=self.device), *labels
        image = drawn(self.channels, h, w)
        if isinstance(self.network, DiffIRS1):
            return image, drawn(self.network.G.out_channels, self.scale * h, self.scale * w)
        return (image, drawn(PRIOR)) if training and isinstance(self.network, DiffIRS2) else (image,)

    def said(self) -> str:
        """What it is given, where that is no image: for the head of a table."""
        return {
            "images": "",
            "frames": "on two frames",
            "noise": f"on noise of {self.side} x {self.side}",
            "clips": f"on clips of {self.frames} frames",
        }[self.kind]


def input_channels(network: nn.Module, block: Mapping[str, Any]) -> int:
    """Channels of an image that a network takes: as its options say under one of the usual names, or it says of three."""
    known = ARCHS.parameters(block["type"])
    for key in CHANNELS:
        value = block.get(key, known[key].default if key in known else None)
        if isinstance(value, int):
            return value
    side = 2 * size_multiple(network)
    try:
        with torch.no_grad():
            network.eval()(torch.rand(1, 3, side, side, device=next(network.parameters()).device))
    except Exception as e:  # as it is called otherwise, or takes other channels
        return channels_taken(e) or 3
    return 3


def validation_size(opt: Options) -> tuple[tuple[int, int] | None, str]:
    """Height and width of the first validation picture's input, or frame's; or None and why."""
    sets = opt.sets("val", "test")
    if not sets:
        return None, "there is no validation set"
    phase, block = next(iter(sets.items()))
    try:
        item = build_dataset(block, phase=phase.split("_")[0], scale=opt.scale)[0]
        height, width = next(item[key] for key in ("lq", "img0", "gt") if key in item).shape[-2:]
        return (int(height), int(width)), ""
    except StopIteration:
        return None, "the validation set has no pictures"
    except UserError as e:
        return None, str(e)
    except Exception as e:  # a data set may be anybody's code
        return None, in_one_line(e)
