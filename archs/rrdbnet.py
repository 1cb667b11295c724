"""RRDBNet: ESRGAN's generator, which Real-ESRGAN uses too."""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from . import ARCHS
from .residual import conv3x3_with_bias, init_small

RESIDUAL_SCALE = 0.2
"""Factor of every residual branch (ESRGAN, section 3.1, beta)."""


class ResidualDenseBlock(nn.Module):
    """Five convolutions, each of which sees the block's input and all earlier outputs. (B, num_feat, H, W) -> same."""

    def __init__(self, num_feat: int, num_grow_ch: int) -> None:
        super().__init__()
        self.conv1 = conv3x3_with_bias(num_feat, num_grow_ch)
        self.conv2 = conv3x3_with_bias(num_feat + num_grow_ch, num_grow_ch)
        self.conv3 = conv3x3_with_bias(num_feat + 2 * num_grow_ch, num_grow_ch)
        self.conv4 = conv3x3_with_bias(num_feat + 3 * num_grow_ch, num_grow_ch)
        self.conv5 = conv3x3_with_bias(num_feat + 4 * num_grow_ch, num_feat)
        init_small(self)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat([seen, F.leaky_relu(conv(seen), 0.2, inplace=True)], dim=1)
        return x + RESIDUAL_SCALE * self.conv5(seen)


class RRDB(nn.Module):
    """Residual-in-residual dense block (ESRGAN, figure 4): three dense blocks inside one more residual."""

    def __init__(self, num_feat: int, num_grow_ch: int) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb2 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb3 = ResidualDenseBlock(num_feat, num_grow_ch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, num_feat, H, W) -> the same shape."""
        return x + RESIDUAL_SCALE * self.rdb3(self.rdb2(self.rdb1(x)))


@ARCHS.register()
class RRDBNet(nn.Module):
    """ESRGAN's generator (Wang et al., ECCV Workshops 2018). Loads BasicSR's and Real-ESRGAN's weights.

    ``forward``: (B, num_in_ch, H, W) in [0, 1] -> (B, num_out_ch, scale * H, scale * W), not clamped. The body always
    enlarges four times; for the smaller scales the input is first folded into channels (pixel unshuffle), so that H and W
    must be multiples of ``size_multiple``: 4 for scale 1, 2 for scale 2.

    Args:
        num_in_ch: channels of the input.
        num_out_ch: channels of the output.
        scale: 1, 2 or 4.
        num_feat: channels between blocks.
        num_block: RRDB blocks.
        num_grow_ch: channels that each convolution of a dense block adds.

    Raises:
        UserError: another `scale`.
    """

    size_multiple = 1

    def __init__(
        self,
        num_in_ch: int,
        num_out_ch: int,
        scale: Literal[1, 2, 4] = 4,
        num_feat: int = 64,
        num_block: int = 23,
        num_grow_ch: int = 32,
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 4):
            raise UserError(f"RRDBNet: scale is {scale}, but must be 1, 2 or 4")
        self.scale = scale
        self.size_multiple = 4 // scale
        self.conv_first = conv3x3_with_bias(num_in_ch * self.size_multiple**2, num_feat)
        self.body = nn.Sequential(*[RRDB(num_feat, num_grow_ch) for _ in range(num_block)])
        self.conv_body = conv3x3_with_bias(num_feat, num_feat)
        self.conv_up1 = conv3x3_with_bias(num_feat, num_feat)
        self.conv_up2 = conv3x3_with_bias(num_feat, num_feat)
        self.conv_hr = conv3x3_with_bias(num_feat, num_feat)
        self.conv_last = conv3x3_with_bias(num_feat, num_out_ch)
        self.lrelu = nn.LeakyReLU(0.2, inplace=True)
        self.register_load_state_dict_pre_hook(_with_new_names)

    def forward(self, x: Tensor) -> Tensor:
        if self.size_multiple > 1:
            x = F.pixel_unshuffle(x, self.size_multiple)
        y = self.conv_first(x)
        y = y + self.conv_body(self.body(y))
        for conv in (self.conv_up1, self.conv_up2):
            y = self.lrelu(conv(F.interpolate(y, scale_factor=2, mode="nearest")))
        return self.conv_last(self.lrelu(self.conv_hr(y)))


OLD_NAMES = (
    (r"^(?:model\.1\.sub|RRDB_trunk)\.(\d+)\.RDB(\d)\.conv(\d)\.(?:0\.)?", r"body.\1.rdb\2.conv\3."),
    (r"^(?:model\.1\.sub\.\d+|trunk_conv)\.(weight|bias)$", r"conv_body.\1"),
    (r"^model\.0\.", "conv_first."),
    (r"^(?:model\.3|upconv1)\.", "conv_up1."),
    (r"^(?:model\.6|upconv2)\.", "conv_up2."),
    (r"^(?:model\.8|HRconv)\.", "conv_hr."),
    (r"^model\.10\.", "conv_last."),
)
"""Names of ESRGAN's first releases, at a scale of 4, and those of here."""


def _with_new_names(net: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Load weights of ESRGAN's first releases."""
    if f"{prefix}model.0.weight" not in state and f"{prefix}RRDB_trunk.0.RDB1.conv1.weight" not in state:
        return
    for old in [k for k in state if k.startswith(prefix)]:
        new = old.removeprefix(prefix)
        for pattern, replacement in OLD_NAMES:
            new = re.sub(pattern, replacement, new)
        state[prefix + new] = state.pop(old)
