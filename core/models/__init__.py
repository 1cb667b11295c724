"""Model wrappers (BasicSR's ``model_type``): what one training step *means* for a task."""

from __future__ import annotations

from ..registry import Registry

MODELS = Registry("model", "relume.core.models", runtime=("networks", "losses"))
