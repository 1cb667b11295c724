"""A comparison as one HTML page that needs no network: see page.html, whose script shows the data that is put into it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import UserError, escaped, printable
from . import pictures
from .comparison import Comparison, DataSet
from .curves import curves
from .files import INPUT
from .places import Places
from .states import UNCOMPARED

TEMPLATE = Path(__file__).with_name("page.html")
LONGEST = 5000
"""Characters of a name or value in the page at most."""
POINTS = 300
"""Points of a curve in the page at most."""


def write(
    comparison: Comparison,
    path: Path,
    *,
    side: int = 256,
    full: bool = False,
    most: int | None = None,
    named: Sequence[Path] = (),
) -> int:
    """Write the page; how many pictures it shows. What may not be shown is added to the comparison's notes.

    Args:
        side: longer side in pixels of the pictures inside the page.
        full: write the pictures in full beside it, in ``NAME_files``, for the page to show when they are looked at.
        most: images of each data set that are shown, all when None. Every score is there in any case.
        named: folders whose pictures may be shown though they are neither the runs' nor data of the working directory.

    Raises:
        UserError: it cannot be written.
    """
    folder = path.with_name(f"{path.stem}_files")
    shown = 0
    places = {e.label: Places(e.run, named) for e in comparison.entries}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The pictures of every data set, small within the page and whole beside it.
        sets = []
        for data in comparison.sets:
            described = of_set(data)
            for n, image in enumerate(data.images[:most]):
                found = pictures.of_image(data, image, places)
                small = {label: pictures.encoded(pictures.thumbnail(p, side)) for label, p in found.items()}
                files = dict(pictures.beside(folder, shown, found)) if full else {}
                described["images"][n]["small"] = small
                described["images"][n]["full"] = {k: quote(v) for k, v in files.items()}
                described["images"][n]["size"] = (
                    [max(p.shape[i] for p in found.values()) for i in (1, 0)] if found else []
                )
                shown += bool(found)
            sets.append(described)
        # Everything else that the page shows, as JSON in its text.
        comparison.notes.extend(line for label, place in places.items() for line in place.note(label))
        content = {
            "labels": [e.label for e in comparison.entries],
            "sets": sets,
            "notes": comparison.notes,
            "curves": of_curves(comparison),
            "options": of_options(comparison),
        }
        path.write_text(filled(plainly(content)), encoding="utf-8", errors="backslashreplace")
    except OSError as e:
        raise UserError(f"{path}: cannot be written ({e.strerror or e})") from e
    return shown


def plainly(value: Any) -> Any:
    """The data of a page, whose names and values are on one line each and hold nothing that turns the direction of writing."""
    if isinstance(value, dict):
        return {plainly(k): plainly(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plainly(v) for v in value]
    return printable(value, LONGEST) if isinstance(value, str) and not value.startswith("data:") else value


def filled(content: dict[str, Any]) -> str:
    """The page with its data, in which nothing can end the script."""
    text = json.dumps(content, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    title = escaped(" · ".join(content["labels"]), "html")
    return TEMPLATE.read_text(encoding="utf-8").replace("@TITLE@", title).replace("@DATA@", text)


def plain(value: float) -> float | None:
    """A number as JSON has it."""
    return value if math.isfinite(value) else None


def of_set(data: DataSet) -> dict[str, Any]:
    """The figures of one data set."""
    table = {
        metric: [
            {
                "mean": plain(c.mean), "std": plain(c.deviation), "n": c.images, "rank": c.rank,
                "diff": [plain(v) for v in (c.against.mean, c.against.low, c.against.high)],
            }
            for c in data.cells[metric]
        ]
        for metric in data.metrics
    }  # fmt: skip
    values = {m: [data.values(e, m).tolist() for e in data.entries] for m in data.metrics}
    images: list[dict[str, Any]] = [
        {"name": image, "scores": {m: [plain(v[n]) for v in values[m]] for m in data.metrics}}
        for n, image in enumerate(data.images)
    ]
    digits = {m: data.digits(m) for m in data.metrics}
    return {
        "name": data.name, "metrics": data.metrics, "better": data.better, "table": table, "images": images, "digits": digits,
    }  # fmt: skip


def of_curves(comparison: Comparison) -> dict[str, list[list[list[float | None]]]]:
    """By name, a curve for each entry, thinned; of losses, rates and scores."""
    every = [curves(e.run).points for e in comparison.entries]
    names = list(dict.fromkeys(n for c in every for n in c))
    wanted = [n for n in names if n.startswith("l_") or ("/" in n and not n.startswith(("mean/", "epoch/")))]
    wanted = [n for n in wanted if not n.endswith(INPUT)]
    return {
        n: [[[x, plain(y)] for x, y in thinned(c.get(n, []))] for c in every]
        for n in sorted(wanted, key=lambda n: "/" in n)
    }


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Every so manieth point, and the last one."""
    step = -(-len(points) // POINTS) or 1
    return [*points[::step], *(points[-1:] if (len(points) - 1) % step else [])]


def of_options(comparison: Comparison) -> list[list[str | None]]:
    """Options that differ: the key, then each entry's value. Entries without an option file differ in nothing."""
    every = [e.run.options for e in comparison.entries]
    known = [o for o in every if o]
    keys = [k for k in dict.fromkeys(k for o in known for k in o) if k not in UNCOMPARED]
    return [[k, *(o.get(k) if o else "?" for o in every)] for k in keys if len({o.get(k) for o in known}) > 1]
