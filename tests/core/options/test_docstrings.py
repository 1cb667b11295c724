"""Reading docstrings."""

from __future__ import annotations

import torch

from relume.core.options.docstrings import arguments, summary


class Base:
    """A base.

    Args:
        shared: of the base.
        other: of the base.
    """


class Derived(Base):
    """A class
    on two lines.

    More.

    Args:
        own (int, optional): with a type,
            and a second line.

            And a paragraph.
        shared: said anew.

    Raises:
        ValueError: never.
    """

    def __init__(self) -> None:
        """Make one.

        Args:
            late: in the constructor.
        """


def test_summary() -> None:
    assert summary(Derived) == "A class on two lines."
    assert summary(lambda: None) == ""


def test_arguments_of_a_class_include_those_of_its_bases() -> None:
    assert arguments(Derived) == {
        "own": "with a type, and a second line. And a paragraph.",
        "shared": "said anew.",
        "late": "in the constructor.",
        "other": "of the base.",
    }


def test_libraries_are_read_too() -> None:
    assert arguments(torch.optim.Adam)["weight_decay"].startswith("weight decay")
