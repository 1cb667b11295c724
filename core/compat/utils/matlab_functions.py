"""Matlab's bicubic ``imresize`` and its colour conversions, where BasicSR has them."""

from __future__ import annotations

from ...imaging.matlab_resize import cubic, imresize
from .color_util import bgr2ycbcr, rgb2ycbcr, ycbcr2bgr, ycbcr2rgb

__all__ = ["bgr2ycbcr", "cubic", "imresize", "rgb2ycbcr", "ycbcr2bgr", "ycbcr2rgb"]
