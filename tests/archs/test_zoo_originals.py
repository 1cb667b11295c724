"""The zoo's architectures against golden tensors of their originals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from zoo_cases import assert_same_as_original, cases

from relume.archs import build_network
from relume.core.errors import UserError

FILES = ("nafnet", "nafssr", "hinet", "mambair", "mambairunet", "mambairv2")


@pytest.mark.parametrize("name", FILES)
def test_value_and_gradient(name: str, golden: Callable[[str], Path]) -> None:
    for case in cases(golden(f"zoo/{name}.pt")):
        try:
            assert_same_as_original(case)
        except AssertionError as e:
            raise AssertionError(f"{case['name']} ({case['mode']}): {e}") from e


GOPRO = {"enc_blk_nums": [1, 1, 1, 28], "dec_blk_nums": [1, 1, 1, 1]}
SIDD = {"enc_blk_nums": [2, 2, 4, 8], "middle_blk_num": 12, "dec_blk_nums": [2, 2, 2, 2]}
DENOISE = {"embed_dim": 180, "depths": [6] * 6, "d_state": 16, "mlp_ratio": 1.2, "upscale": 1}
BASE = {
    **{"embed_dim": 174, "depths": [6] * 6, "num_heads": [6] * 6, "inner_rank": 64, "num_tokens": 128, "d_state": 16},
    **{"upscale": 4, "upsampler": "pixelshuffle"},
}
LIGHT = {
    **{"embed_dim": 48, "depths": [5] * 4, "num_heads": [4] * 4, "d_state": 8, "mlp_ratio": 1.0},
    **{"upscale": 4, "upsampler": "pixelshuffledirect"},
}


@pytest.mark.parametrize(
    ("opt", "count"),
    [
        ({"type": "NAFNetLocal", "width": 64, **GOPRO}, 67_888_835),
        ({"type": "Baseline", "width": 32, **SIDD}, 29_056_227),
        ({"type": "BaselineLocal", "width": 32, **GOPRO}, 17_023_875),
        ({"type": "NAFSSR", "width": 128, "num_blks": 128}, 23_832_112),
        ({"type": "HINet", "hin_position_left": 3}, 88_668_806),
        ({"type": "HINet"}, 88_669_702),
        (
            {"type": "MambaIR", **DENOISE, "mlp_ratio": 2, "upscale": 4, "upsampler": "pixelshuffle"},
            20_569_575,
        ),
        ({"type": "MambaIR", **DENOISE}, 15_777_507),
        (
            {
                **{"type": "MambaIR", "embed_dim": 60, "depths": [6] * 4, "d_state": 10, "mlp_ratio": 1.2},
                **{"upscale": 4, "upsampler": "pixelshuffledirect"},
            },
            924_492,
        ),
        ({"type": "MambaIRUNet"}, 30_750_424),
        ({"type": "MambaIRUNet", "mlp_ratio": 1.5}, 26_779_480),
        ({"type": "MambaIRv2", **BASE}, 23_050_713),
        ({"type": "MambaIRv2Light", **LIGHT}, 789_680),
    ],
    ids=lambda v: v["type"] if isinstance(v, dict) else "",
)
def test_published_parameter_counts(opt: dict, count: int) -> None:
    with torch.device("meta"):
        network = build_network(opt)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(
    ("opt", "complaint"),
    [
        ({"type": "NAFNetLocal", "train_size": [3, 256, 256]}, "train_size: must be"),
        ({"type": "MambaIR", "upscale": 2}, "needs an upsampler"),
        ({"type": "MambaIR", "embed_dim": 20, "upscale": 1}, "divides its channels by 30"),
        ({"type": "MambaIRUNet", "num_blocks": [1, 1]}, "num_blocks needs 4 entries"),
        ({"type": "MambaIRv2", "upscale": 2, "upsampler": "nearest+conv"}, "enlarges by 4"),
        ({"type": "MambaIRv2", "upscale": 1, "num_heads": [5, 4, 4, 4]}, "must divide embed_dim 48"),
    ],
)
def test_impossible_settings_are_refused(opt: dict, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        build_network(opt)


def test_sampled_routes_differ_and_likeliest_do_not() -> None:
    torch.manual_seed(0)
    options = {"type": "MambaIRv2Light", **LIGHT, "embed_dim": 12, "depths": [1], "num_heads": [2], "window_size": 8}
    x = torch.rand(1, 3, 9, 12)
    with torch.no_grad():
        for route, same in (("sample", False), ("argmax", True)):
            network = build_network({**options, "route": route}).eval()
            for p in network.parameters():
                p.add_(0.2 * torch.randn_like(p))
            assert torch.equal(network(x), network(x)) == same
