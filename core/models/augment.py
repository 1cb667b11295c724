"""Augmentation of whole batches, on the device: mixtures of samples, and random sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..registry import unknown_key


class Mixup:
    """Convex mixtures of each sample with a random partner of the same batch, inputs and targets alike.

    Args:
        beta: both parameters of the Beta distribution that the mixing weight is drawn from, one draw per batch.
        use_identity: leave half of the batches as they are.
    """

    def __init__(self, beta: float = 1.2, use_identity: bool = False) -> None:
        self.beta = beta
        self.use_identity = use_identity

    @classmethod
    def from_options(cls, options: Mapping[str, bool | float] | None) -> Mixup | None:
        """Restormer's ``mixing_augs`` block; None unless it says ``mixup: true``.

        Raises:
            UserError: the block has an unknown key.
        """
        accepted = ("mixup", "mixup_beta", "use_identity")
        for key in options or ():
            if key not in accepted:
                raise UserError(unknown_key(key, "train.mixing_augs", accepted))
        if not options or not options.get("mixup"):
            return None
        return cls(float(options.get("mixup_beta", 1.2)), bool(options.get("use_identity", False)))

    def __call__(self, images: dict[str, Tensor]) -> dict[str, Tensor]:
        """`images`, (B, C, H, W) by name, mixed alike."""
        if self.use_identity and torch.rand(()) < 0.5:
            return images
        weight = float(torch.distributions.Beta(self.beta, self.beta).sample())
        order = torch.randperm(len(images["lq"])).to(images["lq"].device)
        return {k: weight * x + (1 - weight) * x[order] for k, x in images.items()}


LARGEST = 64
"""Times that an image may be enlarged for training."""


class MultiScale:
    """Training on several image sizes: every batch is resized by a factor drawn from a list.

    Sizes are rounded to what the network takes (its ``size_multiple``), targets keep their exact ratio to the input, and
    shrinking is antialiased.

    Args:
        factors: factors of height and width, equally likely, such as 0.75, 1 and 1.25.

    Raises:
        UserError: no factors, or one that is not positive or above `LARGEST`.
    """

    def __init__(self, factors: Sequence[float]) -> None:
        if not factors or not all(0 < factor <= LARGEST for factor in factors):
            raise UserError(
                f"train.multi_scale: give positive factors of at most {LARGEST}, such as [0.75, 1, 1.25]; got {list(factors)}"
            )
        self.factors = list(factors)

    def __call__(self, images: dict[str, Tensor], multiple: int) -> dict[str, Tensor]:
        """`images`, (B, C, H, W) by name, among them ``lq``, whose sides become multiples of `multiple`."""
        factor = self.factors[int(torch.randint(len(self.factors), ()))]
        height, width = images["lq"].shape[-2:]
        new = [max(1, round(side * factor / multiple)) * multiple for side in (height, width)]
        resized = {}
        for name, image in images.items():
            down, right = image.shape[-2] // height, image.shape[-1] // width
            resized[name] = resize_batch(image, (new[0] * down, new[1] * right), antialias=True)
        return resized


def resize_batch(image: Tensor, size: tuple[int, int], antialias: bool = False) -> Tensor:
    """`image` (B, C, H, W) bilinearly resized to (height, width); with `antialias`, blurred as far as that shrinks it."""
    if image.shape[-2:] == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=antialias)
