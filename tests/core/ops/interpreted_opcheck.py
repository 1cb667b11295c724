"""PyTorch's own checks of our operators, in the interpreter: schemas, shapes without data, gradients, tracing; it says OK."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor

from relume.core.ops import (
    causal_conv1d_triton,
    layer_norm_triton,
    rms_norm_triton,
    ssd_triton,
    window_attention_triton,
)


def drawn(*shape: int) -> Tensor:
    return torch.rand(shape).requires_grad_()


CASES = {
    layer_norm_triton.fused: (drawn(2, 3, 3, 6), drawn(6), drawn(6), 1e-5, True, torch.float32),
    rms_norm_triton.fused: (drawn(2, 3, 8), drawn(8), drawn(2, 3, 8), 1e-5, 4, True),
    causal_conv1d_triton.fused: (drawn(1, 7, 5), drawn(5, 3), drawn(5), None, True),
    window_attention_triton.fused: (drawn(1, 4, 4, 24), drawn(1, 4, 4, 2), 4, 2, 0.5, -100.0),
    ssd_triton.fused: (
        *(drawn(1, 5, 2, 4), drawn(1, 5, 2), drawn(2), drawn(1, 5, 1, 3), drawn(1, 5, 1, 3)),
        *(drawn(2), None),
    ),
}


def main() -> None:
    for function, arguments in CASES.items():
        torch.library.opcheck(function, arguments)
    print("OK")


if __name__ == "__main__":
    main()
