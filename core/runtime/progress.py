"""How far a run is: a bar in a terminal, which moves at every step, and elsewhere a line where none has come for long."""

from __future__ import annotations

import collections
import contextlib
import datetime
import logging
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from . import distributed

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger("relume")
WIDTH = 100
"""Columns that lines in a terminal have at most."""
SILENCE = 25.0
"""Seconds after which a line says how far a run is, if no other has been written: what reads a pipe may wait for 30."""
WINDOW = 100
"""Steps from whose times the speed is taken."""
BEFORE = 29
"""Columns of a log line's date and level in a terminal."""
REFRESH = 0.1
"""Seconds between two looks at the losses, which on a GPU are waited for."""


def console() -> Console:
    """Standard output as a terminal, of `WIDTH` columns at most; whatever ``sys.stdout`` is at the moment of writing."""
    from rich.console import Console

    class Terminal(Console):
        @property  # type: ignore[misc]  # nothing here sets it
        def width(self) -> int:
            return min(WIDTH, super().width)

    return Terminal(markup=False, highlight=False, soft_wrap=False)


def for_terminal() -> logging.Handler:
    """Log lines in a terminal, with dates as in the text log; a record's ``short`` form where it has one."""
    from rich.logging import RichHandler

    terminal = console()

    class Short(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            short = getattr(record, "short", None)
            width = terminal.width - BEFORE
            return folded(super().format(record), width) if short is None else in_pairs(str(short), width)

    handler = RichHandler(
        console=terminal, show_path=False, rich_tracebacks=False, markup=False, log_time_format="%Y-%m-%d %H:%M:%S"
    )
    handler.setFormatter(Short("%(message)s"))
    return handler


def folded(text: str, width: int) -> str:
    """A message in lines of at most `width` columns: what continues a line stands two columns to the right of it."""
    lines: list[str] = []
    for line in text.replace("\n\t", "\n  ").replace("\t", "  ").split("\n"):
        start = line[: len(line) - len(line.lstrip())]
        more = {"initial_indent": start, "subsequent_indent": f"{start}  "}
        lines += textwrap.wrap(line.strip(), max(width, 20), break_on_hyphens=False, **more) or [""]  # type: ignore[arg-type]
    return "\n".join(lines)


def in_pairs(text: str, width: int) -> str:
    """``name value  name value`` in lines of at most `width` columns, no pair broken.

    >>> print(in_pairs("lr 1.0e-04  l_pix 0.01  eta 0:00:15", 24))
    lr 1.0e-04  l_pix 0.01
    eta 0:00:15
    """
    lines = [""]
    for pair in text.split("  "):
        longer = f"{lines[-1]}  {pair}" if lines[-1] else pair
        lines[-1:] = [longer] if len(longer) <= width or not lines[-1] else [lines[-1], pair]
    return "\n".join(lines)


class Pace:
    """Speed over the last `WINDOW` steps since `restart`, and what remains at that speed.

    Args:
        total: iterations of the run.
        first: iterations already done.
    """

    def __init__(self, total: int, first: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.iteration, self.clock = total, first, clock
        self.times: collections.deque[tuple[int, float]] = collections.deque(maxlen=WINDOW + 1)
        self.rate: float | None = None
        self.restart()

    def restart(self) -> None:
        """Leave out of the speed what has happened since the last step, a validation for instance."""
        self.times.clear()
        self.times.append((self.iteration, self.clock()))

    def step(self, iteration: int) -> None:
        """A step is done."""
        if iteration == self.iteration:
            return
        self.iteration = iteration
        self.times.append((iteration, self.clock()))
        (earlier, then), (_, now) = self.times[0], self.times[-1]
        self.rate = (iteration - earlier) / max(now - then, 1e-9)

    @property
    def eta(self) -> float | None:
        """Seconds that remain; None before the first step."""
        return None if self.rate is None else max(0.0, (self.total - self.iteration) / self.rate)

    def __str__(self) -> str:
        """``3.9 it/s, eta 0:00:15``."""
        if self.rate is None or self.eta is None:
            return "eta -:--:--"
        speed = f"{self.rate:.3g} it/s" if self.rate >= 1 else f"{1 / self.rate:.3g} s/it"
        return f"{speed}, eta {datetime.timedelta(seconds=int(self.eta))}"


def losses_first(scalars: Mapping[str, float], digits: int = 3) -> str:
    """``l_pix 0.0123 grad_norm 0.4``: loss terms before other values; times are left out."""
    names = sorted((k for k in scalars if not k.startswith("perf/")), key=lambda k: not k.startswith("l_"))
    return "  ".join(f"{k} {float(scalars[k]):.{digits}g}" for k in names)


class Bar:
    """The progress bar of a terminal: how far, how fast, and below it rates, losses and the last scores.

    Attributes:
        active: the one that is shown, where other loops show theirs as well.
    """

    active: Bar | None = None

    def __init__(self, name: str, pace: Pace) -> None:
        from rich.console import RenderableType
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.text import Text

        outer = self

        class Lines(Progress):
            def get_renderables(self) -> Iterable[RenderableType]:
                yield self.make_tasks_table(self.tasks)
                yield Text(in_pairs(outer.values, terminal.width), no_wrap=True, overflow="ellipsis")

        handler = next((h for h in log.handlers if hasattr(h, "console")), None)
        terminal: Console = getattr(handler, "console", None) or console()
        self.pace, self.values, self.scores, self.looked = pace, "", "", 0.0
        self.bar = Lines(
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}", markup=False),
            console=terminal,
            transient=True,
        )
        self.task = self.bar.add_task(name[:30], total=pace.total, completed=pace.iteration, speed=str(pace))
        self.bar.start()
        Bar.active = self

    def step(self, lrs: list[float], scalars: Mapping[str, Any]) -> None:
        """Move to where `pace` is; the values shown are as old as `REFRESH` at most."""
        now = time.monotonic()
        if now - self.looked >= REFRESH or self.pace.iteration == self.pace.total:
            self.looked = now
            rates = "  ".join(f"lr {lr:.2e}" for lr in dict.fromkeys(lrs))
            self.values = "  ".join(filter(None, (rates, losses_first(scalars), self.scores)))
        self.bar.update(self.task, completed=self.pace.iteration, speed=str(self.pace))

    def score(self, results: Mapping[str, Mapping[str, float]]) -> None:
        """Show these scores from now on."""
        several = len(results) > 1
        self.scores = "  ".join(
            f"{f'{dataset} ' if several else ''}{metric} {value:.4g}"
            for dataset, metrics in results.items()
            for metric, value in metrics.items()
            if not metric.endswith("_input")
        )

    def over(self, label: str, items: Any, total: int | None) -> Iterator[Any]:
        """Go through `items` with a bar of their own under this one."""
        task = self.bar.add_task(label[:30], total=total, speed="")
        try:
            for item in items:
                yield item
                self.bar.advance(task)
        finally:
            self.bar.remove_task(task)

    def close(self) -> None:
        """Take the bar off the terminal."""
        Bar.active = None
        self.bar.stop()


class Heartbeat(logging.Handler):
    """Where there is no terminal: says how far a run is when `SILENCE` seconds have passed without a line.

    Args:
        say: function that gives the line.

    Attributes:
        active: the one that is running.
        within: what a loop inside the run has to add to the line.
    """

    active: Heartbeat | None = None

    def __init__(self, say: Callable[[], str]) -> None:
        super().__init__()
        self.say, self.within = say, ""
        self.last = time.monotonic()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)
        log.addHandler(self)
        Heartbeat.active = self
        self.thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """A line has been written."""
        self.last = time.monotonic()

    def _watch(self) -> None:
        while not self.over.wait(max(0.02, self.last + SILENCE - time.monotonic())):
            if time.monotonic() - self.last >= SILENCE:
                log.info("%s", ", ".join(filter(None, (self.say(), self.within))))

    def close(self) -> None:
        """Be silent from now on."""
        self.over.set()
        Heartbeat.active = None
        log.removeHandler(self)
        super().close()


def progress(label: str, items: Any) -> Iterator[Any]:
    """Iterate, and show on the main rank how far: with a bar in a terminal, elsewhere by a line now and then."""
    total = len(items) if hasattr(items, "__len__") else None
    if not distributed.is_main():
        yield from items
    elif Bar.active is not None:
        yield from Bar.active.over(label, items, total)
    elif sys.stdout.isatty():
        from rich.progress import track

        yield from track(items, description=label, total=total, transient=True, console=console())
    else:
        yield from _said(label, items, total)


def _said(label: str, items: Any, total: int | None) -> Iterator[Any]:
    beat, done = Heartbeat.active, 0
    with contextlib.ExitStack() as stack:
        if beat is None:
            beat = Heartbeat(lambda: "")
            stack.callback(beat.close)
        stack.callback(setattr, beat, "within", "")
        beat.within = f"{label}: {done} of {total}" if total is not None else f"{label}: {done}"
        for item in items:
            yield item
            done += 1
            beat.within = f"{label}: {done} of {total}" if total is not None else f"{label}: {done}"
