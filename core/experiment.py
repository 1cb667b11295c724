"""The folders of an experiment, in BasicSR's places, and the search for what to resume."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import logging
import shlex
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError, expanded, lines, unreadable
from .evaluation import INPUT
from .files import inside, refuse_links
from .options import Options, dump
from .runtime import checkpoint, distributed
from .runtime.checkpoint import BEST, INTERRUPTED, Checkpoints
from .runtime.gate import Provoked, gate
from .runtime.last_words import LastWords
from .runtime.lock import owned
from .runtime.logger import timestamp

log = logging.getLogger("relume")


class Experiment:
    """Where a training run's files are: ``<experiments_root>/<name>`` and, beside that root, ``tb_logger/<name>``.

    Args:
        opt: checked options.
    """

    def __init__(self, opt: Options) -> None:
        self.opt = opt
        with gate("path.experiments_root"):
            experiments = expanded(opt.path.experiments_root or "experiments")
        self.root = experiments / opt.name
        self.tensorboard = experiments.parent / "tb_logger" / opt.name
        self.visualization = self.root / "visualization"
        self.last_words = LastWords(self.root)

    def own(self, until: contextlib.ExitStack) -> None:
        """Keep other runs out of these folders until `until` is closed.

        Raises:
            UserError: another run owns them, or there are links in them; nothing was touched. Or this run was started again
                after a mistake.
        """
        error = None
        if distributed.is_main():
            try:
                for folder in (self.root, self.tensorboard):
                    if folder.exists() and not folder.is_dir():
                        raise UserError(f"{folder}: is a file where this run needs a folder; move it, or change name")
                    refuse_links(folder, "the experiment")
                    inside(folder.parent, folder)
                until.enter_context(owned(self.root))
                self.last_words.refuse_again()
            except UserError as e:
                error = e
            except OSError as e:
                error = UserError(f"path.experiments_root: {checkpoint.cannot_write(self.root, e)}")
        distributed.agree(error)
        self.last_words.own()

    def prepare(self, opt: Options, fresh: bool) -> None:
        """Create the folders and save the resolved options, `opt`, in which a seed that was drawn stands too.

        A fresh run never mixes with an older one of the same name: that one is moved aside, and the log says so.

        Raises:
            UserError: they cannot be written.
        """
        error = None
        if distributed.is_main():
            try:
                if fresh:
                    self._archive()
                save_options(self.root / f"{self.opt.name}.yml", opt)
            except OSError as e:
                error = UserError(f"path.experiments_root: {checkpoint.cannot_write(self.root, e)}")
            except UserError as e:
                error = UserError(f"path.experiments_root: {e}")
        distributed.agree(error)

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Inside, a run is put together: the traceback of what keeps it from that goes into a log of its own here.

        Raises:
            Provoked: as raised, with the log's name.
        """
        try:
            yield
        except Provoked as e:
            path = self.root / f"train_{self.opt.name}_{timestamp()}.log"
            if distributed.is_main() and e.__cause__ is not None and not e.logged:
                with contextlib.suppress(OSError):
                    self.root.mkdir(parents=True, exist_ok=True)
                    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                        file.write(lines("".join(traceback.format_exception(e))))
            raise

    def _only_words(self) -> bool:
        """Whether nothing is here but what runs that did not begin said, which is no reason to move the folder."""
        logs = [p for p in self.root.glob("train_*.log") if p.is_file()]
        return set(self.root.glob("*")) <= {*logs, self.last_words.path}

    def _archive(self) -> None:
        trained = Checkpoints(self.root).iterations()
        moment = timestamp()
        for folder in (self.root, self.tensorboard):
            if folder.exists() and not (folder == self.root and self._only_words()):
                aside = folder.with_name(f"{folder.name}_archived_{moment}")
                for number in itertools.count(2):  # two runs may end within a second
                    if not aside.exists():
                        break
                    aside = folder.with_name(f"{folder.name}_archived_{moment}_{number}")
                folder.rename(aside)
                if folder == self.root and trained:
                    log.warning(
                        "Starting from iteration 0. The earlier run of this name, trained to iteration %d, was moved to %s "
                        "(--auto_resume would have continued it, as auto_resume: true in the option file does; "
                        "to go on with it now: rm -r %s && mv %s %s, and start with --auto_resume)",
                        trained[-1],
                        aside,
                        *(shlex.quote(str(p)) for p in (folder, aside, folder)),
                    )

    def complete(self, resume: Resume) -> str:
        """What to say when there is nothing left to train.

        Raises:
            UserError: it is another run that is complete: to continue it under this name, it must be given something to do.
        """
        done, total = resume.iteration, self.opt.train.total_iter if self.opt.train else 0
        if resume.path.resolve().parent.parent != self.root.resolve():
            raise UserError(
                f"path.resume_state: {resume.path} is at iteration {done} and train.total_iter is {total}: nothing is left "
                "to train; raise train.total_iter"
            )
        return (
            f"This run is already complete: {self.root} is at iteration {done}, and train.total_iter is {total}. Nothing was "
            "trained. To train on, raise train.total_iter; to start anew, leave out --auto_resume or change the name"
        )

    def farewell(
        self,
        results: Mapping[str, Mapping[str, float]],
        best: Mapping[str, Any],
        seconds: float,
        unscored: Mapping[str, str],
    ) -> str:
        """What to look at, and what to do next; of datasets without scores, why they have none."""
        lines = [f"Done in {datetime.timedelta(seconds=int(seconds))}."]
        for dataset, metrics in results.items():
            scores = []
            records = best.get(dataset, {})
            for metric in [m for m in metrics if m in records]:  # a resumed run may have dropped a metric
                record = records[metric]
                figures = [f"best {record['value']:.4f} @ {record['iter']} iter"]
                if f"{metric}{INPUT}" in metrics:
                    figures.append(f"input {metrics[metric + INPUT]:.4f}")
                scores.append(f"{metric} {metrics[metric]:.4f} ({', '.join(figures)})")
            lines.append(f"{dataset}: {', '.join(scores) or unscored.get(dataset, 'no metrics')}")
        lines.append(f"weights   {self.root / 'models'}")
        if self.visualization.exists():
            lines.append(f"pictures  {self.visualization}")
        if self.tensorboard.exists():
            lines.append(f"curves    tensorboard --logdir {self.tensorboard}")
        lines.append(f"options   {self.root / (self.opt.name + '.yml')}")
        commands = [self.next_command()] if self.opt.sets("val", "test") else []
        if not (self.opt.train and self.opt.train.get("inputs")):  # a folder of pictures has nothing but lq
            commands.append(f"on a folder of pictures: {self.next_command(pictures=True)}")
        lines += [f"{'' if i else 'next':<9} {command}" for i, command in enumerate(commands)]
        return "\n\t".join(lines)

    def next_command(self, pictures: bool = False) -> str:
        """How to test what this run has trained, on its validation sets or on a folder of pictures."""
        command = f"relume test -opt {shlex.quote(str(self.root / (self.opt.name + '.yml')))}"
        sets = list(self.opt.sets("val", "test"))
        if not pictures:
            return command
        key = sets[0] if sets else "test"
        overrides = [
            f"datasets:{key}:type=SingleImageDataset",
            f"datasets:{key}:dataroot_lq=FOLDER",
            "val:save_img=true",
        ]
        return f"{command} --force_yml {' '.join(overrides)}"


