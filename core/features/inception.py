"""The Inception network that published FID, KID and IS are measured with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError, require
from ..hub import published
from . import FEATURES
from .base import FeatureExtractor, verified_state

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
SIDE = 299
Pool = Callable[[Tensor], Tensor]


def average_pool(x: Tensor) -> Tensor:
    """3x3 means of what lies inside the image (B, C, H, W), as TensorFlow's ``SAME`` pooling takes them."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def max_pool(x: Tensor) -> Tensor:
    """3x3 maxima of (B, C, H, W), which the network's last block has instead."""
    return F.max_pool2d(x, 3, stride=1, padding=1)


@FEATURES.register(name="inception_fid")
class InceptionFID(FeatureExtractor):
    """The 2048 pooled features of TensorFlow's ``inception-2015-12-05`` graph, in which FID is defined.

    It differs from the Inception v3 of torchvision, whose blocks it uses, in weights, pooling, resizing (as TensorFlow 1 did
    it) and the scale of its input. Images are rounded to 8 bits, so there is no gradient. Its classifier is `classify`.

    Heusel et al., "GANs trained by a two time-scale update rule" (NeurIPS 2017); the port of the weights is torch-fidelity's.

    Args:
        weights: path of ``weights-inception-2015-12-05-6726825d.pth``, or ``random`` (for tests).
        sha256: what that file's SHA-256 must be, or begin with.

    Raises:
        UserError: the weights are missing, others, or do not fit.
    """

    dim = 2048

    def __init__(self, weights: str, sha256: str | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = inception()
        if published(weights):
            state = verified_state("inception_fid", weights, sha256, f"Fetch {URL} and put it there")
            try:
                self.network.load_state_dict(state)
            except RuntimeError as e:
                raise UserError(
                    f"inception_fid: {weights} does not fit ({str(e).splitlines()[1].strip()}); fetch {URL}"
                ) from e
        self.seal("inception_fid")

    def features(self, images: Tensor) -> Tensor:
        levels = ((images.expand(-1, 3, -1, -1) + 1) * 127.5).round().clamp(0, 255)
        result: Tensor = self.network((resize_like_tensorflow1(levels, SIDE) - 128) / 128)
        return result

    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, 1008) of features (B, 2048), without the biases, which the Inception score leaves out."""
        head: Any = self.network.fc
        logits: Tensor = features @ head.weight.t()
        return logits


class Kept(nn.Module):
    """In place of a classifier: keeps its parameters, under its names, and hands features through.

    Args:
        layer: the classifier.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, features) -> the same."""
        return x


def inception() -> nn.Module:
    """torchvision's Inception v3 with 1008 classes and TensorFlow's pooling; gives the pooled features."""
    blocks = require("torchvision.models.inception", "inception_fid")

    # FID's network differs from torchvision's in its pools: averages without the border, and a maximum in the last block.
    def pooled(block: Any, pool: Pool) -> Any:
        class Pooled(block):  # type: ignore[misc]  # torchvision is imported only here
            def _forward(self, x: Tensor) -> list[Tensor]:
                return [*super()._forward(x)[:-1], self.branch_pool(pool(x))]

        return Pooled

    last_pools = iter((average_pool, max_pool))

    def last(channels: int) -> nn.Module:
        result: nn.Module = pooled(blocks.InceptionE, next(last_pools))(channels)
        return result

    # Its blocks in their order, without the auxiliary classifier.
    kinds = [
        blocks.BasicConv2d,
        pooled(blocks.InceptionA, average_pool),
        blocks.InceptionB,
        pooled(blocks.InceptionC, average_pool),
        blocks.InceptionD,
        last,
        None,
    ]
    network: nn.Module = blocks.Inception3(
        num_classes=1008, aux_logits=False, inception_blocks=kinds, init_weights=False, dropout=0.0
    )
    network.fc = Kept(network.fc)  # type: ignore[arg-type]
    return network.eval()


def resize_like_tensorflow1(images: Tensor, side: int) -> Tensor:
    """Bilinear resizing of (B, C, H, W) to a square, where output pixel i lies at input coordinate i H / side."""
    for dim in (-2, -1):
        size = images.shape[dim]
        place = torch.arange(side, device=images.device, dtype=images.dtype) * (size / side)
        low = place.long()
        share = (place - low).unflatten(0, (-1, 1)) if dim == -2 else place - low
        below, above = (images.index_select(dim, i) for i in (low, (low + 1).clamp_max(size - 1)))
        images = below + (above - below) * share
    return images
