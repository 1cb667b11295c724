"""A seeded small part of tools/fuzz_options.py: no spoilt file, and no absurd value, does anything but run or be refused."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from relume.core.errors import UserError, printable
from relume.core.options import check
from relume.core.runtime.gate import spelled
from relume.tools import fuzz_options
from relume.tools.fuzzing import cases, trials, values

SLOW = bool(os.environ.get("RELUME_SLOW_TESTS"))


@pytest.mark.parametrize(("sort", "count"), [("text", 400 if SLOW else 30), ("value", 200 if SLOW else 12)])
def test_what_is_spoilt_runs_or_is_refused(tmp_path: Path, sort: str, count: int) -> None:
    fuzz_options.warm_up()
    defects = [
        (found.number, outcome.kind, found.what, outcome.said[-500:])
        for found, outcome in fuzz_options.outcomes(range(count), 20, tmp_path, (sort,))
        if outcome.kind in trials.DEFECTS
    ]
    assert not defects


def test_every_case_is_right_as_it_is(tmp_path: Path) -> None:
    cases.data(tmp_path)
    for name, opt in cases.cases(tmp_path).items():
        if " " in name and not SLOW:  # one of many of a kind
            continue
        assert check(opt), name
        paths = [path for path, _ in cases.places(opt)]
        assert ("train", "total_iter") in paths and len(paths) > 100


def test_trials_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    ground = {"plain": cases.base(tmp_path), "twice": cases.base(tmp_path, 2)}
    every = [fuzz_options.trial(n, 1, ground, tmp_path, ("value", "text")) for n in range(20)]
    assert every == [fuzz_options.trial(n, 1, ground, tmp_path, ("value", "text")) for n in range(20)]
    assert len({t.file for t in every}) > 15
    assert len({values.mutated("a: 1\n", random.Random(n)) for n in range(20)}) > 10


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("print('fine')", "ran"),
        ("raise UserError('width: must be odd, got 2')", "refused"),
        ("raise UserError('something is wrong')", "vague"),
        ("print('\\x1b[31mred')", "control characters"),
        ("print('x' * 3000, file=sys.stderr)", "endless"),
        ("1 / 0", "traceback"),
        ("os.kill(os.getpid(), 9)", "killed"),
        ("time.sleep(60)", "hang"),
    ],
)
def test_outcomes_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, kind: str) -> None:
    program = "import os, sys, time\nfrom relume.core.errors import UserError\n" + code

    def main(arguments: list[str]) -> int:
        from relume.core.errors import UserError

        try:
            exec(program, {})
        except UserError as e:
            print(e, file=__import__("sys").stderr)
            return 2
        return 0

    monkeypatch.setattr(trials.cli, "main", main)
    assert trials.attempt([], tmp_path, 0.2 if kind == "hang" else 20.0, ("width",)).kind == kind


def test_every_refusal_of_a_value_says_option_and_value(tmp_path: Path) -> None:
    """What the checker says of absurd values, in this process: the key, and the value or a piece of it, if shortened."""
    cases.data(tmp_path)
    ground = {name: opt for name, opt in cases.cases(tmp_path).items() if SLOW or " " not in name}
    rng = random.Random(0)
    spots = [(name, *place) for name, opt in ground.items() for place in cases.places(opt) if place[0] != ("plugins",)]
    refused, lacking = 0, []
    for _ in range(5000 if SLOW else 150):
        name, path, annotation = rng.choice(spots)
        value = values.of(annotation, rng, tmp_path)
        try:
            check(cases.changed(ground[name], path, value))
        except UserError as e:
            said = str(e)
            refused += 1
            shown = any(form in said for form in forms(value)) or isinstance(value, (list, dict))
            if path[-1] not in said or not (shown or "unknown key" in said):
                lacking.append((path, value, said))
    assert refused > 15 and not lacking


def forms(value: object) -> list[str]:
    """How a message may show a value, whose end it may leave away."""
    numbers = [f"{value:,}", f"{value:g}"] if isinstance(value, (int, float)) and abs(value) < 1e30 else []
    return [printable(str(value))[:40], spelled(value)[:40], *numbers]
