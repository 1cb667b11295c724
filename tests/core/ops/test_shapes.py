"""Arguments of ops with kernels whose shapes do not go together: one line that names them, fused or not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from relume.core.errors import UserError
from relume.core.ops.causal_conv1d import causal_conv1d
from relume.core.ops.census import census_distance
from relume.core.ops.channel_attention import cross_attention, self_attention
from relume.core.ops.layer_norm import layer_norm
from relume.core.ops.pixelwise import gated_feed_forward
from relume.core.ops.sinkhorn import scale_to_marginals


def z(*shape: int) -> Tensor:
    return torch.zeros(shape)


CASES: dict[str, tuple[Callable[[], object], str]] = {
    "gain": (
        lambda: layer_norm(z(2, 3, 3, 6), z(5), None, 1e-5, False),
        r"gain must be \(6,\) or \(2, 6\); it is \(5,\)",
    ),
    "offset": (lambda: layer_norm(z(2, 3, 3, 6), z(6), z(2, 6), 1e-5), r"offset must be \(6,\); it is \(2, 6\)"),
    "bias": (lambda: causal_conv1d(z(1, 4, 9), z(4, 3), z(5)), r"bias must be \(4,\); it is \(5,\)"),
    "initial_states": (
        lambda: causal_conv1d(z(1, 4, 9), z(4, 3), None, z(1, 4, 3)),
        r"initial_states must be \(1, 4, 2\); it is \(1, 4, 3\)",
    ),
    "target": (lambda: census_distance(z(1, 4, 4), z(1, 4, 5)), r"of one shape.*\(1, 4, 4\), \(1, 4, 5\)"),
    "patch_size": (lambda: census_distance(z(1, 4, 4), z(1, 4, 4), 4), "patch_size odd; .* and 4"),
    "a": (lambda: scale_to_marginals(z(2, 3), z(3), z(3), z(2), z(3), 1), r"a must be \(2,\); it is \(3,\)"),
    "v": (lambda: scale_to_marginals(z(2, 3), z(2), z(3), z(2), z(2), 1), r"v must be \(3,\); it is \(2,\)"),
    "K": (lambda: scale_to_marginals(z(2), z(2), z(3), z(2), z(2), 1), r"kernel must be \(n, m\); it is \(2,\)"),
    "qkv": (lambda: self_attention(z(1, 2, 2, 8), z(2), z(4, 4)), r"qkv must be \(B, H, W, 3 C\).*\(1, 2, 2, 8\)"),
    "heads": (lambda: self_attention(z(1, 2, 2, 12), z(3), z(4, 4)), "that the 3 heads of temperature divide"),
    "weight": (lambda: self_attention(z(1, 2, 2, 12), z(2), z(4, 5)), r"weight must be \(4, 4\); it is \(4, 5\)"),
    "q": (
        lambda: cross_attention(z(1, 4, 2, 3), z(1, 2, 2, 8), z(2), z(4, 4)),
        r"q must be \(1, 4, 2, 2\); it is \(1, 4, 2, 3\)",
    ),
    "kernel": (
        lambda: gated_feed_forward(z(1, 2, 2, 3), z(8, 3), None, z(6, 1, 3, 3), None, z(3, 4), None),
        r"kernel must be \(8, 1, 3, 3\); it is \(6, 1, 3, 3\)",
    ),
    "out_weight": (
        lambda: gated_feed_forward(z(1, 2, 2, 3), z(8, 3), None, z(8, 1, 3, 3), None, z(3, 5), None),
        r"out_weight must be \(3, 4\); it is \(3, 5\)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_shapes_that_do_not_go_together(name: str) -> None:
    call, complaint = CASES[name]
    with pytest.raises(UserError, match=complaint) as e:
        call()
    assert "\n" not in str(e.value)
