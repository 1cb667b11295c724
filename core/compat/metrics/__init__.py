"""``basicsr.metrics``."""

from ...metrics import calculate_metric
from .metric_util import reorder_image, to_y_channel
from .niqe import calculate_niqe
from .psnr_ssim import calculate_psnr, calculate_psnr_pt, calculate_ssim, calculate_ssim_pt

__all__ = [
    "calculate_metric",
    "calculate_niqe",
    "calculate_psnr",
    "calculate_psnr_pt",
    "calculate_ssim",
    "calculate_ssim_pt",
    "reorder_image",
    "to_y_channel",
]
