"""What the headers of recipes say of the originals and of us is what `relume describe --set-only` shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import relume
from relume.core import options
from relume.core.options.reading.loader import YAMLLoader, spelled

FOLDER = Path(relume.__file__).resolve().parent / "options"
BLOCK = re.compile(r"^# (faithful|ours): (.*(?:\n#   .*)*)", re.MULTILINE)
FILES = [p for p in sorted(FOLDER.rglob("*.yml")) if BLOCK.search(p.read_text())]
EXPECTED = [
    *(f"underwater/{n}.yml" for n in ("spectroformer", "agssf1", "phaseformer", "lsui/spectroformer")),
    *(f"vfi/phase{i}.yml" for i in (1, 2, 3)),
    *(f"generation/{n}.yml" for n in ("cifar10", "test/cifar10")),
]
"""Recipes of which the originals' guides say what to expect."""
NEEDED = [
    *(
        f"underwater/{n}.yml"
        for n in ("spectroformer", "agssf1", "phaseformer", "phaseformer_learned", "lsui/spectroformer")
    ),
    *(f"vfi/phase{i}.yml" for i in (1, 2, 3)),
    *(f"vfi/ablation/{n}.yml" for n in ("mamba2_only", "gated_attn_only", "mhc")),
    "hdr/s1.yml",
]


def read(text: str) -> Any:
    """A value as YAML."""
    return yaml.load(text, Loader=YAMLLoader)


def claims(path: Path) -> list[tuple[str, str]]:
    """Dotted keys and values that a header names."""
    text = ", ".join(re.sub(r"\n#\s+", " ", body) for _, body in BLOCK.findall(path.read_text()))
    parts = [p.strip() for p in re.split(r",\s+(?=[a-z]\w*(?:\.\w+)*\s)(?![^\[]*\])", text) if p.strip()]
    return [(key, value) for key, _, value in (p.partition(" ") for p in parts)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(FOLDER)))
def test_headers_say_what_is_set(path: Path) -> None:
    rows = options.resolve(path).rows()
    shown = {key: read(spelled(value)) for key, value, origin in rows if origin != "default"}
    found = claims(path)
    assert found
    for key, value in found:
        said = read(value.rstrip(","))
        assert said in (shown.get(key), str(shown.get(key))), (key, said, shown.get(key))


def test_the_recipes_of_the_originals_have_such_a_header() -> None:
    for name in NEEDED:
        assert {kind for kind, _ in BLOCK.findall((FOLDER / name).read_text())} == {"faithful", "ours"}, name


def test_what_the_originals_guides_expect_is_said_to_be_not_measured() -> None:
    for name in EXPECTED:
        text = (FOLDER / name).read_text()
        assert re.search(
            r"^# Expected by the original's (guide|report|plan), not measured here: .*\d", text, re.MULTILINE
        ), name
