"""Several ranks, and a signal at every point of a run: started by tests/core/runtime/test_agreement.py.

A point is the beginning or the end of a collective, of a phase (step, validation, save, report) or of a batch in a validation.
Each run raises SIGTERM at the n-th of them, on rank 0, on all others or on all, and must end on all ranks alike; then it is
resumed to its end.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from runs import options

from relume.core import pipeline
from relume.core.evaluation import Evaluator
from relume.core.runtime import distributed, signals
from relume.core.runtime.signals import Stopped
from relume.core.trainer import Trainer

ITERATIONS = 3


class Points:
    """Counts the points that a run passes, and raises the signal at one of them."""

    def __init__(self) -> None:
        self.passed, self.at, self.on = 0, 0, False

    def __call__(self) -> None:
        self.passed += 1
        if self.on and self.passed == self.at:
            os.kill(os.getpid(), signal.SIGTERM)

    def around(self, place: Any, name: str) -> None:
        """Make the beginning and the end of a function two points."""
        function: Callable[..., Any] = getattr(place, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self()
            result = function(*args, **kwargs)
            self()
            return result

        setattr(place, name, watched)


def run(resume: bool, strategy: str) -> tuple[int, int]:
    """One run: its exit code, and the iteration that it reached."""
    changes = {
        "train__total_iter": ITERATIONS,
        "val__val_freq": 2,
        "train__ema_decay": 0.9,
        "train__strategy": strategy,
    }
    opt = options(name="toy", **changes)
    opt["logger"] = {"print_freq": 1, "save_checkpoint_freq": 2}
    trainers: list[Trainer] = []
    begin = Trainer.__init__

    def noted(self: Trainer, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        trainers.append(self)

    Trainer.__init__ = noted  # type: ignore[method-assign]
    try:
        pipeline.train_pipeline(opt, auto_resume=resume)
    except Stopped as stop:
        return stop.code, trainers[-1].iteration if trainers else 0
    finally:
        Trainer.__init__ = begin  # type: ignore[method-assign]
    return 0, trainers[-1].iteration if trainers else ITERATIONS


def final() -> dict[str, torch.Tensor]:
    weights = torch.load(f"experiments/toy/models/net_g_{ITERATIONS}.pth", weights_only=True)
    found = {f"{k} {n}": t for k in ("params", "params_ema") for n, t in weights[k].items()}
    with open("experiments/toy/metrics.jsonl") as lines:
        scores = [r["metrics"]["score"] for r in map(json.loads, lines) if "metrics" in r]
    return {**found, "scores": torch.tensor(scores, dtype=torch.float64)}


def main(stride: int, strategy: str) -> None:
    """Try every `stride`-th point."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    points = Points()
    for name in ("maximum", "total", "gather", "broadcast", "agree", "barrier"):
        points.around(distributed, name)
    for name in ("fit", "step", "validate", "save", "report"):
        points.around(Trainer, name)
    points.around(Evaluator, "_batch")
    # The process group outlives the runs here, so a run neither makes nor ends it.
    pipeline.distributed.initialise = lambda *_: torch.device("cpu")  # type: ignore[assignment]
    pipeline.distributed.shut_down = lambda: None  # type: ignore[assignment]
    signals.FORWARDED = 60.0
    os.makedirs("straight", exist_ok=True)
    os.chdir("straight")
    assert run(False, strategy) == (0, ITERATIONS)
    straight, every = final(), points.passed
    os.chdir("..")
    codes = []
    places, sides = range(1, every + 1, stride), ("first", "others", "all")
    # All sides at all points, or the sides in turn at some of them.
    tried = itertools.product(places, sides) if stride == 1 else zip(places, itertools.cycle(sides), strict=False)
    for n, who in tried:
        os.makedirs(f"{n}_{who}", exist_ok=True)
        dist.barrier()
        os.chdir(f"{n}_{who}")
        points.passed, points.at, points.on = 0, n, who == "all" or (who == "first") == (rank == 0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the points before the run listens and after it are nobody's
        ends: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(ends, run(False, strategy))
        assert len(set(ends)) == 1, f"signal at point {n} on {who}: the ranks ended as {ends}"
        points.on = False
        code, iteration = ends[0]
        codes.append(code)
        if code:
            assert code == 75 and iteration <= ITERATIONS, ends  # at the last one, in the middle of its validation
            assert os.path.exists(f"experiments/toy/training_states/{iteration}.sha256") or iteration == 0, ends
            assert run(True, strategy)[0] == 0
        for name, tensor in final().items():
            assert torch.equal(tensor, straight[name]), f"signal at point {n} on {who}: {name} differs"
        os.chdir("..")
    if rank == 0:
        print(json.dumps({"points": every, "runs": len(codes), "stopped": sum(c == 75 for c in codes)}))
    sys.stdout.flush()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
    distributed.leave(0)
