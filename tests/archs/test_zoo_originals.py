"""The zoo's architectures against golden tensors of their originals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from zoo_cases import assert_same_as_original, cases

FILES = ("nafnet", "nafssr", "hinet", "mambair", "mambairunet", "mambairv2")


@pytest.mark.parametrize("name", FILES)
def test_value_and_gradient(name: str, golden: Callable[[str], Path]) -> None:
    for case in cases(golden(f"zoo/{name}.pt")):
        try:
            assert_same_as_original(case)
        except AssertionError as e:
            raise AssertionError(f"{case['name']} ({case['mode']}): {e}") from e