def save_options(path: Path, opt: Options) -> None:
    """Write resolved options beside what came of them. Raises OSError or UserError where that fails."""
    text = f"# Resolved options, written {datetime.datetime.now():%Y-%m-%d %H:%M:%S}\n{dump(opt)}"
    checkpoint.write_atomically(path, lambda file: file.write(text.encode()))


@dataclass(frozen=True)
class Resume:
    """A training state to continue from."""

    iteration: int
    path: Path
    state: dict[str, Any]

    def network_path(self, key: str) -> Path:
        """The weights file of network `key` that belongs to this state."""
        return self.path.parent.parent / "models" / f"net_{key}_{self.path.stem}.pth"


def find_resume(opt: Options, experiment: Experiment, auto: bool) -> Resume | None:
    """What to continue from: ``path.resume_state``, or with `auto` this experiment's newest good checkpoint.

    Rank 0 decides for all.

    Raises:
        UserError: ``path.resume_state`` is damaged, or there are checkpoints and every one is.
    """
    path, error = None, None
    if distributed.is_main():
        try:
            path = _choose(opt, experiment, auto)
        except UserError as e:
            error = e
    distributed.agree(error)
    path = distributed.broadcast(path)
    if path is None:
        return None
    from .runtime import training_state

    own = path.parent == Checkpoints(experiment.root).states
    with contextlib.nullcontext() if own else gate("path.resume_state"):
        state = training_state.checked(checkpoint.load(path), Path(path), training_state.FOUND_BY)
    return Resume(int(state["iter"]), Path(path), state)


def _choose(opt: Options, experiment: Experiment, auto: bool) -> Path | None:
    # --auto_resume: the newest checkpoint that can be trusted.
    checkpoints = Checkpoints(experiment.root)
    interrupted = checkpoints.interrupted() if auto else None
    if auto and (interrupted is not None or checkpoints.iterations()):
        newest, problems = checkpoints.newest_good()
        if interrupted is not None and interrupted > (newest or 0):
            return checkpoints.state_path(INTERRUPTED)
        if newest is None:
            raise UserError(
                f"{checkpoints.states}: no checkpoint can be trusted: {'; '.join(problems)}. Not starting from zero over them; "
                "remove the folder to do so"
            )
        for damage in problems:
            log.warning("%s; going back to iteration %d", damage, newest)
        return checkpoints.state_path(newest)
    # The one that the option file names.
    if opt.path.resume_state:
        with gate("path.resume_state"):
            path = expanded(opt.path.resume_state)
        if (why := unreadable(path)) is not None:
            raise UserError(f"path.resume_state: {path}: {why}")
        named = path.stem.isdigit() or path.stem in (INTERRUPTED, BEST)
        problem = Checkpoints(path.parent.parent).verify(path.stem) if named else None
        if problem:
            raise UserError(f"path.resume_state: {problem}")
        return path
    if auto:
        log.info("--auto_resume: nothing to resume in %s, starting from iteration 0", experiment.root)
    return None
