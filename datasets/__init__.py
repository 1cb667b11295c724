"""Datasets: selected by ``type`` in a ``datasets.*`` block; the other keys are constructor or loader options."""

from __future__ import annotations

from ..core.registry import Registry

DATASETS = Registry("dataset", "relume.datasets")
