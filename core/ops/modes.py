"""Names of the ops that have fused kernels, and what ``RELUME_KERNELS`` says of each.

``off`` never uses them, ``on`` insists on them (an op whose kernel cannot run then stops with one line), ``auto`` or nothing
leaves the choice to each op. Words for single ops follow after commas: ``RELUME_KERNELS=auto,layer_norm=off,ssd=on``.

``TRITON_INTERPRET=1 RELUME_KERNELS=on`` runs kernels on CPU tensors in Triton's interpreter: slow, for tests.
"""

from __future__ import annotations

import os

from ..errors import UserError, did_you_mean

MODES = ("auto", "off", "on")
NAMES = {
    "layer_norm": "layer norm",
    "rms_norm": "gated RMS norm",
    "causal_conv1d": "causal convolution",
    "ssd": "state-space scan (ssd)",
    "gdfn": "gated feed-forward",
    "mdta": "channel attention",
    "window_attention": "gated window attention",
    "simple_gate": "simple gate",
    "spectral_mixing": "spectral mixing",
    "phase": "phase vectors",
    "polar": "polar spectrum",
    "census": "census distance",
    "ssim": "structural similarity",
    "ms_ssim": "multi-scale similarity",
    "charbonnier": "Charbonnier distance",
    "laplacian": "Laplacian pyramid",
    "flow_warp": "backward warp",
    "gradient": "image derivatives",
    "smoothness": "flow smoothness",
    "sinkhorn": "Sinkhorn update",
    "log_sinkhorn": "Sinkhorn update in the log domain",
    "selective_scan": "selective scan",
    "filter_images": "image filter",
    "jpeg": "JPEG",
}
"""The ops that have kernels, as ``RELUME_KERNELS`` names them, and in words."""
FORCED: dict[str, str] = {}
"""Mode, for ops that are being tried (`core.ops.self_test`), that counts instead of ``RELUME_KERNELS``."""


_PARSED: dict[str, tuple[str, dict[str, str]]] = {}
"""Modes for each value that ``RELUME_KERNELS`` had: a dict and not a cached function, since ``torch.compile`` looks inside."""


def mode_of(op: str) -> str:
    """What ``RELUME_KERNELS`` says of `op`: one of `MODES`.

    Raises:
        UserError: it has another word, or names an op that there is not.
    """
    if op in FORCED:
        return FORCED[op]
    words = os.environ.get("RELUME_KERNELS", "")
    if words not in _PARSED:
        _PARSED[words] = _parsed(words)
    general, chosen = _PARSED[words]
    return chosen.get(op, general)


def _parsed(words: str) -> tuple[str, dict[str, str]]:
    """The mode of all ops, and those of single ones."""
    general, chosen = "auto", {}
    for word in words.lower().split(","):
        name, equals, mode = (part.strip() for part in word.partition("="))
        name, mode = (name, mode) if equals else ("", name)
        if mode not in MODES and (mode or equals):
            raise UserError(
                f"RELUME_KERNELS cannot be '{mode}'.{did_you_mean(mode, MODES)} Accepted: {', '.join(MODES)}."
            )
        if equals and name not in NAMES:
            raise UserError(
                f"RELUME_KERNELS: no op is called '{name}'.{did_you_mean(name, NAMES)} Known: {', '.join(NAMES)}."
            )
        if equals:
            chosen[name] = mode
        elif mode:
            general = mode
    return general, chosen


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, which is chosen before Triton is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"
