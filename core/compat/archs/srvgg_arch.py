"""``basicsr.archs.srvgg_arch``."""

from ....archs.srvgg import SRVGGNetCompact

__all__ = ["SRVGGNetCompact"]
