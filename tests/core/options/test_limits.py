"""Files that no reader should read in full: too large, too deep, too many values; and names that are no names."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relume.archs import ARCHS
from relume.core.errors import LINE, MESSAGE
from relume.core.features import FEATURES
from relume.core.metrics import METRICS
from relume.core.models import MODELS
from relume.core.options import OptionError, load
from relume.core.options.checking.checker import Checker
from relume.core.options.checking.kinds import BAD
from relume.core.options.nodes import from_python
from relume.core.options.reading.loader import DEEPEST, MOST_VALUES
from relume.core.options.reading.reader import MOST_BYTES
from relume.core.registry import Registry
from relume.datasets import DATASETS
from relume.losses import LOSSES

Write = Callable[..., str]
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


def lines(file: str) -> list[str]:
    with pytest.raises(OptionError) as caught:
        load(file)
    text = str(caught.value)
    assert len(text) <= MESSAGE
    assert all(len(line) <= LINE and line.isprintable() for line in text.split("\n"))
    return text.split("\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("#\n" * MOST_BYTES, f"x.yml: more than {MOST_BYTES:,} bytes, which is more than any option file has"),
        ("a: " + "[" * 100_000, f"x.yml:1:53: not YAML: blocks and lists more than {DEEPEST} deep"),
        ("- " * 100_000 + "x", f"x.yml:1:101: not YAML: blocks and lists more than {DEEPEST} deep"),
        ("[" + "a, " * 60_000 + "]", f"x.yml:1:{3 * MOST_VALUES - 1}: not YAML: more than {MOST_VALUES:,} values"),
        (BOMB, f"x.yml:1:1: its aliases make more than {MOST_VALUES:,} values"),
        ('a: "\\UFFFFFFFF"', "x.yml:1:1: not YAML: a string in it has an escape, \\U..., that is no character"),
        ("a: " + "9" * 5000, "x.yml:1:4: '999999999999999999999999999999...9999999999 (5000 characters)' is not a valid !!int"),
        ("a: 0x" + "f" * 5000, "x.yml:1:4: '0xffffffffffffffffffffffffffff...ffffffffff (5002 characters)' is not a valid !!int"),  # noqa: E501
        ("a: 1" + ":59" * 500, "x.yml:1:4: '1:59:59:59:59:59:59:59:59:59:5...9:59:59:59 (1501 characters)' is not a valid !!int"),  # noqa: E501
    ],
    ids=lambda value: value[:12],
)  # fmt: skip
def test_too_much(write: Write, text: str, line: str) -> None:
    assert line in lines(write(text))


def test_endless_mistakes_end(write: Write, good: str) -> None:
    assert 100 < len(lines(write(good + "".join(f"key{i}: 1\n" for i in range(5_000))))) < 300
    assert 100 < len(lines(write(good.replace("dim: 16", "depths: [" + "x, " * 15_000 + "]")))) < 300


@pytest.mark.parametrize(
    ("value", "shown"),
    [('"a\\0b"', "a\\x00b"), ('"\\ud800"', "\\ud800"), ('"\\x1b[31m"', "\\x1b[31m"), ('"a\\u0085b"', "a\\x85b")],
)
def test_characters_that_no_name_has(write: Write, good: str, value: str, shown: str) -> None:
    (line,) = lines(write(good.replace("name: good", f"name: {value}")))
    assert line.startswith("x.yml:1:7: name: the character U+")
    assert line.endswith(f" is not allowed, got the string '{shown}'")


def test_other_names_are_shown_escaped(write: Write, good: str) -> None:
    (line,) = lines(write(good.replace("scale: 2", '"\\u202eforged": 2\nscale: 2')))
    assert line == "x.yml:3:1: the key '\\u202eforged' has control characters or line breaks in it"
    (line,) = lines(write(good.replace("scale: 2", f"scale: {'x' * 3000}")))
    assert "(3000 characters)" in line


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/dev/zero", "/dev/zero: a device, not a file"),
        (".", ".: a folder, not an option file"),
        ("pipe", "pipe: a pipe, not a file"),
        ("x.yml/y.yml", "x.yml/y.yml: not a directory"),
        ("~nobody_of_this_name/x.yml", "'~nobody_of_this_name/x.yml': there is no user 'nobody_of_this_name' here"),
        ("a\0b", "'a\\x00b': a path cannot contain the character NUL"),
        ("\ud800.yml", "'\\ud800.yml': a path cannot contain half of a surrogate pair"),
    ],
)
def test_paths_that_are_no_files(write: Write, good: str, tmp_path: Path, path: str, line: str) -> None:
    write(good)
    os.mkfifo(tmp_path / "pipe")
    assert lines(path) == [line]
    (tmp_path / "z.yml").write_text((tmp_path / "x.yml").read_text() + f"_base_: {json.dumps(path)}\n")
    assert any(line.split(": ", 1)[1] in found for found in lines("z.yml"))


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=80))
def test_whatever_is_in_a_file_it_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yml"
    path.write_text(text, encoding="utf-8")
    lines(str(path))


@pytest.mark.parametrize(
    ("registry", "component", "option"),
    [
        (METRICS, "KID", "subsets"),
        (LOSSES, "SinkhornLoss", "iters"),
        (LOSSES, "GWLoss", "outer_iters"),
        (LOSSES, "FGWLoss", "iters"),
        (MODELS, "GenerationModel", "steps"),
        (ARCHS, "DiffIRS2", "timesteps"),
        (ARCHS, "SpyNet", "levels"),
        (FEATURES, "random_conv", "levels"),
        (DATASETS, "SyntheticMotionDataset", "objects"),
        (DATASETS, "MovingClipsDataset", "objects"),
    ],
)
def test_what_a_step_does_over_again_has_a_limit(registry: Registry, component: str, option: str) -> None:
    """Of 10^7, one step would take hours; what is usual is far from the limit."""
    parameter = registry.parameters(component)[option]
    checker = Checker()
    assert checker.check(from_python(10**7), parameter.annotation, option) is BAD
    assert f"{option}: must be at least" in str(checker.problems[0]) and "got 10000000" in str(checker.problems[0])
    checker = Checker()
    assert checker.check(from_python(10 * parameter.default // 4), parameter.annotation, option) is not BAD
