"""``basicsr.metrics.niqe``."""

from ...metrics.niqe import calculate_niqe

__all__ = ["calculate_niqe"]
