"""One run's records: console, text log in BasicSR's grammar, ``metrics.jsonl``, and trackers."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import math
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch

from ..annotations import Count, Iterations, Section, plain, setting
from ..errors import LINE, UserError, first_line, lines, printable, redacted, require, without_secrets
from ..files import reading, replacing
from . import devices, distributed, utilisation
from .checkpoint import write_atomically
from .gate import Provoked
from .progress import Bar, Heartbeat, Pace, for_terminal, losses_first
from .streams import LogFile, StandardOutput
from .trackers import MLflow, MLflowRun, TensorBoard, Tracker, Wandb, WeightsAndBiases

log = logging.getLogger("relume")
FORMAT = "%(asctime)s %(levelname)s: %(message)s"


@dataclass(frozen=True, eq=False)
class Logger(Section):
    """Printing, checkpoints and trackers."""

    print_freq: Iterations = setting(100, "Iterations between log lines.")
    save_checkpoint_freq: Iterations = setting(5000, "Iterations between checkpoints; one more is written at the end.")
    keep_checkpoints: Count | None = setting(None, "Newest checkpoints to keep; all when omitted.")
    async_save: bool = setting(
        False, "Write checkpoints while the training goes on, from a copy in host memory, one after the other."
    )
    use_tb_logger: bool = setting(False, "Write TensorBoard events to tb_logger/<name>.")
    wandb: Wandb | None = setting(None, "Weights & Biases.")
    mlflow: MLflow | None = setting(None, "MLflow.")
    train_image_freq: Iterations | None = setting(
        None, "Iterations between pictures of a training sample (input, outputs, target); none when omitted."
    )


WITHOUT_TRACKERS: dict[str, Any] = {"use_tb_logger": False, "wandb": None, "mlflow": None}
"""The section's keys for a run that is no experiment."""


class Outside(logging.Filter):
    """Makes one line of each text that a log line quotes, so that names of files neither forge lines nor reach terminals.

    A record of a bare ``%s`` is a message of ours, in as many lines as it has. No record has secrets in it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.msg, str) and not record.args:
            record.msg = lines(record.msg)
        elif isinstance(record.args, tuple):
            shown = lines if record.msg == "%s" else one_line
            record.args = tuple(
                shown(str(a)) if isinstance(a, (str, PurePath, BaseException)) else a for a in record.args
            )
        return True


def one_line(value: str | PurePath | BaseException) -> str:
    """A text, a path or an error as a log line quotes it."""
    return printable(value, LINE)


def start_console() -> None:
    """Log lines to the terminal, once per process; ranks above 0 only warn."""
    log.setLevel(logging.INFO if distributed.is_main() else logging.WARNING)
    log.propagate = False
    if not any(isinstance(f, Outside) for f in log.filters):
        log.addFilter(Outside())
    if not any(isinstance(h, StandardOutput) or hasattr(h, "console") for h in log.handlers):  # others may listen too
        if sys.stdout.isatty():
            log.addHandler(for_terminal())
            return
        handler = StandardOutput()
        handler.setFormatter(logging.Formatter(FORMAT))
        log.addHandler(handler)


def timestamp() -> str:
    """Local time for file names, ``20261121_071530``."""
    return time.strftime("%Y%m%d_%H%M%S")


def header(opt: Mapping[str, Any], networks: Mapping[str, torch.nn.Module], device: torch.device, threads: str) -> str:
    """Everything one wants to know a year later: versions, device, git state, where the package lies, sizes.

    Args:
        threads: how many there are, in words.
    """
    import relume

    package = Path(relume.__file__).resolve().parent
    gpu = f" ({called})" if (called := devices.name(device)) else ""
    lines = [
        f"Relume {relume.__version__} from {package}{_git_state(package)}",
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.platform()}",
        f"Device {device}{gpu}, {distributed.world_size()} rank(s), {threads}",
        f"Command: {redacted(' '.join(sys.argv))}",
        f"Experiment {opt['name']}, model {opt['model_type']}, seed {opt['manual_seed']}",
    ]
    for key, network in networks.items():
        total = sum(p.numel() for p in network.parameters())
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        some = "" if trained == total else f", {trained:,} of them trained"
        lines.append(f"network_{key}: {type(network).__name__}, {total:,} parameters{some}")
    return "\n\t".join(lines)


def _git_state(folder: Path) -> str:
    """``, git 1a2b3c4 (modified)``, or nothing outside a repository."""
    if not (folder / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty=-modified", "--abbrev=10"]
        described = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603  # nosec B603
    except (OSError, subprocess.SubprocessError):
        return ""
    return f", git {described.stdout.strip()}"


def add_file(path: Path) -> logging.FileHandler:
    """Send log lines to a text file as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = LogFile(path)
    handler.setFormatter(logging.Formatter(FORMAT))
    log.addHandler(handler)
    return handler


@contextlib.contextmanager
def text_log(path: Path) -> Iterator[None]:
    """Inside: log lines go to a text file as well, on the main rank."""
    handler = add_file(path) if distributed.is_main() else None
    try:
        yield
    finally:
        if handler is not None:
            remove_file(handler)


