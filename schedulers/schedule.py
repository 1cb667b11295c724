"""What the trainer steps: any scheduler, under an optional linear warm-up that it never notices."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..core.errors import UserError
from .base import ClosedForm, read_rates, write_rates

LENGTHS = {"CosineAnnealingLR": "T_max", "PolynomialLR": "total_iters", "OneCycleLR": "total_steps"}
"""The attribute that says when a scheduler of torch's ends, for those that do."""
PLATEAU_STATE = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")


class Schedule:
    """The learning rates of one optimizer, iteration by iteration.

    Iterations count from 1. After construction the optimizer holds the rates of iteration 1; `step`, called once after
    every optimizer step, puts those of the next iteration into force. In iteration i < `warmup_iter` each group's rate
    is ``initial_lr / warmup_iter * i``, whatever the scheduler says. The scheduler's own rates are kept separately and
    handed back to it before it steps, since most of torch's multiply the rate they find.

    A group with ``lr_scale`` (see `build_optimizer`) has that share of the rate that the scheduler gives it, which knows
    nothing of it: so it holds for schedulers with rates or floors of their own (``max_lr``, ``eta_min``), too.

    A checkpoint holds the position alone: the rest comes from the options, so an edited value holds from the first
    resumed iteration on, as if the whole run had had it.

    Args:
        optimizer: optimizer whose groups' ``initial_lr``, or ``lr`` where nothing has set that, are the configured rates.
        build: function that makes the scheduler of that optimizer.
        warmup_iter: length of the warm-up; none if below 2.
    """

    def __init__(self, optimizer: Optimizer, build: Callable[[Optimizer], LRScheduler], warmup_iter: int = -1) -> None:
        self.optimizer = optimizer
        self.warmup_iter = warmup_iter
        self._build = build
        self._scales = [float(group.get("lr_scale", 1.0)) for group in optimizer.param_groups]
        configured = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        self._base = [rate / scale if scale else 0.0 for rate, scale in zip(configured, self._scales, strict=True)]
        self._begin()

    def _begin(self) -> None:
        """Back to iteration 1, without what an earlier scheduler or a loaded optimizer state left in the groups."""
        write_rates(self.optimizer, self._base)
        for group in self.optimizer.param_groups:
            group.pop("initial_lr", None)
        self.iteration = 1
        self._scheduler = self._build(self.optimizer)
        self._take_over()

    def _take_over(self) -> None:
        """Note the rates that the scheduler has set, and put into force what groups have of them, or of the warm-up's."""
        self._rates = read_rates(self.optimizer)
        warm = self.iteration >= self.warmup_iter
        rates = self._rates if warm else [base / self.warmup_iter * self.iteration for base in self._base]
        write_rates(self.optimizer, [rate * scale for rate, scale in zip(rates, self._scales, strict=True)])

    def step(self) -> None:
        """Put the rates of the next iteration into force.

        Raises:
            UserError: torch's scheduler refuses to go on (OneCycleLR after its last step).
        """
        write_rates(self.optimizer, self._rates)
        self._advance()
        self._take_over()

    def _advance(self) -> None:
        if not isinstance(self._scheduler, ReduceLROnPlateau):
            # Torch warns if the first optimizer step was left out, which a skipped (non-finite) step does on purpose.
            with _silence() if self.iteration == 1 else contextlib.nullcontext():
                try:
                    self._scheduler.step()
                except ValueError as e:
                    raise UserError(f"scheduler {type(self._scheduler).__name__}: {e}") from e
        self.iteration += 1

    @property
    def length(self) -> int | None:
        """Iterations that the schedule is made for; None for one that says nothing of an end."""
        if isinstance(self._scheduler, ClosedForm):
            return self._scheduler.length
        name = LENGTHS.get(type(self._scheduler).__name__)
        return None if name is None else int(getattr(self._scheduler, name))

    @property
    def name(self) -> str:
        """The scheduler's."""
        return type(self._scheduler).__name__

    @property
    def waits_for_metric(self) -> bool:
        """Whether the rates follow a score (ReduceLROnPlateau) and not the iteration."""
        return isinstance(self._scheduler, ReduceLROnPlateau)

    def step_metric(self, value: float) -> None:
        """Tell a scheduler that waits for a plateau (ReduceLROnPlateau) the latest score; others do not care."""
        if isinstance(self._scheduler, ReduceLROnPlateau):
            write_rates(self.optimizer, self._rates)
            self._scheduler.step(value)
            self._take_over()

    def get_last_lr(self) -> list[float]:
        """The rates in force, one per parameter group."""
        return read_rates(self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """The position: ``last_epoch``, iterations done; for ReduceLROnPlateau also what it has seen so far."""
        state: dict[str, Any] = {"last_epoch": self.iteration - 1}
        if isinstance(self._scheduler, ReduceLROnPlateau):
            seen = {key: getattr(self._scheduler, key) for key in PLATEAU_STATE}
            state["plateau"] = {"seen": seen, "rates": self._rates}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved position; call it after the optimizer's state was loaded.

        A scheduler of torch's is rebuilt and replayed, some microseconds per iteration: the only way to its position
        that does not restore the old run's options too. The ``last_epoch`` of a BasicSR or torch state will do.
        """
        self._begin()
        done = int(state["last_epoch"])
        write_rates(self.optimizer, self._rates)
        if isinstance(self._scheduler, ClosedForm):
            self._scheduler.load_state_dict({"last_epoch": done})
            self.iteration = done + 1
        elif isinstance(self._scheduler, ReduceLROnPlateau):
            self.iteration = done + 1
            if "plateau" in state:
                self._scheduler.load_state_dict(dict(state["plateau"]["seen"]))
                write_rates(self.optimizer, state["plateau"]["rates"])
        else:
            while self.iteration <= done:
                self._advance()
        self._take_over()


@contextlib.contextmanager
def _silence() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
