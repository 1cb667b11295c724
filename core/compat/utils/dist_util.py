"""``basicsr.utils.dist_util``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ...runtime import distributed


def get_dist_info() -> tuple[int, int]:
    """This process's rank and how many there are."""
    return distributed.rank(), distributed.world_size()


def master_only(func: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: call the function on rank 0 only."""

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs) if distributed.rank() == 0 else None

    return wrapper
