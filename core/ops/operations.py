"""Floating-point operations of our operators, which stand at the operators as ``flops`` for a program that counts them.

They are those of the products and convolutions of the plain forms that the operators stand for, twice the multiply-accumulates.
What has no products counts as nothing, as in torch. Formulas are given shapes for tensors, as torch's are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

Shape = tuple[int, ...]
CHUNK = 32
"""Steps that the fused scan treats at once."""


def nothing(*_: Any, **__: Any) -> int:
    """The count of sums, and of functions of single elements: none."""
    return 0


def _convolved(x: Shape, weight: Shape, *rest: Any, **_: Any) -> int:
    return 2 * prod(x) * weight[1]


def _convolved_backward(
    grad: Shape, x: Shape, weight: Shape, bias: Shape | None, before: Shape | None, silu: bool, **_: Any
) -> int:
    """What went into SiLU again, and the gradient of the input; that of the weights is a few sums."""
    batch, length, channels = x
    steps = length * (2 if silu else 1) + (weight[1] - 1 if before is not None else 0)
    return 2 * batch * steps * channels * weight[1]


def _gate(a: Shape, b: Shape, kernel: Shape, *rest: Any, **_: Any) -> int:
    return 2 * prod(a[:-1]) * prod(kernel)


def _gate_backward(grad: Shape, a: Shape, b: Shape, kernel: Shape, *rest: Any, **_: Any) -> int:
    """The convolution again, and the gradients of its input and its kernel."""
    return 3 * _gate(a, b, kernel)


def _attend(q: Shape | None, kv: Shape, temperature: Shape, c: int, **_: Any) -> int:
    return 2 * kv[0] * kv[1] * kv[2] * c * c


def _attend_backward(grad: Shape, q: Shape | None, kv: Shape, temperature: Shape, *rest: Any, **_: Any) -> int:
    """Those of queries and keys together by one matrix twice as wide, or of each by its own."""
    return (4 if q is None else 2) * _attend(q, kv, temperature, rest[-1])


def _windows(qkv: Shape, gate: Shape, side: int, *rest: Any, **_: Any) -> int:
    return 4 * prod(qkv[:3]) * side * side * qkv[3] // 3


def _windows_backward(grad: Shape, qkv: Shape, gate: Shape, side: int, *rest: Any, **_: Any) -> int:
    """Five products for the forward pass's two, as torch counts its own attention."""
    return 5 * _windows(qkv, gate, side) // 2


def _mixed(f: Shape, w1: Shape, b1: Shape | None, w2: Shape, *rest: Any, **_: Any) -> int:
    return 2 * f[0] * f[2] * f[3] * (prod(w1) + prod(w2))


def _mixed_backward(grad: Shape, f: Shape, w1: Shape, b1: Shape | None, w2: Shape, width: int, **_: Any) -> int:
    """The first product again, and the gradients of both inputs."""
    return 2 * f[0] * f[2] * f[3] * (2 * prod(w1) + prod(w2))


def _similarity(x: Shape, y: Shape, window: Shape, *rest: Any, **_: Any) -> int:
    """Five maps, filtered by columns, then by rows."""
    (batch, channels, height, width), k = x, window[0]
    rows, columns = height - k + 1, width - k + 1
    return 5 * 2 * batch * channels * k * (rows * width + rows * columns)


def _similarity_backward(
    of_value: Shape, of_contrast: Shape, x: Shape, y: Shape, window: Shape, *_: Any, **__: Any
) -> int:
    return _similarity(x, y, window)


def _similarities(x: Shape, y: Shape, window: Shape, exponents: Shape, *rest: Any, **__: Any) -> int:
    """Those of every scale."""
    total, (height, width) = 0, x[2:]
    for _ in range(exponents[0]):
        total += _similarity((*x[:2], height, width), y, window)
        height, width = (height + 1) // 2, (width + 1) // 2
    return total


def _similarities_backward(
    grad: Shape, weights: Shape, maps: Shape, slopes: Shape, x: Shape, y: Shape, window: Shape, *rest: Any, **_: Any
) -> int:
    return _similarities(x, y, window, weights[2:])


def _bands(x: Shape, levels: int, low_pass: bool, edge: bool, *rest: Any, **__: Any) -> int:
    """Two filters of every level, each by columns of what has a border of 2, then by rows."""
    total, (height, width) = 0, x[2:]
    for _ in range(levels):
        smaller = (height + 1) // 2, (width + 1) // 2
        for h, w in ((height, width), (height, width) if edge else (2 * smaller[0], 2 * smaller[1])):
            total += 2 * 5 * x[0] * x[1] * h * (w + 4 + w)
        height, width = smaller
    return total


def _bands_backward(grad: Shape, slopes: Shape, x: Shape, *rest: Any, **_: Any) -> int:
    return _bands(x, *rest)


