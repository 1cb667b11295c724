"""``basicsr.utils.logger``: everybody gets Relume's logger."""

from __future__ import annotations

import logging
from typing import Any


def get_root_logger(logger_name: str = "relume", log_level: int = logging.INFO, log_file: str | None = None) -> Any:
    """Relume's logger; where it writes is the run's affair, so the arguments have no effect."""
    return logging.getLogger("relume")


def get_env_info() -> str:
    """The versions that count."""
    import torch
    import torchvision

    return f"torch {torch.__version__}, torchvision {torchvision.__version__}"