def remove_file(handler: logging.FileHandler) -> None:
    """Inverse of `add_file`."""
    log.removeHandler(handler)
    handler.close()


def as_json(content: Any, indent: int | None = None) -> str:
    """JSON that every reader takes: it has no infinity (a perfect image's PSNR) and no NaN, which become null."""

    def safe(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: safe(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [safe(v) for v in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(safe(content), indent=indent, allow_nan=False)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all."""
    write_atomically(path, lambda file: file.write((as_json(content, indent=2) + "\n").encode()))


def trackers(opt: Logger) -> tuple[Any, Any, Any]:
    """The modules of TensorBoard, Weights & Biases and MLflow, each or None, where a ``logger`` section asks for them.

    Raises:
        UserError: one is not installed.
    """
    board = wandb = mlflow = None
    if opt.use_tb_logger:
        board = require("torch.utils.tensorboard", "logger.use_tb_logger", "pip install tensorboard")
    if opt.wandb is not None and opt.wandb.project:
        wandb = require("wandb", "logger.wandb")
    if opt.mlflow is not None and opt.mlflow.experiment:
        mlflow = require("mlflow", "logger.mlflow", "pip install mlflow")
    return board, wandb, mlflow


class RunLogger:
    """Where a training run's numbers go. On ranks above 0 every method does nothing.

    Args:
        folder: ``experiments/<name>``: gets ``train_<name>_<time>.log`` and ``metrics.jsonl``.
        tensorboard: folder of TensorBoard's events.
        opt: the resolved options, whose ``logger`` section says which trackers there are.
        start: iteration the run starts from; records of later iterations, left by a killed run, are dropped.
        validated: whether the validation of `start` is over; else what is recorded of it is dropped too.

    Raises:
        UserError: a tracker is not installed.
    """

    def __init__(
        self, folder: Path, tensorboard: Path, opt: Mapping[str, Any], start: int = 0, validated: bool = True
    ) -> None:
        self.name = str(opt["name"])
        self.total = int(opt["train"]["total_iter"])
        self.pace = Pace(self.total, start)
        self.trackers: list[Tracker] = []
        self.records: Any = None
        self.bar: Bar | None = None
        self.heartbeat: Heartbeat | None = None
        self._failed: set[str] = set()
        # Only the first rank writes.
        if not distributed.is_main():
            return
        settings = Logger.of(opt["logger"])
        board, wandb, mlflow = trackers(settings)
        # Files, then trackers, then what is shown on the terminal or in a log of a cluster.
        folder.mkdir(parents=True, exist_ok=True)
        self.file = add_file(folder / f"train_{self.name}_{timestamp()}.log")
        self.records = _reopen_records(folder / "metrics.jsonl", start, validated)
        config = without_secrets(plain(opt))
        if board is not None:
            self.trackers.append(TensorBoard(board, tensorboard, start))
        if wandb is not None and settings.wandb is not None:
            with self._tracking(WeightsAndBiases.name):
                self.trackers.append(WeightsAndBiases(wandb, settings.wandb, self.name, config))
        if mlflow is not None and settings.mlflow is not None:
            with self._tracking(MLflowRun.name):
                self.trackers.append(MLflowRun(mlflow, settings.mlflow, self.name, config))
        if sys.stdout.isatty():
            self.bar = Bar(self.name, self.pace)
        else:
            self.heartbeat = Heartbeat(lambda: f"Iteration {self.pace.iteration:,} of {self.total:,}, {self.pace}")

    def step(self, iteration: int, lrs: list[float], scalars: Mapping[str, Any]) -> None:
        """A step is done; `scalars` are this rank's, on whatever device."""
        if self.records is None:
            return
        self.pace.step(iteration)
        if self.bar:
            self.bar.step(lrs, scalars)

    def iteration(
        self,
        iteration: int,
        epoch: int,
        lrs: list[float],
        scalars: Mapping[str, float],
        noted: Mapping[str, float] | None = None,
        steps: int = 1,
    ) -> None:
        """One log line. `scalars` holds the ``l_*`` losses and whatever else is worth a curve; `noted`, what is not.

        Args:
            steps: steps since the line before; ``mean/*`` of `scalars` are shown where there are several.
        """
        if self.records is None:
            return
        unsaid = ("perf/", "epoch/", *(() if steps > 1 else ("mean/",)))
        losses = {k: v for k, v in scalars.items() if not k.startswith(unsaid)}
        self.pace.step(iteration)
        remaining = self.pace.eta or 0.0
        eta = datetime.timedelta(seconds=int(remaining))
        rates = "".join(f"{lr:.3e}," for lr in lrs)
        per_step, data = scalars.get("perf/time", 0.0), scalars.get("perf/data_time", 0.0)
        message = f"[{self.name[:5]}..][epoch:{epoch:3d}, iter:{iteration:8,d}, lr:({rates})] "
        message += f"[eta: {eta}, time (data): {per_step:.3f} ({data:.3f})] "
        if (thousand := scalars.get("perf/seconds_per_kimg")) is not None:
            message += f"[s/kimg: {thousand:.2f}] "
        message += utilisation.in_words(scalars)
        rate = " ".join(f"{lr:.2e}" for lr in lrs)
        short = f"iter {iteration:,}/{self.total:,}  lr {rate}  {losses_first(losses, 4)}  {self.pace}"
        whole = message + " ".join(f"{k}: {v:.4e}" for k, v in losses.items())
        log.info("%s", whole, extra={"short": short})
        more = {**(noted or {}), "perf/eta": round(remaining, 3)}
        self.record({"iter": iteration, "epoch": epoch, "lr": lrs, **scalars, **more})
        tagged = {f"losses/{k}" if k.startswith("l_") else k: v for k, v in scalars.items()}
        self.scalars(iteration, {**tagged, **{f"lr/{i}": lr for i, lr in enumerate(lrs)}})

    def validation(
        self,
        iteration: int,
        results: Mapping[str, Mapping[str, float]],
        best: Mapping[str, Any],
        said: Mapping[str, str] | None = None,
        better: Mapping[str, str] | None = None,
    ) -> None:
        """One validation's means: ``results[dataset][metric]``; `best` as kept by the trainer, by the same names.

        Args:
            said: what the heading adds to a dataset's name, ``EMA``.
            better: whether a ``higher`` or a ``lower`` score is better, by metric, for those who read the records.
        """
        if self.records is None:
            return
        self.pace.restart()
        if self.bar:
            self.bar.score(results)
        for dataset, metrics in results.items():
            more = (said or {}).get(dataset)
            lines = [f"Validation {dataset} ({more})" if more else f"Validation {dataset}"]
            for metric, value in metrics.items():
                record = best.get(dataset, {}).get(metric)
                tail = f"\tBest: {record['value']:.4f} @ {record['iter']} iter" if record else ""
                lines.append(f"\t # {metric}: {value:.4f}{tail}")
            log.info("%s", "\n".join(lines))
            ways = {"better": {k: v for k, v in better.items() if k in metrics}} if better else {}
            self.record({"iter": iteration, "dataset": dataset, "metrics": dict(metrics), **ways})
            self.scalars(iteration, {f"metrics/{dataset}/{k}": v for k, v in metrics.items()})

    def record(self, entry: Mapping[str, Any]) -> None:
        """One line of ``metrics.jsonl``, which gets the wall clock too."""
        if self.records is not None:
            now = datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
            with self._tracking("metrics.jsonl"):
                self.records.write(as_json({**entry, "perf/wall_clock": now}) + "\n")
                self.records.flush()

    def scalars(self, iteration: int, values: Mapping[str, float]) -> None:
        """Curves, to all trackers."""
        for tracker in self.trackers:
            with self._tracking(tracker.name):
                tracker.scalars(iteration, values)

    def image(self, tag: str, picture: Any, iteration: int) -> None:
        """One picture, (H, W, 3) uint8 RGB, to trackers that take such."""
        for tracker in self.trackers:
            with self._tracking(tracker.name):
                tracker.image(tag, picture, iteration)

    @contextlib.contextmanager
    def _tracking(self, tracker: str) -> Iterator[None]:
        """What follows records something; if that fails, training goes on, and the log says so once for each tracker."""
        try:
            yield
        except Exception as e:  # trackers are anybody's code, and the disk may be full
            if tracker not in self._failed:
                self._failed.add(tracker)
                log.warning("%s fails, which ends nothing else: %s: %s", tracker, type(e).__name__, first_line(e))

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        """Close, after writing why the run ended into the text log, whose reader may never see the terminal."""
        if error is not None and self.records is not None:
            plain = isinstance(error, UserError) and not isinstance(error, Provoked)
            what = str(error) if plain else "".join(traceback.format_exception(error))
            if isinstance(error, Provoked):
                error.logged = True
            self.file.handle(log.makeRecord(log.name, logging.ERROR, "", 0, "%s", (lines(what),), None))
        self.close()

    def close(self) -> None:
        """Flush and close everything."""
        if self.records is None:
            return
        if self.bar:
            self.bar.close()
        if self.heartbeat:
            self.heartbeat.close()
        for tracker in self.trackers:
            with self._tracking(tracker.name):
                tracker.close()
        with self._tracking("metrics.jsonl"):
            self.records.close()
        self.records = None
        remove_file(self.file)


def _reopen_records(path: Path, start: int, validated: bool) -> Any:
    """``metrics.jsonl``, ready to append; lines of iterations and validations that a resumed run will repeat are dropped."""
    kept = []
    if path.exists():
        from . import records

        for line in reading.text(path).splitlines():
            entry = records.parse(line)
            if entry is None:
                continue
            repeated = "metrics" in entry and not validated
            if records.iteration_of(entry) <= (start - 1 if repeated else start):
                kept.append(line + "\n")
    with replacing(path) as file:
        file.write("".join(kept).encode())
    return path.open("a", encoding="utf-8")
