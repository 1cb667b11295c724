"""``basicsr.archs.spynet_arch``."""

from ....archs.video.spynet import BasicModule, SpyNet

__all__ = ["BasicModule", "SpyNet"]
