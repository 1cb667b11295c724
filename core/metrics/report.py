"""The table that test.py prints: scores, size and speed of a model, beside what was published on the same sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...datasets.base import DatasetTraits, LoaderTraits
from ..annotations import declared
from .published import SOURCES, published_scores


@dataclass(frozen=True)
class TestSet:
    """What a table says of one dataset besides its scores.

    Attributes:
        published_as: name of the set in `core.metrics.published`, where it has one.
        notes: remarks on the set: what published figures do, how much of it is here.
        seconds: seconds per image.
        few: how many images have results, where some were left out.
    """

    __test__ = False  # pytest takes what is called Test for one

    published_as: str | None = None
    notes: tuple[str, ...] = field(default=())
    seconds: float | None = None
    few: str | None = None


def about(
    loaders: Mapping[str, Any], seconds: Mapping[str, float], few: Mapping[str, str] | None = None
) -> dict[str, TestSet]:
    """What datasets say of themselves with the attributes ``published_as``, ``convention`` and ``partial``.

    Args:
        loaders: loaders by name, each with its ``dataset``.
        seconds: seconds per image.
        few: share of images that counts, for data sets of which some were left out: ``"19 of 20 images"``.
    """
    sets = {}
    for name, loader in loaders.items():
        dataset = declared(loader, "dataset", LoaderTraits)
        convention, partial, published_as = (
            declared(dataset, trait, DatasetTraits) for trait in ("convention", "partial", "published_as")
        )
        notes = [f"published figures: {convention}"] if convention else []
        notes += [f"only {partial} are here, so that scores compare with nothing published"] if partial else []
        sets[name] = TestSet(published_as, tuple(notes), seconds.get(name), (few or {}).get(name))
    return sets


def report(
    results: Mapping[str, Mapping[str, float]], sets: Mapping[str, TestSet], parameters: int, conditions: str
) -> str:
    """An aligned text table: a row per dataset, under it one per published method, and notes.

    Args:
        results: mean scores, ``results[dataset][metric]``.
        sets: what is known of each dataset, by name.
        parameters: number of the networks' parameters.
        conditions: device on which the scores were computed, and how.
    """
    metrics = list(dict.fromkeys(metric for scores in results.values() for metric in scores))
    rows = [["dataset", *metrics, "params M", "ms/image"]]
    notes = [f"ms/image: mean of this run, its first batch left out; {conditions}"]
    noted: dict[str, list[str]] = {}
    sources: set[str] = set()
    runtimes: dict[str, str] = {}
    for dataset, scores in results.items():
        said = sets.get(dataset, TestSet())
        time = "-" if said.seconds is None else f"{said.seconds * 1000:.1f}"
        own = [f"{scores[m]:.4f}" if m in scores else "-" for m in metrics]
        label = f"{dataset} ({said.few})" if said.few else dataset
        rows.append([label, *own, f"{parameters / 1e6:.2f}", time])
        for note in said.notes:
            noted.setdefault(note, []).append(dataset)
        for method in published_scores(said.published_as) if said.published_as else ():
            found = method.scores[said.published_as or ""]
            if not set(found) & set(metrics):
                continue
            # As they are printed: two digits of decibels and grey levels, four of what is at most 1.
            theirs = [f"{found[m]:.{4 if found[m] < 1 else 2}f}" if m in found else "-" for m in metrics]
            size = "-" if method.parameters is None else f"{method.parameters:.2f}"
            rows.append([f"  {method.method}", *theirs, size, ""])
            if method.runtime:
                runtimes[method.method] = method.runtime
            sources.update(method.method.partition("[")[2].rstrip("]").split(", "))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        (f"{row[0]:<{widths[0]}}" + "".join(f"  {c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))).rstrip()
        for row in rows
    ]
    notes += [f"{', '.join(datasets)}: {note}" for note, datasets in noted.items()]
    notes += [f"[{letter}] {SOURCES[letter]}" for letter in sorted(sources)]
    notes += [f"{method}: {runtime}" for method, runtime in runtimes.items()]
    return "\n".join(["Results", *lines, *notes])
