"""Transfer functions: values from their formulas, and each pair inverse to each other."""

from __future__ import annotations

import math

import pytest
import torch

from relume.core.transfer import TRANSFERS


@pytest.mark.parametrize("name", TRANSFERS)
def test_decoding_undoes_encoding(name: str) -> None:
    x = torch.tensor([0.0, 1e-3, 0.5, 18.0, 1000.0, 4000.0], dtype=torch.float64)
    torch.testing.assert_close(TRANSFERS[name].decode(TRANSFERS[name].encode(x)), x, rtol=1e-10, atol=1e-12)


def test_values() -> None:
    x = torch.tensor(10.0, dtype=torch.float64)
    assert float(TRANSFERS["log1p"].encode(x)) == pytest.approx(math.log(11) / math.log(1001 + 1e-6), rel=1e-12)
    assert float(TRANSFERS["mu_law"].encode(x)) == pytest.approx(math.log(51) / math.log(5001), rel=1e-12)
