"""core/runtime/devices.py: which device a run takes, simulated, since there are none here but the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from runs import REPO, options
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from relume.core.errors import UserError
from relume.core.ops import dispatch, precision
from relume.core.ops.constants import uploaded
from relume.core.options import check, load
from relume.core.pipeline import train_pipeline
from relume.core.runtime import devices, distributed, state
from relume.core.trainer import Trainer

Here = Callable[..., None]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """Has torch see devices of some kinds."""

    def see(*kinds: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
        monkeypatch.setattr(torch.xpu, "is_available", lambda: "xpu" in kinds)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)

    return see


@pytest.mark.parametrize(
    ("kinds", "asked", "expected"),
    [
        ((), "auto", "cpu"),
        (("mps",), "auto", "mps"),
        (("xpu",), "auto", "xpu:0"),
        (("cuda", "xpu"), "auto", "cuda:0"),
        (("cuda", "xpu"), "xpu", "xpu:0"),
        (("mps",), "cpu", "cpu"),
    ],
)
def test_automatic_and_by_option(here: Here, kinds: tuple[str, ...], asked: str, expected: str) -> None:
    here(*kinds)
    assert devices.chosen(asked) == torch.device(expected)
    assert devices.chosen("auto", use_cpu=True) == torch.device("cpu")
    assert distributed.initialise("none", {}, False, kind=asked) == torch.device(expected)


def test_what_is_not_here_is_refused_in_one_line(here: Here) -> None:
    here("xpu")
    for kind in ("mps", "cuda"):
        with pytest.raises(UserError, match=f"torch sees no {kind} here; there is xpu, cpu") as e:
            devices.chosen(kind)
        assert "\n" not in str(e.value)
    with pytest.raises(UserError, match="num_gpu: 0 asks for the CPU"):
        devices.chosen("xpu", use_cpu=True)
    with pytest.raises(UserError, match="device"):
        check(options(device="tpu"))


def test_the_option_reaches_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    opt = {k: v for k, v in options(train__total_iter=1).items() if k != "num_gpu"}
    with pytest.raises(UserError, match="torch sees no mps here"):
        train_pipeline({**opt, "device": "mps"})
    train_pipeline({**opt, "device": "cpu"})


def test_ranks_compute_on_cuda_or_cpu(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here("mps")
    with pytest.raises(UserError, match="device: mps takes one process"):
        distributed.initialise("pytorch", {}, False, kind="mps")


def test_the_command_line_names_them_too(here: Here) -> None:
    with pytest.raises(UserError, match="'mps' is not here"):
        distributed.named_device("mps")
    here("mps")
    assert distributed.named_device("mps") == torch.device("mps")


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_memory_and_seeds_are_asked_of_the_device_itself(
    kind: str, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    gib = 2**30
    fake = SimpleNamespace(
        manual_seed=seeds.append,
        is_initialized=lambda: kind == "xpu",
        synchronize=lambda *_: seeds.append(-1),
        memory_allocated=lambda _: gib,
        current_allocated_memory=lambda: gib,
        max_memory_allocated=lambda _: 2 * gib,
        driver_allocated_memory=lambda: 2 * gib,
        recommended_max_memory=lambda: 8 * gib,
        get_device_properties=lambda _: SimpleNamespace(total_memory=8 * gib),
        is_available=lambda: True,
    )
    here(kind)
    monkeypatch.setattr(torch, kind, fake)
    device = torch.device(kind)
    found = state.held_memory_gib(device), state.peak_memory_gib(device), state.whole_memory_gib(device)
    assert found == (1.0, 2.0, 8.0)
    state.seed_everything(1, 2, 3)
    devices.synchronize(device)
    assert len(seeds) == 2 and seeds[1] == -1
    assert devices.name(device) == ""


# ------------------------------------------------------------------ what a step does there
class NoDoubles(TorchDispatchMode):
    """Apple's devices have no float64: what a step makes of it inside is an error, except for numbers on the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor) and t.dtype == torch.float64]
        if made and not func.namespace == "prim":
            raise TypeError(f"{func} made float64")
        return out


class Enough(Exception):
    """Ends a run."""


SYSTEMS = ["quickstart", "realsr/quickstart", "vfi/laptop/phase1"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_step_makes_no_float64(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(precision, "widest", lambda device: torch.float32)
    monkeypatch.setattr("relume.core.ops.ssd_chunks.widest", lambda device: torch.float32)
    taken = []

    def fit(self: Trainer) -> None:
        self.iteration += 1
        batch = next(self.parts.loader)
        monkeypatch.setattr(type(self.parts.loader), "__next__", lambda loader: dict(batch))
        with NoDoubles():
            taken.append(self.step())
        raise Enough

    monkeypatch.setattr(Trainer, "fit", fit)
    small = ["num_gpu=0", "datasets:train:batch_size_per_gpu=1", "datasets:train:num_worker_per_gpu=0"]
    with pytest.raises(Enough):
        train_pipeline(load(REPO / f"options/{system}.yml", small))
    assert taken


def test_float64_of_the_host_arrives_as_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(3, dtype=torch.float64)
    assert uploaded(x, torch.device("cpu")).dtype == torch.float64
    monkeypatch.setattr("relume.core.ops.constants.widest", lambda device: torch.float32)
    assert uploaded(x, torch.device("cpu")).dtype == torch.float32
    assert precision.widest(torch.device("mps")) == torch.float32
    assert precision.widest(torch.device("xpu")) == torch.float64


def test_kernels_are_off_on_other_devices() -> None:
    x = torch.empty(1, 8, 8, 16, device="meta")
    assert "needs a GPU" in str(dispatch.device_obstacle("layer_norm", x=x))
