"""What holds of merging option files, whatever is in them: tried with made-up options."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relume.core.options.nodes import from_python, merge, to_python
from relume.core.options.reading.loader import YAMLLoader, spelled

NAMES = st.sampled_from(["a", "b", "lr", "val", "datasets", "gt_size"])
VALUES = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False) | st.text(max_size=8)
"""What an option may be. No block here names a ``type``, whose change drops what the new one does not have."""
OPTIONS = st.dictionaries(
    NAMES,
    st.recursive(
        VALUES, lambda v: st.lists(v, max_size=3) | st.dictionaries(NAMES, v, min_size=1, max_size=3), max_leaves=5
    ),
    max_size=4,
)


def merged(*blocks: dict[str, Any]) -> Any:
    node = from_python({})
    for block in blocks:
        node = merge(node, from_python(block))
    return to_python(node)


def expected(base: Any, over: Any) -> Any:
    """Key by key where both are blocks; else what comes later."""
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {k: expected(base[k], v) if k in base else v for k, v in over.items()}
    return over


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OPTIONS, OPTIONS)
def test_a_file_on_top_of_its_base(base: dict[str, Any], over: dict[str, Any]) -> None:
    assert merged(base, over) == expected(base, over)
    assert merged(base, over, over) == merged(base, over)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OPTIONS)
def test_nothing_changes_nothing(options: dict[str, Any]) -> None:
    assert merged(options) == merged({}, options) == merged(options, {}) == options


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OPTIONS)
def test_what_is_written_is_read_again(options: dict[str, Any]) -> None:
    again = yaml.load(spelled(options), YAMLLoader)
    assert again == options
    assert spelled(again) == spelled(options)
