"""``basicsr.archs.rrdbnet_arch``."""

from ....archs.rrdbnet import RRDB, ResidualDenseBlock, RRDBNet

__all__ = ["RRDB", "RRDBNet", "ResidualDenseBlock"]
