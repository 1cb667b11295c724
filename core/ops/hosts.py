"""Where numbers of a tensor can be asked for at no cost, which decides how some operators go about their work."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def asks_freely(x: Tensor) -> bool:
    """Whether Python can read numbers like those of `x`, of any shape, without waiting: on a CPU, and outside graphs.

    Tensors without data, which count operations and memory of a step, go the way of other devices.
    """
    return x.device.type == "cpu" and type(x) in (Tensor, nn.Parameter) and not torch.compiler.is_compiling()
