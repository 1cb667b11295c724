"""One small call, or more, of every op with kernels of our own: what the interpreter and the compiler are tried on.

``CASES[op]`` gives functions and their tensors; ``None`` stands for an argument that is left out. Sizes are odd, are not
multiples of a tile, or are 1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relume.core.ops.causal_conv1d import causal_conv1d
from relume.core.ops.census import census_distance
from relume.core.ops.channel_attention import cross_attention, self_attention_and_map
from relume.core.ops.charbonnier import charbonnier_sums
from relume.core.ops.flow_warp import backwarp, flow_warp
from relume.core.ops.fourier import phase_vectors, polar_spectrum
from relume.core.ops.gradient import derivative_sums
from relume.core.ops.laplacian import edge_size, pyramid_size
from relume.core.ops.layer_norm import layer_norm
from relume.core.ops.ms_ssim import multiscale_similarity
from relume.core.ops.pixelwise import gated_feed_forward
from relume.core.ops.rms_norm import rmsnorm_gated
from relume.core.ops.selective_scan import selective_scan
from relume.core.ops.simple_gate import gate_halves, gate_halves_and_mean
from relume.core.ops.smoothness import smoothness_sums
from relume.core.ops.spectral_mixing import spectral_mixing
from relume.core.ops.ssd import ssd
from relume.core.ops.ssim import gaussian, similarity
from relume.core.ops.window_attention import window_attention

Case = tuple[Callable[..., Any], list[Tensor | None]]


def normal(*shape: int) -> Tensor:
    return torch.randn(shape)


def norms(batch: int) -> list[Case]:
    x = normal(batch, 5, 7, 6)
    return [
        (functools.partial(layer_norm, eps=1e-5), [x, normal(6), normal(6)]),
        (functools.partial(layer_norm, eps=1e-5), [x, normal(batch, 6), normal(batch, 6)]),
        (functools.partial(layer_norm, offset=None, eps=1e-5, centred=False), [x, normal(6)]),
    ]


def gated_norms(batch: int) -> list[Case]:
    tensors = [normal(batch, 37, 36), normal(36), normal(batch, 37, 36)]
    return [
        (functools.partial(rmsnorm_gated, group_size=12), tensors),
        (functools.partial(rmsnorm_gated, norm_before_gate=False), tensors),
        (rmsnorm_gated, tensors[:2]),
    ]


def convolutions(batch: int) -> list[Case]:
    return [
        (functools.partial(causal_conv1d, activation="silu"), [normal(batch, 37, 150), normal(37, 4), normal(37)]),
        (
            functools.partial(causal_conv1d, return_final_states=True),
            [normal(batch, 5, 1), normal(5, 3), None, normal(batch, 5, 2)],
        ),
    ]


def scans(batch: int) -> list[Case]:
    def scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, initial: Tensor | None) -> Any:
        return ssd(x, dt, A, B, C, D=D, initial_states=initial, return_final_states=True)

    def drawn(length: int, heads: int, groups: int, size: int, states: int) -> list[Tensor | None]:
        shapes = [
            (batch, length, heads, size),
            (batch, length, heads),
            (heads,),
            *[(batch, length, groups, states)] * 2,
        ]
        x, dt, A, B, C = (normal(*s) for s in shapes)
        return [x, dt.abs(), -A.abs(), B, C]

    return [
        (scan, [*drawn(150, 4, 2, 8, 16), normal(4), normal(batch, 4, 8, 16)]),
        (scan, [*drawn(3, 2, 1, 40, 70), normal(2, 40), None]),
    ]


def feed_forwards(batch: int) -> list[Case]:
    def drawn(inner: int, biased: bool) -> list[Tensor | None]:
        bias = [normal(2 * inner) if biased else None, normal(3) if biased else None]
        weights = [normal(2 * inner, 4), None, normal(2 * inner, 1, 3, 3), bias[0], normal(3, inner), bias[1]]
        return [normal(batch, 5, 9, 4), *weights]

    return [(gated_feed_forward, drawn(5, True)), (gated_feed_forward, drawn(18, False))]


def attentions(batch: int) -> list[Case]:
    rest = [normal(6, 20), normal(6)]
    return [
        (self_attention_and_map, [normal(batch, 9, 13, 60), normal(4), *rest, None, None, normal(60, 1, 3, 3)]),
        (cross_attention, [normal(batch, 20, 9, 13), normal(batch, 9, 13, 40), normal(2), *rest]),
    ]


def windows(batch: int) -> list[Case]:
    return [
        (
            functools.partial(window_attention, side=side, shift=shift),
            [normal(batch, 2 * side, 3 * side, 3 * 2 * size), normal(batch, 2 * side, 3 * side, 2)],
        )
        for side, shift, size in ((3, 0, 20), (4, 2, 5), (7, 3, 5))
    ]


def distances(batch: int) -> list[Case]:
    def distance(pred: Tensor, patch_size: int) -> Tensor:
        return census_distance(pred, pred.detach().flip(-1) + 0.1, patch_size)

    shapes = (batch, 17, 19), (batch, 1, 300), (batch, 8, 4)
    sides = (7, 5, 3)
    return [
        (functools.partial(distance, patch_size=side), [torch.rand(s)]) for side, s in zip(sides, shapes, strict=True)
    ]


def selective_scans(batch: int) -> list[Case]:
    def scan(u: Tensor, delta: Tensor, A: Tensor, *rest: Tensor) -> Any:
        return selective_scan(u, delta, -A.exp(), *rest, delta_softplus=True)

    shapes = [*[(batch, 4, 37)] * 2, (4, 3), *[(batch, 2, 3, 37)] * 2, (4,)]
    return [(scan, [normal(*s) for s in shapes])]


def gates(batch: int) -> list[Case]:
    return [(gate_halves_and_mean, [normal(batch, 5, 7, 10)]), (gate_halves, [normal(batch, 3, 1, 600)])]


def mixings(batch: int) -> list[Case]:
    def drawn(size: tuple[int, int], channels: int, inner: int, made: int, biased: bool) -> list[Tensor | None]:
        bias = [normal(inner) if biased else None, normal(made) if biased else None]
        return [normal(batch, *size, channels), normal(inner, 2 * channels), bias[0], normal(made, inner), bias[1]]

    real = drawn((8, 5), 6, 7, 3, True)
    real[1] = normal(7, 6)
    return [
        (spectral_mixing, drawn((6, 11), 3, 20, 8, True)),
        (spectral_mixing, drawn((1, 7), 1, 5, 2, False)),
        (functools.partial(spectral_mixing, real_part=True, norm="backward"), real),
    ]


def phases(batch: int) -> list[Case]:
    return [(phase_vectors, [normal(batch, *size, 3)]) for size in ((5, 8), (4, 7), (1, 1))]


def spectra(batch: int) -> list[Case]:
    def turned(x: Tensor, snap: bool) -> tuple[Tensor, Tensor]:
        magnitude, phase = polar_spectrum(x, snap)
        return magnitude, magnitude.detach() * torch.cos(phase)

    return [
        (functools.partial(turned, snap=snap), [normal(batch, *size, 3)])
        for size, snap in (((5, 8), True), ((4, 7), True), ((6, 6), False), ((1, 2), True))
    ]


def similarities(batch: int) -> list[Case]:
    def both(x: Tensor, y: Tensor, window: int) -> tuple[Tensor, Tensor]:
        return similarity(x + 0.5, y + 0.5, gaussian(window, 1.5), 1.0)

    def drawn(size: tuple[int, int]) -> list[Tensor | None]:
        x = 0.2 * normal(batch, 2, *size)
        return [x, x + 0.1 * normal(batch, 2, *size)]

    return [
        (functools.partial(both, window=3), drawn((17, 20))),
        (functools.partial(both, window=3), drawn((3, 4))),
        (functools.partial(both, window=5), drawn((6, 7))),
    ]


def smooth_distances(batch: int) -> list[Case]:
    sums = functools.partial(charbonnier_sums, offset=1e-6)
    far = normal(batch, 1, 97, 101)
    return [(sums, [normal(batch, 3, 5, 7), normal(batch, 3, 5, 7)]), (sums, [far, normal(*far.shape)])]


def pyramids(batch: int) -> list[Case]:
    def drawn(*size: int) -> list[Tensor | None]:
        return [normal(batch, 1, *size)]

    edges = functools.partial(edge_size, eps=1e-2)
    last = normal(batch, 2, 3, 4).to(memory_format=torch.channels_last)
    return [
        (edges, drawn(7, 10)),
        (functools.partial(pyramid_size, levels=2, low_pass=True), drawn(15, 20)),
        (functools.partial(pyramid_size, levels=1, low_pass=False), [last]),
    ]


def stencils(batch: int) -> list[Case]:
    def drawn(*size: int) -> list[Tensor | None]:
        return [normal(batch, 2, *size)]

    last = normal(batch, 2, 3, 3).to(memory_format=torch.channels_last)
    return [
        (functools.partial(derivative_sums, operator="sobel"), drawn(1, 7)),
        (functools.partial(derivative_sums, operator="laplacian"), [last]),
        (functools.partial(derivative_sums, operator="neighbours"), drawn(16, 17)),
        (functools.partial(derivative_sums, operator="sobel"), drawn(13, 24)),
    ]


def smooth_flows(batch: int) -> list[Case]:
    def sums(flow: Tensor, channels: int) -> Tensor:
        return smoothness_sums(flow, flow.detach().flip(2, 3).repeat(1, 2, 1, 1)[:, :channels])

    last = normal(batch, 4, 9, 30).to(memory_format=torch.channels_last)
    return [
        (functools.partial(sums, channels=3), [normal(batch, 2, 7, 5)]),
        (functools.partial(sums, channels=3), [last]),
        (functools.partial(sums, channels=1), [normal(batch, 1, 1, 6)]),
    ]


def scales(batch: int) -> list[Case]:
    def drawn(*size: int) -> list[Tensor | None]:
        return [0.1 * normal(batch, 1, *size)]

    def alone(d: Tensor, exponents: tuple[float, ...], window: int) -> Tensor:
        target = torch.linspace(0, 1, d[:1].numel()).to(d).view(d[:1].shape).expand_as(d) ** 2
        return multiscale_similarity(target + d, target, gaussian(window, 1.5).to(d), d.new_tensor(exponents), 1.0)

    last = 0.1 * normal(batch, 2, 12, 25).to(memory_format=torch.channels_last)
    return [
        (functools.partial(alone, exponents=(0.4, 0.6), window=3), drawn(6, 5)),
        (functools.partial(alone, exponents=(0.2, 0.3, 0.5), window=3), [last]),
        (functools.partial(alone, exponents=(1.0,), window=3), drawn(3, 8)),
    ]


def warps(batch: int) -> list[Case]:
    def drawn(channels: int, height: int, width: int) -> list[Tensor | None]:
        return [normal(batch, channels, height, width), 0.4 * width * normal(batch, height, width, 2)]

    x, flow = drawn(18, 7, 6)
    assert x is not None and flow is not None
    planar = flow.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    return [
        (functools.partial(flow_warp, padding_mode="border"), drawn(3, 9, 25)),
        (functools.partial(flow_warp, interp_mode="bicubic"), [x.to(memory_format=torch.channels_last), planar]),
        (
            functools.partial(flow_warp, interp_mode="bicubic", padding_mode="border", align_corners=False),
            drawn(1, 5, 4),
        ),
        (functools.partial(flow_warp, align_corners=False), drawn(1, 1, 4)),
        (backwarp, [normal(batch, 3, 9, 5), 3 * normal(batch, 2, 9, 5)]),
    ]


CASES: dict[str, Callable[[int], list[Case]]] = {
    "layer_norm": norms,
    "rms_norm": gated_norms,
    "causal_conv1d": convolutions,
    "ssd": scans,
    "gdfn": feed_forwards,
    "mdta": attentions,
    "window_attention": windows,
    "census": distances,
    "ssim": similarities,
    "ms_ssim": scales,
    "charbonnier": smooth_distances,
    "laplacian": pyramids,
    "gradient": stencils,
    "smoothness": smooth_flows,
    "flow_warp": warps,
    "selective_scan": selective_scans,
    "simple_gate": gates,
    "spectral_mixing": mixings,
    "phase": phases,
    "polar": spectra,
}
"""By op: the cases for a batch of so many samples."""
OTHER = {"sinkhorn", "log_sinkhorn", "filter_images", "jpeg"}
"""Ops that have no gradient: they have tests of their own."""
SINGLE = {"census", "charbonnier", "gradient", "laplacian", "ms_ssim", "smoothness", "ssim"}
"""Those that take float32 alone."""
NEVER_EMPTY = {"ssd", "selective_scan"}
"""Those that refuse an empty batch, fused or not."""
