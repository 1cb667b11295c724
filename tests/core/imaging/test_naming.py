"""core/imaging/naming.py: names of results, short and never the same twice."""

from __future__ import annotations

from itertools import permutations

import pytest

from relume.core.imaging.naming import unique_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/d/a.png", "/d/b.c.png"], ["a", "b.c"]),
        (["/d/one/lq/x.png", "/d/two/lq/x.png"], ["one_lq_x", "two_lq_x"]),
        (["x.png", "sub/x.png"], ["x_png", "sub_x"]),
        (["s3://bucket/1/x.png", "s3://bucket/2/x.png"], ["1_x", "2_x"]),
        # A name that another file has already is none for those that clash.
        (["r/a/x.png", "r/b/x.png", "r/c/a_x.png"], ["r_a_x", "b_x", "c_a_x"]),
        (["/x.png", "/x.png"], ["x_png_00000", "x_png_00001"]),
        ([], []),
    ],
)
def test_names_are_as_long_as_they_need_to_be(paths: list[str], names: list[str]) -> None:
    assert unique_names(paths) == names


def test_names_are_unique_in_the_worst_cases() -> None:
    paths = ["a/x.png", "a/x.jpg", "b/a/x.png", "a_x.png", "x.png", "b/a_x.png"]
    for order in permutations(paths):
        assert len(set(unique_names(order))) == len(paths)


def test_names_do_not_depend_on_the_order_of_different_files() -> None:
    paths = ["a/x.png", "a/x.jpg", "b/a/x.png", "x.png", "y.png"]
    expected = dict(zip(paths, unique_names(paths), strict=True))
    for order in permutations(paths):
        assert dict(zip(order, unique_names(order), strict=True)) == expected
