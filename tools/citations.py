"""Papers as docstrings name them, ``Zamir et al., CVPR 2022``, and their keys in docs/references.bib.

``python tools/citations.py`` prints each paper that a docstring names without a key: none, or the exit code is 1.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
ROOMS = ("archs", "core", "datasets", "losses", "schedulers")
SHORT = {
    "ACM TOG": "ACM Transactions on Graphics",
    "TOG": "ACM Transactions on Graphics",
    "Asilomar": "Asilomar Conference on Signals, Systems and Computers",
    "IEEE J. Oceanic Engineering": "IEEE Journal of Oceanic Engineering",
    "IEEE RA-L": "IEEE Robotics and Automation Letters",
    "IEEE T. SMC-B": "IEEE Transactions on Systems, Man, and Cybernetics, Part B",
    "IEEE TIP": "IEEE Transactions on Image Processing",
    "IEEE TPAMI": "IEEE Transactions on Pattern Analysis and Machine Intelligence",
    "IJCV": "International Journal of Computer Vision",
    "PCS": "Picture Coding Symposium",
}
"""Names of journals and conferences as docstrings shorten them; others are written as in the bibliography."""
VENUE = "|".join(
    [
        *map(re.escape, SHORT),
        "IEEE Signal Processing (?:Letters|Magazine)",
        "IEEE Journal of Oceanic Engineering",
        "Computers and Electrical Engineering",
        r"(?:CVPR|ICCV|ECCV)(?:W| Workshops)?",
        "NeurIPS|ICML|ICLR|WACV|AAAI|SIGGRAPH|Algorithms",
    ]
)
NAMED = re.compile(
    r"\b(?P<first>[A-Z][\w-]+)(?P<others>(?:, [A-Z][\w-]+)*(?:,? and [A-Z][\w-]+| et al\.)?)"
    rf"(?:, \"[^\"]+\")?,? \(?(?P<venue>{VENUE}),? (?:\d+\(\d+\), )?(?P<year>\d{{4}})"
)
"""A paper in running text: surnames or a system's name, perhaps the title, journal or conference, year."""


class Paper(NamedTuple):
    """An entry of the bibliography."""

    key: str
    surnames: str
    title: str
    venue: str
    year: str


def papers(bibliography: str) -> list[Paper]:
    """The entries of a BibTeX file that is written as docs/references.bib is: a field on a line."""
    found = []
    for key, body in re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", bibliography, re.MULTILINE | re.DOTALL):
        field = dict(re.findall(r"^  (\w+) = \{+(.*?)\}+,$", body, re.MULTILINE))
        venue = field.get("journal") or field["booktitle"]
        found.append(
            Paper(key, field["author"], f"{field['title']} {field.get('shorttitle', '')}", venue, field["year"])
        )
    return found


def key_of(match: re.Match[str], entries: list[Paper]) -> str | None:
    """The key of the paper that `match`, one of `NAMED`, speaks of; None where the bibliography lacks it."""
    venue = re.sub(r"(?<=[A-Z])W$", " Workshops", match["venue"])
    venue = SHORT.get(venue, venue)
    for paper in entries:
        if (paper.venue, paper.year) == (venue, match["year"]):
            authors = re.findall(r"(?:^|and )([\w -]+),", paper.surnames)
            if match["first"] in authors or re.search(rf"\b{re.escape(match['first'])}\b", paper.title):
                return paper.key
    return None


def unknown(entries: list[Paper]) -> Iterator[str]:
    """Papers that our files name and that the bibliography lacks."""
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        text = re.sub(r"[\s#]+", " ", path.read_text(encoding="utf-8"))
        for match in NAMED.finditer(text):
            if key_of(match, entries) is None:
                yield f"{path.relative_to(ROOT)}: {match[0]}"


if __name__ == "__main__":
    missing = list(unknown(papers((ROOT / "docs/references.bib").read_text(encoding="utf-8"))))
    print("\n".join(missing))
    sys.exit(bool(missing))
