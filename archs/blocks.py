"""Blocks that the transposed-attention networks share: Restormer and its descendants, and NAFNet's normalisation.

Parameter names follow Restormer (Zamir et al., CVPR 2022), so that its descendants' checkpoints load. Each block is also a
plain function, for networks that call their parameters otherwise.

Images are (B, C, H, W) in any memory layout and come out channels-last; convert once at a network's entrance
(``x.contiguous(memory_format=torch.channels_last)``) and no block copies its input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.ops import real_fourier
from ..core.ops.fourier import affine, polar_spectrum
from ..core.ops.layer_norm import layer_norm
from ..core.ops.pixelwise import channels, expand_depthwise, gated_feed_forward, pixels


def pad_to(x: Tensor, multiple: int) -> Tensor:
    """Extend (B, C, H, W) at the bottom and the right until both sides are multiples of `multiple`.

    Mirrors the image (without repeating its edge) where it is large enough to be mirrored, repeats the edge otherwise.
    Returns `x` itself when nothing is missing; crop the result with ``[..., :H, :W]``.
    """
    if torch.compiler.is_exporting():
        return continued(continued(x, -2, multiple), -1, multiple)
    down, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    if not down and not right:
        return x
    mode = "reflect" if down < x.shape[-2] and right < x.shape[-1] else "replicate"
    return F.pad(x, (0, right, 0, down), mode=mode)


def continued(x: Tensor, dim: int, multiple: int) -> Tensor:
    """`x`, (..., n, ...), continued along an axis to a multiple by reflection, as often as need be, of any size n."""
    n = x.shape[dim]
    wanted = (n + multiple - 1) // multiple * multiple
    period = 2 * n - 2
    phase = torch.arange(wanted, device=x.device)
    phase = phase % torch.full((), period, device=x.device)  # a tensor: ONNX's exporter takes no remainders of symbols
    return x.index_select(dim, torch.minimum(phase, period - phase))


def pad_symmetric(x: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) continued downwards and to the right by its mirror image, edge included, to multiples of `multiple`."""
    for dim in (-2, -1):
        n = x.shape[dim]
        if torch.compiler.is_exporting() or n % multiple:  # exported, the size may be any other
            phase = torch.arange((n + multiple - 1) // multiple * multiple, device=x.device)
            phase = phase % torch.full((), 2 * n, device=x.device)  # a tensor: ONNX's exporter takes no symbols here
            x = x.index_select(dim, torch.minimum(phase, 2 * n - 1 - phase))
    return x


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of (2B, ...) the first B and the last B; unlike ``x.chunk(2)``, torch.export follows it for any B."""
    first, second = x.unflatten(0, (2, -1)).unbind()
    return first, second


def refuse_unfit(x: Tensor, channels: int, multiple: int) -> None:
    """Check what a network is given, so that an option that does not fit is named and not a layer inside.

    Raises:
        UserError: `x` is no (B, C, H, W) with so many channels and sides that are multiples of `multiple`.
    """
    if x.ndim != 4 or x.shape[1] != channels:
        raise UserError(f"images of the shape {tuple(x.shape)}: this network takes (B, {channels}, H, W)")
    if x.shape[-2] % multiple or x.shape[-1] % multiple:
        raise UserError(
            f"images of {x.shape[-2]}x{x.shape[-1]} pixels: this network takes multiples of {multiple}; choose gt_size so"
        )


def pointwise(c_in: int, c_out: int, bias: bool = False) -> nn.Conv2d:
    """A 1 x 1 convolution."""
    return nn.Conv2d(c_in, c_out, 1, bias=bias)


def conv3x3(c_in: int, c_out: int, bias: bool = False, groups: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution with zero padding; depthwise with ``groups=c_in=c_out``."""
    return nn.Conv2d(c_in, c_out, 3, padding=1, groups=groups, bias=bias)


def inner_width(dim: int, expansion: float) -> int:
    """Channels inside a feed-forward block: ``int(dim * expansion)``, truncated as the originals do.

    Raises:
        UserError: none are left.
    """
    inner = int(dim * expansion)
    if inner < 1:
        raise UserError(f"an expansion factor of {expansion} leaves no channel of {dim} in the feed-forward blocks")
    return inner


def need_levels(dim: int, **settings: Sequence[int]) -> None:
    """Refuse settings that do not make four levels of `dim`, 2 `dim`, 4 `dim` and 8 `dim` channels.

    Args:
        dim: channels of the first level.
        settings: numbers of blocks, and of heads (with "heads" in the name), by the option's name.

    Raises:
        UserError: not four entries each, heads that do not divide their level's channels, or channels that cannot be halved.
    """
    if dim < 2 or dim % 2:
        raise UserError(f"the first level must have an even number of channels; got {dim}")
    for name, values in settings.items():
        if len(values) != 4:
            raise UserError(f"{name} needs 4 entries, one for each level; got {list(values)}")
        for level, count in enumerate(values):
            if count < 0:
                raise UserError(f"{name}[{level}] is negative: {count}")
            if "heads" in name and (count == 0 or dim * 2**level % count):
                raise UserError(
                    f"{name}[{level}] is {count}, which does not divide that level's {dim * 2**level} channels "
                    f"({dim} times {2**level})"
                )


def adaptive_kernel(channels: int) -> int:
    """Kernel size of efficient channel attention (Wang et al., CVPR 2020): of t, t + 1 the odd one, t = (log2 C + 1) / 2."""
    t = int(abs(math.log2(channels) / 2 + 0.5))
    return t if t % 2 else t + 1


def xavier_init(network: nn.Module) -> None:
    """Glorot's uniform initialisation of all 2-D convolutions, their biases zero, as the underwater networks were trained."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def as_conv(module: nn.Module) -> nn.Conv2d:
    """`module`, which a container holds, as the convolution that it is."""
    assert isinstance(module, nn.Conv2d)
    return module


def matrix(conv: nn.Conv2d) -> Tensor:
    """The (O, C) matrix that a 1 x 1 convolution multiplies by."""
    return conv.weight.flatten(1)


def stochastic_depth(branch: Tensor, rate: float, training: bool) -> Tensor:
    """A residual branch of (B, ...), left out of training per sample with probability `rate` (Huang et al., ECCV 2016)."""
    if not training or not rate:
        return branch
    shape = (len(branch),) + (1,) * (branch.dim() - 1)
    return branch * (torch.rand(shape, device=branch.device) < 1 - rate).to(branch.dtype) / (1 - rate)


# ---------------------------------------------------------------------------------------------- normalisation
class ChannelLayerNorm(nn.Module):
    """Layer normalisation over the channels of every pixel of (B, C, H, W), with a learned gain and offset per channel.

    Statistics are taken in float32 at least.

    Args:
        dim: C.
        eps: constant added to the variance (biased, as in ``torch.nn.LayerNorm``).
        bias: False is Restormer's "BiasFree" form: no offset, and the mean is not subtracted from the numerator either.
    """

    def __init__(self, dim: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = layer_norm(pixels(x), self.weight, self.bias, self.eps, centred=self.bias is not None)
        return channels(y.to(x.dtype))


class TokenNorm(nn.LayerNorm):
    """``torch.nn.LayerNorm`` over the last axis of (B, ..., C), fused where `core.ops.layer_norm` is."""

    def forward(self, x: Tensor) -> Tensor:
        y = layer_norm(x, self.weight, self.bias, self.eps)
        return y if torch.is_autocast_enabled(x.device.type) else y.to(x.dtype)


# ---------------------------------------------------------------------------------------------- feed-forward
class GatedFeedForward(nn.Module):
    """Gated depthwise-convolution feed-forward network (Restormer, eq. 2): ``project_out(gelu(a) * b)``.

    (a, b) are the halves of ``dwconv(project_in(x))``, of ``int(dim * expansion)`` channels each. (B, dim, H, W) -> same.
    """

    def __init__(self, dim: int, expansion: float, bias: bool = False) -> None:
        super().__init__()
        inner = inner_width(dim, expansion)
        self.project_in = pointwise(dim, 2 * inner, bias)
        self.dwconv = conv3x3(2 * inner, 2 * inner, bias, groups=2 * inner)
        self.project_out = pointwise(inner, dim, bias)

    def forward(self, x: Tensor) -> Tensor:
        return feed_forward(x, self.project_in, self.dwconv, self.project_out)


def feed_forward(x: Tensor, project_in: nn.Conv2d, depthwise: nn.Conv2d, project_out: nn.Conv2d) -> Tensor:
    """The function behind `GatedFeedForward`: (B, C, H, W) -> the same shape."""
    y = gated_feed_forward(
        pixels(x),
        matrix(project_in),
        project_in.bias,
        depthwise.weight,
        depthwise.bias,
        matrix(project_out),
        project_out.bias,
    )
    return channels(y)


def expand(x: Tensor, conv: nn.Conv2d, depthwise: nn.Conv2d) -> Tensor:
    """``depthwise(conv(x))`` of (B, C, H, W), pixel-major: (B, H, W, O)."""
    return expand_depthwise(pixels(x), matrix(conv), conv.bias, depthwise.weight, depthwise.bias)


# ------------------------------------------------------------------------------------------ Fourier upsampling
Convs = tuple[nn.Conv2d, nn.Conv2d]


def fourier_magnitudes(x: Tensor, amplitude: Convs, phase: Convs, snap: bool) -> Tensor:
    """``|ifft2(A exp(i P))|`` with A and P the magnitude and phase of the spectrum of `x`, each sent through a perceptron.

    "Deep Fourier upsampling" tiles A and P 2 x 2 before the inverse transform. Tiling a spectrum is inserting zeros between
    the pixels, so what it computes is this map on the even rows and columns of a map twice as large, and zeros elsewhere.

    Args:
        x: (B, C, H, W).
        amplitude, phase: the two 1 x 1 convolutions of each perceptron, C -> C, with a LeakyReLU(0.1) between.
        snap: whether bins that are real in theory get a phase of 0 or +pi, see `core.ops.fourier.polar_spectrum`.

    Returns:
        Planes (B, C, H, W), float32 or float64.
    """
    with torch.autocast(x.device.type, enabled=False):
        a, p = polar_spectrum(pixels(x), snap)
        a, p = _perceptron(a, *amplitude), _perceptron(p, *phase)
        if real_fourier.wanted():
            re, im = real_fourier.ifft2(a * p.cos(), a * p.sin())
            return (re.square() + im.square()).sqrt()
        return torch.fft.ifft2(torch.complex(a * p.cos(), a * p.sin())).abs()


def spread(sparse: Tensor, post: nn.Conv2d) -> Tensor:
    """``post(zero_insertion(sparse))``: (B, C, H, W) on the even rows and columns of a map (B, O, 2 H, 2 W)."""
    return F.conv_transpose2d(sparse, post.weight.transpose(0, 1), post.bias, stride=2, output_padding=1)


def _perceptron(z: Tensor, first: nn.Conv2d, second: nn.Conv2d) -> Tensor:
    return _on_planes(F.leaky_relu(_on_planes(z, first), 0.1), second)


def _on_planes(z: Tensor, conv: nn.Conv2d) -> Tensor:
    return affine(z, matrix(conv).to(z.dtype), None if conv.bias is None else conv.bias.to(z.dtype))


def fused_upsample(x: Tensor, sparse: Tensor, post: nn.Conv2d, spatial: nn.Conv2d, fusion: nn.Conv2d) -> Tensor:
    """``fusion(cat(post(zero_insertion(sparse)), pixel_shuffle(spatial(x))))`` without any of the three large maps.

    A 1 x 1 convolution commutes with a pixel shuffle, and after zero insertion all but every fourth pixel is its bias.

    Args:
        x: (B, C, H, W).
        sparse: planes (B, C, H, W) that belong to the even rows and columns of the result (`fourier_magnitudes`).
        post: 1 x 1, C -> O.
        spatial: 3 x 3, C -> 4 O'.
        fusion: 1 x 1, O + O' -> O''.

    Returns:
        (B, O'', 2 H, 2 W).
    """
    of_post, of_spatial = matrix(fusion).split([post.out_channels, spatial.out_channels // 4], dim=1)
    kernel = (of_spatial @ spatial.weight.unflatten(0, (-1, 4)).flatten(1)).unflatten(1, (4, *spatial.weight.shape[1:]))
    y = pixels(F.conv2d(x, kernel.flatten(0, 1), padding=1)).unflatten(3, (-1, 4))
    even = sparse.to(x.dtype).flatten(2).transpose(1, 2) @ (of_post @ matrix(post)).t()
    y[..., 0] += even.view(y.shape[:-1])
    if spatial.bias is not None:
        y = y + of_spatial @ spatial.bias.unflatten(0, (-1, 4))
    if post.bias is not None:
        y = y + (of_post @ post.bias)[:, None]
    if fusion.bias is not None:
        y = y + fusion.bias[:, None]
    return F.pixel_shuffle(channels(y.flatten(3)), 2)
