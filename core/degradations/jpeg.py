"""JPEG as a function of tensors (Wallace 1992; ITU-T T.81), with gradients if asked for.

BasicSR's implementation, with which the public weights were trained, has the luminance table transposed: steps for horizontal
and vertical frequencies are exchanged. That is the default here; ``jpeg_table: standard`` is the table of the standard, with
steps rounded and limited as libjpeg does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..ops.constants import uploaded
from ..ops.jpeg import Coding, recompressed, recompressed_all
from .limits import JpegTable

LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Steps of T.81's annex K, vertical frequency by row."""
CHROMINANCE = (
    *((*row, 99, 99, 99, 99) for row in ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))),
    *((99,) * 8,) * 4,
)
LEAST_FACTOR = 1 / 255
"""Least factor of the steps. Quality 100 has 0, by which nothing can be divided; this one changes no 8-bit picture."""


def quality_factor(quality: Tensor) -> Tensor:
    """Factor of the tables, of the shape of `quality`, libjpeg's in [1, 100]."""
    return torch.where(quality < 50, 50 / quality, 2 - quality / 50)


class DiffJPEG(nn.Module):
    """Compress and decompress images by JPEG with 4:2:0 chroma.

    Images are continued in black to multiples of 16, as the original does it.

    Args:
        differentiable: round coefficients by `core.ops.jpeg.soft_round`; else nothing below the rounding has a gradient.
        jpeg_table: ``basicsr`` or ``standard``, see the module.
    """

    def __init__(self, differentiable: bool = True, jpeg_table: JpegTable = "basicsr") -> None:
        super().__init__()
        self.standard = jpeg_table == "standard"
        luminance = LUMINANCE if self.standard else tuple(zip(*LUMINANCE, strict=True))
        self.coding = Coding(luminance, CHROMINANCE, whole=self.standard, soft=differentiable)

    def forward(self, x: Tensor, quality: float | Tensor) -> Tensor:
        """JPEG of (B, 3, H, W) RGB in [0, 1], the same size.

        Args:
            x: images.
            quality: quality in [1, 100], fractions too; a number, or (B,).

        Raises:
            UserError: a quality beyond these.
        """
        with torch.autocast(x.device.type, enabled=False):
            return recompressed(x.float(), self.factors(torch.as_tensor(quality), len(x), x.device), self.coding)

    def all_of(self, images: Sequence[Tensor], qualities: Sequence[float]) -> list[Tensor]:
        """JPEG of images (3, h, w) of any sizes on one device, each with its own quality.

        Raises:
            UserError: a quality beyond [1, 100].
        """
        if not images:
            return []
        factors = self.factors(qualities, len(images), images[0].device)
        with torch.autocast(images[0].device.type, enabled=False):
            return recompressed_all([image.float() for image in images], factors, self.coding)

    def factors(self, quality: Sequence[float] | Tensor, count: int, device: torch.device) -> Tensor:
        """The factor of the steps of so many images, (B,), on a device.

        Raises:
            UserError: a quality beyond [1, 100], or another number of them.
        """
        if isinstance(quality, Tensor) and quality.device.type == "cpu":
            quality = quality.reshape(-1).tolist()  # looking at another device's numbers would wait for it
        if not isinstance(quality, Tensor):
            wrong = [q for q in quality if not 1 <= q <= 100]
            if wrong:
                raise UserError(f"JPEG quality {wrong[0]:g}: from 1 to 100 is possible")
        values = torch.as_tensor(quality, dtype=torch.float32).reshape(-1)
        if len(values) not in (1, count):
            raise UserError(f"JPEG: {len(values)} qualities for {count} images; give one, or one for each")
        factors = quality_factor(values).clamp(min=LEAST_FACTOR).expand(count)
        return uploaded(factors, device) if factors.device.type == "cpu" else factors.to(device)
