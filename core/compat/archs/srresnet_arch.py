"""``basicsr.archs.srresnet_arch``."""

from ....archs.msrresnet import MSRResNet

__all__ = ["MSRResNet"]
