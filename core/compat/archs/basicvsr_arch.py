"""``basicsr.archs.basicvsr_arch``."""

from ....archs.video.basicvsr import BasicVSR, IconVSR
from ....archs.video.layers import ConvResidualBlocks

__all__ = ["BasicVSR", "ConvResidualBlocks", "IconVSR"]
