"""What is exported: networks as functions of one tensor, be it pictures, pairs of frames or noise, with all that they need."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...archs.blocks import continued
from ..errors import UserError
from ..imaging.normalisation import denormalise, normalise
from ..inference.network import network_trait
from ..inference.tiling import as_tuple, size_multiple
from ..load import Restorer
from ..models.generation.model import GenerationModel
from ..models.interpolation import InterpolationModel
from .enhancer import Enhancer

FRAMES = "frame 0, then frame 1: the output is the frame halfway"
NOISE = "noise of a standard normal distribution"


class Function(nn.Module):
    """A network with all that belongs to it, from pictures to pictures.

    Args:
        network: network in evaluation mode.
        description: what its weights say of themselves.
        half: compute in float16.
        drawn: random numbers that the network takes by name, of one sample: the same for every picture.
    """

    def __init__(
        self,
        network: nn.Module,
        description: Mapping[str, Any],
        half: bool = False,
        drawn: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network = network.half() if half else network
        self.half_inside = half
        self.mean, self.std = description["mean"], description["std"]
        self.multiple = size_multiple(network)
        self.place = int(network_trait(network, "result_output"))
        self.drawn = nn.ParameterDict({k: nn.Parameter(v, requires_grad=False) for k, v in (drawn or {}).items()})

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', s H, s W)."""
        height, width = x.shape[-2:]
        inner = normalise(x, self.mean, self.std)
        if self.multiple > 1:
            inner = continued(continued(inner, -2, self.multiple), -1, self.multiple)
        drawn = {k: v.expand(x.shape[0], *v.shape[1:]) for k, v in self.drawn.items()}
        outputs = as_tuple(self.network(inner.half() if self.half_inside else inner, **drawn))
        made = outputs[self.place % len(outputs)].float()
        if self.multiple > 1:
            scale = made.shape[-1] // inner.shape[-1]
            made = made[..., : height * scale, : width * scale]
        return denormalise(made, self.mean, self.std)


class Generator(nn.Module):
    """A generator from noise to images in [0, 1].

    Args:
        network: network in evaluation mode.
        steps: evaluations of it.
    """

    def __init__(self, network: nn.Module, steps: int) -> None:
        super().__init__()
        self.network, self.steps = network, steps

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) of noise -> the same of images."""
        network: Any = self.network
        images: Tensor = network.sample(x, None, self.steps).float()
        return ((images + 1) / 2).clamp(0, 1)


@dataclass(frozen=True)
class Subject:
    """What an exported file is to do.

    Attributes:
        network: network of the model.
        description: what its weights say of themselves.
        channels: channels of the input.
        call: what the file must give, for inputs (N, channels, H, W).
        given: what the input is, where that is no picture.
        steps: evaluations of a generator; 0 for what is none.
        size: (height, width) of a generator's images.
        drawn: random numbers that the network takes, see `Function`.
    """

    network: nn.Module
    description: Mapping[str, Any]
    channels: int
    call: Callable[[Tensor], Tensor]
    given: str = ""
    steps: int = 0
    size: tuple[int, int] | None = None
    drawn: Mapping[str, Tensor] = field(default_factory=dict)

    def function(self, half: bool = False) -> nn.Module:
        """As a module of one input and one output; in float16 inside, if `half`."""
        network = copy.deepcopy(self.network).eval()
        if self.steps:
            return Generator(network, self.steps).eval()
        return Function(network, self.description, half, self.drawn).eval()


def subject_of(restorer: Restorer) -> Subject:
    """What a model is as a function of one tensor.

    Raises:
        UserError: it is none.
    """
    model: Any = restorer.model
    network = model.networks["g"]
    if isinstance(model, InterpolationModel):
        plain = {**restorer.description, "mean": None, "std": None}
        return Subject(network, plain, 6, called(Function(network, plain)), FRAMES)
    if isinstance(model, GenerationModel):
        if model.classes:
            raise UserError("the generator takes a class beside the noise, and an exported file has one input")
        channels, *size = model.shape
        generator = called(Generator(network, model.steps))
        return Subject(network, restorer.description, channels, generator, NOISE, model.steps, (size[0], size[1]))
    enhancer = Enhancer(restorer)
    if enhancer.transfer is not None:
        raise UserError("the network makes radiance, which a file with pictures in [0, 1] cannot")
    return Subject(network, restorer.description, enhancer.channels, restorer, drawn=model.drawn())


def called(function: nn.Module) -> Callable[[Tensor], Tensor]:
    """A module as a function of (B, C, H, W), without gradients: what an exported file must compute."""
    function.eval()

    def call(x: Tensor) -> Tensor:
        with torch.no_grad():
            made: Tensor = function(x)
            return made

    return call
