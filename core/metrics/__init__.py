"""Metrics: functions of ``(img, img2)``, or of ``img`` alone, selected by ``type`` in ``val.metrics``."""

from __future__ import annotations

from ..registry import Registry

METRICS = Registry("metric", "relume.core.metrics", runtime=("img", "img2"))
