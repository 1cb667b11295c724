"""Networks with all kernels, compiled as one graph, against themselves: prints the largest errors of outputs and gradients."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"
os.environ["RELUME_KERNELS"] = "on"

from typing import Any

import torch
from torch import Tensor, nn

from relume.archs import build_network

NETWORKS: list[dict[str, Any]] = [
    {"type": "NAFNet", "width": 4, "enc_blk_nums": [1], "dec_blk_nums": [1]},
    {"type": "Restormer", "dim": 8, "num_blocks": [1] * 4, "num_refinement_blocks": 1, "heads": [1] * 4},
    {
        "type": "MambaIR",
        "embed_dim": 30,
        "depths": [1],
        "d_state": 2,
        "mlp_ratio": 0.5,
        "drop_path_rate": 0.0,
        "upscale": 1,
    },
]


def step(network: nn.Module, call: Any, x: Tensor) -> list[Tensor]:
    network.zero_grad()
    y = call(x)
    y.square().sum().backward()
    return [y.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]


def main() -> None:
    for options in NETWORKS:
        torch.manual_seed(0)
        network, x = build_network(options), torch.rand(1, 3, 16, 16)
        expected = step(network, network, x)
        found = step(network, torch.compile(network, backend="aot_eager", fullgraph=True), x)
        errors = [((a - b).norm() / (b.norm() + 1e-12)).item() for a, b in zip(found, expected, strict=True)]
        print(options["type"], max(errors))


if __name__ == "__main__":
    main()
