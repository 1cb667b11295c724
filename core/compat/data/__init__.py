"""``basicsr.data``."""
