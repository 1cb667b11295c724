"""NAFNet against its authors' form (tests/archs/reference_nafnet.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .common import Row, best_of, section, time_row

PUBLISHED: dict[str, dict[str, Any]] = {
    "GoPro": {"middle_blk_num": 1, "enc_blk_nums": [1, 1, 1, 28], "dec_blk_nums": [1, 1, 1, 1]},
    "SIDD": {"middle_blk_num": 12, "enc_blk_nums": [2, 2, 4, 8], "dec_blk_nums": [2, 2, 2, 2]},
}
"""Width 32 both."""


def both(network: nn.Module) -> Callable[[], None]:
    """Forward and backward at 2 x 3 x 128 x 128."""
    x = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))

    def job() -> None:
        network.zero_grad(set_to_none=True)
        network(x).mean().backward()

    return job


@section("nafnet")
def nafnet_rows() -> list[Row]:
    """Time of the published networks of width 32."""
    import reference_nafnet

    from relume.archs import build_network

    rows = []
    for name, options in PUBLISHED.items():
        ours, plain = build_network({"type": "NAFNet", "width": 32, **options}), reference_nafnet.NAFNet(32, **options)
        plain.load_state_dict(ours.state_dict())
        rows.append(
            time_row(f"nafnet {name} forward+backward 2x3x128x128", *best_of(5, both(ours), both(plain)), "plain")
        )
    return rows