def _derivatives(x: Shape, stencils: Shape, inner: int, fewer: int, **_: Any) -> int:
    """One convolution inside the image, or two of all of it; differences of neighbours are none."""
    pixels = (x[2] - 2 * inner) * (x[3] - 2 * inner)
    return 0 if fewer else (1 if inner else 2) * 2 * 9 * x[0] * x[1] * pixels


def _derivatives_backward(grad: Shape, signs: Shape, stencils: Shape, x: Shape, *rest: Any, **_: Any) -> int:
    return _derivatives(x, stencils, *rest)


def _selective(u: Shape, delta: Shape, A: Shape, *rest: Any, **_: Any) -> int:
    """States by C."""
    return 2 * prod(u) * A[1]


def _selective_backward(grad: Shape, grad_last: Shape, u: Shape, delta: Shape, A: Shape, *rest: Any, **_: Any) -> int:
    return 3 * _selective(u, delta, A)


def _scanned(x: Shape, dt: Shape, A: Shape, B: Shape, *rest: Any, **_: Any) -> int:
    """C by B and the result by x within chunks, x by B into states, C by states (Dao and Gu, ICML 2024)."""
    (batch, length, heads, width), size = x, B[3]
    return 2 * batch * length * heads * (CHUNK * (size + width) + 2 * size * width)


def _scanned_backward(
    grad: Shape, grad_last: Shape, x: Shape, dt: Shape, A: Shape, B: Shape, *rest: Any, **_: Any
) -> int:
    """Each product has two gradients, and C by B is computed again."""
    (batch, length, heads, width), size = x, B[3]
    return 2 * batch * length * heads * (CHUNK * (3 * size + 2 * width) + 4 * size * width)


def _recompressed(x: Shape, *rest: Any, **_: Any) -> int:
    """Of a pixel of blocks of 16 x 16: both changes of colours, and four products for luminance and halved chrominance."""
    batch, channels, height, width = x
    pixels = batch * -(-height // 16) * -(-width // 16) * 256
    return 2 * pixels * (2 * channels**2 + 4 * 8 * 3 // 2)


def _filtered(x: Shape, kernels: Shape, *rest: Any, **_: Any) -> int:
    return 2 * prod(x) * prod(kernels[1:])


FORMULAS: dict[str, tuple[Callable[..., int], Callable[..., int]]] = {
    "causal_conv1d": (_convolved, _convolved_backward),
    "gdfn": (_gate, _gate_backward),
    "mdta": (_attend, _attend_backward),
    "window_attention": (_windows, _windows_backward),
    "spectral_mixing": (_mixed, _mixed_backward),
    "ssim": (_similarity, _similarity_backward),
    "ms_ssim": (_similarities, _similarities_backward),
    "laplacian": (_bands, _bands_backward),
    "gradient": (_derivatives, _derivatives_backward),
    "selective_scan": (_selective, _selective_backward),
    "ssd": (_scanned, _scanned_backward),
    "jpeg": (_recompressed, nothing),
    "filter_images": (_filtered, nothing),
    **dict.fromkeys(("layer_norm", "rms_norm", "polar", "phase", "simple_gate"), (nothing, nothing)),
    **dict.fromkeys(
        ("charbonnier", "smoothness", "census", "flow_warp", "sinkhorn", "log_sinkhorn", "absorbed"), (nothing, nothing)
    ),
}
"""Operations of each operator, forward and backward."""


def register(name: str) -> None:
    """Give an operator and its gradient their formulas, where there are some."""
    for suffix, formula in zip(("", "_backward"), FORMULAS.get(name, ()), strict=False):
        packet: Any = getattr(torch.ops.relume, name + suffix, None)
        if packet is not None:
            packet.flops = functools.partial(_of_shapes, formula)


def counted_inside(name: str, *functions: Callable[..., Any]) -> None:
    """Have what an operator and its gradient do, which are plain PyTorch, counted by doing it once more."""
    for suffix, function in zip(("", "_backward"), functions, strict=True):
        packet: Any = getattr(torch.ops.relume, name + suffix)
        packet.flops = functools.partial(_inside, function)


def _of_shapes(formula: Callable[..., int], *args: Any, out_val: Any = None, **settings: Any) -> int:
    return formula(*(tuple(a.shape) if isinstance(a, Tensor) else a for a in args), **settings)


def _inside(function: Callable[..., Any], *args: Any, out_val: Any = None, **settings: Any) -> int:
    from torch.utils.flop_counter import FlopCounterMode, flop_registry  # imports Triton

    aten = torch.ops.aten
    own = {aten.baddbmm_: flop_registry[aten.baddbmm], aten.addmm_: flop_registry[aten.addmm]}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=own) as counter:
        function(*args, **settings)
    return int(counter.get_total_flops())
