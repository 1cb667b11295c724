"""Fourier transforms of planes by real matrix products, for files whose readers know neither complex numbers nor an FFT.

A spectrum is a pair of real tensors. Sizes may be symbols: inside `real_arithmetic`, networks use these in place of
`torch.fft`, so that what is exported to ONNX consists of products, sines and cosines of any height and width. An axis of N
samples costs N^2 products, and the tables of N x N numbers are part of what is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["backward", "ortho", "forward"]
EXPONENT: dict[str, tuple[float, float]] = {"backward": (0.0, -1.0), "ortho": (-0.5, -0.5), "forward": (-1.0, 0.0)}
"""What a forward and an inverse transform multiply by: the number of pixels to these powers."""

_wanted = False


def wanted() -> bool:
    """Whether Fourier transforms are to be made of real products."""
    return _wanted


@contextmanager
def real_arithmetic() -> Iterator[None]:
    """Inside: `wanted`."""
    global _wanted
    before, _wanted = _wanted, True
    try:
        yield
    finally:
        _wanted = before


def number(value: int, like: Tensor) -> Tensor:
    """`value` as a scalar in the dtype of `like`, since ONNX's exporter takes no remainders and powers of symbols."""
    return torch.full((), value, dtype=like.dtype, device=like.device)


def tables(size: int, count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of ``2 pi n k / size`` for n < size, k < count: shape (size, count) each, in the dtype of `like`."""
    n, k = (torch.arange(stop, device=like.device) for stop in (size, count))
    turns = (n[:, None] * k % number(size, n)).to(like.dtype) / number(
        size, like
    )  # below 1, which keeps float32's precision
    angle = 2 * math.pi * turns
    return angle.cos(), angle.sin()


def forward_rows(re: Tensor, im: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """The transform along the height of complex planes (..., H, K), without a factor; with ``exp(+i ...)`` if `inverse`."""
    cos, sin = tables(re.shape[-2], re.shape[-2], re)
    if inverse:
        sin = -sin
    return cos @ re + sin @ im, cos @ im - sin @ re


def rfft2(x: Tensor, norm: Norm = "backward") -> tuple[Tensor, Tensor]:
    """The half spectra (..., H, W // 2 + 1) of real planes (..., H, W)."""
    height, width = x.shape[-2:]
    cos, sin = tables(width, width // 2 + 1, x)
    re, im = forward_rows(x @ cos, -(x @ sin))
    factor = number(height * width, x) ** EXPONENT[norm][0]
    return re * factor, im * factor


def irfft2(re: Tensor, im: Tensor, width: int, norm: Norm = "backward") -> Tensor:
    """The real planes (..., H, width) of half spectra (..., H, width // 2 + 1)."""
    height, count = re.shape[-2:]
    re, im = forward_rows(re, im, inverse=True)
    cos, sin = tables(width, count, re)
    times = occurrences(count, width, re)
    planes = (re * times) @ cos.transpose(0, 1) - (im * times) @ sin.transpose(0, 1)
    result: Tensor = planes * number(height * width, re) ** EXPONENT[norm][1]
    return result


def ifft2(re: Tensor, im: Tensor) -> tuple[Tensor, Tensor]:
    """The complex planes of full spectra (..., H, W), norm "backward"."""
    height, width = re.shape[-2:]
    re, im = forward_rows(re, im, inverse=True)
    cos, sin = tables(width, width, re)
    pixels = number(height * width, re)
    return (re @ cos - im @ sin) / pixels, (re @ sin + im @ cos) / pixels


def occurrences(count: int, width: int, like: Tensor) -> Tensor:
    """How often a full spectrum holds each column of a half spectrum: (count,), 1 for those that mirror themselves, else 2."""
    return torch.where(mirrors_itself(count, width, like), 1.0, 2.0).to(like.dtype)


def self_conjugate(height: int, count: int, width: int, like: Tensor) -> Tensor:
    """Which bins of a half spectrum, of shape (height, count), are real in theory: both frequencies are their own negatives."""
    return mirrors_itself(height, height, like)[:, None] & mirrors_itself(count, width, like)


def mirrors_itself(count: int, size: int, like: Tensor) -> Tensor:
    """Which of the first `count` frequencies of `size` are their own negatives: (count,)."""
    twice = 2 * torch.arange(count, device=like.device)
    return twice % number(size, twice) == 0
