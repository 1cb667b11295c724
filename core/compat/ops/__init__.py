"""``basicsr.ops``."""
