"""THE loop. What a step means is the model's business; everything that is the same for all of them happens here."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .changes import left_out, remembered
from .ema import EMA, evaluating
from .errors import NonFiniteError
from .evaluation import Evaluator, Interrupted, is_better
from .guard import Guard, spoilt
from .models.base import Batch, Model, Update
from .ops import dispatch
from .options import dump
from .options.schema import Train, Val
from .runtime import checkpoint, distributed
from .runtime.background import Writer
from .runtime.checkpoint import ENTRY, Checkpoints
from .runtime.logger import Logger, RunLogger
from .runtime.means import RunningMeans
from .runtime.optimizers import modes
from .runtime.precision import autocast
from .runtime.predicated import Stepper, put_back
from .runtime.signals import Stopped, StopRequest, how
from .runtime.speed import Profiler
from .runtime.state import (
    full_optimizer_state,
    full_state,
    load_optimizer_state,
    peak_memory_gib,
    seed_everything,
)

log = logging.getLogger("relume")
PROVEN = 10
"""Iterations of a process after which nothing is new."""
MEAN = "mean"
"""In place of a validation set's name: all of them, by their mean."""


@dataclass
class Parts:
    """What the pipeline built and the trainer puts to work."""

    model: Model
    networks: dict[str, nn.Module]
    """Trained networks, unwrapped: what is saved, averaged and evaluated."""
    ema: EMA | None
    optimizers: dict[str, torch.optim.Optimizer]
    schedulers: dict[str, Any]
    loader: Any
    evaluator: Evaluator
    checkpoints: Checkpoints
    logger: RunLogger
    guard: Guard
    device: torch.device
    descriptions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of each trained network, what its weights say of themselves."""
    best: dict[str, Any] = field(default_factory=dict)
    show: Callable[[Mapping[str, Tensor], int], None] | None = None
    """Shows pictures of a training sample, by label, of an iteration."""


@dataclass
class StepInProgress:
    """What an error in the middle of a step leaves to be put right."""

    buffers: Sequence[Tensor]
    """As they were before the step."""
    applied: bool = False
    """Whether an optimizer has stepped."""


class Trainer:
    """Runs a training from ``iteration`` to ``train.total_iter``.

    Args:
        parts: everything that was built.
        opt: the checked options, or a plain mapping with ``manual_seed`` and ``train``, and ``val`` and ``logger`` to `fit`.
        iteration: iterations already done.
        stop: what listens to signals; one of its own when None.

    Attributes:
        leaving: the exit code that all ranks have agreed to leave with; 0 to go on. Signals are known to one rank at first, so
            nothing that ranks do together may depend on `stop` itself.
    """

    def __init__(
        self, parts: Parts, opt: Mapping[str, Any], iteration: int = 0, stop: StopRequest | None = None
    ) -> None:
        self.parts = parts
        self.opt = opt
        self.first = self.iteration = iteration
        self.seed = int(opt["manual_seed"])
        self.train = Train.of({"total_iter": iteration, **opt["train"]})
        self.val = Val.of(opt.get("val", {}))
        self.logging = Logger.of(opt.get("logger", {}))
        self.until = self.train.total_iter
        """The iteration to end with, which a rehearsal sets earlier."""
        self.stop = stop or StopRequest()
        self.leaving = 0
        self.pending_validation = False
        self.saved = iteration
        """The iteration of the last checkpoint."""
        self.unproven: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
        """Entered around the first iterations of this process, in which values of the options show that nobody tried before."""
        self.writer = Writer(self.logging.async_save)
        self.profiler = Profiler(self.train.profile, Path(parts.guard.folder), parts.device)
        self._logged: list[list[str]] = []
        """Names of what each update since the last look has logged, of the last step."""
        self._step: StepInProgress | None = None
        self._unsaid = False
        """Whether the line of the iteration that was made last is still to be written."""
        self.means = RunningMeans(parts.device)
        self.begun = False
        """Whether a step was taken in this process."""
        self.last_results: dict[str, dict[str, float]] = {}
        self.rates: list[float] = []
        """Learning rates of the last step, one per parameter group of the model's leading optimizer, or else of the first that
        it asked for."""
        amp = self.train.amp
        # One for each: an overflow in one network would lower the scale of all, and each update would count as a step.
        self.steppers = {k: Stepper(o) for k, o in parts.optimizers.items()}
        self.scalers = {k: torch.amp.GradScaler(parts.device.type, enabled=amp == "fp16") for k in parts.optimizers}
        self._loose = _parameters_outside_ddp(parts)
        self._buffers = [b for n in parts.networks.values() for b in n.buffers()]

    # ---------------------------------------------------------------- the loop
    def fit(self) -> None:
        """Train, validate, save, until the last iteration or a signal.

        Raises:
            Stopped: a signal came; a checkpoint was written.
            NonFiniteError: too many bad steps in a row.
        """
        with self.stop:
            self.stop.starting = False
            try:
                self.run()
            except Stopped:
                raise
            except BaseException:
                self.rescue()
                raise

    def run(self) -> None:
        """The loop of `fit`."""
        modes.begin(self.parts.optimizers.values())
        if distributed.is_main():
            self.parts.checkpoints.sweep()  # while nothing is written in the background
        if self.pending_validation:
            self.validate()
            if self.pending_validation:  # interrupted again, which the checkpoint already says
                self.leave()
            # What was resumed may be no checkpoint of this folder: an interrupted state, or another run's.
            known = distributed.broadcast(self.parts.checkpoints.has(self.iteration))
            (self.save_results if known else self.save)()
        while self.iteration < self.until:
            self._step = StepInProgress([b.clone() for b in self._buffers])  # loading its samples may fail, too
            self.iteration += 1
            with self.unproven() if self.iteration <= self.first + PROVEN else contextlib.nullcontext():
                self.profiler.before(self.iteration)
                scalars = self.step()
                self.profiler.after(self.iteration, self.iteration == self.until)
            self.means.add(scalars, self.parts.loader.epoch)
            in_bar = {**scalars, **self.means.line.values()} if self.parts.logger.bar else scalars
            self.parts.logger.step(self.iteration, self.rates, in_bar)
            if kernels := dispatch.decisions() if not self.begun else "":
                log.info("Kernels: %s", kernels)
            self.begun = True
            last = self.iteration == self.until
            if last or self.leaving or any(map(self.due, self.looking)):
                lost = self.look()
                scalars = {k: v for k, v in scalars.items() if k not in lost}
            if self._unsaid:
                self.report(scalars)
                self._unsaid = False
            if self.due(self.logging.save_checkpoint_freq) or last or self.leaving:
                self.save()  # first, so that nothing that happens in a validation can lose it
            if self.pending_validation:
                self.validate()
                if self.saved != self.iteration and self.leaving:
                    self.save()
                elif not self.pending_validation:
                    self.save_results()
            if self.leaving and (not last or self.pending_validation):
                self.leave()
        self.writer.finish()

    def due(self, every: int | None) -> bool:
        """Whether the current iteration is a multiple of `every`."""
        return every is not None and self.iteration % every == 0

    # ---------------------------------------------------------------- one step
    def step(self) -> dict[str, Tensor | float]:
        """One iteration: every update that the model asks for, over all micro-batches; then schedules and averages."""
        began = time.perf_counter()
        self._logged = []
        before = self.parts.loader.position
        batches: list[Batch] = [next(self.parts.loader) for _ in range(self.parts.loader.micro_batches(self.iteration))]
        self.parts.model.samples_seen = seen = self.parts.loader.position
        loaded = time.perf_counter()
        if self.parts.guard.must_look(batches):
            self.look()
        seed_everything(self.seed, self.iteration, distributed.rank())
        buffers = self._step.buffers if self._step is not None else [b.clone() for b in self._buffers]
        scalars: dict[str, Tensor | float] = {}
        model = self.parts.model
        model.showing, model.pictures = self.due(self.logging.train_image_freq) and distributed.is_main(), {}
        generators = [self.parts.model.updates(batch, self.iteration) for batch in batches]
        asked: set[str] = set()
        sound = self.parts.guard.begin(batches)
        failed = ~sound  # where steps count no longer, batch statistics stay as they are, too
        while updates := self.differentiate(generators):
            asked.add(updates[0].optimizer)
            # After a bad update the rest of the step would build on one that did not happen: it does not count either.
            sound, worse = self.apply(updates, batches, scalars, sound)
            failed = failed | worse
        if asked:
            self.parts.guard.close(sound, failed)
            put_back(~failed, self._buffers, buffers)
            if self.parts.ema:
                self.parts.ema.update(self.parts.networks, seen, seen - before, sound)
        self.leaving = self.leaving or distributed.agreed(self.stop.code)
        shown = {leading} if (leading := self.parts.model.leading) else asked
        stepped = next((o for k, o in self.parts.optimizers.items() if k in shown), None)
        self.rates = [float(g["lr"]) for g in stepped.param_groups] if stepped else []
        for scheduler in self.parts.schedulers.values():
            scheduler.step()
        last, self._step = self.iteration == self.until, None
        self._unsaid = self.due(self.logging.print_freq) or last
        self.pending_validation = self.due(self.val.val_freq) or last
        if model.pictures and self.parts.show is not None:
            self.parts.show(model.pictures, self.iteration)
        scalars["perf/data_time"] = loaded - began
        scalars["perf/time"] = time.perf_counter() - began
        if model.counts_images:
            scalars["perf/seconds_per_kimg"] = 1000 * scalars["perf/time"] / (seen - before)
        return scalars

    def differentiate(self, generators: Sequence[Iterator[Update]]) -> list[Update]:
        """The next update of every micro-batch, back-propagated; an empty list when the step is over."""
        for optimizer in self.parts.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        updates: list[Update] = []
        for i, generator in enumerate(generators):
            with self.synchronised(i == len(generators) - 1):
                with autocast(self.parts.device, self.train.amp):
                    update = next(generator, None)
                if update is None:
                    break
                total = torch.stack([v.float() for v in update.losses.values()]).sum()
                self.scalers[update.optimizer].scale(total / len(generators)).backward()
            updates.append(update)
        if updates and (len(updates) != len(generators) or len({u.optimizer for u in updates}) != 1):
            raise RuntimeError("the model's micro-batches asked for different updates")
        return updates

    def apply(
        self, updates: list[Update], batches: list[Batch], scalars: dict[str, Tensor | float], going: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Step the optimizer where every rank's losses and gradients are finite, which only the device knows.

        Args:
            going: whether the step still counts, (), boolean.

        Returns:
            Whether the update counts, and whether it has failed; neither, where fp16's scale was too large.
        """
        name = updates[0].optimizer
        optimizer, scaler, guard = self.parts.optimizers[name], self.scalers[name], self.parts.guard
        for p in self._loose:
            if p.grad is not None:
                distributed.mean(p.grad)
        scale = growth = None
        if scaler.is_enabled():
            scaler.unscale_(optimizer)
            scale, growth = kept_scale(scaler)
        parameters = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        norms = gradient_norms(parameters, self.parts.device)
        norm = torch.linalg.vector_norm(norms)
        sound, failed = guard.judge(self.iteration, updates, batches, parameters, norms, norm, going, scale)
        logged = set(scalars)
        collect(scalars, updates, norm, self.parts.model.leading)
        new = [k for k in scalars if k not in logged]
        if self._logged:  # after another update, which may have failed: then this one did not happen
            scalars.update({k: torch.where(going, scalars[k], torch.nan) for k in new})
        self._logged.append(new)
        if self._step is not None:
            self._step.applied = True
        self.clip(parameters, norm)
        self.steppers[name].step(sound)
        if scale is not None and growth is not None:
            scaler.update()  # lowers the scale after an overflow, which is to stay if that is no overflow but a bad step
            put_back(going & ~failed, list(kept_scale(scaler, own=True)), [scale, growth])
        return sound, failed

    def look(self) -> set[str]:
        """Have the guard say what was bad since the last look. Waits for the device.

        Returns:
            The names of the last step's scalars that are of updates which did not count.

        Raises:
            NonFiniteError: too many steps were.
        """
        guard = self.parts.guard
        updates, logged, self._logged = len(guard.entries), self._logged, []
        context = {
            "options": self.opt_text,
            "plugins": lambda: bool(self.opt.get("plugins")),
            "seed": lambda: self.seed,
            "rank": distributed.rank,
        }
        lost = guard.look(self.parts.networks, lambda: {k: value() for k, value in context.items()})
        for stepper in self.steppers.values():
            stepper.settle()
        first = updates - len(logged)
        return {name for place, names in enumerate(logged, first) if place in lost for name in names}

    def clip(self, parameters: list[nn.Parameter], norm: Tensor) -> None:
        """Clip gradients by value and by norm, as the options say."""
        value = self.train.grad_clip_value
        largest = self.train.grad_clip_norm or (0.01 if self.train.use_grad_clip else None)
        if value:
            nn.utils.clip_grad_value_(parameters, value)
            norm = torch.linalg.vector_norm(gradient_norms(parameters, self.parts.device)) if largest else norm
        if largest:
            nn.utils.clip_grads_with_norm_(parameters, largest, norm)

    @contextlib.contextmanager
    def synchronised(self, last: bool) -> Iterator[None]:
        """Gradients travel between ranks with the last micro-batch only."""
        with contextlib.ExitStack() as stack:
            for network in self.parts.model.networks.values():
                if not last and isinstance(network, nn.parallel.DistributedDataParallel):
                    stack.enter_context(network.no_sync())
            yield

    # ---------------------------------------------------------------- now and then
    def report(self, scalars: Mapping[str, Tensor | float]) -> None:
        """Log the current step, its values averaged over ranks."""
        steps, scalars = self.means.steps, {**scalars, **self.means.take()}
        names = list(scalars)
        values = [
            torch.as_tensor(v).detach().to(self.parts.device, torch.float32).reshape(()) for v in scalars.values()
        ]
        averaged = distributed.mean(torch.stack(values)).tolist()
        means: dict[str, float] = dict(zip(names, averaged, strict=True))
        means["perf/iterations_per_second"] = 1.0 / max(means["perf/time"], 1e-9)
        own = torch.tensor([float(scalars["perf/time"])], device=self.parts.device)
        slowest = distributed.concatenated(own).max(dim=0)
        of_ranks = {"perf/time_max": slowest.values.item(), "perf/time_max_rank": int(slowest.indices)}
        of_ranks["perf/samples"] = self.parts.loader.position
        means["perf/memory_gib"] = peak_memory_gib(self.parts.device)
        self.parts.logger.iteration(self.iteration, self.parts.loader.epoch, self.rates, means, of_ranks, steps)

    def validate(self) -> None:
        """Score every validation set; keep the best weights. A signal in the middle leaves it to the resumed run."""
        parts = self.parts
        for network in (*parts.networks.values(), *self.averages.values()):
            distributed.align_buffers(network)  # all score what the checkpoint holds, as a resumed run would
        try:
            with (
                self.resting(),
                evaluating(parts.model, parts.networks, parts.ema),
                autocast(parts.device, self.val.amp),
            ):
                results = parts.evaluator.run(parts.model, self.iteration, interrupted=self.interrupted)
        except Interrupted as stop:
            self.leaving = self.leaving or stop.code
            return
        self.pending_validation = False  # only now: what fails on the way is to be made good
        self.last_results = results
        best, chosen = parts.evaluator.best, self.val.chosen
        decisive = decided_by(results, best, chosen.dataset)
        with_mean = {**results, MEAN: mean_of(results, best)} if chosen.dataset == MEAN else results
        if best is not None and decisive is not None:
            for scheduler in parts.schedulers.values():
                scheduler.step_metric(with_mean[decisive][best])
        improved = (decisive, best) in self.remember(with_mean)
        parts.logger.validation(self.iteration, results, parts.best, self.said_of(results), parts.evaluator.better)
        if not improved:
            return
        if chosen.keep_state:
            self.means.align()
        with self.resting():
            kept = self.writer.kept((self.weights(), self.state() if chosen.keep_state else None))
            self.writer.write(partial(parts.checkpoints.save_best, *kept))

    def resting(self, exactly: bool = True) -> contextlib.AbstractContextManager[None]:
        """Inside, networks have the weights that are to be used; see `modes.resting`."""
        return modes.resting(self.parts.optimizers.values(), exactly)

    def interrupted(self) -> int:
        """The exit code of a signal that came here; on any rank where networks are sharded, whose ranks must stay in step."""
        code = self.stop.code
        if any(distributed.is_sharded(n) for n in self.parts.networks.values()):
            code = int(distributed.maximum(torch.tensor(float(code), device=self.parts.device)))
        return code

    def said_of(self, results: Iterable[str]) -> dict[str, str]:
        """What headings say of the datasets' scores: whose they are, and how many images were left out."""
        averaged = ["EMA"] if self.parts.ema and self.parts.ema.networks else []
        short = {d: self.parts.evaluator.counted(d) for d in results}
        return {d: ", ".join([*averaged, *([few] if few else [])]) for d, few in short.items()}

    def remember(self, results: Mapping[str, Mapping[str, float]]) -> set[tuple[str, str]]:
        """Update the records; the (dataset, metric) pairs that have improved."""
        improved = set()
        for dataset, metrics in results.items():
            for metric in [m for m in self.parts.evaluator.metrics if m in metrics]:
                value = metrics[metric]
                records = self.parts.best.setdefault(dataset, {})
                record = records.get(metric)
                if record is None or is_better(value, record["value"], self.parts.evaluator.better[metric]):
                    records[metric] = {"value": value, "iter": self.iteration}
                    improved.add((dataset, metric))
        return improved

    def weights(self) -> dict[str, dict[str, Any]]:
        """`contents`, which all ranks have agreed to keep.

        Raises:
            NonFiniteError: some are NaN or infinite, which no file shall hold.
        """
        self.parts.guard.refuse_weights(self.iteration, self.parts.networks, self.averages)
        return self.contents()

    @property
    def looking(self) -> tuple[int | None, ...]:
        """After how many iterations the host wants to know what the device has done."""
        return self.logging.print_freq, self.logging.save_checkpoint_freq, self.val.val_freq

    @property
    def averages(self) -> Mapping[str, nn.Module]:
        """The averages of networks by key; none when switched off."""
        return self.parts.ema.networks if self.parts.ema else {}

    def contents(self) -> dict[str, dict[str, Any]]:
        """What ``net_<key>_*.pth`` files hold: ``params``, ``params_ema`` where there is an average, and what they are."""
        weights = {k: {"params": full_state(n)} for k, n in self.parts.networks.items()}
        for key, average in self.averages.items():
            weights[key]["params_ema"] = full_state(average)
        for key, description in self.parts.descriptions.items():
            weights[key][ENTRY] = {**description, "iteration": self.iteration}
        return weights

    def save(self) -> None:
        """Write a checkpoint: everything that the rest of the run depends on."""
        for network in self.parts.model.networks.values():
            distributed.align_buffers(network)
        self.means.align()
        with self.resting(exactly=False):
            weights, state = self.writer.kept((self.weights(), self.state()))
            self.saved = iteration = self.iteration  # or not, as an error will say: nothing is to be rescued from it

            def write() -> None:
                began = time.perf_counter()
                self.parts.checkpoints.save(iteration, weights, state)
                log.info("Saved checkpoint %d (%.2f s)", iteration, time.perf_counter() - began)

            self.writer.write(write)

    def save_results(self) -> None:
        """Add what a validation changed to the checkpoint that was written before it, if one was."""
        if self.saved == self.iteration:
            with self.resting():
                state = self.writer.kept(self.state())
                self.writer.write(partial(self.parts.checkpoints.revise, self.iteration, state))

    def rescue(self) -> None:
        """Keep what was trained since the last checkpoint apart, as ``interrupted``, while an error goes on up.

        The state is the one after the last whole iteration. Nothing is agreed with other ranks, which may have no error:
        the main one writes what it has, unless networks are split over ranks, or another rank was lost in the middle of a
        report, which the resumed run could not make good.
        """
        step, self._step = self._step, None
        if step is not None:
            self.iteration -= 1
            for buffer, before in zip(self._buffers, step.buffers, strict=True):
                buffer.data.copy_(before)
        whole = step is not None or not (self._unsaid and distributed.world_size() > 1)
        lost = whole and self.iteration > self.saved and distributed.is_main()
        self.writer.wait()
        if not lost or any(map(distributed.is_sharded, self.parts.networks.values())):
            return
        try:
            if bad := spoilt(self.parts.networks, self.averages):
                raise NonFiniteError(f"{bad[0]} is NaN or infinite")
            with self.resting():
                path = self.parts.checkpoints.save_interrupted(self.contents(), self.state())
        except Exception as e:
            log.error("the state after iteration %d cannot be saved: %s", self.iteration, checkpoint.first_line(e))
            return
        half = "; a part of the next one is in its weights" if step is not None and step.applied else ""
        log.warning(
            "The state after iteration %d is kept in %s%s; --auto_resume continues from it", self.iteration, path, half
        )

    def state(self) -> dict[str, Any]:
        """What ``training_states/<iteration>.state`` holds."""
        parts = self.parts
        return {
            "iter": self.iteration,
            "epoch": parts.loader.epoch,
            "position": parts.loader.position_after(self.iteration),
            "seed": self.seed,
            "world_size": distributed.world_size(),
            "global_batch": parts.loader.batch_of(self.iteration + 1),
            "optimizers": {k: full_optimizer_state(parts.networks, o) for k, o in parts.optimizers.items()},
            "schedulers": {k: s.state_dict() for k, s in parts.schedulers.items()},
            "scaler": {k: s.state_dict() for k, s in self.scalers.items()},
            "model": parts.model.state_dict(),
            "best": parts.best,
            "results": self.last_results,
            "nonfinite": parts.guard.in_a_row,
            "means": self.means.state_dict(),
            "pending_validation": self.pending_validation,
            "options": remembered(self.opt),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue where `save` left off (networks and averages are loaded by the pipeline, before they are wrapped)."""
        parts = self.parts
        begun_anew = left_out(self.opt)
        for key, optimizer in parts.optimizers.items():
            if key not in begun_anew:
                load_optimizer_state(parts.networks, optimizer, state["optimizers"][key])
        for key, scheduler in parts.schedulers.items():
            scheduler.load_state_dict(state["schedulers"][key])
        for key, scaler in self.scalers.items():
            # States from before each optimizer had a scaler of its own hold one for all.
            scale = state["scaler"] if "scale" in state["scaler"] else state["scaler"].get(key)
            if scaler.is_enabled() and scale:
                scaler.load_state_dict(dict(scale))
        parts.model.load_state_dict(state["model"])
        parts.best.update(state["best"])
        self.last_results = dict(state["results"])
        parts.guard.in_a_row = state["nonfinite"]
        if "means" in state:  # which states have not that an earlier version wrote
            self.means.load_state_dict(state["means"])
        self.pending_validation = state["pending_validation"]

    def leave(self) -> None:
        """End the run early, after the checkpoint, with the exit code that schedulers know how to requeue."""
        self.writer.finish()
        what = f"{how(self.leaving)} at iteration {self.iteration}; the checkpoint is saved"
        raise Stopped(f"{what}. Continue with --auto_resume", self.leaving)

    def opt_text(self) -> str:
        """The resolved options as YAML text."""
        return dump(self.opt)


def decided_by(results: Mapping[str, Mapping[str, float]], metric: str | None, dataset: str | None) -> str | None:
    """The validation set by which weights are the best: `dataset` if it has the metric, or else the first that has it."""
    having = [d for d, metrics in results.items() if metric in metrics]
    if dataset == MEAN:
        return MEAN if having else None
    return dataset if dataset in having else next(iter(having), None) if dataset is None else None


def mean_of(results: Mapping[str, Mapping[str, float]], metric: str | None) -> dict[str, float]:
    """The mean of a metric over the validation sets that have it."""
    values = [metrics[metric] for metrics in results.values() if metric is not None and metric in metrics]
    return {metric: sum(values) / len(values)} if metric is not None and values else {}


def gradient_norms(parameters: Sequence[nn.Parameter], device: torch.device) -> Tensor:
    """Euclidean norms (k,) of the gradients, of the whole ones where parameters are sharded; (0,) without any."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(0, device=device)
    found = torch._foreach_norm(gradients)
    dtypes = {n.dtype for n in found}
    norms = torch.stack(found if len(dtypes) == 1 else [n.float() for n in found])
    return norms.full_tensor() if hasattr(norms, "full_tensor") else norms


def kept_scale(scaler: torch.amp.GradScaler, own: bool = False) -> tuple[Tensor, Tensor]:
    """The scale of fp16's gradients and the steps since it grew, as they are on the device: copies, or its `own`."""
    scale, growth = scaler._scale, scaler._growth_tracker
    assert scale is not None and growth is not None
    return (scale, growth) if own else (scale.clone(), growth.clone())


def collect(
    scalars: dict[str, Tensor | float], updates: Sequence[Update], norm: Tensor, leading: str | None = None
) -> None:
    """Add the updates' terms and logs, averaged over micro-batches and detached, to what is logged.

    The sum of the terms, ``l_total``, and the gradient norm are logged under their optimizer's name, without one for the
    `leading` optimizer, or else a step's first.
    """
    for found in ([u.losses for u in updates], [u.logs for u in updates]):
        for name in found[0]:
            scalars[name] = torch.stack([torch.as_tensor(f[name]).detach().float() for f in found]).mean()
    first = updates[0].optimizer == leading if leading else "grad_norm" not in scalars
    whose = "" if first else f"_{updates[0].optimizer}"
    scalars[f"l_total{whose}"] = torch.stack([scalars_of(u).sum() for u in updates]).mean()
    scalars[f"grad_norm{whose}"] = norm.detach()


def scalars_of(update: Update) -> Tensor:
    """The terms of an update, (n,), detached."""
    return torch.stack([v.detach().float() for v in update.losses.values()])


def _parameters_outside_ddp(parts: Parts) -> list[nn.Parameter]:
    """Trained parameters that no wrapper synchronises (learned loss weights): the trainer averages their gradients."""
    if not distributed.active():
        return []
    # What was frozen when its network was wrapped is not DDP's business, even if the model trains it later.
    covered = {
        id(p) for n in parts.networks.values() for p in n.parameters() if p.requires_grad or distributed.is_sharded(n)
    }
    every = {id(p): p for o in parts.optimizers.values() for g in o.param_groups for p in g["params"]}
    return [p for key, p in every.items() if key not in covered]
