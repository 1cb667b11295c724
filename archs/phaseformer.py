"""Phaseformer: transposed attention between the phases of the feature maps, for underwater image enhancement.

Khan, Negi, Kulkarni, Phutke, Vipparthi, Murala, "Phaseformer: Phase-based Attention Mechanism for Underwater Image Restoration
and Beyond", WACV 2025 (arXiv 2412.01456). Parameter names are those of the published code, so its checkpoints load with
``strict=True``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.ops.channel_attention import softmax_by_head
from ..core.ops.fourier import phase_vectors
from ..core.ops.pixelwise import channels, expand_depthwise, linear, pixels
from . import ARCHS
from .agssf import AGSSFBlock, DeadParameters, Gate, PhaseGate, PixelDown, PixelUp, check_widths
from .blocks import conv3x3, matrix, pad_to, pointwise, xavier_init


class PhaseMDTA(nn.Module):
    """Transposed attention whose queries and keys are phase-only images of themselves. (B, dim, H, W) -> same.

    Their scalar products are computed in the frequency domain (Parseval); phase-only images have norm 1 and need no
    normalisation.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(1, heads, 1, 1))
        self.qkv = pointwise(dim, 3 * dim)
        self.qkv_conv = conv3x3(3 * dim, 3 * dim, groups=3 * dim)
        self.project_out = pointwise(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = pixels(x)
        weights, kernels = matrix(self.qkv).chunk(3), self.qkv_conv.weight.chunk(3)
        q, k, v = (expand_depthwise(x, w, None, kernel, None) for w, kernel in zip(weights, kernels, strict=True))
        with torch.autocast(x.device.type, enabled=False):
            cosine = torch.bmm(phase_vectors(q).flatten(2), phase_vectors(k).flatten(2).transpose(1, 2))
            attention = softmax_by_head(cosine, self.temperature)
            mixing = matrix(self.project_out).to(attention.dtype) @ attention
        return channels(linear(v, mixing))


@ARCHS.register()
class Phaseformer(DeadParameters):
    """Phaseformer: U-shape of phase attention with two heads, one at the input's size and one at twice that.

    (B, 3, H, W) -> ((B, 3, H, W), (B, 3, 2 H, 2 W)); no global residual, no clamp. Any size: where H or W is not a multiple
    of 8 the image is mirrored up to one and the results cropped.

    Args:
        num_blocks: transformer blocks of the four levels.
        num_heads: attention heads of the four levels.
        channels: channels of the four levels; each twice the previous.
        num_refinement: blocks at full size after the decoder.
        expansion_factor: inner channels of the feed-forward blocks over their input's.
        phase_gate: kind of channel gate, ``legacy`` or ``spatial``, see `PhaseGate`.
        drop_dead: leave out the parameters that the output does not depend on; checkpoints that have them still load.

    Raises:
        UserError: settings that do not make four levels.
    """

    sees_whole = "Fourier transforms of the whole picture"
    size_multiple = 8

    def __init__(
        self,
        num_blocks: Sequence[int] = (2, 3, 3, 4),
        num_heads: Sequence[int] = (1, 2, 4, 8),
        channels: Sequence[int] = (16, 32, 64, 128),
        num_refinement: int = 4,
        expansion_factor: float = 2.66,
        phase_gate: Gate = "legacy",
        drop_dead: bool = False,
    ) -> None:
        super().__init__()
        check_widths(channels, num_blocks, num_heads)
        c, n, h = channels, num_blocks, num_heads

        def blocks(width: int, heads: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(AGSSFBlock(width, expansion_factor, PhaseMDTA(width, heads)) for _ in range(count)))

        # Made for these widths, applied to c[2], c[1] and c[0]: only the kernel sizes depend on it.
        self.attention = nn.ModuleList(PhaseGate(w, phase_gate) for w in (c[0], c[0], c[1], c[2]))
        self.embed_conv_rgb = conv3x3(3, c[0])
        self.encoders = nn.ModuleList(blocks(c[i], h[i], n[i]) for i in range(4))
        self.ups1 = PixelUp(c[1])
        self.downs = nn.ModuleList(PixelDown(w) for w in c[:3])
        self.ups = nn.ModuleList(PixelUp(w) for w in (c[3], c[2], c[1]))
        self.reduces = nn.ModuleList([pointwise(c[3], c[2]), pointwise(c[2], c[1])])
        self.decoders = nn.ModuleList([blocks(c[2], h[2], n[2]), blocks(c[1], h[1], n[1]), blocks(c[1], h[0], n[0])])
        self.refinement = blocks(c[1], h[0], num_refinement)
        self.output = conv3x3(8, 3)
        self.output1 = conv3x3(c[0], 8)
        self.ups2 = PixelUp(c[0])
        self.outputl = conv3x3(c[1], 8)
        xavier_init(self)
        self.freeze_or_drop(["attention.3.*", "ups2.*"], drop_dead)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        height, width = x.shape[-2:]
        x = pad_to(x, self.size_multiple).contiguous(memory_format=torch.channels_last)
        e1 = self.encoders[0](self.embed_conv_rgb(x))
        e2 = self.encoders[1](self.downs[0](e1))
        e3 = self.encoders[2](self.downs[1](e2))
        d = self.encoders[3](self.downs[2](e3))
        d = self.decoders[0](self.reduces[0](torch.cat((self.ups[0](d), self.attention[0](e3)), dim=1)))
        d = self.decoders[1](self.reduces[1](torch.cat((self.ups[1](d), self.attention[1](e2)), dim=1)))
        d = self.decoders[2](torch.cat((self.ups[2](d), self.attention[2](e1)), dim=1))
        features = self.refinement(d)
        low = self.output(self.outputl(features))
        high = self.output(self.output1(self.ups1(features)))
        return low[..., :height, :width], high[..., : 2 * height, : 2 * width]
