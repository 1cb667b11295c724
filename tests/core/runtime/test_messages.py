"""Messages between ranks bring values as they were, and nothing that could run code."""

from __future__ import annotations

import math
import pickle
import struct
from pathlib import PurePath

import numpy as np
import pytest
import torch

from relume.core.errors import NonFiniteError, UserError
from relume.core.metrics.generative import Moments
from relume.core.metrics.shares import RankShare
from relume.core.runtime.messages import pack, unpack


def test_values_arrive_as_they_were() -> None:
    value = {
        "plain": [None, True, 1, -2.5, "ä\n", (1, ("two",))],
        3: {"$": "dict", "of": 1},
        ("a", 1): PurePath("a/b"),
        "raw": b"\x00\xff",
        "number": np.float32(0.1),
    }
    arrived = unpack(pack(value))
    assert arrived == value and isinstance(arrived["plain"][5], tuple)
    assert math.isnan(unpack(pack(float("nan")))) and unpack(pack(float("-inf"))) == float("-inf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 4)])
def test_tensors_arrive_bit_for_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.randint(0, 2, shape).to(dtype)
    turned = tensor.movedim(0, -1) if shape else tensor  # not contiguous
    for sent in (tensor, turned):
        arrived = unpack(pack(sent))
        assert arrived.dtype == dtype and torch.equal(arrived, sent)
    array = np.arange(6, dtype=">i2").reshape(2, 3)[:, ::2]
    back = unpack(pack(array))
    assert back.dtype == array.dtype and np.array_equal(back, array)


def test_results_and_errors_of_ranks_arrive() -> None:
    share = RankShare(rows=[{"index": 1, "score": 0.5}], thumbnails=[(3, np.ones((2, 2, 3), np.uint8))], failed=2)
    share.errors[""] = NonFiniteError("bad")
    arrived = unpack(pack((share, 0)))[0]
    assert isinstance(arrived, RankShare) and arrived.rows == share.rows and arrived.failed == 2
    assert isinstance(arrived.errors[""], UserError) and arrived.errors[""].code == NonFiniteError.code
    moments = Moments.of(torch.rand(5, 3))
    assert torch.equal(unpack(pack(moments)).scatter, moments.scatter)


class Trap:
    def __reduce__(self) -> object:
        return print, ("run",)


def test_what_cannot_be_sent_is_refused_and_nothing_is_run() -> None:
    for value in (Trap(), {"a": object()}, np.array([None]), {1, 2}):
        with pytest.raises(TypeError, match="cannot be sent"):
            pack(value)
    whole = pack({"a": torch.ones(3)})
    text = b'{"$": "class", "name": "Trap", "of": {}}'
    for hostile in (b"", whole[:-1], whole[:20], pickle.dumps(Trap()), struct.pack("<Q", len(text)) + text):
        with pytest.raises(ValueError):
            unpack(hostile)
