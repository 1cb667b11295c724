"""PyTorch's own checks of our operators, in the interpreter: schemas, shapes without data, gradients, tracing; it says OK."""

from __future__ import annotations

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor

from relume.core.ops import (
    causal_conv1d_triton,
    census_triton,
    charbonnier_triton,
    filter_images_triton,
    flow_warp_triton,
    gdfn_triton,
    gradient_triton,
    jpeg_triton,
    laplacian_triton,
    layer_norm_triton,
    log_sinkhorn_triton,
    mdta_triton,
    ms_ssim_triton,
    phase_triton,
    polar_triton,
    rms_norm_triton,
    selective_scan_triton,
    simple_gate_triton,
    sinkhorn_triton,
    smoothness_triton,
    spectral_mixing_triton,
    ssd_triton,
    ssim_triton,
    window_attention_triton,
)
from relume.core.ops.modes import NAMES


def drawn(*shape: int) -> Tensor:
    return torch.rand(shape).requires_grad_()


def plain(*shape: int) -> Tensor:
    return torch.rand(shape) + 0.1


CASES = {
    "layer_norm": (layer_norm_triton.fused, (drawn(2, 3, 3, 6), drawn(6), drawn(6), 1e-5, True, torch.float32)),
    "rms_norm": (rms_norm_triton.fused, (drawn(2, 3, 8), drawn(8), drawn(2, 3, 8), 1e-5, 4, True)),
    "causal_conv1d": (causal_conv1d_triton.fused, (drawn(1, 7, 5), drawn(5, 3), drawn(5), None, True)),
    "gdfn": (gdfn_triton.gelu_gate, (drawn(1, 3, 4, 5), drawn(1, 3, 4, 5), drawn(10, 1, 3, 3), drawn(10))),
    "mdta": (mdta_triton.attend, (drawn(1, 4, 3, 5), drawn(1, 3, 5, 8), drawn(2), 4)),
    "window_attention": (
        window_attention_triton.fused,
        (drawn(1, 4, 4, 24), drawn(1, 4, 4, 2), 4, 2, 0.5, -100.0),
    ),
    "census": (census_triton.fused, (drawn(1, 4, 5), torch.rand(1, 4, 5), 3, 0.81, 0.1)),
    "ssim": (ssim_triton.fused, (drawn(1, 2, 5, 6), drawn(1, 2, 5, 6), plain(3), 1.0)),
    "charbonnier": (charbonnier_triton.fused, (drawn(2, 1, 5, 6), drawn(2, 1, 5, 6), 1e-6)),
    "laplacian": (laplacian_triton.fused, (drawn(1, 1, 9, 6), 2, True, False, 0.0)),
    "gradient": (gradient_triton.fused, (drawn(2, 2, 4, 5), plain(2, 3, 3), 0, 1)),
    "smoothness": (smoothness_triton.fused, (drawn(2, 2, 4, 5), plain(2, 3, 4, 5))),
    "ms_ssim": (
        ms_ssim_triton.fused,
        (drawn(2, 2, 7, 8), plain(2, 2, 7, 8), plain(3), plain(2), 1.0, True),
    ),
    "flow_warp": (flow_warp_triton.fused, (drawn(2, 2, 4, 5), drawn(2, 4, 5, 2), None, None, False, True, True)),
    "simple_gate": (simple_gate_triton.fused, (drawn(2, 3, 2, 8), True)),
    "spectral_mixing": (
        spectral_mixing_triton.mix,
        (drawn(1, 2, 3, 4, 2), drawn(5, 4), drawn(5), drawn(6, 5), drawn(6)),
    ),
    "phase": (phase_triton.unit, (drawn(1, 2, 3, 3, 2), 4, 1e-30)),
    "polar": (polar_triton.polar, (drawn(1, 2, 3, 3, 2), 4, True, 1e-30)),
    "sinkhorn": (sinkhorn_triton.scale_fused, (plain(3, 4), plain(3), plain(4), plain(3), plain(4), 2)),
    "log_sinkhorn": (
        log_sinkhorn_triton.update_fused,
        (plain(3, 4), plain(3), plain(4), plain(3), plain(4), 2, 0.5, 1.0, True),
    ),
    "selective_scan": (
        selective_scan_triton.fused,
        (*(drawn(1, 4, 5), drawn(1, 4, 5), drawn(4, 3), drawn(1, 2, 3, 5), drawn(1, 2, 3, 5)), drawn(4), None, True),
    ),
    "filter_images": (filter_images_triton.fused, (plain(2, 2, 4, 5), plain(2, 3, 3), None)),
    "jpeg": (
        jpeg_triton.fused,
        (
            plain(2, 3, 4, 5),
            plain(2),
            plain(2, 16, 16),
            plain(2, 16, 16),
            torch.full((2, 2), 4, dtype=torch.int32),
            True,
            True,
        ),
    ),
    "ssd": (
        ssd_triton.fused,
        (
            *(drawn(1, 5, 2, 4), drawn(1, 5, 2), drawn(2), drawn(1, 5, 1, 3), drawn(1, 5, 1, 3)),
            *(drawn(2), None),
        ),
    ),
}


QUICK = "test_schema", "test_faketensor", "test_autograd_registration"


def main(words: list[str]) -> None:
    assert set(CASES) == set(NAMES)
    for op in CASES:
        if "quick" in words:
            torch.library.opcheck(*CASES[op], test_utils=QUICK)
        else:
            torch.library.opcheck(*CASES[op])
    print("OK")


if __name__ == "__main__":
    main(sys.argv[1:])
