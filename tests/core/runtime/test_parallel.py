"""core/runtime/parallel.py: which parts of a network are sharded one by one, and that this changes no number."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from runs import options
from torch import Tensor, nn

from relume.archs import build_network
from relume.core.errors import UserError
from relume.core.options import check
from relume.core.runtime.parallel import Compression, shard, units, wrap

SMALL: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "Restormer": (
        {"dim": 8, "num_blocks": [1, 1, 1, 2], "num_refinement_blocks": 1, "heads": [1, 1, 2, 2]},
        (3, 32, 32),
    ),
    "NAFNet": ({"width": 8, "enc_blk_nums": [2, 1], "dec_blk_nums": [1, 1]}, (3, 32, 32)),
    "MSRResNet": ({"num_feat": 8, "num_block": 2, "upscale": 2}, (3, 16, 16)),
    "Spectroformer": ({"dim": 8, "num_blocks": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}, (3, 32, 32)),
}


class Layered(nn.Module):
    """A block with layers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class Named(nn.Module):
    """Blocks under names of their own, in no list; one other module has layers too, and there is one of it."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = Layered(), Layered()
        self.head = nn.Sequential(nn.Conv2d(3, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.decode(self.encode(x)))


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_repeated_blocks_are_units_whatever_holds_them() -> None:
    network = Named()
    assert list(units(network)) == [network.encode, network.decode]
    listed = nn.Sequential(nn.ModuleList([Layered(), nn.Conv2d(3, 3, 1), Layered()]), nn.Sequential(Named()))
    found = list(units(listed))
    assert [type(unit) for unit in found] == [Layered, Layered, Named]


@pytest.mark.parametrize("name", SMALL)
def test_a_sharded_network_computes_the_same(name: str, one_rank: None) -> None:
    settings, shape = SMALL[name]
    torch.manual_seed(0)
    whole = build_network({"type": name, **settings})
    parts = shard(copy.deepcopy(whole))
    assert len(list(units(whole))) > 1
    x = torch.rand(1, *shape)
    outputs = [network(x) for network in (whole, parts)]
    for y in outputs:
        y.square().sum().backward()
    torch.testing.assert_close(outputs[0], outputs[1])
    for (key, a), b in zip(whole.named_parameters(), parts.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), key
        if a.grad is not None and b.grad is not None:
            size = float(a.grad.abs().max())
            torch.testing.assert_close(a.grad, b.grad.full_tensor(), rtol=0, atol=1e-4 * size, msg=key)


@pytest.mark.parametrize(("form", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_compressed_gradients_are_rounded_once(form: Compression, dtype: torch.dtype, one_rank: None) -> None:
    torch.manual_seed(0)
    whole = build_network({"type": "MSRResNet", **SMALL["MSRResNet"][0]})
    wrapped = wrap(copy.deepcopy(whole), torch.device("cpu"), find_unused=False, compression=form)
    x = torch.rand(1, 3, 16, 16)
    for network in (whole, wrapped):
        network(x).square().sum().backward()
    for a, b in zip(whole.parameters(), wrapped.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        assert torch.equal(a.grad.to(dtype).float(), b.grad)


def test_sharded_gradients_are_not_compressed() -> None:
    with pytest.raises(UserError, match="grad_compression: is for strategy: ddp"):
        check(options(train__strategy="fsdp", train__grad_compression="bf16"))
