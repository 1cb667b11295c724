"""Files of weights in their authors' layouts load strictly: under every name that their own code has, and no other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from relume.archs import build_network
from relume.core.runtime.checkpoint import DoesNotFit, load_weights

Names = set[str]


def both(*names: str) -> Names:
    """Weight and bias of each."""
    return {f"{n}.{kind}" for n in names for kind in ("weight", "bias")}


def under(prefixes: Iterable[str], names: Iterable[str]) -> Names:
    names = list(names)
    return {f"{p}.{n}" for p in prefixes for n in names}


CONVS = ("norm1", "norm2", "conv1", "conv2", "conv3", "conv4", "conv5")
NAF_BLOCK = both(*CONVS, "sca.1") | {"beta", "gamma"}
BASELINE_BLOCK = both(*CONVS, "se.1", "se.3") | {"beta", "gamma"}
U = {"width": 4, "enc_blk_nums": [1, 2], "dec_blk_nums": [1, 1]}
U_BLOCKS = ("encoders.0.0", "encoders.1.0", "encoders.1.1", "middle_blks.0", "decoders.0.0", "decoders.1.0")
U_BESIDES = both("intro", "ending", "downs.0", "downs.1") | {"ups.0.0.weight", "ups.1.0.weight"}

SCAM = both("norm_l", "norm_r", "l_proj1", "r_proj1", "l_proj2", "r_proj2") | {"beta", "gamma"}

HIN_DOWN = both("identity", "conv_1", "conv_2")
HINET = (
    both("conv_01", "conv_02", "sam12.conv1", "sam12.conv2", "sam12.conv3", "cat12", "last")
    | under([f"down_path_{s}.{i}" for s in (1, 2) for i in range(3)], HIN_DOWN)
    | under([f"down_path_{s}.{i}" for s in (1, 2) for i in (1, 2)], both("norm"))  # of levels 1 and 2
    | {f"down_path_{s}.{i}.downsample.weight" for s in (1, 2) for i in (0, 1)}
    | under([f"down_path_2.{i}" for i in (0, 1)], both("csff_enc", "csff_dec"))
    | under([f"up_path_{s}.{j}" for s in (1, 2) for j in (0, 1)], both("up") | under(["conv_block"], HIN_DOWN))
    | both(*(f"skip_conv_{s}.{j}" for s in (1, 2) for j in (0, 1)))
)

SCANS = {"x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds"}
SS2D = SCANS | both("conv2d", "out_norm") | {"in_proj.weight", "out_proj.weight"}
CAB = both("0", "2", "3.attention.1", "3.attention.3")
LIGHT_CAB = both("0", "1", "3", "4", "5.attention.1", "5.attention.3")


def vss_block(cab: Names) -> Names:
    besides = both("ln_1", "ln_2") | {"skip_scale", "skip_scale2"}
    return besides | under(["self_attention"], SS2D) | under(["conv_blk.cab"], cab)


MAMBA = {"embed_dim": 30, "depths": [1, 2], "d_state": 2, "mlp_ratio": 1.2}
MAMBA_BLOCKS = [f"layers.{i}.residual_group.blocks.{j}" for i, j in ((0, 0), (1, 0), (1, 1))]
SKELETON = both("conv_first", "patch_embed.norm", "norm", "conv_after_body", "layers.0.conv", "layers.1.conv")
SHUFFLED = both("conv_before_upsample.0", "upsample.0", "upsample.2", "conv_last")
U_LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent", "decoder_level3", "decoder_level2")
MAMBA_U = (
    under([f"{n}.0" for n in (*U_LEVELS, "decoder_level1", "refinement")], vss_block(CAB))
    | {f"{n}.body.0.weight" for n in ("down1_2", "down2_3", "down3_4", "up4_3", "up3_2", "up2_1")}
    | {f"{n}.weight" for n in ("patch_embed.proj", "reduce_chan_level3", "reduce_chan_level2", "output")}
)

ASSM = (
    both("in_proj.0", "CPE.0", "route.0", "route.2", "out_norm", "out_proj")
    | {"embeddingB.weight"}
    | under(["selectiveScan"], SCANS)
)


def attentive_layer(feed_forward: Names) -> Names:
    besides = both("norm1", "norm2", "norm3", "norm4", "wqkv", "win_mhsa.proj")
    besides |= {"scale1", "scale2", "embeddingA.weight", "win_mhsa.relative_position_bias_table"}
    return besides | under(["assm"], ASSM) | under(["convffn1", "convffn2"], feed_forward)


V2 = {
    "embed_dim": 6,
    "d_state": 2,
    "depths": [1, 2],
    "num_heads": [2, 2],
    "window_size": 4,
    "inner_rank": 2,
    "num_tokens": 4,
}
V2_LAYERS = [name.replace("blocks", "layers") for name in MAMBA_BLOCKS]
INDEX = {"relative_position_index_SA"}

RCAN = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 16, "num_group": 2, "num_block": 1, "upscale": 4}

LAYOUTS: list[tuple[dict[str, Any], Names]] = [
    *(({"type": t, **U}, under(U_BLOCKS, NAF_BLOCK) | U_BESIDES) for t in ("NAFNet", "NAFNetLocal")),
    *(({"type": t, **U}, under(U_BLOCKS, BASELINE_BLOCK) | U_BESIDES) for t in ("Baseline", "BaselineLocal")),
    (
        {"type": "NAFSSR", "up_scale": 2, "width": 4, "num_blks": 3, "fusion_from": 1, "fusion_to": 1},
        both("intro", "up.0")
        | under([f"body.{i}.module.blk" for i in range(3)], NAF_BLOCK)
        | under(["body.1.module.fusion"], SCAM),
    ),
    ({"type": "HINet", "wf": 4, "depth": 3, "hin_position_left": 1, "hin_position_right": 2}, HINET),
    (
        {"type": "MambaIR", **MAMBA, "upscale": 4, "upsampler": "pixelshuffle"},
        SKELETON | SHUFFLED | under(MAMBA_BLOCKS, vss_block(CAB)),
    ),
    (
        {"type": "MambaIR", **MAMBA, "upscale": 2, "upsampler": "pixelshuffledirect"},
        SKELETON | both("upsample.0") | under(MAMBA_BLOCKS, vss_block(LIGHT_CAB)),
    ),
    (
        {"type": "MambaIR", **MAMBA, "upscale": 1, "resi_connection": "3conv"},
        both("conv_first", "patch_embed.norm", "norm", "conv_last")
        | both(*(f"{n}.{i}" for n in ("conv_after_body", "layers.0.conv", "layers.1.conv") for i in (0, 2, 4)))
        | under(MAMBA_BLOCKS, vss_block(CAB)),
    ),
    (
        {"type": "MambaIRUNet", "dim": 30, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "mlp_ratio": 0.5},
        MAMBA_U,
    ),
    (
        {"type": "MambaIRv2", **V2, "upscale": 4, "upsampler": "pixelshuffle"},
        SKELETON | SHUFFLED | INDEX | under(V2_LAYERS, attentive_layer(both("fc1", "fc2", "dwconv.depthwise_conv.0"))),
    ),
    (
        {"type": "MambaIRv2", **V2, "upscale": 4, "upsampler": "nearest+conv"},
        SKELETON
        | both("conv_before_upsample.0", "conv_up1", "conv_up2", "conv_hr", "conv_last")
        | INDEX
        | under(V2_LAYERS, attentive_layer(both("fc1", "fc2", "dwconv.depthwise_conv.0"))),
    ),
    (
        {"type": "MambaIRv2Light", **V2, "upscale": 3, "upsampler": "pixelshuffledirect"},
        SKELETON
        | both("upsample.0")
        | INDEX
        | under(V2_LAYERS, attentive_layer(both("fc1", "fc2", "sg.norm", "sg.conv"))),
    ),
    (
        {"type": "RCAN", **RCAN},
        both("conv_first", "conv_after_body", "conv_last", "upsample.0", "upsample.2", "body.0.conv", "body.1.conv")
        | under([f"body.{g}.residual_group.0.rcab" for g in (0, 1)], both("0", "2", "3.attention.1", "3.attention.3")),
    ),
]


@pytest.mark.parametrize(("opt", "names"), LAYOUTS, ids=lambda v: v["type"] if isinstance(v, dict) else "")
def test_weights_under_the_authors_names(opt: dict[str, Any], names: Names, tmp_path: Path) -> None:
    network = build_network(opt)
    assert set(network.state_dict()) == names
    drawn = torch.Generator().manual_seed(1)
    state: dict[str, Tensor] = {
        name: torch.rand(like.shape, generator=drawn) if like.is_floating_point() else like.clone()
        for name, like in network.state_dict().items()
    }
    for content in (
        {"params_ema": state},
        {"params": {f"module.{k}": v for k, v in state.items()}},
        {"state_dict": state, "epoch": 3},
        state,
    ):
        torch.save(content, tmp_path / "x.pth")
        other = build_network(opt)
        assert not load_weights(other, tmp_path / "x.pth", "params", strict=True)
        assert all(torch.equal(v, state[k]) for k, v in other.state_dict().items())
    del state[sorted(names)[0]]
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(DoesNotFit, match="missing"):
        load_weights(build_network(opt), tmp_path / "x.pth", "params", strict=True)
