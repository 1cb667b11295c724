"""Channel attention head by head against all heads in one product, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from filling import waves

from relume.core.ops import channel_attention, hosts


@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize(("batch", "heads", "width"), [(1, 1, 48), (1, 4, 6), (3, 2, 8)])
def test_equals_all_heads_at_once(batch, heads, width, crossed, monkeypatch):
    c = heads * width
    given = [waves("kv", (batch, 5, 6, (2 if crossed else 3) * c)), 0.5 + waves("t", (heads, 1, 1)).abs()]
    given += [waves("weight", (10, c)), waves("bias", (10,)), waves("kernel", (10, 1, 3, 3))]
    given = [t.double().requires_grad_() for t in given]
    q = waves("q", (batch, c, 5, 6)).double().requires_grad_() if crossed else None
    if q is not None:  # in whatever layout it comes
        q = q.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    results = []
    for asks in (hosts.asks_freely, lambda x: False):
        monkeypatch.setattr(hosts, "asks_freely", asks)
        y, attention = channel_attention._attend(q, *given, None, None, None)
        loss = (y * waves("grad", y.shape)).sum() + (attention * waves("grad map", attention.shape)).sum()
        wanted = [t for t in (q, *given) if t is not None]
        results.append([y, attention, *torch.autograd.grad(loss, wanted)])
    for by_head, at_once in zip(*results, strict=True):
        torch.testing.assert_close(by_head, at_once, rtol=1e-12, atol=1e-12)
