"""``basicsr.utils.img_process_util``."""

from ...degradations.filters import USMSharp, filter2D, usm_sharp

__all__ = ["USMSharp", "filter2D", "usm_sharp"]
