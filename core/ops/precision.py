"""Which floating-point type a computation needs at least, and sections in which nothing is rounded to a shorter one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """`x`, of any shape, or a float32 copy of it where it is a half."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def widest(device: torch.device) -> torch.dtype:
    """The longest floating-point type that a device has: float64, and float32 on Apple's."""
    return torch.float32 if device.type == "mps" else torch.float64


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Turn autocast off on the device of `x`, of any shape, and TF32 too, whatever ``train.matmul_precision`` says.

    What is computed forward inside is computed so; the backward pass follows the options. Code that torch.compile compiles
    takes TF32 as the options say it, since the precision of its calls is the whole process's.
    """
    whole = torch.autocast(x.device.type, enabled=False)
    if torch.compiler.is_compiling() or not shortened():
        return whole
    return _without_tf32(whole)


def shortened() -> bool:
    """Whether float32 numbers may be rounded before they are multiplied."""
    return torch.backends.cudnn.allow_tf32 or torch.get_float32_matmul_precision() != "highest"


@contextlib.contextmanager
def _without_tf32(whole: contextlib.AbstractContextManager[object]) -> Iterator[None]:
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    try:
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
        with whole:
            yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
