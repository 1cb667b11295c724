"""Which weights are the best: records of scores, and the validation set that decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..evaluation import is_better
from ..metrics import mean_score

MEAN = "mean"
"""Word in place of a validation set's name: all sets, by their mean."""


def remember(
    best: dict[str, Any],
    results: Mapping[str, Mapping[str, float]],
    better: Mapping[str, str],
    iteration: int,
) -> set[tuple[str, str]]:
    """Update the records ``best[dataset][metric]``; the (dataset, metric) pairs that have improved.

    Args:
        best: the records, which are changed.
        results: results of a validation after `iteration`.
        better: ``higher`` or ``lower`` by metric; others have no records.
    """
    improved = set()
    for dataset, metrics in results.items():
        for metric in [m for m in better if m in metrics]:
            records = best.setdefault(dataset, {})
            record = records.get(metric)
            if record is None or is_better(metrics[metric], record["value"], better[metric]):
                records[metric] = {"value": metrics[metric], "iter": iteration}
                improved.add((dataset, metric))
    return improved


def decided_by(results: Mapping[str, Mapping[str, float]], metric: str | None, dataset: str | None) -> str | None:
    """The validation set by which weights are the best: `dataset` if it has the metric, or else the first that has it."""
    having = [d for d, metrics in results.items() if metric in metrics]
    if dataset == MEAN:
        return MEAN if having else None
    return dataset if dataset in having else next(iter(having), None) if dataset is None else None


def mean_of(
    results: Mapping[str, Mapping[str, float]], metric: str | None, blocks: Mapping[str, Mapping[str, Any]]
) -> dict[str, float]:
    """The `mean_score` of a metric, of the `blocks` of ``val.metrics``, over the validation sets that have it."""
    values = [metrics[metric] for metrics in results.values() if metric is not None and metric in metrics]
    return {metric: mean_score(blocks[metric]["type"], values)[0]} if metric is not None and values else {}
