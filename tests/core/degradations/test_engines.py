"""The engines of degradations, by name."""

from __future__ import annotations

import pytest

from relume.core.degradations.engines import make_engine
from relume.core.errors import UserError


def test_a_table_for_the_engine_that_has_its_own_is_refused() -> None:
    with pytest.raises(UserError, match="jpeg_table: standard has no effect with engine: opencv"):
        make_engine("opencv", "standard")
    assert make_engine("tensor", "standard").jpeg.standard
