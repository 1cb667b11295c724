"""``basicsr.archs.edsr_arch``."""

from ....archs.edsr import EDSR

__all__ = ["EDSR"]
