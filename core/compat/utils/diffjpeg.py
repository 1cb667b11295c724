"""``basicsr.utils.diffjpeg``."""

from ...degradations.jpeg import DiffJPEG

__all__ = ["DiffJPEG"]
