"""What recipes are made of, twice: by OpenCV and real codecs on a processor, or by tensors on any device.

Images are (3, H, W) float32 RGB tensors, mostly in [0, 1]: kernels and bicubic resizing may leave it, and noise clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..ops.constants import constant
from ..ops.filter_images import filtered_all
from .codecs import Codec, recompress, recompress_clip
from .draws import Draws
from .jpeg import DiffJPEG
from .limits import JpegTable, Mode

EngineName = Literal["opencv", "tensor"]
Fields = Literal["cpu", "device"]
"""Where the tensor engine draws noise. ``cpu``: the same numbers whatever the device. ``device``: faster, and the same for one
kind of device only."""
LUMA = (0.2989, 0.587, 0.114)


class Engine:
    """The tensor engine; the other overrides what OpenCV does faster or otherwise.

    Args:
        jpeg_table: quantisation table of `jpeg.DiffJPEG`.
        fields: device on which noise is drawn.
    """

    def __init__(self, jpeg_table: JpegTable = "basicsr", fields: Fields = "cpu") -> None:
        self.jpeg = DiffJPEG(differentiable=False, jpeg_table=jpeg_table)
        self.fields = fields

    # ---------------------------------------------------------------- blur and size
    def blur(self, image: Tensor, kernel: Tensor) -> Tensor:
        """The image (3, H, W) correlated with a kernel (k, k), k odd; borders are reflected."""
        return self.blur_all([image], [kernel])[0]

    def blur_all(self, images: Sequence[Tensor], kernels: Sequence[Tensor]) -> list[Tensor]:
        """`blur` of each image (3, H, W) with its own kernel (k, k)."""
        return filtered_all(images, kernels)

    def rescale(self, image: Tensor, factor: float, mode: Mode) -> Tensor:
        """The image (3, H, W) resized by `factor` to floor(H factor) x floor(W factor), without antialiasing.

        Positions are mapped by the factor itself and not by the ratio of the sizes, which gives other pixels than `resize`.
        """
        if factor == 1:
            return image
        if min(image.shape[-2:]) * factor < 1:
            height, width = (max(1, math.floor(side * factor)) for side in image.shape[-2:])
            return self.resize(image, (height, width), mode)
        return F.interpolate(image[None], scale_factor=factor, mode=mode)[0]

    def resize(self, image: Tensor, size: tuple[int, int], mode: Mode, antialias: bool = False) -> Tensor:
        """The image resized to (3, height, width); `antialias` blurs as far as that shrinks, which ``area`` does anyhow."""
        if tuple(image.shape[-2:]) == size:
            return image
        smooth = antialias and mode != "area"
        return F.interpolate(image[None], size, mode=mode, antialias=smooth)[0]

    # ---------------------------------------------------------------- noise
    def _drawn(self, image: Tensor, make: Callable[[torch.device], Tensor]) -> Tensor:
        return make(torch.device("cpu") if self.fields == "cpu" else image.device).to(image.device)

    def gaussian(self, image: Tensor, sigma: float, gray: bool, draws: Draws) -> Tensor:
        """The image (3, H, W) with normal noise of deviation sigma / 255, the same for all channels if `gray`; clipped."""
        shape = (1 if gray else 3, *image.shape[-2:])
        field = self._drawn(image, lambda at: torch.randn(shape, generator=draws.generator("field", at), device=at))
        return (image + field * (sigma / 255)).clamp(0, 1)

    def coloured(self, image: Tensor, mixing: Tensor, draws: Draws) -> Tensor:
        """The image (3, H, W) with normal noise, `mixing` (3, 3) times independent channels of deviation 1; clipped."""
        field = self._drawn(
            image, lambda at: torch.randn(image.shape, generator=draws.generator("field", at), device=at)
        )
        return (image + torch.einsum("ij,jhw->ihw", mixing.to(image.device), field)).clamp(0, 1)

    def poisson(self, image: Tensor, scale: float, gray: bool, draws: Draws) -> Tensor:
        """The image (3, H, W) with shot noise times `scale`; clipped.

        Photons per unit of light are the power of two at or above the number of distinct values of the 8-bit image, or of its
        luminance if `gray`.
        """
        seen = image.clamp(0, 1)
        if gray:
            seen = torch.einsum("c,chw->hw", constant(LUMA, seen), seen)[None]
        levels = (seen * 255).round().clamp(0, 255)
        values = levels.new_zeros(256).index_fill_(0, levels.flatten().long(), 1).sum()
        photons = torch.exp2(values.log2().ceil())  # all on the device, which nobody has to wait for
        light = levels / 255
        field = self._drawn(
            image, lambda at: torch.poisson((light * photons).to(at), generator=draws.generator("field", at))
        )
        return (image + (field / photons - light) * scale).clamp(0, 1)

    # ---------------------------------------------------------------- compression
    def compress(self, image: Tensor, codec: Codec, quality: float) -> Tensor:
        """The image (3, H, W) clipped, compressed and read back.

        Raises:
            UserError: not JPEG; only OpenCV's engine has others.
        """
        if codec != "jpeg":
            raise UserError(f"codec {codec}: the tensor engine has jpeg alone; engine: opencv has the others")
        return self.jpegs([image], [quality])[0]

    def jpegs(self, images: Sequence[Tensor], qualities: Sequence[float]) -> list[Tensor]:
        """`compress` of each image (3, H, W) by JPEG with its own quality."""
        return self.jpeg.all_of([image.clamp(0, 1) for image in images], qualities)

    def compress_clip(self, frames: Sequence[Tensor], codec: Codec, quality: float) -> list[Tensor]:
        """Frames (3, H, W) of a clip clipped, compressed and read back: a video codec takes them together, others one by one.

        Raises:
            UserError: see `compress`.
        """
        return [self.compress(frame, codec, quality) for frame in frames]


def quantise(image: Tensor) -> Tensor:
    """The image, of any shape, clipped to [0, 1] and rounded to multiples of 1/255."""
    return (image * 255).round().clamp(0, 255) / 255


class OpenCVEngine(Engine):
    """For loading processes: one image at a time, on a processor, with real codecs.

    Where OpenCV computes something else (areas that are no whole numbers of pixels, the mapping of `rescale`, antialiasing),
    the tensor engine's operation is used.
    """

    def blur_all(self, images: Sequence[Tensor], kernels: Sequence[Tensor]) -> list[Tensor]:
        return [self.blur(image, kernel) for image, kernel in zip(images, kernels, strict=True)]

    def blur(self, image: Tensor, kernel: Tensor) -> Tensor:
        size = kernel.shape[-1]
        if size % 2 == 0 or min(image.shape[-2:]) <= size // 2:
            return super().blur_all([image], [kernel])[0]
        from ..imaging.opencv import cv2

        return tensor(cv2.filter2D(pixels(image), -1, kernel.numpy(), borderType=cv2.BORDER_REFLECT_101))

    def resize(self, image: Tensor, size: tuple[int, int], mode: Mode, antialias: bool = False) -> Tensor:
        if antialias or mode == "area" or tuple(image.shape[-2:]) == size:
            return super().resize(image, size, mode, antialias)
        from ..imaging.opencv import cv2

        method = cv2.INTER_LINEAR if mode == "bilinear" else cv2.INTER_CUBIC
        return tensor(cv2.resize(pixels(image), size[::-1], interpolation=method))

    def jpegs(self, images: Sequence[Tensor], qualities: Sequence[float]) -> list[Tensor]:
        return [self.compress(image, "jpeg", quality) for image, quality in zip(images, qualities, strict=True)]

    def compress(self, image: Tensor, codec: Codec, quality: float) -> Tensor:
        return _from_integers(recompress(_integers(image), codec, quality))

    def compress_clip(self, frames: Sequence[Tensor], codec: Codec, quality: float) -> list[Tensor]:
        return [_from_integers(i) for i in recompress_clip([_integers(f) for f in frames], codec, quality)]


class OfFrame:
    """An engine for one frame of a clip: whatever is drawn is that of the clip, but the fields of noise, which are the frame's.

    Args:
        engine: engine that computes.
        number: number of the frame.
    """

    def __init__(self, engine: Engine, number: int) -> None:
        self.engine, self.number = engine, number

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def gaussian(self, image: Tensor, sigma: float, gray: bool, draws: Draws) -> Tensor:
        """`Engine.gaussian`, shapes included, with random numbers of this frame."""
        return self.engine.gaussian(image, sigma, gray, draws.part(f"frame{self.number}"))

    def coloured(self, image: Tensor, mixing: Tensor, draws: Draws) -> Tensor:
        """`Engine.coloured`, shapes included, with random numbers of this frame."""
        return self.engine.coloured(image, mixing, draws.part(f"frame{self.number}"))

    def poisson(self, image: Tensor, scale: float, gray: bool, draws: Draws) -> Tensor:
        """`Engine.poisson`, shapes included, with random numbers of this frame."""
        return self.engine.poisson(image, scale, gray, draws.part(f"frame{self.number}"))


def of_frame(engine: Engine, number: int) -> Engine:
    """`engine` for one frame of a clip, see `OfFrame`."""
    return cast(Engine, OfFrame(engine, number))


def _integers(image: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of (3, H, W), clipped."""
    whole: np.ndarray = np.rint(np.clip(pixels(image), 0, 1) * 255).astype(np.uint8)
    return whole


def _from_integers(image: np.ndarray) -> Tensor:
    """(3, H, W) float32 in [0, 1] of (H, W, 3) uint8."""
    return tensor(image.astype(np.float32) / np.float32(255))


def pixels(image: Tensor) -> np.ndarray:
    """(H, W, 3) of (3, H, W), contiguous; without a copy where the tensor lies so."""
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def tensor(image: np.ndarray) -> Tensor:
    """(3, H, W) of (H, W, 3), without a copy where the array is contiguous."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def make_engine(name: EngineName, jpeg_table: JpegTable = "basicsr", fields: Fields = "cpu") -> Engine:
    """The engine of that name.

    Raises:
        UserError: a table for the one that has its own.
    """
    if name == "opencv" and jpeg_table != "basicsr":
        raise UserError(f"jpeg_table: {jpeg_table} has no effect with engine: opencv, which writes files")
    return OpenCVEngine() if name == "opencv" else Engine(jpeg_table, fields)
