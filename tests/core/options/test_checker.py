"""Values against annotations: what is accepted, what it becomes, and what is said otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
import torch
from torch import Tensor, nn

from relume.core.annotations import MAY_BE_INFINITE, Names, Range
from relume.core.options.checking.checker import Checker
from relume.core.options.checking.kinds import BAD
from relume.core.options.checking.words import describe
from relume.core.options.nodes import Entry, Scalar, from_python
from relume.core.options.reading.source import YamlText
from relume.losses import LOSSES


@dataclass
class Backend:
    type: Literal["disk", "lmdb"] = "disk"
    fast: bool = True


@dataclass
class Between:
    low: int
    high: int = 10

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low: must not exceed high ({self.high}), got {self.low}")
        if self.high == 13:
            raise ValueError("13 brings bad luck")


def checked(text: str, annotation: Any) -> tuple[Any, list[str]]:
    """The value of a YAML text, and the messages about it."""
    source = YamlText("x.yml", Path(), 1, [])
    node = source.nodes(text)
    assert node is not None and not source.problems
    checker = Checker()
    value = checker.check(node, annotation, "key")
    return value, [str(p) for p in checker.problems]


def accepted(text: str, annotation: Any) -> Any:
    """The value of a YAML text that must be right."""
    value, messages = checked(text, annotation)
    assert messages == []
    return value


def refused(text: str, annotation: Any) -> str:
    """The message about a YAML text that must be wrong."""
    value, messages = checked(text, annotation)
    assert value is BAD
    (message,) = messages
    return message.removeprefix("x.yml:1:1: key: ")


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("3", int, 3),
        ("!!float 5e3", int, 5000),
        ("5e3", int, 5000),
        ("'3'", int, 3),
        ("3", float, 3),
        ("5e-4", float, 5e-4),
        ("'5e-4'", float, 5e-4),
        (".inf", Annotated[float, MAY_BE_INFINITE], float("inf")),
        ("yes", bool, True),
        ("off", bool, False),
        ("text", str, "text"),
        ("001", str, "001"),
        ("1e5", str, "1e5"),
        ("2024-05-01", str, "2024-05-01"),
        ("a/b", Path, Path("a/b")),
        ("~", None, None),
        ("~", Optional[int], None),  # noqa: UP045 - the old spelling is another class
        ("~", int | None, None),
        ("3", int | None, 3),
        ("off", Literal["off", "bf16"], "off"),
        ("2", Literal[1, 2], 2),
        ("true", bool | Literal["default"], True),
        ("default", bool | Literal["default"], "default"),
        ("3", float | int, 3),
        ("3", int | str, 3),
        ("'3'", int | str, "3"),
        ("'3'", float | None, 3),
        ("[1, 2]", list[int], [1, 2]),
        ("[1, 2]", Sequence[int], [1, 2]),
        ("[1, 2.5]", list, [1, 2.5]),
        ("[1, 2]", tuple[int, int], (1, 2)),
        ("[1, 2, 3]", tuple[int, ...], (1, 2, 3)),
        ("[]", list[int], []),
        ("[[1], [2, 3]]", list[list[int]], [[1], [2, 3]]),
        ("{a: 1}", dict[str, int], {"a": 1}),
        ("{on: 1, 3: 2}", dict[str, int], {"on": 1, "3": 2}),
        ("{3: 2}", dict[int, int], {3: 2}),
        ("{3: 2}", Mapping[str, Any], {"3": 2}),
        ("{a: [x, {3: 5e-4}]}", Any, {"a": ["x", {3: 5e-4}]}),
        ("0.1", float | Tensor, 0.1),
        ("[0.9, 1]", tuple[float | Tensor, float | Tensor], (0.9, 1)),
        ("anything", Tensor, "anything"),
        ("anything", Callable[[int], int], "anything"),
        ("{type: lmdb}", Backend, {"type": "lmdb", "fast": True}),
        ("{type: lmdb}", Backend | None, {"type": "lmdb", "fast": True}),
        ("{low: 3}", Between, {"low": 3, "high": 10}),
        ("0.5", Annotated[float, Range(least=0, below=1)], 0.5),
        ("val_2", Annotated[str, Names(r"(val|test)(_.+)?", ("val",))], "val_2"),
        ("L1Loss", Annotated[str, LOSSES], "L1Loss"),
        ("{type: L1Loss, loss_weight: 2}", Annotated[nn.Module, LOSSES], {"type": "L1Loss", "loss_weight": 2}),
        ("~", Annotated[nn.Module, LOSSES] | None, None),
        ("[{type: L1Loss}]", list[Annotated[nn.Module, LOSSES]], [{"type": "L1Loss"}]),
    ],
)
def test_accepted(text: str, annotation: Any, value: Any) -> None:
    result = accepted(text, annotation)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation", "message"),
    [
        ("six", int, "expected an integer, got the string 'six'"),
        ("2.5", int, "expected an integer, got the number 2.5"),
        ("true", int, "expected an integer, got true"),
        ("[1]", int, "expected an integer, got the list [1]"),
        ("fast", float, "expected a number, got the string 'fast'"),
        ("false", float, "expected a number, got false"),
        ("~", float, "expected a number, got null"),
        ("1", bool, "expected true or false, got the integer 1"),
        ("'true'", bool, "expected true or false, got the string 'true'"),
        ("true", str, "expected a string, got true"),
        ("{a: 1}", str, "expected a string, got the block {a: 1}"),
        ("[a]", Path, "expected a path, got the list ['a']"),
        ("1", None, "expected null, got the integer 1"),
        ("six", int | None, "expected an integer, got the string 'six'"),
        ("six", int | bool, "expected an integer or true or false, got the string 'six'"),
        ("b", Literal["bf16", "off"], "expected one of 'bf16', 'off', got the string 'b'"),
        ("bf61", Literal["bf16", "off"], "expected one of 'bf16', 'off', got the string 'bf61'. Did you mean 'bf16'?"),
        (
            "defualt",
            bool | Literal["default"],
            "expected true or false or 'default', got the string 'defualt'. Did you mean 'default'?",
        ),
        ("1", list[int], "expected a list of integers, got the integer 1"),
        ("1", list[list[str]], "expected a list of lists of strings, got the integer 1"),
        ("1", list[Annotated[nn.Module, LOSSES]], "expected a list of blocks with a 'type' (loss), got the integer 1"),
        ("{a: 1}", tuple[int, int], "expected a list of integers, got the block {a: 1}"),
        ("[1]", tuple[int, int], "expected 2 values, got 1: [1]"),
        ("[1]", dict[str, int], "expected a block, got the list [1]"),
        ("fast", float | Tensor, "expected a number, got the string 'fast'"),
        ("disk", Backend, "expected a block, got the string 'disk'"),
        ("1", Annotated[float, Range(least=0, below=1)], "must be at least 0 and below 1, got 1"),
        (".nan", Annotated[float, Range(least=0, below=1)], "must be at least 0 and below 1, got nan"),
        ("0", Annotated[int, Range(least=1)] | None, "must be at least 1, got 0"),
        ("0", Annotated[float, Range(above=0, most=1)], "must be above 0 and at most 1, got 0"),
        ("vall", Annotated[str, Names("val", ("val", "test"))], "expected a name such as val, test, got 'vall'"),
        ("[a]", Annotated[str, LOSSES], "expected the name of a loss, got the list ['a']"),
        ("L1Loss", Annotated[nn.Module, LOSSES], "expected a block whose 'type' names a loss, got the string 'L1Loss'"),
        ("13", Between, "expected a block, got the integer 13"),
    ],
)
def test_refused(text: str, annotation: Any, message: str) -> None:
    assert refused(text, annotation) == message


def test_places_of_nested_mistakes() -> None:
    _, messages = checked("[1, six,\n  2.5]", list[int])
    assert messages == [
        "x.yml:1:5: key[1]: expected an integer, got the string 'six'",
        "x.yml:2:3: key[2]: expected an integer, got the number 2.5",
    ]
    _, messages = checked("a: 1\nb: two\n", dict[str, int])
    assert messages == ["x.yml:2:4: key.b: expected an integer, got the string 'two'"]
    _, messages = checked("a: [1, two]", dict[str, list[int] | None])
    assert messages == ["x.yml:1:8: key.a[1]: expected an integer, got the string 'two'"]


def test_blocks_of_components() -> None:
    annotation = Annotated[nn.Module, LOSSES]
    _, messages = checked("loss_weight: 1", annotation)
    assert len(messages) == 1 and messages[0].startswith("x.yml:1:1: key lacks 'type', the name of a loss. Known: ")
    _, messages = checked("type: L1Los", annotation)
    assert len(messages) == 1
    assert messages[0].startswith("x.yml:1:7: no loss is called 'L1Los'. Did you mean 'L1Loss'? Known: ")
    _, messages = checked("type: L1Loss\nloss_wieght: 1\n", annotation)
    assert messages == [
        "x.yml:2:1: unknown key 'loss_wieght' in key (L1Loss). Did you mean 'loss_weight'? "
        "Accepted: type, loss_weight, reduction."
    ]


def test_a_section_checks_its_values_together() -> None:
    _, messages = checked("high: 3\nlow: 5\n", Between)
    assert messages == ["x.yml:2:6: key.low: must not exceed high (3), got 5"]
    _, messages = checked("low: 1\nhigh: 13\n", Between)
    assert messages == ["x.yml:1:1: key: 13 brings bad luck"]
    _, messages = checked("high: 3\n", Between)
    assert messages == ["x.yml:1:1: key lacks 'low'."]


def test_unions_leave_no_trace_of_what_did_not_fit() -> None:
    checker = Checker()
    node = from_python({"type": "lmdb"})
    assert checker.check(node, list[int] | dict[str, int] | Backend, "key") == {"type": "lmdb", "fast": True}
    assert checker.problems == []


def test_values_that_yaml_cannot_say() -> None:
    checker = Checker()
    tensor = torch.zeros(2)
    assert checker.check(Scalar(tensor), Any, "key") is tensor
    assert checker.check(Scalar(tensor), int, "key") is BAD
    assert str(checker.problems[0]).startswith("key: expected an integer, got a Tensor: ")


def test_without_a_place_every_message_starts_with_the_key() -> None:
    checker = Checker()
    checker.unknown(Entry("b", None, Scalar(1)), "b", "a", ["c"], "a")
    assert str(checker.problems[0]) == "a.b: unknown key 'b' in a. Accepted: c."


def test_describe() -> None:
    assert describe(dict[str, int]) == "a block"
    assert describe(Any) == "a value"
    assert describe(list[bool]) == "a list of true or false"
    assert describe(list[float | None]) == "a list of numbers or null"
