"""``basicsr.metrics.psnr_ssim``."""

from ...metrics.psnr import calculate_psnr, calculate_psnr_pt
from ...metrics.ssim import calculate_ssim, calculate_ssim_pt

__all__ = ["calculate_psnr", "calculate_psnr_pt", "calculate_ssim", "calculate_ssim_pt"]
