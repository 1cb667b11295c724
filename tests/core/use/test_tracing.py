"""core.use.tracing: programs that hold for images of any size, whatever size they were made with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from relume.archs.blocks import halves
from relume.archs.local_pooling import LocalMean
from relume.archs.vfi.attention import GatedWindowAttention, attend_in_windows, shift_masks
from relume.archs.vfi.flow import resize_map
from relume.core.errors import UserError
from relume.core.ops.flow_warp import backwarp
from relume.core.use.tracing import HINTS, traced


class Calling(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor], part: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.part = function, part

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def gated_windows() -> Calling:
    torch.manual_seed(0)
    attention = GatedWindowAttention(4, 2)
    return Calling(
        lambda x: attend_in_windows(attention, x.permute(0, 2, 3, 1), 4, 2, shift_masks(4, 2)), attention.eval()
    )


def warped(x: Tensor) -> Tensor:
    return backwarp(x, 0.3 * resize_map(resize_map(x[:, :2], 0.5), 2))


@pytest.mark.parametrize(
    ("module", "multiple"),
    [
        (LocalMean((12, 10)), 1),
        (Calling(lambda x: torch.cat(halves(torch.cat([x, 2 * x])), 1)), 1),
        (gated_windows(), 4),
        (Calling(warped), 2),
    ],
    ids=["local means", "halves", "shifted windows", "warping"],
)
def test_what_decides_by_the_size_is_right_for_every_size(module: nn.Module, multiple: int) -> None:
    program, free = traced(module, torch.rand(2, 4, 8, 12), HINTS[0])
    assert free == ("batch", "height", "width")
    run = program.module()
    for batch, height, width in ((2, 8, 12), (1, 2, 3), (3, 5, 10), (1, 3, 9)):
        x = torch.rand(batch, 4, height * multiple, width * multiple)
        with torch.no_grad():
            made = run(x)
            torch.testing.assert_close(made, module(x).expand_as(made), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("hint", HINTS[:3])
def test_a_program_that_holds_up_to_a_size_is_refused(hint: tuple[str | None, str | None]) -> None:
    """Else a file would leave out what is done to larger pictures."""
    limited = Calling(lambda x: x if x.shape[-1] <= 100 else 2 * x)
    with pytest.raises(UserError, match=r"^torch.export follows it up to a width of 100 only"):
        traced(limited, torch.rand(2, 3, 8, 16), hint)
    assert traced(limited, torch.rand(2, 3, 8, 16), (None, None))[1] == ()


def test_distances_that_divide_the_image_need_its_size() -> None:
    fast = LocalMean((4, 4), (2, 2))
    with pytest.raises(UserError, match=r"local_pooling.py:\d+: fast_imp takes distances"):
        traced(fast, torch.rand(2, 3, 8, 12), HINTS[0])
    assert traced(fast, torch.rand(2, 3, 8, 12), (None, None))[1] == ()
