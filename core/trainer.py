"""THE loop. What a step means is the model's business; everything that is the same for all of them happens here."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .changes import left_out, remembered
from .ema import evaluating
from .errors import NonFiniteError, first_line
from .evaluation import Interrupted
from .guard import spoilt
from .models.base import Batch
from .ops import dispatch
from .options import dump
from .options.schema import Train, Val
from .runtime import devices, distributed, parallel, shards
from .runtime.background import Writer
from .runtime.checkpoint import BEST
from .runtime.logger import Logger
from .runtime.means import RunningMeans
from .runtime.optimizers import modes
from .runtime.parallel import sharded_owner
from .runtime.precision import autocast
from .runtime.shards import SHARDED, Shares
from .runtime.signals import Stopped, StopRequest, how
from .runtime.speed import Profiler
from .runtime.state import (
    full_optimizer_state,
    full_state,
    load_optimizer_state,
    peak_memory_gib,
    seed_everything,
)
from .runtime.utilisation import Clock, Utilisation, peak
from .runtime.weights import described
from .runtime.zero import is_divided
from .training.best import MEAN, decided_by, mean_of, remember
from .training.parts import Parts
from .training.steps import StepTaker
from .training.update import Updater

log = logging.getLogger("relume")
PROVEN = 10
"""Iterations of a process after which nothing is new."""


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
        # What is trained, and for how long.
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
        # What writes checkpoints, and what is measured.
        self.writer = Writer(self.logging.async_save)
        split = any(sharded_owner(parts.networks, o) is not None for o in parts.optimizers.values())
        self.shares = Shares() if self.train.sharded_state and split else None
        self.writer.everywhere = self.shares is not None
        self.profiler = Profiler(self.train.profile, Path(parts.guard.folder), parts.device)
        self._before: list[Tensor] | None = None
        """Buffers as they were before the step that is under way, for an error to put them back; None between steps."""
        self._unsaid = False
        """Whether the line of the iteration that was made last is still to be written."""
        self.means = RunningMeans(parts.device)
        self.clock = Clock()
        most = peak(devices.name(parts.device), self.train.amp, self.train.matmul_precision)
        self.utilisation = Utilisation(parts.device, bool(self.train.compile), most)
        self.begun = False
        """Whether a step was taken in this process."""
        self.last_results: dict[str, dict[str, float]] = {}
        self.rates: list[float] = []
        """Learning rates of the last step, one per parameter group of the model's leading optimizer, or else of the first that
        it asked for."""
        # What takes the steps.
        self.updater = Updater(parts, self.train)
        self.steps = StepTaker(self.updater)

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
        self.begin()
        while self.iteration < self.until:
            scalars = self.advance()
            if self.last or self.leaving or any(map(self.due, self.looking)):
                with self.clock.waiting():
                    lost = self.look()
                scalars = {k: v for k, v in scalars.items() if k not in lost}
            if self._unsaid:
                self.report(scalars)
            if self.due(self.logging.save_checkpoint_freq) or self.last or self.leaving:
                self.save()  # first, so that nothing that happens in a validation can lose it
            if self.pending_validation:
                self.validate()
                if self.saved != self.iteration and self.leaving:
                    self.save()
                elif not self.pending_validation:
                    self.save_results()
            if self.leaving and (not self.last or self.pending_validation):
                self.leave()
        self.writer.finish()

    def begin(self) -> None:
        """What comes before the first iteration: a validation that the run before did not come to."""
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

    def advance(self) -> dict[str, Tensor | float]:
        """The next iteration: a step, watched, counted and shown. Returns the scalars that it logs."""
        self._before = [b.clone() for b in self.updater.buffers]  # now: loading the step's samples may fail, too
        self.iteration += 1
        with self.unproven() if self.iteration <= self.first + PROVEN else contextlib.nullcontext():
            self.profiler.before(self.iteration)
            scalars = self.step()
            self.profiler.after(self.iteration, self.last)
        self.means.add(scalars, self.parts.loader.epoch)
        self.clock.step(float(scalars["perf/data_time"]), float(scalars["perf/time"]))
        in_bar = {**scalars, **self.means.line.values()} if self.parts.logger.bar else scalars
        self.parts.logger.step(self.iteration, self.rates, in_bar)
        if kernels := dispatch.decisions() if not self.begun else "":
            log.info("Kernels: %s", kernels)
        self.begun = True
        return scalars

    @property
    def last(self) -> bool:
        """Whether the current iteration is the run's last."""
        return self.iteration == self.until

    def due(self, every: int | None) -> bool:
        """Whether the current iteration is a multiple of `every`."""
        return every is not None and self.iteration % every == 0

    # ---------------------------------------------------------------- one step
    def step(self) -> dict[str, Tensor | float]:
        """One iteration: every update that the model asks for, over all micro-batches; then schedules and averages.

        Returns the scalars that it logs.
        """
        # Load the step's samples.
        began = time.perf_counter()
        before = self.parts.loader.position
        batches: list[Batch] = [next(self.parts.loader) for _ in range(self.parts.loader.micro_batches(self.iteration))]
        self.parts.model.samples_seen = seen = self.parts.loader.position
        loaded = time.perf_counter()
        # Take the step.
        if self.parts.guard.must_look(batches):
            self.look()
        self.updater.begin()
        self.parts.guard.begin(batches)
        if self.parts.ema:
            self.parts.ema.begin(seen, seen - before)
        model = self.parts.model
        model.showing, model.pictures = self.due(self.logging.train_image_freq) and distributed.is_main(), {}
        seed = partial(seed_everything, self.seed, self.iteration, distributed.rank())
        with self.utilisation.counting(batches):
            scalars, asked = self.steps.take(self.iteration, batches, self._before, seed)
        # Schedules, and what is due after this iteration.
        self.leaving = self.leaving or distributed.agreed(self.stop.code)
        shown = {leading} if (leading := self.parts.model.leading) else asked
        stepped = next((o for k, o in self.parts.optimizers.items() if k in shown), None)
        self.rates = [float(g["lr"]) for g in stepped.param_groups] if stepped else []
        for scheduler in self.parts.schedulers.values():
            scheduler.step()
        self._before = None
        self._unsaid = self.due(self.logging.print_freq) or self.last
        self.pending_validation = self.due(self.val.val_freq) or self.last
        if model.pictures and self.parts.show is not None:
            self.parts.show(model.pictures, self.iteration)
        # Times of the step.
        scalars["perf/data_time"] = loaded - began
        scalars["perf/time"] = time.perf_counter() - began
        if model.counts_images:
            scalars["perf/seconds_per_kimg"] = 1000 * scalars["perf/time"] / max(seen - before, 1)
        return scalars

    def look(self) -> set[str]:
        """See `Updater.look`."""
        return self.updater.look(
            lambda: {
                "options": dump(self.opt),
                "plugins": bool(self.opt.get("plugins")),
                "seed": self.seed,
                "rank": distributed.rank(),
            }
        )

    # ---------------------------------------------------------------- now and then
    def report(self, scalars: Mapping[str, Tensor | float]) -> None:
        """Log the scalars of the current step, averaged over ranks."""
        steps, scalars = self.means.steps, {**scalars, **self.means.take()}
        names = list(scalars)
        values = [
            torch.as_tensor(v).detach().to(self.parts.device, torch.float32).reshape(()) for v in scalars.values()
        ]
        with self.clock.waiting():
            averaged = distributed.mean(torch.stack(values)).tolist()
        means: dict[str, float] = dict(zip(names, averaged, strict=True))
        means["perf/iterations_per_second"] = 1.0 / max(means["perf/time"], 1e-9)
        own = torch.tensor([float(scalars["perf/time"])], device=self.parts.device)
        slowest = distributed.concatenated(own).max(dim=0)
        of_ranks = {"perf/time_max": slowest.values.item(), "perf/time_max_rank": int(slowest.indices)}
        of_ranks["perf/samples"] = self.parts.loader.position
        means["perf/memory_gib"] = peak_memory_gib(self.parts.device)
        means |= (spent := self.clock.take())
        means |= self.utilisation.of(sum(spent.values()))
        self.parts.logger.iteration(self.iteration, self.parts.loader.epoch, self.rates, means, of_ranks, steps)
        self._unsaid = False
        for remark in self.parts.model.remarks(means) if distributed.is_main() else ():
            log.warning("iteration %d: %s", self.iteration, remark)

    def validate(self) -> None:
        """Score every validation set; keep the best weights. A signal in the middle leaves it to the resumed run."""
        parts = self.parts
        for network in (*parts.networks.values(), *self.averages.values()):
            parallel.align_buffers(network)  # all score what the checkpoint holds, as a resumed run would
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
        # Scores are there: schedulers that wait for them, and records.
        self.pending_validation = False  # only now: what fails on the way is to be made good
        self.last_results = results
        best, chosen = parts.evaluator.best, self.val.chosen
        decisive = decided_by(results, best, chosen.dataset)
        with_mean = (
            {**results, MEAN: mean_of(results, best, parts.evaluator.metrics)} if chosen.dataset == MEAN else results
        )
        if best is not None and decisive is not None:
            for scheduler in parts.schedulers.values():
                scheduler.step_metric(with_mean[decisive][best])
        better = {m: parts.evaluator.better[m] for m in parts.evaluator.metrics}
        improved = (decisive, best) in remember(parts.best, with_mean, better, self.iteration)
        parts.logger.validation(self.iteration, results, parts.best, self.said_of(results), parts.evaluator.better)
        if not improved:
            return
        # The best weights, written while training goes on.
        if chosen.keep_state:
            self.means.align()
        with self.resting():
            state, tensors = (self.state(), self.tensors()) if chosen.keep_state else (None, {})
            weights, state, tensors = self.kept(self.weights(), state, tensors)
            share = self.share_of(BEST, tensors) if chosen.keep_state else list

            def write() -> None:
                shares = share()
                if distributed.is_main():
                    parts.checkpoints.save_best(weights, state, shares)

            self.writer.write(write)

    def resting(self, exactly: bool = True) -> contextlib.AbstractContextManager[None]:
        """Inside, networks have the weights that are to be used; see `modes.resting`."""
        return modes.resting(self.parts.optimizers.values(), exactly)

    def interrupted(self) -> int:
        """The exit code of a signal that came here; on any rank where networks are sharded, whose ranks must stay in step."""
        code = self.stop.code
        if any(parallel.is_sharded(n) for n in self.parts.networks.values()):
            code = int(distributed.maximum(torch.tensor(float(code), device=self.parts.device)))
        return code

    def said_of(self, results: Iterable[str]) -> dict[str, str]:
        """What headings say of the datasets' scores: whose they are, and how many images were left out."""
        averaged = ["EMA"] if self.parts.ema and self.parts.ema.networks else []
        short = {d: self.parts.evaluator.counted(d) for d in results}
        return {d: ", ".join([*averaged, *([few] if few else [])]) for d, few in short.items()}

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
            weights[key] |= described({**description, "iteration": self.iteration})
        return weights

    def save(self) -> None:
        """Write a checkpoint: everything that the rest of the run depends on."""
        for network in self.parts.model.networks.values():
            parallel.align_buffers(network)
        self.means.align()
        with self.resting(exactly=False):
            weights, state, tensors = self.kept(self.weights(), self.state(), self.tensors())
            self.saved = iteration = self.iteration  # or not, as an error will say: nothing is to be rescued from it
            share = self.share_of(iteration, tensors)

            def write() -> None:
                began = time.perf_counter()
                shares = share()
                if distributed.is_main():
                    self.parts.checkpoints.save(iteration, weights, state, shares)
                    log.info("Saved checkpoint %d (%.2f s)", iteration, time.perf_counter() - began)

            self.writer.write(write)

    def kept(self, weights: Any, state: Any, tensors: shards.Tensors) -> tuple[Any, Any, shards.Tensors]:
        """What this rank writes, as `Writer.kept` gives it; of ranks but the main one, that is nothing but `tensors`."""
        copies: tuple[Any, Any, shards.Tensors] = self.writer.kept(
            (weights, state, tensors) if distributed.is_main() else (None, None, tensors)
        )
        return copies

    def tensors(self) -> shards.Tensors:
        """What each rank writes of its own beside `state`."""
        return shards.divided(self.parts.networks, self.parts.optimizers)[0] if self.shares else {}

    def share_of(self, name: int | str, tensors: shards.Tensors) -> Callable[[], list[tuple[str, str]]]:
        """What writes this rank's share of a checkpoint, see `Shares.write`. Ranks ask for it together."""
        if self.shares is None:
            return list
        return partial(self.shares.write, self.parts.checkpoints, self.shares.place(name), tensors)

    def save_results(self) -> None:
        """Add what a validation changed to the checkpoint that was written before it, if one was."""
        if self.saved == self.iteration:
            with self.resting():
                state = self.writer.kept(self.state())
                revise = partial(self.parts.checkpoints.revise, self.iteration, state)
                self.writer.write(revise if distributed.is_main() else lambda: None)

    def rescue(self) -> None:
        """Keep what was trained since the last checkpoint separately, as ``interrupted``, while an error goes on up.

        The state is the one after the last whole iteration. Nothing is agreed with other ranks, which may have no error:
        the main one writes what it has, unless networks or optimizers are split over ranks, or another rank was lost in the
        middle of a report, which the resumed run could not make good.
        """
        before, self._before = self._before, None
        if before is not None:
            self.iteration -= 1
            for buffer, value in zip(self.updater.buffers, before, strict=True):
                buffer.data.copy_(value)
        whole = before is not None or not (self._unsaid and distributed.world_size() > 1)
        lost = whole and self.iteration > self.saved and distributed.is_main()
        self.writer.wait()
        split = any(map(parallel.is_sharded, self.parts.networks.values()))
        if not lost or split or any(map(is_divided, self.parts.optimizers.values())):
            return
        try:
            if bad := spoilt(self.parts.networks, self.averages):
                raise NonFiniteError(f"{bad[0]} is NaN or infinite")
            with self.resting():
                path = self.parts.checkpoints.save_interrupted(self.contents(), self.state())
        except Exception as e:
            log.error("the state after iteration %d cannot be saved: %s", self.iteration, first_line(e))
            return
        half = "; a part of the next one is in its weights" if before is not None and self.updater.applied else ""
        log.warning(
            "The state after iteration %d is kept in %s%s; --auto_resume continues from it", self.iteration, path, half
        )

    def state(self) -> dict[str, Any]:
        """What ``training_states/<iteration>.state`` holds."""
        parts = self.parts
        split = shards.divided(parts.networks, parts.optimizers)[1] if self.shares else {}
        whole = {k: o for k, o in parts.optimizers.items() if k not in split}
        return {
            **({SHARDED: sorted(split)} if split else {}),
            "iter": self.iteration,
            "epoch": parts.loader.epoch,
            "position": parts.loader.position_after(self.iteration),
            "seed": self.seed,
            "world_size": distributed.world_size(),
            "global_batch": parts.loader.batch_of(self.iteration + 1),
            "optimizers": {**{k: full_optimizer_state(parts.networks, o) for k, o in whole.items()}, **split},
            "schedulers": {k: s.state_dict() for k, s in parts.schedulers.items()},
            "scaler": {k: s.state_dict() for k, s in self.updater.scalers.items()},
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
        for key, scaler in self.updater.scalers.items():
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
        """End the run early, after the checkpoint, with the exit code that schedulers know how to requeue.

        Raises:
            Stopped: always.
        """
        self.writer.finish()
        what = f"{how(self.leaving)} at iteration {self.iteration}; the checkpoint is saved"
        raise Stopped(f"{what}. Continue with --auto_resume", self.leaving)
