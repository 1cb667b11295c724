"""JPEG as a function of tensors (Wallace 1992; ITU-T T.81), with gradients if asked for.

BasicSR's implementation, with which the public weights were trained, has the luminance table transposed: steps for horizontal
and vertical frequencies are exchanged. That is the default here; ``jpeg_table: standard`` is the table of the standard, with
steps rounded and limited as libjpeg does.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
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
CHROMINANCE = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
"""Its corner of low frequencies; all others are 99."""
TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
LEAST_FACTOR = 1 / 255
"""Least factor of the steps. Quality 100 has 0, by which nothing can be divided; this one changes no 8-bit picture."""


def quality_factor(quality: Tensor) -> Tensor:
    """Factor of the tables, of the shape of `quality`, libjpeg's in [1, 100]."""
    return torch.where(quality < 50, 50 / quality, 2 - quality / 50)


def soft_round(x: Tensor) -> Tensor:
    """Rounding that has a gradient (Shin and Song 2017), elementwise: round(x) + (x - round(x))^3, of any shape."""
    nearest = torch.round(x)
    return nearest + (x - nearest) ** 3


class DiffJPEG(nn.Module):
    """Compress and decompress images by JPEG with 4:2:0 chroma.

    Images are continued in black to multiples of 16, as the original does it.

    Args:
        differentiable: round coefficients by `soft_round`; else nothing below the rounding has a gradient.
        jpeg_table: ``basicsr`` or ``standard``, see the module.
    """

    luminance: Tensor
    chrominance: Tensor
    transform: Tensor
    to_ycbcr: Tensor
    to_rgb: Tensor

    def __init__(self, differentiable: bool = True, jpeg_table: JpegTable = "basicsr") -> None:
        super().__init__()
        self.differentiable = differentiable
        self.standard = jpeg_table == "standard"
        table = torch.tensor(LUMINANCE, dtype=torch.float32)
        chrominance = torch.full((8, 8), 99.0)
        chrominance[:4, :4] = torch.tensor(CHROMINANCE)
        place, frequency = np.meshgrid(np.arange(8), np.arange(8))
        transform = 0.5 * np.cos((2 * place + 1) * frequency * math.pi / 16)
        transform[0] /= math.sqrt(2)
        constants = {
            "luminance": table if self.standard else table.T.contiguous(),
            "chrominance": chrominance,
            "transform": torch.from_numpy(transform).float(),
            "to_ycbcr": torch.tensor(TO_YCBCR),
            "to_rgb": torch.tensor(TO_RGB),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor, quality: float | Tensor) -> Tensor:
        """JPEG of (B, 3, H, W) RGB in [0, 1], the same size.

        Args:
            x: images.
            quality: quality in [1, 100], fractions too; a number, or (B,).

        Raises:
            UserError: a quality beyond these.
        """
        factor = quality_factor(self._checked(quality, x)).clamp(min=LEAST_FACTOR)[:, None, None, None, None]
        height, width = x.shape[-2:]
        with torch.autocast(x.device.type, enabled=False):
            padded = F.pad(x.float() * 255, (0, -width % 16, 0, -height % 16))
            planes = torch.einsum("ij,bjhw->bihw", self.to_ycbcr, padded)
            luma = self._coded(planes[:, :1] - 128, self.luminance, factor) + 128
            chroma = self._coded(F.avg_pool2d(planes[:, 1:], 2), self.chrominance, factor)
            chroma = chroma.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
            rgb = torch.einsum("ij,bjhw->bihw", self.to_rgb, torch.cat([luma, chroma], dim=1))
            return (rgb.clamp(0, 255) / 255)[..., :height, :width]

    def _checked(self, quality: float | Tensor, x: Tensor) -> Tensor:
        """The quality of each image, (B,), in the images' place."""
        values = torch.as_tensor(quality, dtype=torch.float32).reshape(-1)
        if values.device.type == "cpu":  # looking at another device's numbers would wait for it
            wrong = values[~((values >= 1) & (values <= 100))]
            if len(wrong):
                raise UserError(f"JPEG quality {float(wrong[0]):g}: from 1 to 100 is possible")
        if len(values) not in (1, len(x)):
            raise UserError(f"JPEG: {len(values)} qualities for {len(x)} images; give one, or one for each")
        return values.to(x.device).expand(len(x))

    def _coded(self, planes: Tensor, table: Tensor, factor: Tensor) -> Tensor:
        """Planes (B, C, H, W), centred on 0, with their coefficients rounded to multiples of the table's steps."""
        batch, channels, height, width = planes.shape
        blocks = planes.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
        blocks = blocks.reshape(batch, channels, -1, 8, 8)
        steps = table * factor
        if self.standard:
            steps = (torch.floor(steps + 0.5)).clamp(1, 255)
        rounded = soft_round if self.differentiable else torch.round
        coefficients = rounded(self.transform @ blocks @ self.transform.T / steps) * steps
        blocks = self.transform.T @ coefficients @ self.transform
        blocks = blocks.reshape(batch, channels, height // 8, width // 8, 8, 8).transpose(3, 4)
        return blocks.reshape(batch, channels, height, width)
