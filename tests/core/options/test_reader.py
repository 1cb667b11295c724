"""YAML, its bases and its overrides."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from relume.core.options import OptionError, load
from relume.core.options.nodes import to_python
from relume.core.options.reading.loader import YAMLDumper, YAMLLoader
from relume.core.options.reading.reader import read

Write = Callable[..., str]
Check = Callable[..., Any]


def values(path: str, *overrides: str) -> Any:
    """What is in a file, unchecked."""
    found = read(path, overrides)
    assert not found.problems
    return to_python(found.root)


def message(path: str, *overrides: str) -> str:
    """What is wrong with a file, as far as reading it goes."""
    try:
        problems = read(path, overrides).problems
    except OptionError as e:
        return str(e)
    return "\n".join(map(str, problems))


ALLOWED = " (--allow_duplicate_keys takes the last, as BasicSR does)"


# ------------------------------------------------------------------ not YAML, not options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "x.yml:1:1: there is nothing in it"),
        ("# only a comment\n", "x.yml:1:1: there is nothing in it"),
        ("- name\n- scale\n", "x.yml:1:1: expected options such as 'name: my_experiment', got a list"),
        ("just words\n", "x.yml:1:1: expected options such as 'name: my_experiment', got a single value"),
        (
            "name: x\ntrain:\n\ttotal_iter: 1\n",
            "x.yml:3:1: not YAML: found character '\\t' that cannot start any token; indent with spaces, not tabs",
        ),
        ("name: x\nscale: [1, 2\ntrain: 3\n", "x.yml:3:6: not YAML: expected ',' or ']', but got ':'"),
        ("name: x\n  scale: 2\n", "x.yml:2:8: not YAML: mapping values are not allowed here"),
        ("name: 'x\n", "x.yml:2:1: not YAML: found unexpected end of stream"),
        (
            "name: x\n---\nname: y\n",
            "x.yml:2:1: not YAML: expected a single document in the stream, but found another document",
        ),
        ("name: *nothing\n", "x.yml:1:7: not YAML: found undefined alias 'nothing'"),
        ("a: 1\nb: \x07\n", "x.yml:2:4: not YAML: the character U+0007 is not allowed"),
        ("scale: 4\nname: x\nscale: 2\n", f"x.yml:3:1: the key 'scale' is given twice: 4 on line 1, 2 here{ALLOWED}"),
        ("a: {b: 1, b: 2}\n", f"x.yml:1:11: the key 'b' is given twice: 1 on line 1, 2 here{ALLOWED}"),
        ("? [1, 2]\n: 3\n", "x.yml:1:3: a key must be a single value"),
        ("a: &a [*a]\n", "x.yml:1:4: this alias contains itself"),
        ("a: !!float many\n", "x.yml:1:4: 'many' is not a valid !!float"),
        (
            "a: !!python/object/apply:os.system ['touch gotcha']\n",
            "x.yml:1:4: the YAML tag '!!python/object/apply:os.system' is not accepted",
        ),
        ("a: !include other.yml\n", "x.yml:1:4: the YAML tag '!include' is not accepted"),
        ("<<: 3\n", "x.yml:1:5: '<<' takes a block, or a list of blocks"),
    ],
)
def test_one_line_for_each_mistake(write: Write, text: str, expected: str) -> None:
    assert message(write(text)) == expected
    assert not os.path.exists("gotcha")


def test_files_that_cannot_be_read(write: Write) -> None:
    write("name: x", "options/train_x4.yml")
    (latin := write("", "latin.yml"))
    with open(latin, "wb") as file:
        file.write("name: Köln".encode("latin-1"))
    assert message("options/train_x2.yml") == "options/train_x2.yml: no such file. Did you mean 'train_x4.yml'?"
    assert message("nowhere/x.yml") == "nowhere/x.yml: no such file."
    assert message("options") == "options: a folder, not an option file"
    assert message(latin) == "latin.yml: not a text file in UTF-8 (byte 7)"


def test_a_byte_order_mark_is_no_mistake(write: Write) -> None:
    assert values(write("\ufeffname: x\n")) == {"name": "x"}


def test_keys_given_twice_are_taken_where_that_is_asked_for(write: Write) -> None:
    block = "val: {suffix: a, save_img: true}\n"
    path = write(f"scale: 4\nscale: 2\n{block}val:\n  suffix: {'b' * 50}\nscale: 3\n")
    found = read(path, allow_duplicate_keys=True)
    assert not found.problems
    assert to_python(found.root) == {"scale": 3, "val": {"suffix": "b" * 50}}
    assert [str(note) for note in found.notes] == [
        f"{path}:2:1: the key 'scale' is given twice: 4 on line 1, 2 here (the last is taken, as BasicSR does)",
        f"{path}:4:1: the key 'val' is given twice: {{save_img: true, suffix: a}} on line 3, "
        f"{{suffix: {'b' * 28}... here (the last is taken, as BasicSR does)",
        f"{path}:6:1: the key 'scale' is given twice: 2 on line 2, 3 here (the last is taken, as BasicSR does)",
    ]


# ------------------------------------------------------------------ scalars
@pytest.mark.parametrize("text", ["5e-4", "5E-4", "5.0e-4", "+5e-4", ".5e-3", "0.0005", "!!float 5e-4", "5_0e-5"])
def test_numbers_in_scientific_notation(write: Write, text: str) -> None:
    assert values(write(f"lr: {text}\n")) == {"lr": 5e-4}


def test_what_only_looks_like_a_number(write: Write) -> None:
    text = "a: '5e-4'\nb: e5\nc: 5e\nd: 1.5.0\ne: 2024-05-01\nf: =\ng: 1e-4_run\nh: 1e3 epochs\n"
    plain = {
        "a": "5e-4",
        "b": "e5",
        "c": "5e",
        "d": "1.5.0",
        "e": "2024-05-01",
        "f": "=",
        "g": "1e-4_run",
        "h": "1e3 epochs",
    }
    assert values(write(text)) == plain


def test_keys_are_what_is_written(write: Write) -> None:
    assert values(write("on: 1\nyes: 2\n~: 3\n3: 4\n'5': 6\n")) == {"on": 1, "yes": 2, "~": 3, 3: 4, "5": 6}


def test_anchors_and_merge_keys(write: Write) -> None:
    text = "a: &a {type: L1, w: 1}\nb: *a\nc:\n  <<: *a\n  w: 2\nd: {<<: [{w: 5}, *a]}\n"
    block = {"type": "L1", "w": 1}
    assert values(write(text)) == {"a": block, "b": block, "c": {**block, "w": 2}, "d": {**block, "w": 5}}


def test_the_dumper_writes_what_the_loader_reads() -> None:
    tricky = {
        "a": 5e-4,
        "b": "5e-4",
        "c": "on",
        "d": ["x", [1, 2.5]],
        "e": None,
        "f": {"5": 1e-7},
        "g": "1:30",
        "h": "ä",
    }
    assert yaml.load(yaml.dump(tricky, Dumper=YAMLDumper), Loader=YAMLLoader) == tricky


# ------------------------------------------------------------------ _base_
def test_bases_merge_block_by_block(write: Write) -> None:
    write("scale: 2\ntrain: {total_iter: 10, optim_g: {type: Adam, lr: 1}}\nlist: [1, 2, 3]\n", "base/one.yml")
    write("scale: 3\nextra: yes please\n", "base/two.yml")
    path = write("_base_: [base/one.yml, base/two.yml]\ntrain: {optim_g: {lr: 2}}\nlist: [4]\n")
    train = {"total_iter": 10, "optim_g": {"type": "Adam", "lr": 2}}
    assert values(path) == {"scale": 3, "train": train, "list": [4], "extra": "yes please"}


def test_bases_are_relative_to_the_file_that_names_them(write: Write) -> None:
    write("a: 1\n", "deep/er/one.yml")
    write("_base_: er/one.yml\nb: 2\n", "deep/two.yml")
    assert values(write("_base_: deep/two.yml\n")) == {"a": 1, "b": 2}


def test_a_block_of_another_type_is_replaced_whole(write: Write) -> None:
    write("scheduler: {type: MultiStepLR, milestones: [1], gamma: 0.5}\n", "base.yml")
    path = write("_base_: base.yml\nscheduler: {type: LinearLR, total_iter: 9}\n")
    assert values(path) == {"scheduler": {"type": "LinearLR", "total_iter": 9}}
    path = write("_base_: base.yml\nscheduler: {type: MultiStepLR, gamma: 0.1}\n")
    assert values(path) == {"scheduler": {"type": "MultiStepLR", "milestones": [1], "gamma": 0.1}}
    write("scheduler: {gamma: 0.5}\n", "base.yml")
    assert values(path) == {"scheduler": {"type": "MultiStepLR", "gamma": 0.1}}


def test_bases_that_cannot_be_read(write: Write) -> None:
    write("_base_: x.yml\n", "loop.yml")
    write("a: [\n", "broken.yml")
    path = write("_base_:\n- not_there_at_all.yml\n- loop.yml\n- broken.yml\n- 3\nname: x\n")
    assert message(path).splitlines() == [
        "x.yml:2:3: not_there_at_all.yml: no such file.",
        "loop.yml:1:9: _base_: the files include each other: x.yml -> loop.yml -> x.yml",
        "broken.yml:2:1: not YAML: expected the node content, but found '<stream end>'",
        "x.yml:5:3: _base_: expected the path of an option file",
    ]


def test_mistakes_are_located_in_the_base(write: Write, good: str) -> None:
    write(good.replace("dim: 16", "dim: wide"), "base.yml")
    with pytest.raises(OptionError) as caught:
        load(write("_base_: base.yml\nscale: two\n"))
    assert str(caught.value).splitlines() == [
        "x.yml:2:8: scale: expected an integer, got the string 'two'",
        "base.yml:10:8: network_g.dim: expected an integer, got the string 'wide'",
    ]


# ------------------------------------------------------------------ --force_yml
@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a:b=1e-4", {"a": {"b": 1e-4, "c": 2}}),
        ("a:b=-1", {"a": {"b": -1, "c": 2}}),
        ("a:b=[1, 2]", {"a": {"b": [1, 2], "c": 2}}),
        ("a:b={x: y}", {"a": {"b": {"x": "y"}, "c": 2}}),
        ("a:b=~", {"a": {"b": None, "c": 2}}),
        ("a:b=", {"a": {"b": None, "c": 2}}),
        ("a:b=x=y", {"a": {"b": "x=y", "c": 2}}),
        ("new:deep:key=true", {"a": {"b": 1, "c": 2}, "new": {"deep": {"key": True}}}),
        ('k=[print("X")]', {"a": {"b": 1, "c": 2}, "k": ['print("X")']}),
    ],
)
def test_overrides_are_yaml(write: Write, override: str, expected: Any) -> None:
    assert values(write("a: {b: 1, c: 2}\n"), override) == expected


def test_the_last_override_wins(write: Write) -> None:
    assert values(write("a: 1\n"), "a=2", "a=3") == {"a": 3}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a", "expected keys joined by ':', then '=', then a value, as in train:ema_decay=0.99"),
        ("a::b=1", "expected keys joined by ':', then '=', then a value, as in train:ema_decay=0.99"),
        ("a=[1", "not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a=!!python/name:os.system x", "the YAML tag '!!python/name:os.system' is not accepted"),
        ("_base_=y.yml", "_base_ cannot be overridden"),
    ],
)
def test_overrides_that_say_nothing(write: Write, override: str, expected: str) -> None:
    assert message(write("a: 1\n"), override) == f"--force_yml {override}: {expected}"


def test_overrides_execute_nothing(mistakes: Check, capfd: pytest.CaptureFixture[str]) -> None:
    (line,) = mistakes("", "", '"+str(print("X"))+"=5')
    assert line.startswith(
        '--force_yml "+str(print("X"))+"=5: unknown key \'"+str(print("X"))+"\' in the top level. Accepted:'
    )
    assert capfd.readouterr().out == ""
