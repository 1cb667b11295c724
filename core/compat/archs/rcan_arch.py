"""``basicsr.archs.rcan_arch``."""

from ....archs.rcan import RCAN, AttentionBlock, AttentionGroup
from ....archs.residual import ChannelAttention

RCAB, ResidualGroup = AttentionBlock, AttentionGroup

__all__ = ["RCAB", "RCAN", "ChannelAttention", "ResidualGroup"]
