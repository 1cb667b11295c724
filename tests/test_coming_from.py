"""The option files of docs/coming_from: each is accepted, and trains."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from runs import REPO

from relume.core import options
from relume.tools import try_option_files

PAGES = sorted((REPO / "docs" / "coming_from").glob("*.md"))
FILES = {
    found.group(1): text
    for page in PAGES
    for text in re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    if (found := re.match(r"# (\w+\.yml)\n", text))
}
FOREIGN = [
    (page.name, kind, text)
    for page in PAGES
    for kind, text in re.findall(
        r"^```(json|yaml|python)\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    if text.startswith(("{", "name: 4x_SPAN", "experiment_name"))
]


@pytest.mark.parametrize("name", FILES)
def test_an_option_file_of_the_pages_is_accepted(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(FILES[name], encoding="utf-8")
    assert options.load(path).name


def test_every_page_has_a_file_of_ours_and_those_that_need_it_one_of_theirs() -> None:
    assert set(FILES) == {
        "Deraining_Restormer.yml",
        "rain100l.yml",
        "span_x4.yml",
        "swinir_x2.yml",
        "edsr_x2.yml",
        "rrdb.yml",
    }
    assert {name for name, _, _ in FOREIGN} == {"kair.md", "mmagic.md", "trainner_redux.md"}


@pytest.mark.parametrize(("page", "kind", "text"), FOREIGN)
def test_a_foreign_file_is_refused_in_its_own_words(tmp_path: Path, page: str, kind: str, text: str) -> None:
    path = tmp_path / f"x.{ {'json': 'json', 'yaml': 'yml', 'python': 'py'}[kind] }"
    path.write_text(text, encoding="utf-8")
    expected = {"kair.md": "KAIR's words", "mmagic.md": "MMagic's configs", "trainner_redux.md": "traiNNer-redux"}
    with pytest.raises(options.OptionError, match=expected[page]):
        options.load(path)


@pytest.mark.timeout(900)
@pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="slow; set RELUME_SLOW_TESTS=1")
@pytest.mark.parametrize("name", [name for name, text in FILES.items() if "\ntrain:" in text])
def test_an_option_file_of_the_pages_trains(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    small = FILES[name].replace("{type: MSSSIMLoss,", "{type: MSSSIMLoss, scales: 3,")  # patches are cut down, too
    path.write_text(small, encoding="utf-8")
    assert try_option_files.ran(path) == "ran"
