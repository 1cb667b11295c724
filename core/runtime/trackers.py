"""Services that keep curves and pictures of runs, behind one interface: TensorBoard, Weights & Biases, MLflow.

None of them is needed: the run's own folder has the options, the log and ``metrics.jsonl`` in any case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

from ..annotations import Section, setting
from ..files import COMPONENT

MOST = 100
"""Parameters that MLflow takes at once."""
LONGEST = 500
"""Characters of a parameter's value that MLflow takes."""


@dataclass(frozen=True, eq=False)
class Wandb(Section):
    """Weights & Biases; off without a project."""

    project: Annotated[str, COMPONENT] | None = setting(None, "Project to log into.")
    resume_id: Annotated[str, COMPONENT] | None = setting(None, "Identifier of an earlier run to continue.")
    mode: Literal["online", "offline", "disabled"] | None = setting(
        None, "Offline keeps everything in ./wandb, for `wandb sync`; WANDB_MODE, or online, when omitted."
    )


@dataclass(frozen=True, eq=False)
class MLflow(Section):
    """MLflow; off without an experiment."""

    experiment: str | None = setting(None, "Experiment to log into.")
    tracking_uri: str | None = setting(
        None,
        "Server, or folder as file:mlruns; MLFLOW_TRACKING_URI, or MLflow's own choice on this machine, when omitted.",
    )
    run_id: str | None = setting(None, "Identifier of an earlier run to continue.")


class Tracker(Protocol):
    """What a tracker does. Whatever it raises is said once, and ends nothing else."""

    name: ClassVar[str]

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """Points of curves, by tag."""

    def image(self, tag: str, picture: Any, iteration: int) -> None:
        """One picture, (H, W, 3) uint8 RGB."""

    def close(self) -> None:
        """Flush and close it."""


class TensorBoard:
    """Events in a folder; what a killed run wrote after iteration `start` is hidden."""

    name: ClassVar[str] = "TensorBoard"

    def __init__(self, module: Any, folder: Path, start: int) -> None:
        self.writer = module.SummaryWriter(str(folder), purge_step=start + 1 if start else None)

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, iteration)

    def image(self, tag: str, picture: Any, iteration: int) -> None:
        self.writer.add_image(tag, picture, iteration, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of a project."""

    name: ClassVar[str] = "Weights & Biases"

    def __init__(self, module: Any, settings: Wandb, run: str, config: Mapping[str, Any]) -> None:
        more = {"mode": settings.mode} if settings.mode else {}
        self.run = module.init(
            project=settings.project, name=run, config=config, id=settings.resume_id, resume="allow", **more
        )

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=iteration)

    def image(self, tag: str, picture: Any, iteration: int) -> None:
        """Pictures are in the run's folder, and in TensorBoard."""

    def close(self) -> None:
        self.run.finish()


class MLflowRun:
    """A run of an experiment."""

    name: ClassVar[str] = "MLflow"

    def __init__(self, module: Any, settings: MLflow, run: str, config: Mapping[str, Any]) -> None:
        self.module = module
        if settings.tracking_uri:
            module.set_tracking_uri(settings.tracking_uri)
        module.set_experiment(settings.experiment)
        module.start_run(run_id=settings.run_id, run_name=run)
        if settings.run_id:  # whose parameters are there, and may not change
            return
        rows = [(key, str(value)[:LONGEST]) for key, value in flat(config)]
        for i in range(0, len(rows), MOST):
            module.log_params(dict(rows[i : i + MOST]))

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        self.module.log_metrics({k: float(v) for k, v in values.items()}, step=iteration)

    def image(self, tag: str, picture: Any, iteration: int) -> None:
        """Pictures are in the run's folder, and in TensorBoard."""

    def close(self) -> None:
        self.module.end_run()


def flat(config: Mapping[str, Any], dotted: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values, such as MLflow's parameters are.

    >>> list(flat({"a": 1, "b": {"c": [2, 3]}}))
    [('a', 1), ('b.c', [2, 3])]
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{dotted}{key}.")
        else:
            yield f"{dotted}{key}", value
