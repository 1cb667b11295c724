"""What a first step needs of memory is told exactly before it is taken, and refused where there is not so much."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from addict import Dict
from torch import Tensor, nn

from relume.archs import build_network
from relume.core.building import step
from relume.core.errors import UserError
from relume.core.runtime import memory

NAFNET = {"type": "NAFNet", "width": 4, "enc_blk_nums": [1], "dec_blk_nums": [1]}


def kept(network: nn.Module, x: Tensor) -> int:
    """Bytes that a call really keeps."""
    found: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        network(x)
    for tensor in (*network.parameters(), *network.buffers()):
        found.pop(tensor.untyped_storage()._cdata, None)
    return sum(s.nbytes() for s in found.values())


def test_what_a_step_keeps_is_told_without_taking_it() -> None:
    network = build_network(NAFNET).train()
    x = torch.rand(2, 3, 32, 40)
    drawn = torch.random.get_rng_state()
    told = step.kept_for_gradients(network, (x,), {})
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert told == kept(network, x) > 100_000
    before = step.kept_for_gradients(network, (x.repeat(4, 1, 1, 1),), {})
    assert before is not None and 3.5 < before / kept(network, x) <= 4


def test_a_network_that_looks_at_values_cannot_be_told_of() -> None:
    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float(x.mean())

    assert step.kept_for_gradients(Looks(), (torch.rand(2),), {}) is None


def test_a_step_that_is_too_large_is_refused_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network(NAFNET).train()
    training = {"compile": False, "strategy": "ddp", "amp": "off"}
    opt: Any = Dict(train=training, datasets={"train": {"gt_size": 48}}, network_g=NAFNET)
    step.watch({"g": network}, opt, torch.device("cpu"))
    x = torch.rand(2, 3, 48, 48)
    monkeypatch.setattr(memory, "there_is", lambda: 1 << 20)
    with torch.no_grad():
        network(x)  # which keeps nothing
    computed: list[Tensor] = []
    network.intro.register_forward_hook(lambda module, inputs, output: computed.append(output))
    with pytest.raises(
        UserError, match=r"network_g on 2x3x48x48 would need 0\.\d GB of memory .* \(gt_size: 48; NAFNet with width: 4"
    ) as caught:
        network(x)
    assert caught.value.key == "datasets.train"
    assert all(type(t) is not Tensor for t in computed)  # torch's fake ones
    network(x)  # it is looked at once
    assert type(computed[-1]) is Tensor
