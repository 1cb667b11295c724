"""``basicsr.archs.edvr_arch``."""

from ....archs.video.edvr import EDVR, PCDAlignment, PredeblurModule, TSAFusion

__all__ = ["EDVR", "PCDAlignment", "PredeblurModule", "TSAFusion"]
