"""NAFNet against its authors' form (tests/archs/reference_nafnet.py), SwinIR against spandrel's class as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .common import Row, paired, products_of, section, share_row, time_row

PUBLISHED: dict[str, dict[str, Any]] = {
    "GoPro": {"middle_blk_num": 1, "enc_blk_nums": [1, 1, 1, 28], "dec_blk_nums": [1, 1, 1, 1]},
    "SIDD": {"middle_blk_num": 12, "enc_blk_nums": [2, 2, 4, 8], "dec_blk_nums": [2, 2, 2, 2]},
}
"""Width 32 both."""


def both(network: nn.Module, batch: int = 2, side: int = 128) -> Callable[[], None]:
    """Forward and backward."""
    x = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0))

    def job() -> None:
        network.zero_grad(set_to_none=True)
        network(x).mean().backward()

    return job


def forward(network: nn.Module, side: int) -> Callable[[], None]:
    """Forward of one image."""
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))

    def job() -> None:
        with torch.no_grad():
            network(x)

    return job


@section("nafnet")
def nafnet_rows() -> list[Row]:
    """Time of the published networks of width 32."""
    import reference_nafnet

    from relume.archs import build_network

    rows: list[Row] = []
    for name, options in PUBLISHED.items():
        ours, plain = build_network({"type": "NAFNet", "width": 32, **options}), reference_nafnet.NAFNet(32, **options)
        plain.load_state_dict(ours.state_dict())
        jobs = both(ours), both(plain), products_of(both(ours))
        mine, theirs, least = paired(5, *jobs)
        what = f"nafnet {name} forward+backward 2x3x128x128"
        rows += [time_row(what, mine, theirs, "plain"), share_row(f"{what}, of it", mine, least)]
    return rows


SWINIR: dict[str, dict[str, Any]] = {
    "classical": {"embed_dim": 180, "img_size": 48, "upsampler": "pixelshuffle"},
    "light": {"embed_dim": 60, "img_size": 64, "upsampler": "pixelshuffledirect"},
}
"""The published widths, with one group of two blocks instead of six or four of six."""


@section("swinir")
def swinir_rows() -> list[Row]:
    """Time in training at the option's size, and of a larger picture."""
    from relume.archs import build_network

    rows = []
    for name, sized in SWINIR.items():
        options = {**sized, "upscale": 2, "window_size": 8, "mlp_ratio": 2, "depths": [2], "num_heads": [6]}
        ours = build_network({"type": "SwinIR", "drop_path_rate": 0.0, **options})
        theirs = type(ours)(drop_path_rate=0.0, **options)
        side = sized["img_size"]
        training = paired(9, both(ours, 2, side), both(theirs, 2, side))
        rows.append(time_row(f"swinir {name} forward+backward 2x3x{side}x{side}", *training, "spandrel"))
        picture = paired(9, forward(ours, side + 40), forward(theirs, side + 40))
        rows.append(time_row(f"swinir {name} forward 1x3x{side + 40}x{side + 40}", *picture, "spandrel"))
    return rows


@section("restormer")
def restormer_rows() -> list[Row]:
    """The published network of width 48 against its formulas (tests/archs/reference_diffir.py)."""
    import reference_diffir

    from relume.archs import build_network

    ours, plain = build_network({"type": "Restormer"}), reference_diffir.Restormer()
    plain.load_state_dict(ours.state_dict())
    jobs = both(ours, 1, 96), both(plain, 1, 96), products_of(both(ours, 1, 96))
    mine, theirs, least = paired(5, *jobs)
    what = "restormer forward+backward 1x3x96x96"
    return [time_row(what, mine, theirs, "plain"), share_row(f"{what}, of it", mine, least)]
