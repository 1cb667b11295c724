"""core/runtime/activations.py: what is computed again gives the same gradients, and less is kept meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from relume.archs import build_network
from relume.core.runtime.activations import blocks, recomputed

CASES: dict[str, tuple[dict[str, Any], tuple[Tensor, ...]]] = {
    "HybridVFI": (
        {
            "type": "HybridVFI",
            "F": 8,
            "window_size": 4,
            "depths": [1, 2, 1],
            "mamba": {"d_state": 8, "headdim": 8},
            "flow_c": [4, 4, 4],
            "drop_path": 0.1,
        },
        (torch.rand(1, 6, 32, 32),),
    ),
    "OneStepGenerator": (
        {"type": "OneStepGenerator", "img_resolution": 8, "model_channels": 8, "num_blocks": 2},
        (torch.randn(2, 3, 8, 8), torch.rand(2)),
    ),
    "Restormer": (
        {"type": "Restormer", "dim": 8, "num_blocks": [2, 2, 2, 2], "num_refinement_blocks": 2, "heads": [1, 1, 2, 2]},
        (torch.rand(1, 3, 32, 32),),
    ),
    "NAFNet": (
        {"type": "NAFNet", "width": 8, "enc_blk_nums": [2, 2], "dec_blk_nums": [1, 1]},
        (torch.rand(1, 3, 32, 32),),
    ),
}


class Normalised(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)


def first(x: Any) -> Tensor:
    while not isinstance(x, Tensor):
        x = x[0] if not isinstance(x, dict) else next(iter(x.values()))
    return x


def passed(block: dict[str, Any], inputs: tuple[Tensor, ...], again: bool) -> tuple[list[Tensor], int]:
    """Output and gradients, and the bytes that the forward pass keeps."""
    torch.manual_seed(0)
    network = build_network(block).train()
    if again:
        assert recomputed(network) > 1
    kept: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        kept[t.data_ptr()] = t.numel() * t.element_size()
        return t

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = first(network(*inputs))
    size = sum(kept.values())
    y.float().square().sum().backward()
    return [y.detach(), *(p.grad for p in network.parameters() if p.grad is not None)], size


@pytest.mark.parametrize("name", CASES)
def test_the_same_from_less(name: str) -> None:
    plain, whole = passed(*CASES[name], again=False)
    again, size = passed(*CASES[name], again=True)
    assert len(plain) == len(again) > 2
    for a, b in zip(plain, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert size < 0.8 * whole


def test_batch_statistics_are_updated_once() -> None:
    block, other = (Normalised(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for _ in range(2))
    network = nn.Sequential(nn.ModuleList([block, other]))
    assert list(blocks(network)) == [block, other]
    assert recomputed(network) == 0
