"""Losses whose sums are kernels of ours, in the interpreter against themselves without: prints errors and launches as JSON."""

from __future__ import annotations

import json
import os
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import Tensor

from relume.core.ops import launching
from relume.losses import build_loss

LOSSES: dict[str, dict[str, Any]] = {
    "ssim": {"type": "SSIMLoss", "loss_weight": 0.5, "win_size": 3},
    "ms_ssim": {"type": "MSSSIMLoss", "scales": 2, "reduction": "sum", "win_size": 5},
    "scales": {"type": "MSSSIMLoss", "scales": 3, "win_size": 3, "loss_weight": 2.0},
    "mean": {"type": "CharbonnierLoss", "eps": 1e-3, "eps_squared": True},
    "sum": {"type": "CharbonnierLoss", "reduction": "sum"},
    "pyramid": {"type": "LaplacianLoss", "levels": 3, "low_pass": True, "loss_weight": 2.0},
    "laplacian": {"type": "GradientLoss", "loss_weight": 0.3},
    "sobel": {"type": "GradientLoss", "operator": "sobel", "reduction": "sum"},
    "variation": {"type": "TVLoss", "loss_weight": 3.0},
    "variations": {"type": "TVLoss", "reduction": "sum"},
    "edge": {"type": "EdgeLoss", "eps": 0.01},
    "edges": {"type": "EdgeLoss", "reduction": "sum"},
}


def stepped(mode: str, options: dict[str, Any], pred: Tensor, target: Tensor) -> list[Tensor]:
    os.environ["RELUME_KERNELS"] = mode
    pred = pred.clone(memory_format=torch.preserve_format).requires_grad_()
    value = build_loss(options)(pred, target)
    return [value.detach(), *torch.autograd.grad(value, pred)]


def main() -> None:
    torch.manual_seed(0)
    target = torch.rand(1, 2, 13, 18)
    pred = (0.8 * target + 0.2 * torch.rand(target.shape)).to(memory_format=torch.channels_last)
    said = {}
    for name, options in LOSSES.items():
        launching.LAUNCHED.clear()
        expected = stepped("off", options, pred.double(), target.double())
        found = stepped("on", options, pred, target)
        errors = [((a - b).norm() / b.norm()).item() for a, b in zip(found, expected, strict=True)]
        said[name] = max(errors), sum(launching.LAUNCHED.values())
    print(json.dumps(said))


if __name__ == "__main__":
    main()
