"""The bibliography has every paper that a docstring names, by surname, conference or journal, and year."""

from __future__ import annotations

import importlib.util

from runs import REPO

SPEC = importlib.util.spec_from_file_location("citations", REPO / "tools/citations.py")
assert SPEC and SPEC.loader
citations = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(citations)
ENTRIES = citations.papers((REPO / "docs/references.bib").read_text(encoding="utf-8"))


def test_every_paper_that_is_named_has_an_entry() -> None:
    assert not list(citations.unknown(ENTRIES))


def test_no_entry_is_there_twice() -> None:
    keys = [paper.key for paper in ENTRIES]
    assert len(keys) == len(set(keys)) > 80
    assert len({(paper.title, paper.year) for paper in ENTRIES}) == len(keys)


def test_papers_are_found_in_running_text() -> None:
    text = (
        "as in Restormer (Zamir et al., CVPR 2022) and ESRGAN (Wang et al., ECCVW 2018), not Nobody et al., CVPR 2022"
    )
    found = [citations.key_of(match, ENTRIES) for match in citations.NAMED.finditer(text)]
    assert found == ["zamir2022", "wang2018esrgan", None]
