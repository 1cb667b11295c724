"""A small call of an op with kernels and without, in value and gradient, before kernels are first used in a dtype on a device.

What is wrong is known for the rest of the process. `core.ops.dispatch` then does without these kernels, after one warning, or
stops where they are insisted on. A kernel that cannot be compiled or launched fails here as well.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import dispatch

log = logging.getLogger("relume")
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Relative error, of norms, that is no fault: rounding, of TensorFloat-32 for the products around a kernel in float32."""
FAULTS: dict[tuple[str, torch.dtype, torch.device], str | None] = {}
"""What was found by op, dtype and device; None where nothing was wrong."""
Case = tuple[Callable[..., Any], list[tuple[int, ...]]]
_LOCK = threading.RLock()


def fault(op: str, dtype: torch.dtype, device: torch.device) -> str | None:
    """What is wrong with the kernels of `op`, in a few words, or None; tried when first asked.

    Nothing is tried, and nothing noted, while a CUDA graph is captured: an op was called before, to warm up.
    """
    if (op, dtype, device) in FAULTS:
        return FAULTS[op, dtype, device]
    if op not in CASES or (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
        return None
    with _LOCK:
        before = dispatch.DECISIONS.copy()
        found = FAULTS[op, dtype, device] = _tried(op, dtype, device)
        dispatch.DECISIONS.clear()
        dispatch.DECISIONS.update(before)
    if found and dispatch.mode_of(op) != "on":
        log.warning("The fused %s is not used on %s in this run: %s.", dispatch.NAMES[op], device, found)
    return found


def _tried(op: str, dtype: torch.dtype, device: torch.device) -> str | None:
    from .launching import LAUNCHED

    launched = LAUNCHED.copy()
    name = str(dtype).removeprefix("torch.")
    function, shapes = CASES[op]()
    drawn = [t.to(dtype) for t in _drawn(shapes)]
    try:
        expected = _called(op, "off", function, [t.double() for t in drawn])
        found = _called(op, "on", function, [t.to(device) for t in drawn])
    except Exception as e:  # of a compiler, a driver or a kernel: there is no common class
        said = str(e).strip().splitlines() or [""]
        return f"its self-test in {name} failed, {type(e).__name__}: {said[0]}"
    finally:
        LAUNCHED.clear()
        LAUNCHED.update(launched)
    errors = [float((a.cpu().double() - b).norm() / (b.norm() + 1e-12)) for a, b in zip(found, expected, strict=True)]
    worst = max(errors)
    if worst <= TOLERANCE[dtype]:
        return None
    what = "value" if errors.index(worst) == 0 else "gradient"
    return f"its self-test in {name} found a {what} that is wrong by {worst:.1%}"


def _drawn(shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """In (0.1, 1.1), the same every time; no generator of the run is used."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(s, generator=generator) + 0.1 for s in shapes]


def _called(op: str, mode: str, function: Callable[..., Any], given: list[Tensor]) -> list[Tensor]:
    """The result, and the gradients of a weighted sum of it where there are any."""
    dispatch.FORCED[op] = mode
    try:
        device = given[0].device.type
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
            given = [t.clone().requires_grad_() for t in given]
            y = function(*given)
            if not y.requires_grad:
                return [y]
            weight = torch.linspace(-1, 1, y.numel(), device=y.device, dtype=y.dtype).view(y.shape)
            gradients = torch.autograd.grad((y * weight).sum(), given, allow_unused=True)
            return [y.detach(), *(g for g in gradients if g is not None)]
    finally:
        del dispatch.FORCED[op]


# --------------------------------------------------------------------------------------------- one case of every op
def _layer_norm() -> Case:
    from .layer_norm import layer_norm

    return lambda x, gain, offset: layer_norm(x, gain, offset, 1e-5), [(2, 3, 3, 24), (24,), (24,)]


def _rms_norm() -> Case:
    from .rms_norm import rmsnorm_gated

    return rmsnorm_gated, [(2, 9, 24), (24,), (2, 9, 24)]


def _causal_conv1d() -> Case:
    from .causal_conv1d import causal_conv1d

    return lambda x, weight, bias: causal_conv1d(x, weight, bias, activation="silu"), [(2, 24, 17), (24, 4), (24,)]


def _ssd() -> Case:
    from .ssd import ssd

    shapes = [(1, 70, 2, 16), (1, 70, 2), (2,), (1, 70, 1, 16), (1, 70, 1, 16), (2,)]
    return lambda x, dt, A, B, C, D: ssd(x, dt, -A, B, C, D=D), shapes


def _gdfn() -> Case:
    from .pixelwise import gated_feed_forward

    def call(x: Tensor, weight: Tensor, kernel: Tensor, out: Tensor) -> Tensor:
        return gated_feed_forward(x - 0.6, weight - 0.6, None, kernel - 0.6, None, out - 0.6, None)

    return call, [(1, 5, 6, 8), (32, 8), (32, 1, 3, 3), (8, 16)]


def _mdta() -> Case:
    from .channel_attention import self_attention

    return lambda *t: self_attention(t[0] - 0.6, *t[1:]), [(1, 5, 6, 48), (2,), (8, 16)]


def _window_attention() -> Case:
    from .window_attention import window_attention

    return lambda qkv, gate: window_attention(qkv - 0.6, gate, 4, 2), [(1, 8, 8, 48), (1, 8, 8, 2)]


def _census() -> Case:
    from .census import census_distance

    return lambda pred, target: census_distance(pred, target.detach(), 3), [(1, 6, 7), (1, 6, 7)]


def _sinkhorn() -> Case:
    from .sinkhorn import scale_to_marginals

    def call(kernel: Tensor, a: Tensor, b: Tensor) -> Tensor:
        u, v = torch.ones_like(a), torch.ones_like(b)
        with torch.no_grad():
            scale_to_marginals(kernel, a, b, u, v, 2)
        return torch.cat([u, v]).detach()

    return call, [(5, 7), (5,), (7,)]


def _selective_scan() -> Case:
    from .selective_scan import selective_scan

    shapes = [(1, 4, 19), (1, 4, 19), (4, 8), (1, 2, 8, 19), (1, 2, 8, 19), (4,)]
    return lambda u, delta, A, B, C, D: selective_scan(u, delta, -A, B, C, D), shapes


CASES: dict[str, Callable[[], Case]] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "causal_conv1d": _causal_conv1d,
    "ssd": _ssd,
    "gdfn": _gdfn,
    "mdta": _mdta,
    "window_attention": _window_attention,
    "census": _census,
    "sinkhorn": _sinkhorn,
    "selective_scan": _selective_scan,
}
"""By op: a function that differentiates in all of its tensors, and their shapes."""
